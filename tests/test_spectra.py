"""Singular values with their rounding, ranks and dimensions of known spectra; quadrature against solved systems."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vpt_analysis.probes import spectra


@pytest.mark.parametrize("shape", [(30, 9), (9, 30), (1100, 1030)])
def test_singular_values_and_their_rounding(shape):
    rng = np.random.default_rng(1)
    rank = 6
    low = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    s, error = spectra.singular_values(low)
    assert np.allclose(s[:rank], np.linalg.svd(low, compute_uv=False)[:rank])
    assert s[rank] <= error and spectra.rank(s, 0.0, error).value == rank


def test_ranks_dimensions_and_what_they_refuse():
    s = np.array([3.0, 1.0, 1e-4, 0.0])
    assert spectra.rank(s, 1e-2).value == 2 and spectra.rank(s, 1e-2).gap == pytest.approx(1e4)
    assert spectra.rank(s, 1e-6).value == 3 and spectra.rank(s, 1e-6).gap == math.inf
    assert spectra.rank(s, 1e-6, rounding=2.0).limit == "rounding"
    none = spectra.rank(np.zeros(3), 1e-6)
    assert none.value == 0 and math.isnan(none.above)
    assert spectra.participation_ratio(np.full(5, 1e-200)) == pytest.approx(5)
    assert math.isnan(spectra.participation_ratio(np.zeros(2)))
    for bad in (-1.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance is"):
            spectra.rank(s, bad)
    with pytest.raises(ValueError, match="ridge is 0"):
        spectra.effective_dimension(s, 0)
    with pytest.raises(ValueError, match="4 singular values of 4 columns"):
        spectra.largest(lambda v: v, 4, 4)


@pytest.mark.parametrize("steps", [2, 5, 12])
def test_quadrature_brackets_every_probe(steps):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 20)) * np.logspace(0, -3, 20)
    gram, z, ridges = a.T @ a, rng.choice([-1.0, 1.0], 20), np.array([1e-1, 1e-3, 1e-5])
    low, high = spectra.probe(lambda v: gram @ v, z, ridges, steps)
    want = [z @ gram @ z, z @ gram @ gram @ z]
    want += [z @ np.linalg.solve(gram + r * np.eye(20), gram @ z) for r in ridges]
    assert (np.array(low) <= np.array(want) * (1 + 1e-9)).all() and (np.array(high) * (1 + 1e-9) >= want).all()
    if steps == 12:
        assert high[2] - low[2] <= 1e-3 * high[2]


def test_quadrature_ends_where_the_space_does():
    low, high = spectra.probe(lambda v: 3.0 * v, np.ones(7), np.array([1.0]), 10)
    assert np.allclose(low, [21, 63, 7 * 0.75]) and np.allclose(high, low)
    energy, square, dimension = spectra.quadrature(lambda v: 3.0 * v, 7, [1.0])
    assert (energy.low, energy.high) == pytest.approx((21, 21)) and square.estimate == pytest.approx(63)
    assert dimension.estimate == pytest.approx([5.25])
