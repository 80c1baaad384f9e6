r"""Slopes on log-log axes with what shows whether there is a line at all: curvature, local slopes, distance from it.

A slope of a curve that is not a line means nothing, and a test of straightness alone is no help: with many replicates
it rejects every curve, with few it rejects none. So a curve counts as bent where its bend is both **clear** (beyond
what replicates explain) and **large** (it moves the slope by as much as one would care about). This rule, and its
numbers, were fixed before there were results:

- Two shapes are looked at, the quadratic and the cubic orthogonal polynomial of log n. The quadratic finds curves that
  level off or bend down, the cubic those that do one after the other (a late start and a floor), whose quadratic part
  may be 0. With 3 sizes there is no cubic.
- A shape is clear where the bootstrap interval of its coefficient leaves out 0. Of two shapes each has its interval at
  the level 1 − (1 − level)/2, so that a straight line is called bent with probability 1 − level at most (Bonferroni),
  as far as the intervals hold what they promise.
- A shape is large where it moves the local slope d log value / d log n by ``TOLERANCE`` or more between any two of the
  sizes.
- ``straight`` is true where no shape is both.

So ``straight`` means "no bend was found", which with few replicates is weak: ``curvature`` says what is not ruled out.
What the rule is worth was measured (``RATES``; the tests do it again) on 7 sizes from 1e2 to 1e5, 40 replicates and
medians, replicates log-normal of standard deviation 0.7. With means instead, a line is called bent in 7 % of the cases,
and with 5 replicates in 10 %, where the interval of the slope holds the truth in only 84 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .intervals import Interval, interval, plain, resampled

TOLERANCE = 0.1  # change of the local slope, over all sizes, below which a bend does not matter

# How often a 95 % interval holds the slope of a line, and how often the rule calls bent: a line, n^-½; one that a
# floor takes over (n^-½ + 0.02, equal parts at n = 2500); a curve with a late start and a floor.
RATES = {"coverage": 0.96, "line": 0.02, "floor": 0.54, "late": 1.0}


@dataclass(frozen=True)
class Slope(Interval):
    """A slope on log-log axes, an ``Interval``, and whether the curve is a line. Arrays where values had columns.

    ``curvature`` and ``cubic`` are the coefficients of the second and third orthogonal polynomial of centred log n with
    leading coefficient 1 (natural logarithms; ``cubic`` is None with 3 sizes), at the level that the rule of this file
    takes. ``local`` are the slopes between neighbouring sizes, (S − 1, ...). ``residual`` is the largest distance of a
    log-statistic from the line: 0.1 is about 10 % of the value. ``change`` is the largest change of the local slope,
    over the sizes, that a shape implies, and ``straight`` what the rule says.
    """

    curvature: Interval
    cubic: Interval | None
    local: Interval
    residual: np.ndarray | float
    change: np.ndarray | float
    straight: np.ndarray | bool


def loglog_slope(
    n: np.ndarray,
    values: np.ndarray,
    statistic: Callable[..., np.ndarray] = np.median,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Slope:
    r"""Slope of log statistic(values) against log n by least squares, with a percentile bootstrap over replicates.

    .. math:: \hat s = \sum_i (x_i - \bar x)\, y_i \big/ \sum_i (x_i - \bar x)^2, \qquad x_i = \log n_i,\;
              y_i = \log \mathrm{statistic}(v_{i1}, \dots, v_{iR})

    ``n`` (S,), S ≥ 3 sizes, positive and rising; ``values`` (S, R, ...), positive, computed in float64. Replicates of
    different sizes are different samples, so every resample draws R of them at each size on its own; columns share the
    draws. All sizes weigh the same. ``statistic`` is called with ``axis``. With one replicate all bounds are NaN, and
    no bend counts as chance. Raises ``ValueError`` where sizes or values are not such.

    >>> n = np.array([100, 1000, 10000])
    >>> found = loglog_slope(n, np.stack([3 * n**-0.5] * 2, axis=1))
    >>> print(f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}], straight: {found.straight}")
    -0.500 [-0.500, -0.500], straight: True
    >>> loglog_slope(n, np.stack([0.1 + 3 * n**-0.5] * 2, axis=1)).straight     # a floor
    False

    Source: the bootstrap as in ``intervals``; the rule for ``straight`` is our own.
    """
    n, values = checked(n, values, sizes=3)
    y, drawn = (np.log(a) for a in statistics(values, statistic, resamples, level, seed))
    x = np.log(n) - np.log(n).mean()
    line, *bends = _shapes(x)

    def along(weights: np.ndarray, level: float) -> Interval:  # weights (k, S) or (S,)
        moved = np.moveaxis(np.tensordot(weights, drawn, ([-1], [1])), -drawn.ndim + 1, 0)  # (resamples, k, ...)
        return interval(np.tensordot(weights, y, 1), moved, level, values.shape[1])

    slope = along(line.weights, level)
    local = along(np.diff(np.eye(len(x)), axis=0) / np.diff(x)[:, None], level)
    found = [along(bend.weights, 1 - (1 - level) / len(bends)) for bend in bends]
    change = np.stack([np.abs(f.estimate) * bend.turn for f, bend in zip(found, bends, strict=True)])
    clear = np.stack([~((np.asarray(f.low) <= 0) & (np.asarray(f.high) >= 0)) for f in found])  # NaN: clear
    fitted = y.mean(0) + np.multiply.outer(x, slope.estimate)
    return Slope(
        slope.estimate,
        slope.low,
        slope.high,
        slope.n,
        curvature=found[0],
        cubic=found[1] if len(found) > 1 else None,
        local=local,
        residual=plain(np.abs(y - fitted).max(0)),
        change=plain(change.max(0)),
        straight=plain(~(clear & (change >= TOLERANCE)).any(0)),
    )


@dataclass(frozen=True)
class _Shape:
    """``weights`` (S,) give its coefficient from the log-statistics; ``turn`` is by how much 1 of it moves the local
    slope, over the sizes."""

    weights: np.ndarray
    turn: float


def _shapes(x: np.ndarray) -> list[_Shape]:
    """The line, the parabola and (S ≥ 4) the cubic: orthogonal on ``x`` (S,), leading coefficients 1."""
    degree = min(3, len(x) - 1)
    powers = np.vander(x, degree + 1, increasing=True)
    q, r = np.linalg.qr(powers)  # powers = q r: column k of q is the polynomial of degree k, over r_kk
    derivative = np.arange(1, degree + 1) * powers[:, :-1]  # of x, x², ...
    moves = derivative @ (np.linalg.inv(r) * np.diag(r))[1:]  # local slopes of the polynomials, (S, degree + 1)
    return [_Shape(q[:, k] / r[k, k], float(np.ptp(moves[:, k]))) for k in range(1, degree + 1)]


def checked(n: np.ndarray, values: np.ndarray, sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """``n`` (S,) and ``values`` (S, R, ...) in float64; raises ``ValueError`` where a power law cannot be sought."""
    n, values = np.asarray(n, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if n.ndim != 1 or len(n) < sizes:
        raise ValueError(f"sizes n of shape {n.shape}; expected (S,) with S >= {sizes}, or no misfit could be seen")
    if not (np.isfinite(n).all() and (n > 0).all() and (np.diff(n) > 0).all()):
        raise ValueError(f"sizes n are {n.tolist()}; expected positive ones, each once, smallest first")
    if values.ndim < 2 or len(values) != len(n) or 0 in values.shape:
        raise ValueError(f"values of shape {values.shape} for {len(n)} sizes; expected (S, R, ...): sizes, replicates")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        at = [int(i) for i in np.unique(np.nonzero(bad)[0])]
        raise ValueError(
            f"{int(bad.sum())} of {values.size} values are zero, negative or not finite, at sizes number {at}; a power "
            f"law has logarithms of positive numbers: leave such sizes out, or find why they are so"
        )
    return n, values


def statistics(
    values: np.ndarray, statistic: Callable[..., np.ndarray], resamples: int, level: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``statistic`` of each size (S, ...) and of resamples, drawn at each size on its own: (resamples, S, ...)."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    generator = np.random.default_rng(seed)
    drawn = [resampled(at, statistic, resamples if len(at) > 1 else 1, generator) for at in values]
    return statistic(values, axis=1), np.stack(drawn, axis=1)
