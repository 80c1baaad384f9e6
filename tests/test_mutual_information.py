"""Mutual information on cases whose answer is known: independent, determined, and a Gaussian pair."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from vpt_analysis.probes import bias
from vpt_analysis.probes import mutual_information as mi


def noisy(n: int, classes: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Labels that are x but for the share ``noise``, drawn anew from all; and their information."""
    generator = np.random.default_rng(seed)
    y = generator.integers(classes, size=n)
    x = np.where(generator.random(n) < noise, generator.integers(classes, size=n), y)
    p = np.full((classes, classes), noise / classes**2) + np.eye(classes) * (1 - noise) / classes
    return x, y, (p * np.log(p * classes**2)).sum()


def test_the_plug_in_is_scikit_learn_s_and_chance_is_its_mean_over_pairings():
    x, y, _ = noisy(80, 5, 0.6, 0)
    found = mi.information(x, y, resamples=50)
    assert found.plug_in == pytest.approx(mutual_info_score(y, x), abs=1e-12)
    generator = np.random.default_rng(1)
    shuffled = [mutual_info_score(generator.permutation(y), x) for _ in range(200)]
    assert abs(found.chance - np.mean(shuffled)) < 4 * np.std(shuffled) / 200**0.5


def test_miller_madow_by_hand():
    x, y = np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1])
    found = mi.information(x, y, resamples=5)  # cells (0, 0), (1, 0), (1, 1): 2 + 2 - 3 - 1 = 0 over 10
    assert found.miller_madow == pytest.approx(found.plug_in, abs=1e-15)
    y = np.array([0, 1, 0, 1, 1])  # all 4 cells are occupied: -1 over 10
    found = mi.information(x, y, resamples=5)
    assert found.miller_madow == pytest.approx(found.plug_in - 0.1, abs=1e-15)


@pytest.mark.parametrize("n, classes", [(60, 2), (200, 10), (200, 30)])
def test_independent_pairs_have_none_where_the_plug_in_has_some(n, classes):
    found = [mi.information(*noisy(n, classes, 1.0, seed)[:2], resamples=49, seed=seed) for seed in range(40)]
    estimates = np.array([f.estimate for f in found])
    error = estimates.std() / 40**0.5
    assert abs(estimates.mean()) < 4 * error
    assert np.mean([f.plug_in for f in found]) > 3 * error
    assert np.mean([f.p_value <= 0.1 for f in found]) < 0.25  # exact: 0.1 on average
    assert np.mean([f.low <= 0 <= f.high for f in found]) > 0.85


def test_known_information_within_its_bias_and_its_interval():
    found, truth = [], 0.0
    for seed in range(20):
        x, y, truth = noisy(1000, 6, 0.5, seed)
        found.append(mi.information(x, y, resamples=100, seed=seed))
    assert abs(np.mean([f.estimate for f in found]) - truth) < 0.06 * truth
    assert np.mean([f.low <= truth <= f.high for f in found]) >= 0.75
    assert all(f.p_value == pytest.approx(1 / 101) for f in found)


def test_determined_constant_and_relabelled():
    y = np.arange(60) % 3
    found = mi.information(7 - 2 * y, y, resamples=50)
    assert found.estimate == pytest.approx(np.log(3), abs=1e-12) and found.share == pytest.approx(1, abs=1e-12)
    nothing = mi.information(np.zeros(60, int), y, resamples=50)
    assert abs(nothing.estimate) <= 1e-12 and nothing.p_value == 1
    x, y, _ = noisy(90, 4, 0.5, 3)
    a, b = (mi.information(*v, resamples=50, seed=2) for v in ((x, y), (np.array([9, 2, 5, 3])[x], 10 - y)))
    assert a.estimate == pytest.approx(b.estimate, abs=1e-12) and a.low == pytest.approx(b.low, abs=1e-9)
    assert a == mi.information(x, y, resamples=50, seed=2)


def test_clusters_of_planted_groups_and_of_rounding():
    groups = np.arange(40) % 4
    x = 10.0 * groups[:, None] + np.random.default_rng(0).normal(size=(40, 3))
    codes = mi.clustered(x, 4)
    assert mutual_info_score(codes, groups) == pytest.approx(np.log(4), abs=1e-12)
    assert np.array_equal(codes, mi.clustered(1e-5 * x[:, ::-1], 4))
    rounding = 1 + 1e-12 * np.random.default_rng(0).normal(size=(40, 3))
    assert (mi.clustered(rounding, 4) == 0).all() and (mi.clustered(np.zeros((40, 2)), 4) == 0).all()
    assert len(np.unique(mi.clustered(np.eye(3)[groups % 3], 5))) == 3


def test_the_bias_check_finds_bias_where_there_is_some():
    cases = bias.bias_check(300, classes=4, clusters=8, repeats=10, correlation=0.8)
    none, all_of_it, gaussian = (cases[k] for k in ("independent", "deterministic", "gaussian"))
    assert abs(none.mean) < 4 * none.error and none.truth == 0
    assert abs(all_of_it.mean - np.log(4)) < 0.02
    assert 0.8 * gaussian.truth < gaussian.mean < 1.05 * gaussian.truth  # what 8 clusters keep
    coarse = bias.bias_check(300, classes=4, clusters=2, repeats=10, correlation=0.8)
    assert coarse["gaussian"].mean < 0.8 * gaussian.mean and coarse["deterministic"].truth == np.log(2)


def test_the_gaussian_truth_grows_to_the_closed_form():
    for rho in (0.0, 0.5, 0.9):
        values = [bias.gaussian_information(rho, k) for k in (2, 10, 400)]
        assert (np.diff(values) > -1e-12).all()
        assert values[-1] == pytest.approx(-0.5 * np.log(1 - rho**2), abs=5e-3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: mi.information(np.zeros(3, int), np.zeros(4, int)), r"x has shape \(3,\), y \(4,\)"),
        (lambda: mi.information(np.zeros(3), np.zeros(3, int)), "x is float64"),
        (lambda: mi.information(np.arange(6), np.arange(6) % 2), "6 different x among 6 samples"),
        (lambda: mi.clustered(np.zeros((6, 1)), 4), "4 clusters of 6 samples"),
        (lambda: bias.bias_check(40, 2, 2, correlation=1.0), "correlation is 1.0"),
        (lambda: bias.bias_check(40, 1, 2), "1 classes and 30 repeats"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
