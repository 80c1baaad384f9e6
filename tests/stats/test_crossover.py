"""The crossover: exact ones, before and never, what leaves it unchanged, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from tests.planted_curves import SIZES, agrees, holds, noisy, truth
from vpt_analysis import stats
from vpt_analysis.stats import crossovers as module

EARLY, LATE = (0.3, 0.4, 0.5), (0.1, 0.7, 0.35)  # the first is ahead with few, the second with many
TRUE = brentq(lambda n: truth(EARLY, n) - truth(LATE, n), 50, 5000)


def pair(seeds: int = 5, seed: int = 0) -> list[np.ndarray]:
    return noisy([truth(EARLY), truth(LATE)], seeds, np.random.default_rng(seed))


def same(*values: float) -> np.ndarray:
    return np.stack([np.array(values)] * 3, axis=1)


def test_curves_that_are_straight_in_log_n_cross_where_lines_do():
    """d falls from 0.1 to -0.3 over two decades: 0 after half a decade."""
    found = stats.crossover([10, 100, 1000], same(0.6, 0.5, 0.4), same(0.7, 0.4, 0.1), resamples=20)
    assert (found.estimate, found.low, found.high) == pytest.approx((10**1.5,) * 3)
    assert found.status == "inside" and (found.before, found.inside, found.never) == (0, 1, 0)


def test_smooth_curves_cross_near_the_truth():
    found = stats.crossover(SIZES, *(np.stack([truth(at)] * 2, axis=1) for at in (EARLY, LATE)), resamples=5)
    assert found.estimate == pytest.approx(TRUE, rel=0.02)


def test_curves_of_other_sizes_are_compared_on_what_they_share():
    """The same lines, the second at sizes of its own: between 20 and 1000."""
    second = same(*np.interp(np.log10([20, 400, 2000]), [1, 2, 3, 4], [0.7, 0.4, 0.1, -0.2]))
    found = stats.crossover([10, 100, 1000], same(0.6, 0.5, 0.4), second, [20, 400, 2000], resamples=5)
    assert found.estimate == pytest.approx(10**1.5)
    ahead = stats.crossover([10, 100, 1000], same(0.6, 0.5, 0.4), second - 0.3, [20, 400, 2000], resamples=5)
    assert (ahead.status, ahead.estimate, ahead.low, ahead.high) == ("before", 20, 0, 20)
    behind = stats.crossover([10, 100, 1000], same(0.6, 0.5, 0.4), second + 0.5, [20, 400, 2000], resamples=5)
    assert (behind.status, behind.estimate, behind.low, behind.high) == ("never", 1000, 1000, np.inf)


def test_the_last_of_several_crossings_counts():
    first, second = same(0.60, 0.40, 0.30, 0.30), same(0.55, 0.45, 0.35, 0.10)
    found = stats.crossover([1, 10, 100, 1000], first, second, resamples=5)
    assert 100 < found.estimate < 1000


def test_equal_methods_never_cross():
    a = pair()[0]
    found = stats.crossover(SIZES, a, a, resamples=100)
    assert found.status == "never" and found.never == 1


@settings(max_examples=20)
@given(st.integers(0, 30), st.floats(0.01, 100))
def test_units_of_sizes_and_errors_do_not_matter(seed, scale):
    a, b = pair(seed=seed)
    one = stats.crossover(SIZES, a, b, resamples=60)
    other = stats.crossover(SIZES * scale, 5 * a, 5 * b, resamples=60)
    assert other.estimate == pytest.approx(scale * one.estimate, rel=1e-6)
    assert (other.low, other.high) == pytest.approx((scale * one.low, scale * one.high), rel=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 30))
def test_a_method_that_overtakes_is_not_overtaken(seed):
    a, b = pair(seed=seed)
    there, back = stats.crossover(SIZES, a, b, resamples=60), stats.crossover(SIZES, b, a, resamples=60)
    assert there.status == "inside" and back.status == "never"
    assert there.before + there.inside + there.never == pytest.approx(1)


def test_shares_of_resamples_say_what_is_open():
    """Differences at the last size have one sign in three of four seeds: some resamples never cross."""
    first = np.tile(np.array([[0.5], [0.4], [0.3]]), 4)
    second = np.array([[0.6] * 4, [0.45] * 4, [0.2, 0.22, 0.25, 0.5]])
    found = stats.crossover([10, 100, 1000], first, second, resamples=4000)
    drawn = np.random.default_rng(5).integers(4, size=(20000, 4))
    expected = (second[2][drawn].mean(1) >= 0.3).mean()
    assert found.never == pytest.approx(expected, abs=0.03) and found.before == 0
    assert found.status == "inside" and found.high == np.inf and found.low > 100


@pytest.mark.parametrize("seeds", module.COVERAGE)
def test_coverage_is_what_the_file_says(seeds):
    hits = []
    for k in range(120):
        a, b = noisy([truth(EARLY), truth(LATE)], seeds, np.random.default_rng([13, seeds, k]))
        levels = (0.95, stats.expanded(0.95, seeds))
        hits.append([holds(stats.crossover(SIZES, a, b, resamples=200, level=x, seed=k), TRUE) for x in levels])
    for hit, share in zip(np.transpose(hits), module.COVERAGE[seeds], strict=True):
        assert agrees(hit, share)


def test_curves_without_common_sizes_are_refused():
    with pytest.raises(ValueError, match="sizes 1 to 2 and 3 to 4, which share no range"):
        stats.crossover([1, 2], np.ones((2, 3)), np.ones((2, 3)), [3, 4])
