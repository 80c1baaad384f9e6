"""The package's statistics under one name: intervals, slopes of power laws, power laws that end on a floor."""

from .intervals import COVERAGE, Interval, bootstrap, paired
from .slopes import Slope, loglog_slope

__all__ = ["COVERAGE", "Interval", "Slope", "bootstrap", "loglog_slope", "paired"]
