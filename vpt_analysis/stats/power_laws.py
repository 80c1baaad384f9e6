r"""Power laws that end on a floor: risk = floor + scale · n^−exponent.

The floor is what is left with any number of samples (the approximation error of a family of students), the rest what
samples buy. The three are fitted to one statistic a size, on the scale of logarithms and weighted by what replicates
say of each size: risks span decades and their noise is about proportional to them, so that plain differences would fit
the smallest sizes only; and where the floor is reached, the noise is much smaller than elsewhere, which equal weights
would not use.

**The fit.** With :math:`x = \log(n / n_{\min})`, :math:`\rho` the floor over the power law's part at the smallest size
and :math:`b` the exponent,

.. math:: \log\mathrm{risk} = \ell + g(x), \qquad g(x) = \log(e^{-b x} + \rho),

so that :math:`\ell` is a weighted mean and two parameters are left. They are found for all resamples at once: the best
of a grid, which is one matrix product, then Levenberg-Marquardt steps (Marquardt, J. SIAM 11, 1963) on
:math:`(\log b, \log \rho)`. The edges of the model are fitted beside it, in closed form: no floor (a line on log-log
axes) and no fall (a constant). The least sum of squares wins.

**What cannot be known** is said. A curve that does not fall has no exponent. One that hardly falls has any floor
between 0 and its last value, since a small enough exponent passes for a floor; so exponents are sought between two
bounds only, ``EXPONENTS``, and a floor is one *as against a fall with the least exponent*: over three decades, n^−0.05
falls by 29 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtrc, chdtri

from .intervals import FEW, Interval, interval, plain
from .slopes import checked, statistics

EXPONENTS = (0.05, 5.0)
FAR = 18.0  # log of how far the floor may lie below the last value, or the fall below the floor, before it is called 0

# How often 95 % intervals hold the floor and the exponent, for 7 sizes from 1e2 to 1e5, means of 40 replicates that are
# log-normal of standard deviation 0.5, measured again by the tests: 0.02 + 3 n^-½; n^-½ alone; 0.3 alone.
RATES = {"ends": (0.93, 0.93), "falls": (0.96, 0.89), "flat": (0.88, None)}


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law; numbers, or arrays where values had columns.

    ``scale`` is the power law's part at n = 1, mostly far outside the data, and its interval as wide as that. An
    exponent that does not exist (the best fit is constant) is NaN with scale 0; resamples where that happens count as
    the lowest exponent for the lower bound and as the highest for the upper. Where chance explains the whole fall, the
    floor's interval takes in that of a constant. ``residual`` is the largest distance of a log-statistic from the fit.

    ``goodness`` is the probability of a larger weighted sum of squares if the model holds: chi², with S less the number
    of parameters that are not at an edge; a small one says that it does not. Below 0.05 it comes in 7 to 12 % of the
    cases of ``RATES``, and with 5 replicates in up to 27 %, since they give their own noise badly.

    ``identified``: the curve falls beyond chance (a constant is rejected at 1 − level) and the exponent's interval lies
    inside ``EXPONENTS``; otherwise exponent and scale mean nothing. ``floor_identified``: the floor's interval leaves
    out 0, or all above 95 % of the last value; otherwise the data do not say whether the curve ends or goes on falling.
    With one replicate there are no intervals and nothing is identified.
    """

    floor: Interval
    scale: Interval
    exponent: Interval
    residual: np.ndarray | float
    goodness: np.ndarray | float
    identified: np.ndarray | bool
    floor_identified: np.ndarray | bool

    def at(self, n: np.ndarray) -> np.ndarray:
        """The fitted risk at sizes ``n`` (K,): (K, ...)."""
        falls = np.multiply.outer(np.log(np.asarray(n, np.float64)), -np.nan_to_num(self.exponent.estimate))
        return self.floor.estimate + self.scale.estimate * np.exp(falls)


def power_law(
    n: np.ndarray,
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> PowerLaw:
    r"""Fit floor + scale · n^−exponent, floor ≥ 0, scale ≥ 0, with percentile bootstraps over replicates.

    .. math:: \min \sum_i \big(\log \mathrm{statistic}(v_{i1}, \dots, v_{iR}) - \log(f + c\, n_i^{-b})\big)^2
              \big/ \mathrm{se}_i^2

    with the bootstrap's standard errors of the log-statistics, none below a hundredth of the largest. ``n`` (S,), S ≥ 4
    sizes, positive and rising; ``values`` (S, R, ...), positive, computed in float64. Every resample draws R replicates
    at each size on its own; columns share the draws. Raises ``ValueError`` where sizes or values are not such.

    >>> n = np.array([10, 100, 1000, 10000])
    >>> found = power_law(n, np.stack([0.25 + 3 / n] * 2, axis=1))
    >>> print(f"{found.floor.estimate:.4f} {found.scale.estimate:.4f} {found.exponent.estimate:.4f}")
    0.2500 3.0000 1.0000

    At the edge, a floor of 0, intervals touch it. As we understand Andrews (Econometrica 68, 2000; not read again), the
    bootstrap is no exact guide there; how often the intervals hold the truth is in ``RATES``. With 5 replicates a floor
    is held in 56 to 90 % of the cases only, an exponent in 74 to 80 %.
    """
    n, values = checked(n, values, sizes=4)
    means, drawn, errors = _weighed(values, statistic, resamples, level, seed)
    replicates, fit = values.shape[1], _fit(n, np.log(means), errors)
    again = _fit(n, drawn, errors[:, None])  # (resamples, ...) each

    def over(name: str, undefined: float = np.nan) -> Interval:
        drawn = getattr(again, name)
        return interval(getattr(fit, name), np.where(np.isnan(drawn), undefined, drawn), level, replicates)

    floor, scale, flat, exponent = over("floor"), over("scale"), over("constant"), over("exponent", EXPONENTS[0])
    exponent = replace(exponent, high=over("exponent", EXPONENTS[1]).high)
    inside = np.greater(exponent.low, 1.001 * EXPONENTS[0]) & np.less(exponent.high, 0.999 * EXPONENTS[1])
    falls = fit.squares_constant - fit.squares > chdtri(2, 1 - level)
    low, high = np.minimum(floor.low, flat.low), np.maximum(floor.high, flat.high)  # a constant is a floor as well
    floor = replace(floor, low=plain(np.where(falls, floor.low, low)), high=plain(np.where(falls, floor.high, high)))
    free = len(n) - 1.0 - (fit.scale > 0) - ((fit.scale > 0) & (fit.floor > 0))  # parameters at an edge are not fitted
    return PowerLaw(
        floor,
        scale,
        exponent,
        residual=plain(np.abs(fit.residuals).max(axis=0)),
        goodness=plain(np.where(replicates > 1, chdtrc(free, fit.squares), np.nan)),
        identified=plain(falls & inside),
        floor_identified=plain(np.greater(floor.low, 0) | np.less(floor.high, 0.95 * means[-1])),
    )


def resampled_floors(
    n: np.ndarray,
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    resamples: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """The floors (resamples, ...) whose quantiles are the bounds of ``power_law`` on the same arguments, as far as a
    constant is ruled out: for intervals of differences between floors."""
    n, values = checked(n, values, sizes=4)
    _, drawn, errors = _weighed(values, statistic, resamples, level, seed)
    return _fit(n, drawn, errors[:, None]).floor


def _weighed(
    values: np.ndarray, statistic: Callable[..., np.ndarray], resamples: int, level: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Statistics (S, ...), logarithms of those of resamples (S, resamples, ...) and their standard errors (S, ...)."""
    means, drawn = statistics(values, statistic, resamples, level, seed)
    drawn, replicates = np.log(drawn), values.shape[1]
    errors = drawn.std(axis=0) * np.sqrt(replicates / max(replicates - 1, 1))
    errors = np.maximum(errors, np.maximum(errors.max(axis=0) / 100, 1e-12))  # 1e-12: replicates that are all the same
    return means, np.moveaxis(drawn, 0, 1), errors


@dataclass(frozen=True)
class _Fit:
    """Of log-statistics (S, ...): parameters (...), ``residuals`` (S, ...), the best ``constant`` (...), and weighted
    sums of squares (...) of both."""

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    residuals: np.ndarray
    squares: np.ndarray
    constant: np.ndarray
    squares_constant: np.ndarray


def _fit(n: np.ndarray, y: np.ndarray, errors: np.ndarray) -> _Fit:
    """The best of floor and fall, fall alone, floor alone for each column of ``y`` (S, ...), ``errors`` (S, ...)."""
    shape = y.shape[1:]
    certainty = np.broadcast_to(1 / errors**2, y.shape).reshape(len(n), -1)
    y, total = y.reshape(len(n), -1), certainty.sum(0)
    weights, x = certainty / total, np.log(n) - np.log(n[0])

    mean = (weights * y).sum(0)
    squares_constant = (weights * (y - mean) ** 2).sum(0)
    falling, both = _line(x, y, weights), _refined(x, y, weights, _grid(x, y, weights))
    found = np.where(_squares(x, y, weights, both) < (1 - 1e-9) * _squares(x, y, weights, falling), both, falling)
    residuals, level, squares, *_ = _profile(x, y, weights, found)

    flat = squares_constant <= squares * (1 + 1e-9) + 1e-28  # 1e-28: rounding, squared
    residuals, squares = np.where(flat, y - mean, residuals), np.where(flat, squares_constant, squares)
    exponent = np.where(flat, np.nan, np.exp(found[0]))
    scale = np.where(flat, 0, np.exp(level + np.exp(found[0]) * np.log(n[0])))
    floor = np.exp(np.where(flat, mean, level + found[1]))
    parts = (floor, scale, exponent, residuals, squares * total, np.exp(mean), squares_constant * total)
    return _Fit(*(part.reshape(part.shape[:-1] + shape) for part in parts))


def _profile(x: np.ndarray, y: np.ndarray, weights: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, ...]:
    """The model at ``at`` = (log b, log rho) (2, P), with the best level. Residuals (S, P), levels (P,), weighted sums
    of squares (P,), and the derivatives of g by both parameters, (S, P) each."""
    fall = -np.exp(at[0]) * x[:, None]  # log of (n / n_min)^-b
    g = np.logaddexp(fall, at[1])
    level = (weights * (y - g)).sum(0)
    residuals, share = y - g - level, np.exp(fall - g)  # share: of the fall in the risk
    return residuals, level, (weights * residuals**2).sum(0), fall * share, 1 - share


def _squares(x: np.ndarray, y: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    return _profile(x, y, weights, at)[2]


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The best fit without a floor, in closed form: (log b, −inf)."""
    centred = x[:, None] - (weights * x[:, None]).sum(0)
    slope = (weights * centred * y).sum(0) / (weights * centred**2).sum(0)
    return np.stack([np.log(np.clip(-slope, *EXPONENTS)), np.full_like(slope, -np.inf)])


def _lowest(x: np.ndarray, log_b: np.ndarray) -> np.ndarray:
    """The least log rho: there the floor is lost below the fall at the largest size too."""
    return -FAR - np.exp(log_b) * x[-1]


def _grid(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For every column the best of 24 exponents times 40 floors, (2, P); the same numbers as from ``_profile``."""
    log_b, part = np.meshgrid(np.linspace(*np.log(EXPONENTS), 24), np.linspace(0, 1, 40), indexing="ij")
    points = np.stack([log_b.ravel(), (FAR + part * (_lowest(x, log_b) - FAR)).ravel()])
    g = np.logaddexp(-np.exp(points[0]) * x[:, None], points[1])  # (S, points)
    few, best = max(1, FEW // g.shape[1]), []
    for i in range(0, y.shape[1], few):
        w, v = weights[:, i : i + few].T, (weights * y)[:, i : i + few].T
        mean = w @ g
        best.append(np.argmin(w @ g**2 - mean**2 - 2 * (v @ g - v.sum(1, keepdims=True) * mean), axis=1))
    return points[:, np.concatenate(best)]


def _refined(x: np.ndarray, y: np.ndarray, weights: np.ndarray, start: np.ndarray, steps: int = 100) -> np.ndarray:
    """Levenberg-Marquardt from ``start`` (2, P) for all columns at once, those that are done left out; (2, P)."""
    found, damping = start.copy(), np.full(y.shape[1], 1e-2)
    left = np.arange(y.shape[1])
    for _ in range(steps):
        here, w = found[:, left], weights[:, left]
        u, _, squares, *derivatives = _profile(x, y[:, left], w, here)
        jacobian = np.stack([d - (w * d).sum(0) for d in derivatives])  # the level follows
        gradient = (w * jacobian * u).sum(1)
        low, high = _bounds(x, here)
        held = ((here <= low) & (gradient < 0)) | ((here >= high) & (gradient > 0))
        (aa, bb), ab = (w * jacobian**2).sum(1), (w * jacobian[0] * jacobian[1]).sum(0)
        a, b = np.where(held, 1.0, np.stack([aa, bb]) * (1 + damping[left]) + 1e-30)
        c, (p, q) = np.where(held.any(0), 0.0, ab), np.where(held, 0, gradient)
        step = np.clip(np.stack([b * p - c * q, a * q - c * p]) / (a * b - c * c), -2, 2)
        there = np.clip(here + step, *_bounds(x, here + step))
        s, t = there - here
        hoped = 2 * (s * gradient[0] + t * gradient[1]) - aa * s * s - bb * t * t - 2 * ab * s * t
        gain = squares - _squares(x, y[:, left], w, there)
        better = gain > 0
        found[:, left] = np.where(better, there, here)
        # A step that gained less than half of what it hoped for was too long: more such ones would go to and fro across
        # the valley. The rule is Nielsen's (IMM-REP-1999-05, from memory).
        ratio = np.clip(gain / np.maximum(hoped, 1e-300), 0, 1)
        damping[left] *= np.where(better, np.maximum(0.1, 1 - (2 * ratio - 1) ** 3), 10)
        done = np.where(better, gain <= 1e-13 * squares, damping[left] > 1e8) | (squares < 1e-30)
        left = left[~done]
        if not len(left):
            break
    return found


def _bounds(x: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest values of (log b, log rho), (2, P) each."""
    low, high = np.log(EXPONENTS)
    least = _lowest(x, np.clip(at[0], low, high))
    return np.stack([np.full_like(least, low), least]), np.stack([np.full_like(least, high), np.full_like(least, FAR)])
