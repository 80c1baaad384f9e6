"""Intervals: their coverage by simulation, their agreement with scipy, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from vpt_analysis import stats
from vpt_analysis.stats import intervals


@pytest.mark.parametrize("n", stats.COVERAGE)
def test_coverage_is_what_the_docstring_says(n):
    """4,000 samples of a known mean, as columns. They share the resampling indices but not the values, so the share of
    hits has the binomial's error, below 0.007; for 3 the interval is the range, and 1 − 2·½³ is exact."""
    values = np.random.default_rng(1).normal(5.0, 2.0, size=(n, 4000))
    found = stats.bootstrap(values, resamples=1000, seed=2)
    hits = float(((found.low <= 5.0) & (found.high >= 5.0)).mean())
    assert hits == pytest.approx(stats.COVERAGE[n], abs=0.02)


def test_interval_is_scipys():
    values = np.random.default_rng(0).exponential(size=40)
    ours = stats.bootstrap(values, resamples=20_000)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", random_state=1)
    assert ours.estimate == pytest.approx(values.mean())
    for bound in ("low", "high"):
        assert getattr(ours, bound) == pytest.approx(getattr(theirs.confidence_interval, bound), abs=0.02)


def test_columns_share_their_resamples():
    """A column shifted and scaled has its interval shifted and scaled, to rounding: only so are layers comparable."""
    column = np.random.default_rng(0).normal(size=7)
    found = stats.bootstrap(np.stack([column, 3 * column + 1], axis=1))
    for part in (found.estimate, found.low, found.high):
        assert part[1] == pytest.approx(3 * part[0] + 1, rel=1e-12)


def test_many_columns_are_worked_off_in_pieces_with_the_same_result(monkeypatch):
    values = np.random.default_rng(0).normal(size=(5, 4))
    whole = stats.bootstrap(values)
    monkeypatch.setattr(intervals, "FEW", 100)
    pieces = stats.bootstrap(values)
    np.testing.assert_array_equal(whole.low, pieces.low)
    np.testing.assert_array_equal(whole.high, pieces.high)


def test_other_statistics_and_levels():
    values = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    assert stats.bootstrap(values, np.median).estimate == 2.0
    narrow, wide = (stats.bootstrap(values, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_median_has_the_bits_of_numpys(n):
    values = np.random.default_rng(n).normal(size=(30, n, 3))
    np.testing.assert_array_equal(intervals.median(values, axis=1), np.median(values, axis=1))
    np.testing.assert_array_equal(intervals.median(values, axis=2), np.median(values, axis=2))


def test_median_by_sorting_gives_the_interval_of_numpys():
    values = np.random.default_rng(0).exponential(size=(9, 2))
    ours, naive = (stats.bootstrap(values, m, resamples=500) for m in (np.median, lambda x, axis: np.median(x, axis)))
    np.testing.assert_array_equal([ours.low, ours.high], [naive.low, naive.high])


def test_pairs_take_out_what_both_share():
    rng = np.random.default_rng(0)
    common = 10 * rng.normal(size=6)
    first, second = (common + shift + 0.01 * rng.normal(size=6) for shift in (1.0, 0.0))
    found = stats.paired(first, second)
    apart = stats.bootstrap(first).high - stats.bootstrap(first).low
    assert 0.95 < found.low <= found.estimate <= found.high < 1.05 < apart


def test_same_seed_same_bits():
    values = np.random.default_rng(0).normal(size=(9, 2))
    first, second = stats.bootstrap(values, seed=3), stats.bootstrap(values, seed=3)
    assert first.low.tobytes() == second.low.tobytes() and first.high.tobytes() == second.high.tobytes()
    assert (stats.bootstrap(values, seed=4).low != first.low).any()


def test_one_value_has_no_bounds():
    found = stats.bootstrap(np.array([0.7]))
    assert found.estimate == 0.7 and np.isnan(found.low) and np.isnan(found.high) and found.n == 1


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "no values given"),
        ([1.0, np.nan], {}, "1 of 2 values are not finite"),
        ([1.0], {"level": 95}, "level is 95"),
    ],
)
def test_what_cannot_be_used_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        stats.bootstrap(np.array(values), **options)


def test_pairs_need_partners():
    with pytest.raises(ValueError, match="each value needs its partner"):
        stats.paired(np.zeros(3), np.zeros(4))
