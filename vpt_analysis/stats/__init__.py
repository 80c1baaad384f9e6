"""The package's statistics under one name: intervals, slopes, power laws that end on a floor, learning curves and what
is read off them (data multiplier, crossover), comparisons of many methods, summaries over tasks."""

from .aggregates import interquartile_mean, performance_profile, probability_of_improvement
from .censored import Bounded
from .comparisons import Comparison, benjamini_hochberg, compare, holm, sign_flips, t_test
from .crossovers import Crossover, crossover
from .few_seeds import expanded
from .intervals import COVERAGE, Interval, bootstrap, paired
from .learning_curves import LearningCurve, learning_curve
from .multipliers import Multiplier, data_multiplier
from .power_laws import PowerLaw, power_law
from .slopes import Slope, loglog_slope

__all__ = [
    "COVERAGE",
    "Bounded",
    "Comparison",
    "Crossover",
    "Interval",
    "LearningCurve",
    "Multiplier",
    "PowerLaw",
    "Slope",
    "benjamini_hochberg",
    "bootstrap",
    "compare",
    "crossover",
    "data_multiplier",
    "expanded",
    "holm",
    "interquartile_mean",
    "learning_curve",
    "loglog_slope",
    "paired",
    "performance_profile",
    "power_law",
    "probability_of_improvement",
    "sign_flips",
    "t_test",
]
