"""The package's statistics under one name: intervals, slopes of power laws, power laws that end on a floor."""

from .intervals import COVERAGE, Interval, bootstrap, paired
from .power_laws import PowerLaw, power_law
from .slopes import Slope, loglog_slope

__all__ = ["COVERAGE", "Interval", "PowerLaw", "Slope", "bootstrap", "loglog_slope", "paired", "power_law"]
