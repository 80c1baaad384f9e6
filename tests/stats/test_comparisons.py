"""Comparisons: scipy's tests, all signs by hand, known corrections, levels held under the null, what is refused."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vpt_analysis import stats
from vpt_analysis.stats import comparisons

P = arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1))


def test_holm_on_a_known_example():
    """By hand: 0.005·4, 0.01·3, then 0.03·2 and 0.04·1, the last raised to the one before it."""
    p = np.array([[0.04, 0.01], [0.03, 0.005]])
    np.testing.assert_allclose(stats.holm(p), [[0.06, 0.03], [0.06, 0.02]])
    np.testing.assert_allclose(stats.holm(np.array([0.9, 0.8])), 1)


def test_benjamini_hochberg_on_the_example_of_their_paper():
    """15 p-values, of which 4 are found at 0.05 (and 3 by Holm)."""
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
                  0.6528, 0.7590, 1.0])  # fmt: skip
    assert (stats.benjamini_hochberg(p) <= 0.05).sum() == 4 and (stats.holm(p) <= 0.05).sum() == 3
    assert stats.benjamini_hochberg(p)[3] == pytest.approx(0.0095 * 15 / 4)


@given(P)
def test_holm_steps_down_as_its_definition_says(p):
    """Rejected at a level: from the smallest on, until one is above level / (number left)."""
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for left, at in zip(range(p.size, 0, -1), np.argsort(p, kind="stable"), strict=True):
            if p[at] * left > level:
                break
            rejected.add(int(at))
        assert set(np.flatnonzero(stats.holm(p) <= level)) == rejected


@given(P, st.randoms(use_true_random=False))
def test_corrections_do_not_look_at_the_order_and_only_raise(p, random):
    order = list(range(p.size))
    random.shuffle(order)
    for correction in (stats.holm, stats.benjamini_hochberg):
        np.testing.assert_allclose(correction(p[order]), correction(p)[order])
        assert (correction(p) >= p * (1 - 1e-12)).all()
    assert (stats.benjamini_hochberg(p) <= stats.holm(p) * (1 + 1e-12)).all()


def test_t_is_scipys_of_pairs():
    first, second = np.random.default_rng(0).normal(size=(2, 5, 3, 4))
    np.testing.assert_allclose(stats.t_test(first - second), scipy.stats.ttest_rel(first, second).pvalue, rtol=1e-12)


def test_differences_without_spread_have_the_limits_of_t():
    differences = np.stack([np.zeros(5), np.full(5, 0.1), np.array([1.0, 2, 3, 4, 5])], axis=1)
    np.testing.assert_allclose(stats.t_test(differences), [1, 0, 0.0132], atol=1e-4)


@pytest.mark.parametrize("seeds", [2, 5, 8])
def test_sign_flips_are_all_signs_by_hand(seeds):
    differences = np.random.default_rng(seeds).normal(0.5, 1, size=(seeds, 6)).round(1)
    signs = np.array(list(product([-1, 1], repeat=seeds)))
    means = np.abs(signs @ differences)
    expected = (means >= np.abs(differences.sum(axis=0)) - 1e-9).mean(axis=0)
    np.testing.assert_allclose(stats.sign_flips(differences), expected)


@pytest.mark.parametrize("seeds", [3, 5, 6])
def test_the_least_sign_test_is_2_to_the_1_less_seeds(seeds):
    assert stats.sign_flips(np.arange(1.0, seeds + 1)) == 2.0 ** (1 - seeds)


def test_many_seeds_draw_their_signs():
    differences = np.random.default_rng(0).normal(0.4, 1, size=30)
    exact_enough = stats.sign_flips(differences)
    assert exact_enough == pytest.approx(stats.t_test(differences[:, None])[0], abs=0.02)
    assert stats.sign_flips(differences, seed=1) == pytest.approx(exact_enough, abs=0.02)


@pytest.mark.parametrize("seeds", [5, 10])
def test_levels_hold_where_methods_do_not_differ(seeds):
    """2,000 comparisons of equal methods: t rejects at its level, signs at it or below, as their steps allow."""
    differences = np.random.default_rng(seeds).normal(size=(seeds, 2000))
    assert (stats.t_test(differences) <= 0.05).mean() == pytest.approx(0.05, abs=0.015)
    for level in (0.05, 0.125):
        allowed = np.floor(level * 2 ** (seeds - 1)) / 2 ** (seeds - 1)
        assert (stats.sign_flips(differences) <= level).mean() == pytest.approx(allowed, abs=0.02)


def test_families_hold_their_levels_together():
    """12 true nulls a family, 400 families: Holm finds anything at all in 5 % of them, uncorrected tests in 46 %."""
    p = stats.t_test(np.random.default_rng(4).normal(size=(5, 400, 12)))
    corrected = np.stack([stats.holm(family) for family in p])
    assert (corrected.min(axis=1) <= 0.05).mean() == pytest.approx(0.05, abs=0.035)
    assert (p.min(axis=1) <= 0.05).mean() == pytest.approx(0.46, abs=0.08)


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    """6 seeds, 3 tasks: one method 3 points better everywhere, one equal; seeds move all methods alike."""
    rng = np.random.default_rng(1)
    common = 0.7 + 0.05 * rng.normal(size=(6, 3))
    return {name: common + shift + 0.004 * rng.normal(size=(6, 3)) for name, shift in
            {"vpt": 0.0, "better": 0.03, "equal": 0.0}.items()}  # fmt: skip


def test_every_method_is_compared_on_every_task_and_on_all(scores):
    rows = stats.compare(scores, "vpt", ["a", "b", "c"])
    assert [(row.method, row.task) for row in rows] == [
        *(("better", task) for task in "abc"), *(("equal", task) for task in "abc"), ("better", "all"), ("equal", "all")
    ]  # fmt: skip
    for row in rows:
        if row.method == "better":
            assert row.difference.low > 0.015 and row.t_adjusted < 0.01
            assert row.difference.estimate == pytest.approx(0.03, abs=0.01)
        else:
            assert row.t_adjusted > 0.05 and abs(row.difference.estimate) < 0.01
    single = next(row for row in rows if (row.method, row.task) == ("better", "b"))
    expected = stats.paired(scores["better"][:, 1], scores["vpt"][:, 1])
    assert single.difference.low == pytest.approx(expected.low, abs=1e-3)
    assert single.signs == 1 / 32 and single.signs_adjusted == pytest.approx(6 / 32)  # six seeds are too few for six


def test_over_all_tasks_seeds_are_means_and_signs_are_runs(scores):
    better = stats.compare(scores, "vpt", list("abc"))[6]
    assert (better.method, better.task) == ("better", "all")
    differences = scores["better"] - scores["vpt"]
    assert better.t == pytest.approx(scipy.stats.ttest_1samp(differences.mean(1), 0).pvalue)
    assert better.signs == pytest.approx(2 / 10_000) and better.t_adjusted == pytest.approx(2 * better.t)


def test_the_other_correction_and_one_task(scores):
    one = {name: values[:, :1] for name, values in scores.items()}
    rows = stats.compare(one, "vpt", ["a"], correction=stats.benjamini_hochberg)
    assert [row.task for row in rows] == ["a", "a"]
    np.testing.assert_allclose([row.t_adjusted for row in rows], stats.benjamini_hochberg([row.t for row in rows]))


def test_same_seed_same_rows(scores):
    first, second = (stats.compare(scores, "vpt", list("abc"), seed=2) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "lora"}, "reference 'lora' and methods"),
        ({"tasks": ["a"]}, "expected .S, 1. for all"),
        ({"scores": {"vpt": np.ones((6, 3)), "other": np.ones((5, 3))}}, "expected .S, 3. for all"),
        ({"scores": {"vpt": np.ones((1, 3)), "other": np.ones((1, 3))}}, "S >= 2 seeds"),
        (
            {"scores": {"vpt": np.ones((6, 3)), "other": np.full((6, 3), np.nan)}},
            "scores of .'other'. are not",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(scores, change, message):
    with pytest.raises(ValueError, match=message):
        stats.compare(**({"scores": scores, "reference": "vpt", "tasks": list("abc")} | change))


@pytest.mark.parametrize("p", [[], [0.5, 1.2], [np.nan]])
def test_what_is_no_probability_is_refused(p):
    for correction in (comparisons.holm, comparisons.benjamini_hochberg):
        with pytest.raises(ValueError, match="all between 0 and 1"):
            correction(np.array(p))
