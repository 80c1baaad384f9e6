"""The package's statistics under one name: intervals, slopes, power laws that end on a floor, learning curves and what
is read off them (data multiplier, crossover)."""

from .censored import Bounded
from .crossover import Crossover, crossover
from .data_multiplier import Multiplier, data_multiplier
from .few_seeds import expanded
from .intervals import COVERAGE, Interval, bootstrap, paired
from .learning_curves import LearningCurve, learning_curve
from .power_laws import PowerLaw, power_law
from .slopes import Slope, loglog_slope

__all__ = [
    "COVERAGE",
    "Bounded",
    "Crossover",
    "Interval",
    "LearningCurve",
    "Multiplier",
    "PowerLaw",
    "Slope",
    "bootstrap",
    "crossover",
    "data_multiplier",
    "expanded",
    "learning_curve",
    "loglog_slope",
    "paired",
    "power_law",
]
