"""Intervals of numbers that data may only bound: a size that lies beyond all sizes tried, and what is made of it.

Such a number is known to lie between a least and a most value, in the data and in every resample. For the lower bound
of the interval a resample counts as its least value, for the upper as its most, so that each bound is right on its own
side: "at least 3.3" with the lower bound 2.1 and the upper infinite says that 2.1 is not too high. Bounds are values
that resamples took (no interpolation between a number and infinity), rounded outwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intervals import Interval


@dataclass(frozen=True)
class Bounded(Interval):
    """An ``Interval`` of a number that may be known by a bound only.

    ``bound`` is "" where the estimate is one, ">" where the number is at least the ``estimate``, "<" where it is at
    most that, "?" where nothing is known of it (the estimate is NaN). ``censored`` is the share of resamples that only
    bound it. ``high`` may be infinite and ``low`` 0: then there is no bound on that side. One seed gives NaN for both.
    """

    bound: str
    censored: float

    def __str__(self) -> str:
        """As in a table: "3.1 [2.2, 4.0]", "> 3.3 [2.1, inf]"."""
        value = {"": "", "?": "unknown"}.get(self.bound, f"{self.bound} ")
        number = "" if self.bound == "?" else f"{self.estimate:.3g}"
        return f"{value}{number} [{self.low:.3g}, {self.high:.3g}]"


def bounded(least: np.ndarray, most: np.ndarray, level: float, n: int) -> Bounded:
    """From ``least`` and ``most`` (1 + resamples,), those of the data first; ``n`` seeds, coverage ``level``.

    >>> print(bounded(np.array([3.3, 2.1, 3.3]), np.array([np.inf, 2.1, np.inf]), 0.95, 5))
    > 3.3 [2.1, inf]
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    low = np.quantile(least[1:], (1 - level) / 2, method="lower")
    high = np.quantile(most[1:], (1 + level) / 2, method="higher")
    low, high = (float(low), float(high)) if n > 1 else (np.nan, np.nan)
    censored = float((least[1:] < most[1:]).mean())
    below, above = bool(least[0] == 0), bool(np.isinf(most[0]))
    if below or above:
        estimate = np.nan if below and above else float(most[0] if below else least[0])
        bound = "?" if below and above else "<" if below else ">"
        return Bounded(estimate, low, high, n, bound, censored)
    return Bounded(float(least[0]), low, high, n, "", censored)
