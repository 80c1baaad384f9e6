r"""Monotone curves through mean errors: falling, smooth in log n, many at once, and the size at which one meets an
error.

**Why falling.** More data of the same kind does not raise the expected error of a method whose hyper-parameters are
chosen anew at each size; a mean over 3 or 5 seeds rises here and there by chance. A curve that goes up and down meets
an error several times, and which size is "the" size would then be chance as well. So means are replaced by the
non-increasing numbers nearest to them in squares (isotonic regression, all sizes weighted equally), which changes
nothing where they fall already:

.. math:: f_i = \min_{j \le i} \max_{k \ge i} \operatorname{mean}(m_j, \dots, m_k)

A method whose true error does rise with data is misdescribed by this; ``LearningCurve.rise`` shows it.

**Why smooth.** Between sizes the curve is the monotone cubic interpolant in log n (PCHIP: Fritsch and Butland, SIAM J.
Sci. Stat. Comput. 5, 1984, in scipy's version), which stays within neighbouring means. Learning curves are convex, and
chords lie above them. On curves c + (0.9 − c)·(n/n_min)^−b, with b from 0.2 to 1 and c from 0 to 0.4, at sizes a factor
√10 apart, chords put the size that an error needs 1 to 17 % too high (5 % and 95 % quantiles), the cubic is right
within 2 %. At a factor of 10 it is right within 16 %, and chords are up to 78 % too high: sizes should be closer than
that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import PchipInterpolator


def falling(means: np.ndarray) -> np.ndarray:
    """The non-increasing numbers nearest to ``means`` (..., K) in squares, same shape, float64.

    All rows at once by the min-max formula, O(K²) a row; ``scipy.optimize.isotonic_regression`` gives the same numbers
    row by row.

    >>> falling(np.array([0.5, 0.25, 0.35, 0.1]))
    array([0.5, 0.3, 0.3, 0.1])

    Source: Robertson, Wright, Dykstra, Order Restricted Statistical Inference, 1988 (the formula, from memory).
    """
    means = np.asarray(means, dtype=np.float64)
    k = np.arange(means.shape[-1])
    inside = k >= k[:, None]  # [j, k]: j <= k
    sums = np.concatenate([np.zeros((*means.shape[:-1], 1)), np.cumsum(means, axis=-1)], axis=-1)
    averages = (sums[..., None, 1:] - sums[..., :-1, None]) / np.maximum(k - k[:, None] + 1, 1)
    averages[..., k, k] = means  # without the rounding of the sums
    highest = np.maximum.accumulate(np.where(inside, averages, -np.inf)[..., ::-1], axis=-1)[..., ::-1]  # over k >= i
    found = np.where(inside, highest, np.inf).min(axis=-2)
    falls = (np.diff(means, axis=-1) <= 0).all(axis=-1, keepdims=True)
    return np.where(falls, means, found)


@dataclass(frozen=True)
class Curves:
    """R falling curves at the same sizes ``n`` (K,), K ≥ 2, through ``values`` (R, K), non-increasing along K."""

    n: np.ndarray
    values: np.ndarray

    @classmethod
    def through(cls, n: np.ndarray, means: np.ndarray) -> Curves:
        """The falling curves nearest to ``means`` (R, K)."""
        return cls(np.asarray(n, dtype=np.float64), falling(means))

    @cached_property
    def _pieces(self) -> np.ndarray:
        """Coefficients of the cubics, highest power first: (4, K − 1, R)."""
        return PchipInterpolator(np.log(self.n), self.values, axis=1).c

    def cubics(self, near: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The pieces that ``near`` (R,), log n of one point a curve, lie on: errors (R,) as a function of log n."""
        x = np.log(self.n)
        piece = np.searchsorted(x[1:-1], near, side="right")
        a, b, c, d = self._pieces[:, piece, np.arange(len(self.values))]
        start = x[piece]

        def at(log_n: np.ndarray) -> np.ndarray:
            t = log_n - start
            return ((a * t + b) * t + c) * t + d

        return at

    def at(self, log_n: np.ndarray) -> np.ndarray:
        """Errors (R,) of the curves, each at its own ``log_n`` (R,), which lies within the sizes."""
        return self.cubics(log_n)(log_n)

    def needed(self, error: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Least and most size (R,) at which each curve first meets ``error`` (R,) or a number.

        They are equal where the error is met among the sizes. A curve that starts below it needs between 0 and the
        smallest size, one that never meets it between the largest size and infinity.
        """
        error = np.broadcast_to(np.asarray(error, dtype=np.float64), len(self.values))
        above = (self.values > error[:, None]).sum(axis=1)  # sizes at which the error is not yet met
        last = len(self.n) - 1
        right, rows = np.clip(above, 1, last), np.arange(len(error))
        x = np.log(self.n)
        piece = self.cubics((x[right - 1] + x[right]) / 2)
        found = np.exp(bisected(lambda at: piece(at) - error, x[right - 1], x[right]))
        found = np.where(self.values[rows, right] == error, self.n[right], found)  # flat curves: no digit is lost
        before, never = above == 0, above > last
        least = np.where(before, 0.0, np.where(never, self.n[-1], found))
        most = np.where(before, self.n[0], np.where(never, np.inf, found))
        exact = before & (self.values[:, 0] == error)
        return np.where(exact, self.n[0], least), most


def bisected(function: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Points (R,) between ``low`` and ``high`` (R,) at which ``function`` stops being positive, to 1e-12 of it."""
    low, high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    for _ in range(40):
        middle = (low + high) / 2
        positive = function(middle) > 0
        low, high = np.where(positive, middle, low), np.where(positive, high, middle)
    return high
