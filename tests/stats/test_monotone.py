"""Falling curves: scipy's isotonic regression and PCHIP, inverses, and how near interpolated sizes are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from tests.planted_curves import size_of, truth
from vpt_analysis.stats.monotone import Curves, falling

MEANS = arrays(np.float64, (3, 6), elements=st.floats(0, 1, width=32))


@given(MEANS)
def test_falling_is_scipys_isotonic_regression(means):
    expected = np.stack([isotonic_regression(row, increasing=False).x for row in means])
    np.testing.assert_allclose(falling(means), expected, atol=1e-12)


@given(MEANS)
def test_what_falls_is_left_as_it_is(means):
    ordered = -np.sort(-means, axis=1)
    np.testing.assert_array_equal(falling(ordered), ordered)
    assert (np.diff(falling(means), axis=1) <= 1e-15).all()


def test_curves_are_scipys_pchip_each_at_its_own_point():
    n, rng = np.array([10.0, 40, 90, 700]), np.random.default_rng(0)
    curves = Curves.through(n, rng.uniform(size=(20, 4)))
    at = rng.uniform(np.log(10), np.log(700), size=20)
    expected = [float(PchipInterpolator(np.log(n), row)(x)) for row, x in zip(curves.values, at, strict=True)]
    np.testing.assert_allclose(curves.at(at), expected, rtol=1e-12)
    for size, values in zip(n, curves.values.T, strict=True):
        np.testing.assert_allclose(curves.at(np.full(20, np.log(size))), values, atol=1e-15)


@given(MEANS, st.floats(0.01, 0.99))
def test_needed_is_the_first_size_that_meets_the_error(means, share):
    curves = Curves.through(np.geomspace(10, 1000, 6), means)
    error = curves.values[:, -1] + share * (curves.values[:, 0] - curves.values[:, -1])
    least, most = curves.needed(error)
    np.testing.assert_array_equal(least, most)
    np.testing.assert_allclose(curves.at(np.log(least)), error, atol=1e-9)
    before = np.maximum(least * (1 - 1e-6), 10)
    assert (curves.at(np.log(before)) >= error - 1e-12).all()


def test_errors_at_sizes_need_these_sizes_and_errors_outside_only_bound_them():
    curves = Curves.through(np.array([10.0, 100, 1000]), np.array([[0.5, 0.3, 0.3]]))
    for error, expected in [(0.5, (10, 10)), (0.3, (100, 100)), (0.6, (0, 10)), (0.2, (1000, np.inf))]:
        assert tuple(float(bound[0]) for bound in curves.needed(error)) == pytest.approx(expected)


@pytest.mark.parametrize(("ratio", "sizes", "expected"), [(np.sqrt(10), 6, 0.02), (10, 4, 0.16)])
def test_interpolated_sizes_are_as_near_as_the_docstring_says(ratio, sizes, expected):
    """The middle 90 % of sizes, on curves of many shapes; chords are further off, and to one side."""
    n, cubic, chord = 50 * ratio ** np.arange(sizes), [], []
    for exponent in (0.2, 0.35, 0.5, 0.7, 1.0):
        for floor in (0, 0.05, 0.2, 0.4):
            at = (floor, 0.9 - floor, exponent)
            true = np.geomspace(n[0], n[-1], 40)[1:-1]
            errors = truth(at, true)
            np.testing.assert_allclose(size_of(at, errors), true, rtol=1e-9)
            cubic.append(Curves(n, np.tile(truth(at, n), (38, 1))).needed(errors)[0] / true - 1)
            chord.append(np.exp(np.interp(-errors, -truth(at, n), np.log(n))) / true - 1)
    low, high = np.quantile(cubic, [0.05, 0.95])
    assert max(-low, high) == pytest.approx(expected, abs=0.005)
    assert np.min(chord) > -1e-9 and np.quantile(chord, 0.95) > 4 * expected
