r"""Learning curves: mean errors with intervals, the falling curve through them, and the power law a·n^−b + c.

A seed draws subsets that lie inside each other, and all methods see the subsets of one seed. So values of one seed
belong together over sizes (and over methods, see ``data_multiplier`` and ``crossover``), and every resample draws
seeds, not values: the same ones at all sizes. What a seed has in common at all sizes then moves a resampled curve as a
whole, as it moves the true one.

The power law is the exception: its resamples draw seeds at each size on their own. Drawn
together, 5 seeds give few different curves, which are too much alike for three parameters (measured once on the curves
of the tests: the exponent is held in 75 % of the cases, drawn apart in 93 %), and what a seed has in common at all
sizes makes intervals that ignore it too wide, not too narrow.

With 3 or 5 seeds percentile intervals are too narrow, here as everywhere (``COVERAGE``); ``few_seeds.expanded`` says
which level to ask for instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intervals import Interval, bootstrap
from .monotone import Curves, falling
from .power_laws import PowerLaw, power_law

# How often 95 % intervals hold the truth for S seeds: the error at a size, and floor and exponent of a power law of 7
# sizes, under noise that is half common to the sizes of a seed; measured again by the tests.
COVERAGE = {3: (0.75, 0.80, 0.81), 5: (0.83, 0.92, 0.92), 10: (0.90, 0.96, 0.98)}


@dataclass(frozen=True)
class LearningCurve:
    """Errors of one method over sizes.

    ``n`` (K,) sizes and ``error`` their mean errors with intervals (K,), each size on its own. ``falling`` (K,) are the
    non-increasing errors nearest to the means; ``rise`` is by how much the mean error rises at most from one size to a
    larger one, 0 for a curve that falls, to be held against the intervals: falling curves misdescribe a method that
    more data makes worse. ``law`` is the fit of floor + scale · n^−exponent with its intervals and goodness, None with
    fewer than 4 sizes or where an error is 0 or negative, of which there is no logarithm.
    """

    n: np.ndarray
    error: Interval
    falling: np.ndarray
    rise: float
    law: PowerLaw | None


def learning_curve(
    sizes: np.ndarray, errors: np.ndarray, resamples: int = 2_000, level: float = 0.95, seed: int = 0
) -> LearningCurve:
    """Intervals, falling curve and power law of ``errors`` (K, S) of S seeds at ``sizes`` (K,), K ≥ 2.

    Sizes are positive and rise; errors are any finite numbers of which less is better, such as 1 − accuracy, computed
    in float64. Raises ``ValueError`` where they are not such.

    >>> found = learning_curve([10, 100, 1000], np.array([[0.5, 0.7], [0.2, 0.4], [0.3, 0.3]]))
    >>> found.error.estimate.round(2), found.falling.round(2), round(found.rise, 2), found.law
    (array([0.6, 0.3, 0.3]), array([0.6, 0.3, 0.3]), 0.0, None)
    """
    n, errors = checked_curve(sizes, errors)
    error = bootstrap(errors.T, resamples=resamples, level=level, seed=seed)
    rise = float((error.estimate - np.minimum.accumulate(error.estimate)).max())
    known = len(n) >= 4 and bool((errors > 0).all())
    law = power_law(n, errors, resamples=resamples, level=level, seed=seed) if known else None
    return LearningCurve(n, error, falling(error.estimate), rise, law)


def resampled_curves(sizes: np.ndarray, errors: np.ndarray, resamples: int, seed: int) -> Curves:
    """Falling curves of the mean errors and of resamples: (1 + resamples) of them, that of the data first.

    Methods with as many seeds draw the same ones for the same ``seed``.
    """
    n, errors = checked_curve(sizes, errors)
    seeds = errors.shape[1]
    drawn = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    means = np.concatenate([errors.mean(axis=1)[None], errors.T[drawn].mean(axis=1)])  # (1 + resamples, K)
    return Curves.through(n, means)


def checked_curve(sizes: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``sizes`` (K,) and ``errors`` (K, S) in float64; raises ``ValueError`` where they are no learning curve."""
    n, errors = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if n.ndim != 1 or len(n) < 2:
        raise ValueError(f"sizes of shape {n.shape}; a learning curve has (K,) of them, K >= 2")
    if not (np.isfinite(n).all() and (n > 0).all() and (np.diff(n) > 0).all()):
        raise ValueError(f"sizes are {n.tolist()}; expected positive ones, each once, smallest first")
    if errors.ndim != 2 or len(errors) != len(n) or errors.shape[1] == 0:
        raise ValueError(f"errors of shape {errors.shape} for {len(n)} sizes; expected (K, S): sizes, seeds")
    if not np.isfinite(errors).all():
        raise ValueError(f"{int((~np.isfinite(errors)).sum())} of {errors.size} errors are not finite; leave out sizes")
    return n, errors


def paired_curves(
    sizes: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    sizes_second: np.ndarray | None,
    resamples: int,
    seed: int,
) -> tuple[Curves, Curves]:
    """``resampled_curves`` of two methods that share their seeds: column s of both has one seed."""
    if np.shape(first)[1:] != np.shape(second)[1:]:
        raise ValueError(
            f"errors of shapes {np.shape(first)} and {np.shape(second)}; methods are compared seed by seed, so give "
            "the columns of the seeds that both have, in one order"
        )
    sizes_second = sizes if sizes_second is None else sizes_second
    return resampled_curves(sizes, first, resamples, seed), resampled_curves(sizes_second, second, resamples, seed)
