"""Learning curves: intervals, the falling curve, the law; coverage under the noise of seeds; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted_curves import SIZES, agrees, holds, noisy, truth
from vpt_analysis import stats
from vpt_analysis.stats import learning_curves
from vpt_analysis.stats.learning_curves import resampled_curves

AT, SEVEN = (0.2, 0.6, 0.4), np.geomspace(50, 5000, 7)


def test_an_exact_curve_gives_itself_and_its_law():
    found = stats.learning_curve(SIZES, np.stack([truth(AT)] * 3, axis=1), resamples=50)
    for part in (found.error.estimate, found.error.low, found.error.high, found.falling, found.law.at(SIZES)):
        np.testing.assert_allclose(part, truth(AT), rtol=1e-6)
    assert found.rise == 0 and found.law.exponent.estimate == pytest.approx(0.4, rel=1e-5)
    assert found.law.floor.estimate == pytest.approx(0.2, rel=1e-5) and found.law.goodness > 0.99


def test_a_curve_that_rises_says_by_how_much():
    errors = np.array([[0.5, 0.5], [0.2, 0.2], [0.3, 0.4]])
    found = stats.learning_curve([1, 2, 3], errors)
    assert found.rise == pytest.approx(0.15)
    np.testing.assert_allclose(found.falling, [0.5, 0.275, 0.275])


@pytest.mark.parametrize(("sizes", "errors"), [(3, 0.5), (4, 0.0)])
def test_no_law_of_three_sizes_or_of_zeros(sizes, errors):
    errors = np.vstack([np.full((sizes - 1, 2), 0.5), np.full((1, 2), errors)])
    assert stats.learning_curve(np.arange(1, sizes + 1), errors, resamples=10).law is None


def test_a_resample_has_the_same_seeds_at_all_sizes_and_in_all_methods():
    """Seed s has errors s + 1 at all sizes, so every resample has one mean at all sizes, and so in a second method."""
    errors = np.tile(np.arange(1.0, 5), (3, 1))
    values = resampled_curves([1, 2, 3], errors, 200, seed=0).values
    assert (np.ptp(values, axis=1) == 0).all() and np.ptp(values) > 1
    again = resampled_curves([1, 5], 10 * errors[:2], 200, seed=0).values
    np.testing.assert_allclose(again[:, 0], 10 * values[:, 0])
    assert (resampled_curves([1, 2, 3], errors, 200, seed=1).values != values).any()


@pytest.mark.parametrize("seeds", learning_curves.COVERAGE)
def test_coverage_is_what_the_file_says(seeds):
    """200 curves: all sizes count for the error, though they are no independent cases."""
    generator = np.random.default_rng([11, seeds])
    curves = np.stack([noisy([truth(AT, SEVEN)], seeds, generator)[0] for _ in range(200)], axis=2)  # (K, S, 200)
    error, floor, exponent = learning_curves.COVERAGE[seeds]
    means = stats.bootstrap(curves.transpose(1, 0, 2), resamples=400)
    assert agrees(holds(means, truth(AT, SEVEN)[:, None])[0], error)
    law = stats.power_law(SEVEN, curves, resamples=150)
    assert agrees(holds(law.floor, AT[0]), floor) and agrees(holds(law.exponent, AT[2]), exponent)


def test_intervals_are_those_of_bootstrap_and_power_law():
    """The pieces whose coverage is measured above, as ``learning_curve`` puts them together."""
    (errors,) = noisy([truth(AT)], 5, np.random.default_rng(0))
    found = stats.learning_curve(SIZES, errors, resamples=60, level=0.9, seed=3)
    expected = stats.bootstrap(errors.T, resamples=60, level=0.9, seed=3)
    np.testing.assert_array_equal([found.error.low, found.error.high], [expected.low, expected.high])
    law = stats.power_law(SIZES, errors, resamples=60, level=0.9, seed=3)
    assert found.law == law


@pytest.mark.parametrize(
    ("sizes", "errors", "message"),
    [
        ([1], np.ones((1, 2)), "K >= 2"),
        ([1, 1], np.ones((2, 2)), "each once, smallest first"),
        ([0, 1], np.ones((2, 2)), "expected positive ones"),
        ([1, 2], np.ones((3, 2)), "expected .K, S.: sizes, seeds"),
        ([1, 2], np.ones(2), "expected .K, S.: sizes, seeds"),
        ([1, 2], np.array([[1, np.nan], [1, 1]]), "1 of 4 errors are not finite"),
    ],
)
def test_what_is_no_learning_curve_is_refused(sizes, errors, message):
    with pytest.raises(ValueError, match=message):
        stats.learning_curve(sizes, errors)
