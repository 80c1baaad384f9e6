r"""Many methods against one reference, seed by seed: paired tests, corrected for their number.

Two tests of "the mean difference is 0", for S pairs:

- **Student's t** of the differences; exact where they are normal, and near enough for means of accuracies.
- **Sign flips**: if the methods do not differ, each difference may as well have the other sign. The p-value is the
  share of all 2^S choices of signs whose mean is at least as far from 0. It assumes symmetry and nothing of the
  distribution, and pays for that: all S differences of one sign give the least p-value there is, 2 / 2^S, so **with 5
  seeds no sign test goes below 1/16** and none rejects at 0.05, however large the difference; from 6 on it can (1/32),
  and after Holm's correction for 12 tests from 9 on. Up to 13 pairs all signs are tried, above that 9,999 random ones.

Over all tasks the t-test takes the mean over tasks as the value of a seed, and the sign test flips each run's
difference on its own, S · T of them: runs of one seed on different tasks share the number of the seed, not their
images.

**Corrections.** ``holm`` bounds the probability of even one false finding, ``benjamini_hochberg`` the expected share of
false ones among findings. Adjusted p-values are compared with the level itself. Holm's holds for any dependence of the
tests, Benjamini and Hochberg's for tests that are independent or positively dependent, as tests against one reference
are (as we understand Benjamini and Yekutieli, Ann. Statist. 29, 2001; not read again).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from .intervals import Interval, paired

FLIPS = 9_999  # sign choices at most; all of them where there are fewer


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values, of all of ``p`` (...) together; same shape.

    The k-th smallest of m is multiplied by m + 1 − k; none is below a smaller one's, none above 1.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])

    Source: Holm, Scand. J. Statist. 6, 1979.
    """
    p = _checked(p)
    order = np.argsort(p, axis=None)
    raised = p.ravel()[order] * np.arange(p.size, 0, -1)
    found = np.empty(p.size)
    found[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return found.reshape(p.shape)


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values, of all of ``p`` (...) together; same shape. scipy's.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.04, 0.04])

    Source: Benjamini, Hochberg, J. R. Statist. Soc. B 57, 1995.
    """
    return scipy.stats.false_discovery_control(_checked(p), axis=None).reshape(np.shape(p))


def _checked(p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    if p.size == 0 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values {p.ravel()[:8].tolist()} ...; expected at least one, all between 0 and 1")
    return p


def t_test(differences: np.ndarray) -> np.ndarray:
    """Two-sided p-values (...) of the paired t-test for ``differences`` (S, ...), S ≥ 2.

    Differences that are all the same have no spread to be judged by: p is 1 where they are 0, otherwise 0.
    """
    differences = np.asarray(differences, dtype=np.float64)
    size = np.abs(differences).max(axis=0)
    known = np.ptp(differences, axis=0) > 1e-12 * size
    p = np.where(size > 0, 0.0, 1.0)
    if known.any():
        p[known] = scipy.stats.ttest_1samp(differences[:, known], 0, axis=0).pvalue
    return p


def sign_flips(differences: np.ndarray, seed: int = 0) -> np.ndarray:
    """Two-sided p-values (...) of the sign test of means for ``differences`` (S, ...): scipy's, exact for S ≤ 13.

    >>> sign_flips(np.array([0.1, 0.2, 0.3, 0.2, 0.1])).item()              # the least that 5 seeds can give
    0.0625
    """
    differences = np.asarray(differences, dtype=np.float64)
    found = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=FLIPS, batch=256, vectorized=True, axis=0,
        random_state=np.random.default_rng(seed),
    )  # fmt: skip
    return np.asarray(found.pvalue)


@dataclass(frozen=True)
class Comparison:
    """``method`` against the reference on ``task`` ("all": over all tasks).

    ``difference``: mean of method − reference with its interval over seeds. ``t`` and ``signs`` are p-values,
    ``t_adjusted`` and ``signs_adjusted`` those corrected for the number of tests in the family.
    """

    method: str
    task: str
    difference: Interval
    t: float
    signs: float
    t_adjusted: float
    signs_adjusted: float


def compare(
    scores: Mapping[str, np.ndarray],
    reference: str,
    tasks: Sequence[str],
    correction: Callable[[np.ndarray], np.ndarray] = holm,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Every other method of ``scores`` against ``reference``: on each of T ``tasks``, and over all where T > 1.

    ``scores`` maps a method's name to its scores (S, T), S ≥ 2 seeds, row s with the same seed in all methods. Tests on
    single tasks (methods times T) are one family for ``correction``, those over all tasks another. Intervals are
    ``paired`` bootstraps and not corrected. Raises ``ValueError`` where scores do not match.

    >>> seeds = np.arange(6)[:, None]
    >>> scores = {"old": 0.6 + 0.01 * seeds, "new": 0.61 + 0.03 * seeds}
    >>> (found,) = compare(scores, "old", ["dogs"])
    >>> print(f"{found.difference.estimate:.3f} {found.t:.4f} {found.signs:.4f}")
    0.060 0.0111 0.0312
    """
    values = _matching(scores, reference, tasks)
    others = [name for name in values if name != reference]
    options = {"resamples": resamples, "level": level, "seed": seed}
    apart = np.stack([values[name] - values[reference] for name in others], axis=1)  # (S, M, T)
    rows = _family(others, tasks, apart, apart, correction, options)
    if len(tasks) > 1:
        means, runs = apart.mean(axis=2, keepdims=True), apart.transpose(0, 2, 1).reshape(-1, len(others), 1)
        rows += _family(others, ["all"], means, runs, correction, options)
    return rows


def _family(
    methods: list[str], tasks: Sequence[str], seeds: np.ndarray, runs: np.ndarray, correction: Callable, options: dict
) -> list[Comparison]:
    """Rows of one family, methods by tasks: intervals and t-tests of ``seeds`` (S, M, T), sign tests of ``runs``."""
    found = paired(seeds, np.zeros_like(seeds), **options)
    t, signs = t_test(seeds), sign_flips(runs, options["seed"])
    adjusted = correction(t), correction(signs)
    rows = []
    for at in np.ndindex(t.shape):
        difference = Interval(*(float(x[at]) for x in (found.estimate, found.low, found.high)), found.n)
        p = (float(x[at]) for x in (t, signs, *adjusted))
        rows.append(Comparison(methods[at[0]], tasks[at[1]], difference, *p))
    return rows


def _matching(scores: Mapping[str, np.ndarray], reference: str, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    if reference not in scores or len(scores) < 2:
        raise ValueError(f"reference {reference!r} and methods {sorted(scores)}; expected it and another among them")
    values = {name: np.asarray(given, dtype=np.float64) for name, given in scores.items()}
    shapes = {name: given.shape for name, given in values.items()}
    shape = shapes[reference]
    if len(shape) != 2 or shape[0] < 2 or shape[1] != len(tasks) or set(shapes.values()) != {shape}:
        raise ValueError(
            f"scores of shapes {shapes}; expected (S, {len(tasks)}) for all: S >= 2 seeds, a column a task"
        )
    bad = [name for name, given in values.items() if not np.isfinite(given).all()]
    if bad:
        raise ValueError(f"scores of {bad} are not all finite; leave out the seeds that failed, in all methods alike")
    return values
