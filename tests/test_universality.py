"""The constructed head: against its formula, its bound, and functions that it must approximate."""

from __future__ import annotations

import numpy as np
import pytest

from vpt_analysis.probes import universality as u
from vpt_analysis.stats.slopes import loglog_slope


def on_sphere(m: int, n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, m + 1))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("m", [1, 2])
def test_the_head_with_its_prompt_is_the_smoother_of_the_formula(m):
    x, points, beta = on_sphere(m, 20), u.sphere_points(m, 9), 3.0
    values = np.random.default_rng(1).standard_normal((9, 2))
    weights = np.exp(beta * x @ points.T)
    by_hand = weights @ values / (1 + weights.sum(1, keepdims=True))  # the 1 is the content
    found = u.answer(u.head(m, beta, values=2), u.prompt_tokens(points, values), x)
    np.testing.assert_allclose(found, by_hand, atol=1e-13)
    gates = u.gates(u.head(m, beta), points, x)
    np.testing.assert_allclose(gates, weights / (1 + weights.sum(1, keepdims=True)), atol=1e-14)


def test_without_a_prompt_the_head_gives_0():
    x = on_sphere(1, 4)
    none = u.prompt_tokens(np.zeros((0, 2)), np.zeros((0, 1)))
    np.testing.assert_array_equal(u.answer(u.head(1, 5.0), none, x), 0)


@pytest.mark.parametrize(("m", "length"), [(1, 5), (1, 16), (2, 12), (2, 60)])
def test_covering_radius_is_the_farthest_distance_to_the_points(m, length):
    points = u.sphere_points(m, length)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-12)
    dense = on_sphere(m, 20_000)
    farthest = np.sqrt((2 - 2 * (dense @ points.T).max(1)).max())
    radius = u.covering_radius(points)
    assert farthest <= radius <= 1.05 * farthest


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("length", [8, 32, 128])
def test_measured_errors_keep_below_the_bound(m, length):
    functions = [u.random_waves(m, seed, frequency=f) for seed in range(4) for f in (0.3, 2.0)]
    for width in (0.5, 8.0):
        for f, found in zip(functions, u.approximate(m, length, functions, 1000, width=width), strict=True):
            assert 0 < found.largest <= found.bound <= 2 * f.size


def test_the_bound_counts_points_far_away():
    """A kernel that is wide for a wave of high frequency: errors come from far points, not from the covering radius."""
    wave = u.Waves(np.array([1.0]), np.array([[12.0, 0.0]]), np.zeros(1))
    x, points, beta = on_sphere(1, 500), u.sphere_points(1, 256), 5.0
    found = u.answer(u.head(1, beta), u.prompt_tokens(points, wave(points)[:, None]), x)[:, 0]
    largest = np.abs(found - wave(x)).max()
    near = wave.lipschitz * u.covering_radius(points) + wave.size * np.exp(-beta)
    assert 2 * near < largest <= u.bound(wave, points, beta)
    gates, chords = u.gates(u.head(1, beta), points, x), np.linalg.norm(x[:, None] - points, axis=2)
    for r in (0.3, 1.0, 1.7):
        far = (gates * (chords > r)).sum(1).max()
        assert far <= 256 * np.exp(-beta * (r**2 - u.covering_radius(points) ** 2) / 2)


def test_the_bound_says_something_and_falls():
    f = u.random_waves(1, 0, frequency=0.5)
    bounds = [u.bound(f, u.sphere_points(1, p), 8 / u.covering_radius(u.sphere_points(1, p)) ** 2) for p in (64, 512)]
    assert bounds[1] < 0.2 * bounds[0] and bounds[0] < f.size


def test_constants_of_functions_bound_them():
    f = u.random_waves(2, 3)
    x, y = on_sphere(2, 500), on_sphere(2, 500, seed=1)
    assert np.abs(f(x)).max() <= f.size
    assert (np.abs(f(x) - f(y)) <= f.lipschitz * np.linalg.norm(x - y, axis=1)).all()
    one = u.Waves(np.array([2.0]), np.zeros((1, 3)), np.zeros(1))  # the constant 2
    np.testing.assert_allclose(one(x), 2.0)
    assert one.lipschitz == 0
    (found,) = u.approximate(2, 20, [one], 500)
    lost = 1 / (1 + np.exp(found.beta * on_sphere(2, 500) @ u.sphere_points(2, 20).T).sum(1))
    assert found.largest == pytest.approx(2 * lost.max(), rel=0.3)  # the content's mass, and nothing else


def test_errors_fall_with_the_length_as_the_bias_of_the_smoother():
    lengths = np.array([32, 64, 128, 256])
    functions = [u.random_waves(1, seed) for seed in range(3)]
    found = [u.approximate(1, int(p), functions, 1200) for p in lengths]
    slope = loglog_slope(lengths, np.array([[a.sampled for a in row] for row in found]), resamples=100)
    assert slope.estimate == pytest.approx(-2, abs=0.1)
    for row in found:
        assert all(a.fitted < 0.1 * a.sampled for a in row)


def test_bad_input_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="m = 1 or 2"):
        u.sphere_points(3, 10)
    with pytest.raises(ValueError, match="at least 3 points"):
        u.sphere_points(1, 2)
    with pytest.raises(ValueError, match="surround 0"):
        u.covering_radius(np.array([[1.0, 0], [0, 1], [0.6, 0.8]]))
    with pytest.raises(ValueError, match="at least 4 a prompt"):
        u.approximate(1, 100, [u.random_waves(1, 0)], inputs=50)
