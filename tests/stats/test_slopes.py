"""Slopes on log-log axes: exact ones, what leaves them unchanged, coverage, and how often a curve is called bent."""

from __future__ import annotations

import numpy as np
import pytest

from vpt_analysis import stats
from vpt_analysis.stats import slopes

N = np.geomspace(1e2, 1e5, 7)
CURVES = {"line": N**-0.5, "floor": 0.02 + N**-0.5, "late": 0.003 + 1 / (1 + N / 1000)}


def noisy(curve: np.ndarray, replicates: int = 40, columns: int = 400, spread: float = 0.7, seed: int = 0):
    """(S, R, columns): log-normal around ``curve`` (S,), which is their median."""
    noise = np.random.default_rng(seed).normal(size=(len(curve), replicates, columns))
    return curve[:, None, None] * np.exp(spread * noise)


@pytest.mark.parametrize("n", [[10, 30, 1000], [1, 2, 3, 5, 8], np.geomspace(1e2, 1e5, 7)])
@pytest.mark.parametrize("exponent", [-2.0, -0.25, 0.0, 1.5])
def test_an_exact_power_law_has_its_exponent_everywhere(n, exponent):
    n = np.array(n, dtype=float)
    found = stats.loglog_slope(n, np.stack([7 * n**exponent] * 3, axis=1), resamples=50)
    for part in (found.estimate, found.low, found.high, found.local.estimate, found.local.low, found.local.high):
        assert part == pytest.approx(exponent, abs=1e-12)
    assert found.curvature.estimate == pytest.approx(0, abs=1e-12)
    assert found.residual < 1e-12 and found.change < 1e-11 and found.straight is True


def test_estimates_are_polyfits():
    """numpy's least squares, of which ours takes one coefficient each: x², and x³ of a fit with all four."""
    values = noisy(CURVES["floor"], columns=1)[..., 0]
    found, x, y = stats.loglog_slope(N, values, np.mean, resamples=9), np.log(N), np.log(values.mean(1))
    assert found.estimate == pytest.approx(np.polyfit(x, y, 1)[0], rel=1e-12)
    assert found.curvature.estimate == pytest.approx(np.polyfit(x - x.mean(), y, 2)[0], rel=1e-9)
    assert found.cubic.estimate == pytest.approx(np.polyfit(x - x.mean(), y, 3)[0], rel=1e-9)
    assert found.residual == pytest.approx(np.abs(y - np.polyval(np.polyfit(x, y, 1), x)).max(), rel=1e-12)


def test_bounds_are_those_of_a_loop_over_resamples():
    values, generator, found = noisy(CURVES["line"], 5, 1)[..., 0], np.random.default_rng(3), []
    drawn = [generator.integers(5, size=(200, 5)) for _ in N]  # at each size on its own
    for b in range(200):
        medians = [np.median(values[i, drawn[i][b]]) for i in range(len(N))]
        found.append(np.polyfit(np.log(N), np.log(medians), 1)[0])
    ours = stats.loglog_slope(N, values, resamples=200, seed=3)
    np.testing.assert_allclose([ours.low, ours.high], np.quantile(found, [0.025, 0.975]), rtol=1e-10)


@pytest.mark.parametrize(("shape", "turn"), [(0, 2.0), (1, 3.0)])
def test_change_is_what_the_shape_does_to_the_local_slope(shape, turn):
    """y = −x/2 + q x² on centred x turns by 2 q (x_max − x_min); y = −x/2 + q x³ by 3 q x_max²."""
    x = np.log(N) - np.log(N).mean()
    curve = np.exp(-x / 2 + 0.01 * x ** (2 + shape))
    found = stats.loglog_slope(N, np.stack([curve] * 2, axis=1), resamples=9)
    assert found.change == pytest.approx(0.01 * turn * (np.ptp(x) if shape == 0 else x.max() ** 2), rel=1e-9)
    assert [found.curvature, found.cubic][shape].estimate == pytest.approx(0.01, rel=1e-9)


def test_units_move_no_slope():
    values = noisy(CURVES["floor"], columns=2)
    one, other = stats.loglog_slope(N, values, resamples=99), stats.loglog_slope(N / 640, 1e9 * values, resamples=99)
    for part in ("estimate", "low", "high", "residual", "change"):
        np.testing.assert_allclose(getattr(one, part), getattr(other, part), rtol=1e-9)
    np.testing.assert_allclose(one.curvature.low, other.curvature.low, rtol=1e-9)
    np.testing.assert_allclose(one.local.high, other.local.high, rtol=1e-9)


@pytest.fixture(scope="module")
def rates() -> dict[str, float]:
    found = {name: stats.loglog_slope(N, noisy(curve), resamples=500, seed=1) for name, curve in CURVES.items()}
    line = found["line"]
    return {"coverage": ((line.low <= -0.5) & (line.high >= -0.5)).mean()} | {
        name: (~slope.straight).mean() for name, slope in found.items()
    }


@pytest.mark.parametrize("name", slopes.RATES)
def test_rates_are_what_the_file_says(rates, name):
    """400 data sets: the binomial's error is 0.01 at 0.96 and 0.025 at 0.54; 3 of them, and what 500 resamples add."""
    assert rates[name] == pytest.approx(slopes.RATES[name], abs=0.1 if name == "floor" else 0.035)


def test_curves_that_are_no_lines_are_found_with_more_replicates_and_small_bends_are_let_pass():
    for name in ("floor", "late"):
        assert not stats.loglog_slope(N, noisy(CURVES[name], 200, 50), np.mean, resamples=200).straight.any()
    x = np.log(N) - np.log(N).mean()
    slight = np.exp(-x / 2 + 0.005 * x**2)  # turns the slope by 0.07: clear, with so little noise, but not large
    found = stats.loglog_slope(N, noisy(slight, 200, 50, spread=0.01), resamples=200)
    assert (found.curvature.low > 0).all() and found.straight.all()


def test_the_two_shapes_share_the_error():
    values = noisy(CURVES["line"], 10, 1)[..., 0]
    three, seven = stats.loglog_slope(N[:3], values[:3]), stats.loglog_slope(N, values)
    assert three.cubic is None
    drawn = slopes.statistics(values, np.median, 10_000, 0.95, 0)[1]
    x = np.log(N) - np.log(N).mean()
    for found, size, level in ((three, 3, 0.95), (seven, 7, 0.975)):
        xs = x[:size] - x[:size].mean()
        coefficients = np.polyfit(xs, np.log(drawn[:, :size]).T, 2)[0]
        bounds = np.quantile(coefficients, [(1 - level) / 2, (1 + level) / 2])
        np.testing.assert_allclose([found.curvature.low, found.curvature.high], bounds, rtol=1e-8)


def test_columns_are_slopes_of_their_own():
    values = noisy(CURVES["floor"], 6, 4).reshape(7, 6, 2, 2)
    found, alone = stats.loglog_slope(N, values, resamples=99), stats.loglog_slope(N, values[..., 1, 0], resamples=99)
    assert found.estimate.shape == found.straight.shape == (2, 2) and found.local.low.shape == (6, 2, 2)
    assert found.high[1, 0] == pytest.approx(alone.high, rel=1e-12)
    assert found.cubic.low[1, 0] == pytest.approx(alone.cubic.low, rel=1e-9)


def test_same_seed_same_bits_and_one_replicate_has_no_bounds():
    values = noisy(CURVES["line"], 4, 2)
    first, second = (stats.loglog_slope(N, values, resamples=50, seed=5) for _ in range(2))
    assert (
        first.low.tobytes() == second.low.tobytes()
        and first.curvature.high.tobytes() == second.curvature.high.tobytes()
    )
    assert (stats.loglog_slope(N, values, resamples=50, seed=6).low != first.low).any()
    single = stats.loglog_slope(N, CURVES["floor"][:, None])
    assert np.isnan([single.low, single.high, single.curvature.low]).all() and single.straight is False
    assert stats.loglog_slope(N, CURVES["line"][:, None]).straight is True


@pytest.mark.parametrize(
    ("n", "values", "options", "message"),
    [
        ([1, 2], np.ones((2, 3)), {}, "expected .S,. with S >= 3"),
        ([1, 3, 2], np.ones((3, 3)), {}, "smallest first"),
        ([0, 1, 2], np.ones((3, 3)), {}, "expected positive ones"),
        ([1, 2, 3], np.ones((4, 3)), {}, "values of shape .4, 3. for 3 sizes"),
        ([1, 2, 3], np.ones(3), {}, "expected .S, R, ....: sizes, replicates"),
        ([1, 2, 3], [[1, 1], [1, 0], [1, 1]], {}, r"1 of 6 values are zero.* at sizes number \[1\]"),
        ([1, 2, 3], [[1, -1], [1, 1], [np.nan, 1]], {}, r"2 of 6 values .* at sizes number \[0, 2\]"),
        ([1, 2, 3], np.ones((3, 2)), {"level": 95}, "level is 95"),
    ],
)
def test_what_has_no_slope_is_refused(n, values, options, message):
    with pytest.raises(ValueError, match=message):
        stats.loglog_slope(np.array(n), np.array(values), **options)
