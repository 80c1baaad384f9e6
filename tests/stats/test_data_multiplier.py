"""The data multiplier: exact curves, what leaves it unchanged or inverts it, bounds where data end, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planted_curves import SIZES, agrees, holds, noisy, size_of, truth
from vpt_analysis import stats
from vpt_analysis.stats import multipliers as module
from vpt_analysis.stats.censored import bounded

SLOW, FAST = (0.2, 0.6, 0.4), (0.2, 0.4, 0.5)


def pair(seeds: int = 5, seed: int = 0) -> list[np.ndarray]:
    return noisy([truth(SLOW), truth(FAST)], seeds, np.random.default_rng(seed))


def same(values: np.ndarray, seeds: int = 3) -> np.ndarray:
    return np.stack([values] * seeds, axis=1)


def test_the_claims_form_is_the_share_that_matches_all_data():
    """B makes at a third of the sizes the errors that A makes at them: 3, and every size but the first is a level."""
    n = np.array([100.0, 300, 900, 2700])
    slow = np.array([0.6, 0.4, 0.3, 0.25])
    fast = np.array([0.4, 0.3, 0.25, 0.2])
    found = stats.data_multiplier(n, same(slow), same(fast), resamples=20)
    assert (found.estimate, found.low, found.high) == pytest.approx((3, 3, 3))
    assert found.error == 0.25 and found.bound == "" and found.censored == 0
    assert found.valid == pytest.approx((0.25, 0.4)) and str(found) == "3 [3, 3]"


@settings(max_examples=20)
@given(st.floats(1.05, 8), st.floats(0.3, 0.75))
def test_a_curve_moved_along_log_n_has_the_move_as_its_multiplier(factor, error):
    """Sizes of the two differ: B's are A's over the factor, with the same errors, so that no interpolation errs."""
    errors = same(truth(SLOW))
    found = stats.data_multiplier(SIZES, errors, errors, error, sizes_second=SIZES / factor, resamples=5)
    assert (found.estimate, found.low, found.high) == pytest.approx((factor,) * 3, rel=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 50), st.floats(0.01, 1000))
def test_units_of_sizes_and_errors_do_not_matter(seed, scale):
    a, b = pair(seed=seed)
    one = stats.data_multiplier(SIZES, a, b, resamples=60)
    other = stats.data_multiplier(SIZES * scale, 100 * a, 100 * b, resamples=60)
    for bound in ("estimate", "low", "high"):
        assert getattr(other, bound) == pytest.approx(getattr(one, bound), rel=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 50), st.floats(0.2, 0.75))
def test_methods_that_change_places_invert_it(seed, error):
    """At one error, bounds and all: at most becomes at least, the upper bound one over the lower."""
    a, b = pair(seed=seed)
    there, back = (stats.data_multiplier(SIZES, *ab, error, resamples=60) for ab in ((a, b), (b, a)))
    assert back.bound == {">": "<", "<": ">"}.get(there.bound, there.bound) and back.valid == there.valid
    assert back.censored == there.censored
    inverted = [1 / x if x else np.inf for x in (there.estimate, there.high, there.low)]
    assert [back.estimate, back.low, back.high] == pytest.approx(inverted, rel=1e-6, nan_ok=True)


@settings(max_examples=5)
@given(st.permutations(range(5)))
def test_the_order_of_seeds_does_not_matter_but_for_the_draws(order):
    a, b = pair()
    one, other = (stats.data_multiplier(SIZES, a[:, i], b[:, i], resamples=3000) for i in (range(5), list(order)))
    assert other.estimate == pytest.approx(one.estimate, rel=1e-9)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), rel=0.06)


def test_pairs_of_seeds_belong_together():
    """What a seed does to both methods cancels, unless their seeds are out of step."""
    rng = np.random.default_rng(0)
    shift = 0.04 * rng.normal(size=8)
    a, b = truth(SLOW)[:, None] + shift, truth(FAST)[:, None] + shift
    together, apart = (stats.data_multiplier(SIZES, a, x, resamples=500) for x in (b, b[:, ::-1]))
    assert together.high / together.low < 0.9 * apart.high / apart.low


def test_an_error_that_only_the_second_method_reaches_gives_a_lower_bound():
    a, b = same(truth(SLOW)), same(truth(FAST))
    found = stats.data_multiplier(SIZES, a, b, error=0.25, resamples=20)
    needed = size_of(FAST, 0.25)
    assert found.bound == ">" and found.censored == 1 and found.high == np.inf
    assert found.estimate == found.low == pytest.approx(5000 / needed, rel=0.03)
    assert not found.valid[0] <= 0.25 <= found.valid[1] and str(found).startswith("> ")


def test_a_second_method_that_is_ahead_from_the_first_size_on_gives_a_lower_bound():
    n = np.array([10.0, 100, 1000])
    found = stats.data_multiplier(n, same(np.array([0.9, 0.7, 0.5])), same(np.array([0.3, 0.2, 0.1])), resamples=20)
    assert (found.bound, found.estimate, found.low, found.high) == (">", 100, 100, np.inf) and found.valid is None


def test_a_second_method_that_never_gets_there_gives_an_upper_bound():
    n = np.array([10.0, 100, 1000])
    found = stats.data_multiplier(n, same(np.array([0.9, 0.7, 0.5])), same(np.array([0.9, 0.8, 0.7])), resamples=20)
    assert (found.bound, found.estimate, found.low, found.high) == ("<", 1, 0, 1)


def test_an_error_that_neither_reaches_says_nothing():
    found = stats.data_multiplier(SIZES, same(truth(SLOW)), same(truth(FAST)), error=0.01, resamples=20)
    assert (found.bound, found.low, found.high) == ("?", 0, np.inf) and np.isnan(found.estimate)
    assert str(found) == "unknown [0, inf]"


def test_a_method_against_itself_is_1():
    (a,) = noisy([truth(SLOW)], 5, np.random.default_rng(3))
    a[-1] = a[-2] + 0.01  # a dip: both end flat, at the pooled error, which the last size but one meets already
    found = stats.data_multiplier(SIZES, a, a, resamples=200)
    assert (found.estimate, found.low, found.high, found.bound) == (1, 1, 1, "")


def test_resamples_that_only_bound_it_count_on_both_sides():
    """Half of them say 2, half at least 3: the lower bound is a plain one, the upper is none."""
    least, most = np.array([2.0] + [2, 3] * 50), np.array([2.0] + [2, np.inf] * 50)
    found = bounded(least, most, 0.95, 5)
    assert (found.estimate, found.low, found.high, found.bound, found.censored) == (2, 2, np.inf, "", 0.5)
    rare = bounded(np.array([2.0] * 100 + [3]), np.array([2.0] * 100 + [np.inf]), 0.9, 5)
    assert (rare.low, rare.high) == (2, 2)


def test_one_seed_has_no_bounds():
    found = stats.data_multiplier(SIZES, *pair(seeds=1), resamples=20)
    assert found.estimate > 1 and np.isnan(found.low) and np.isnan(found.high) and found.n == 1


def test_same_seed_same_bits():
    first, second, other = (stats.data_multiplier(SIZES, *pair(), resamples=300, seed=s) for s in (1, 1, 2))
    assert first == second and first != other


@pytest.mark.parametrize("seeds", module.COVERAGE)
def test_coverage_is_what_the_file_says(seeds):
    """120 pairs each. The truth is that of the curves, so what interpolation errs by counts against the interval."""
    true = 5000 / size_of(FAST, truth(SLOW)[-1])
    hits = []
    for k in range(120):
        generator = np.random.default_rng([12, seeds, k])
        a, b, c = noisy([truth(SLOW), truth(FAST), truth(SLOW)], seeds, generator)
        options = {"resamples": 200, "seed": k}
        plain = stats.data_multiplier(SIZES, a, b, **options)
        wide = stats.data_multiplier(SIZES, a, b, level=stats.expanded(0.95, seeds), **options)
        equal = stats.data_multiplier(SIZES, a, c, **options)
        hits.append([holds(plain, true), holds(wide, true), holds(equal, 1)])
    for hit, share in zip(np.transpose(hits), module.COVERAGE[seeds], strict=True):
        assert agrees(hit, share)


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (np.ones((5, 3)), np.ones((5, 4)), {}, "give the columns of the seeds that both have"),
        (np.ones((5, 3)), np.ones((4, 3)), {}, "errors of shape .4, 3. for 5 sizes"),
        (np.ones((5, 3)), np.ones((5, 3)), {"error": np.nan}, "expected a finite one"),
        (np.ones((5, 3)), np.ones((5, 3)), {"level": 95}, "level is 95"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, options, message):
    with pytest.raises(ValueError, match=message):
        stats.data_multiplier(SIZES, first, second, resamples=10, **options)
