"""Summaries over tasks: by hand and by scipy, what leaves them unchanged, resamples within tasks, coverage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.planted_curves import agrees
from vpt_analysis import stats
from vpt_analysis.stats import aggregates

SCORES = arrays(np.float64, (4, 3), elements=st.floats(0, 1, width=16))
MEANS = np.array([0.3, 0.45, 0.5, 0.6, 0.8, 0.9])  # of six tasks, with the deviations of seeds
SPREADS = np.array([0.03, 0.02, 0.03, 0.02, 0.015, 0.01])


@settings(max_examples=30)
@given(SCORES)
def test_interquartile_mean_is_the_mean_of_the_middle_half(scores):
    found = stats.interquartile_mean(scores, resamples=20)
    assert found.estimate == pytest.approx(np.sort(scores.ravel())[3:-3].mean())


@settings(max_examples=30)
@given(SCORES, st.permutations(range(4)), st.permutations(range(3)))
def test_the_order_of_seeds_and_tasks_does_not_matter(scores, seeds, tasks):
    other = scores[list(seeds)][:, list(tasks)]
    for summary, options in (
        (stats.interquartile_mean, {}),
        (stats.performance_profile, {"thresholds": [0.2, 0.5]}),
    ):
        one, permuted = (summary(s, resamples=5, **options).estimate for s in (scores, other))
        assert permuted == pytest.approx(one)


def test_one_task_that_fails_does_not_move_the_interquartile_mean():
    scores = np.random.default_rng(0).uniform(0.5, 0.6, size=(5, 6))
    worse = scores.copy()
    worse[:, 0] -= 1
    before, after = (stats.interquartile_mean(s, resamples=10).estimate for s in (scores, worse))
    assert abs(before - after) < 0.02 < scores.mean() - worse.mean()


def test_a_resample_stays_within_tasks():
    """Runs of a task are all the same: nothing varies, though tasks are far apart."""
    scores = np.tile([0.1, 0.5, 0.9], (5, 1))
    mean = stats.interquartile_mean(scores)
    assert mean.low == mean.estimate == mean.high
    profile = stats.performance_profile(scores, np.array([0.0, 0.3, 0.7, 0.9]))
    np.testing.assert_allclose([profile.low, profile.estimate, profile.high], [[1, 2 / 3, 1 / 3, 0]] * 3)


def test_tasks_are_drawn_on_their_own():
    """Two tasks whose runs mirror each other: drawn together the middle would stay, drawn apart it moves."""
    column = np.array([0.1, 0.2, 0.3, 0.4])
    found = stats.interquartile_mean(np.stack([column, 1 - column], axis=1))
    assert found.low < found.estimate < found.high


def test_improvement_is_the_mann_whitney_statistic():
    first, second = np.random.default_rng(0).normal(size=(5, 3)).round(1), np.random.default_rng(1).normal(size=(7, 3))
    second = second.round(1)
    expected = np.mean([scipy.stats.mannwhitneyu(a, b).statistic / 35 for a, b in zip(first.T, second.T, strict=True)])
    there, back = stats.probability_of_improvement(first, second), stats.probability_of_improvement(second, first)
    assert there.estimate == pytest.approx(expected) and there.n == 5
    assert there.estimate + back.estimate == pytest.approx(1) and there.low < there.estimate < there.high


def test_improvement_of_resamples_is_counted_by_hand(monkeypatch):
    """The weights of draws against the runs themselves."""
    first, second = np.random.default_rng(2).normal(size=(2, 4, 3))
    draws = [aggregates._draws((4, 3), 30, np.random.default_rng(s)) for s in (0, 1)]
    left = iter(draws)
    monkeypatch.setattr(aggregates, "_draws", lambda *_: next(left))
    found = stats.probability_of_improvement(first, second, level=0.8)
    a, b = (np.take_along_axis(s[None], d, axis=1) for s, d in zip((first, second), draws, strict=True))
    wins = (a[:, :, None] > b[:, None]).mean(axis=(1, 2, 3))
    expected = np.quantile(wins[1:], [0.1, 0.9])
    np.testing.assert_allclose([found.estimate, found.low, found.high], [wins[0], *expected])


@settings(max_examples=30)
@given(SCORES)
def test_a_method_improves_on_itself_half_of_the_time(scores):
    assert stats.probability_of_improvement(scores, scores, resamples=5).estimate == pytest.approx(0.5)


def test_a_profile_falls_from_1_to_0():
    scores = np.random.default_rng(0).uniform(size=(5, 4))
    found = stats.performance_profile(scores, np.linspace(-0.1, 1, 23), resamples=100)
    assert found.estimate[0] == 1 and found.estimate[-1] == 0 and (np.diff(found.estimate) <= 0).all()
    assert (found.low <= found.estimate).all() and (found.estimate <= found.high).all()


@pytest.mark.parametrize("seeds", aggregates.COVERAGE)
def test_coverage_is_what_the_file_says(seeds):
    """120 data sets of two methods, of which one is 0.015 better; the truth of middle runs from 600,000 of them."""
    runs = MEANS + SPREADS * np.random.default_rng(0).normal(size=(100_000, 6))
    middle = scipy.stats.trim_mean(runs.ravel(), 0.25)
    thresholds = np.sort(np.add.outer([-0.5, 0, 0.5], np.zeros(6)) * SPREADS + MEANS, axis=None)
    profile = scipy.stats.norm.sf((thresholds[:, None] - MEANS) / SPREADS).mean(axis=1)
    improves = scipy.stats.norm.cdf(0.015 / np.sqrt(2) / SPREADS).mean()
    hits = []
    for k in range(120):
        generator = np.random.default_rng([14, seeds, k])
        common, *own = np.sqrt(0.5) * generator.normal(size=(3, seeds, 6))
        better, scores = (MEANS + shift + SPREADS * (common + x) for shift, x in zip((0.015, 0), own, strict=True))
        found = [
            stats.interquartile_mean(scores, resamples=200, seed=k),
            stats.performance_profile(scores, thresholds, resamples=200, seed=k),
            stats.probability_of_improvement(better, scores, resamples=200, seed=k),
        ]
        true = (middle, profile, improves)
        hits.append([np.mean((f.low <= t) & (t <= f.high)) for f, t in zip(found, true, strict=True)])
    for hit, share in zip(np.transpose(hits), aggregates.COVERAGE[seeds], strict=True):
        assert agrees(hit, share)


def test_one_seed_has_no_bounds_and_same_seeds_give_the_same_bits():
    scores = np.random.default_rng(0).uniform(size=(5, 4))
    single = stats.interquartile_mean(scores[:1])
    assert np.isfinite(single.estimate) and np.isnan(single.low) and np.isnan(single.high)
    first, second, other = (stats.interquartile_mean(scores, resamples=500, seed=s) for s in (1, 1, 2))
    assert first == second and first != other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.interquartile_mean(np.ones(3)), "expected .S, T.: seeds, tasks"),
        (lambda: stats.interquartile_mean(np.array([[np.nan, 1.0]])), "1 of 2 scores are not finite"),
        (lambda: stats.interquartile_mean(np.ones((2, 2)), level=95), "level is 95"),
        (lambda: stats.performance_profile(np.ones((2, 2)), 0.5), "expected .Q,. finite scores"),
        (lambda: stats.probability_of_improvement(np.ones((2, 2)), np.ones((2, 3))), "same tasks"),
        (lambda: stats.probability_of_improvement(np.ones((2, 2)), np.ones((2, 2)), level=0), "level is 0"),
    ],
)
def test_what_cannot_be_summed_up_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
