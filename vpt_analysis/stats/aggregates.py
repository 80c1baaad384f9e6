r"""Scores of one method over several tasks as one number or one curve: what few seeds and unlike tasks allow.

Means over tasks are moved by one task, medians waste most of the runs. The three summaries here use all runs, and are
those that Agarwal et al. recommend (Deep reinforcement learning at the edge of the statistical precipice, NeurIPS 2021;
their package is rliable):

- the **interquartile mean**: mean of the middle half of all S · T runs,
- the **performance profile**: share of the runs with a score above τ, as a function of τ,
- the **probability of improvement**: that a run of one method beats a run of another on the same task,

.. math:: \frac1T \sum_t P(X_t > Y_t) + \tfrac12 P(X_t = Y_t).

Intervals are percentile bootstraps, stratified: S of the S runs are drawn within each task, on their own in each. So
they are about *other seeds on these tasks*, and say nothing of other tasks. With few seeds they are too narrow
(``COVERAGE``), profiles most of all: where all runs of each task lie on one side of τ, both bounds are the estimate.
Scores should mean the same on all tasks (an accuracy, or one scaled between chance and a reference), or the
interquartile mean is about the tasks in the middle.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.stats

from .intervals import Interval, interval

# How often 95 % intervals hold the truth for S seeds on 6 tasks: interquartile mean, profile (at thresholds that divide
# the runs of a task), probability of improvement. Normal scores, half of whose variance two methods share seed by seed;
# measured again by the tests.
COVERAGE = {3: (0.79, 0.66, 0.93), 5: (0.86, 0.85, 0.97), 10: (0.92, 0.88, 0.97)}


def interquartile_mean(scores: np.ndarray, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean of the middle half of all runs of ``scores`` (S, T), S seeds and T tasks.

    The lowest and highest ⌊S T / 4⌋ runs are left out, as ``scipy.stats.trim_mean`` does it.

    >>> interquartile_mean(np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 90.0], [-50.0, 2.0]])).estimate
    2.0
    """
    return _stratified(scores, lambda runs: scipy.stats.trim_mean(_flat(runs), 0.25, axis=1), resamples, level, seed)


def performance_profile(
    scores: np.ndarray, thresholds: np.ndarray, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Share of the runs of ``scores`` (S, T) above each of ``thresholds`` (Q,): an ``Interval`` of shape (Q,).

    Bounds hold for each threshold on its own, not for the curve as a whole.

    >>> performance_profile(np.array([[0.1, 0.5], [0.3, 0.7]]), np.array([0.0, 0.4, 0.7])).estimate
    array([1. , 0.5, 0. ])
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    if thresholds.ndim != 1 or not np.isfinite(thresholds).all():
        raise ValueError(f"thresholds of shape {thresholds.shape}; expected (Q,) finite scores")

    def above(runs: np.ndarray) -> np.ndarray:
        return np.stack([(_flat(runs) > threshold).mean(axis=1) for threshold in thresholds], axis=1)

    return _stratified(scores, above, resamples, level, seed)


def probability_of_improvement(
    first: np.ndarray, second: np.ndarray, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Probability that a run of ``first`` (S, T) scores above a run of ``second`` (S', T) on the same task.

    Mean over tasks of the Mann-Whitney statistic over S S'; 0.5 says that neither is better, and how much better is not
    said. Each method draws its own rows. Where row s has one seed in both, intervals are therefore wider than needed,
    and the estimate, of whose S² pairs S share their seed, is a part in S nearer to what pairs of one seed say.

    >>> probability_of_improvement(np.array([[0.9], [0.8]]), np.array([[0.7], [0.8]])).estimate
    0.875
    """
    first, second = _checked(first, level), _checked(second, level)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"scores of shapes {first.shape} and {second.shape}; expected (S, T) and (S', T), same tasks")
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)  # (S, S', T)
    generator = np.random.default_rng(seed)
    a, b = (_weights(_draws(scores.shape, resamples, generator)) for scores in (first, second))
    found = (np.einsum("rst,sut->rut", a, wins) * b).sum(axis=1).mean(axis=1)
    return interval(found[0], found[1:], level, min(len(first), len(second)))


def _stratified(
    scores: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int, level: float, seed: int
) -> Interval:
    """``statistic``, which maps (R, S, T) to (R, ...), of ``scores`` (S, T) and of resamples within tasks."""
    scores = _checked(scores, level)
    drawn = _draws(scores.shape, resamples, np.random.default_rng(seed))
    found = statistic(np.take_along_axis(scores[None], drawn, axis=1))
    return interval(found[0], found[1:], level, len(scores))


def _draws(shape: tuple[int, int], resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Rows (1 + resamples, S, T) of scores of ``shape`` (S, T), drawn for each task on its own; all rows come first."""
    drawn = generator.integers(shape[0], size=(resamples, *shape))
    return np.concatenate([np.broadcast_to(np.arange(shape[0])[:, None], (1, *shape)), drawn])


def _weights(drawn: np.ndarray) -> np.ndarray:
    """Shares (R, S, T) with which each run is among ``drawn`` (R, S, T)."""
    return np.stack([(drawn == row).mean(axis=1) for row in range(drawn.shape[1])], axis=1)


def _flat(runs: np.ndarray) -> np.ndarray:
    return runs.reshape(len(runs), -1)


def _checked(scores: np.ndarray, level: float) -> np.ndarray:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores of shape {scores.shape}; expected (S, T): seeds, tasks")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite; run them again")
    return scores
