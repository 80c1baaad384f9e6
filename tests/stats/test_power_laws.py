"""Power laws with a floor: exact ones, scipy's fits of the same curves, coverage, and what cannot be known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit, least_squares

from vpt_analysis import stats
from vpt_analysis.stats import power_laws

N = np.geomspace(1e2, 1e5, 7)
CURVES = {"ends": (0.02, 3.0, 0.5), "falls": (0.0, 1.0, 0.5), "flat": (0.3, 0.0, 1.0)}


def risk(floor, scale, exponent, n=N):
    return floor + scale * n**-exponent


def noisy(curve: np.ndarray, replicates: int = 40, columns: int = 200, spread: float = 0.5, seed: int = 0):
    """(S, R, columns): log-normal around ``curve`` (S,), which is their mean."""
    noise = np.random.default_rng(seed).normal(size=(len(curve), replicates, columns))
    return curve[:, None, None] * np.exp(spread * noise - spread**2 / 2)


def holds(found: stats.Interval, truth: float) -> np.ndarray:
    return (found.low <= truth * (1 + 1e-12)) & (found.high >= truth * (1 - 1e-12))


@pytest.mark.parametrize(
    "truth",
    [(0.02, 3, 0.5), (0.003, 1, 1), (1e-4, 2, 0.5), (1e-6, 1, 0.25), (0.2, 1, 0.1), (0.5, 4, 2), (0, 1, 0.5)],
)
def test_an_exact_curve_gives_its_parameters(truth):
    found = stats.power_law(N, np.stack([risk(*truth)] * 2, axis=1), resamples=20)
    for part, true in zip((found.floor, found.scale, found.exponent), truth, strict=True):
        for bound in (part.estimate, part.low, part.high):
            assert bound == pytest.approx(true, rel=1e-6, abs=1e-12)
    assert found.identified is True and found.floor_identified is True and found.residual < 1e-12 < found.goodness
    np.testing.assert_allclose(found.at(N), risk(*truth), rtol=1e-9)


def reference(y: np.ndarray, errors: np.ndarray, start) -> np.ndarray:
    """scipy's (floor, scale, exponent) for log-means ``y`` (S,)."""
    return curve_fit(
        lambda n, f, c, b: np.log(f + c * n**-b), N, y, p0=start, sigma=errors, absolute_sigma=True,
        bounds=([0, 0, 0.05], [np.inf, np.inf, 5]), x_scale=start, ftol=1e-14, xtol=1e-14, gtol=1e-14,
    )[0]  # fmt: skip


def test_estimates_and_bounds_are_those_of_scipys_curve_fit_in_a_loop():
    values, generator = noisy(risk(*CURVES["ends"]), 30, 1)[..., 0], np.random.default_rng(5)
    drawn = [generator.integers(30, size=(60, 30)) for _ in N]
    again = np.log([[values[i, drawn[i][b]].mean() for i in range(len(N))] for b in range(60)])
    errors = again.std(0) * np.sqrt(30 / 29)
    theirs = np.stack([reference(y, errors, CURVES["ends"]) for y in (np.log(values.mean(1)), *again)])
    ours = stats.power_law(N, values, resamples=60, seed=5)
    for k, part in enumerate((ours.floor, ours.scale, ours.exponent)):
        low, high = np.quantile(theirs[1:, k], [0.025, 0.975])
        np.testing.assert_allclose([part.estimate, part.low, part.high], [theirs[0, k], low, high], rtol=2e-4)


def test_no_start_of_scipys_finds_a_lower_sum_of_squares():
    """40 curves with floors from none to most of the last value, uneven weights: 12 starts each."""
    rng = np.random.default_rng(0)
    truths = zip(rng.uniform(0, 0.02, 40), rng.uniform(0.5, 3, 40), rng.uniform(0.2, 1.5, 40), strict=True)
    y = np.log(np.stack([risk(*truth) for truth in truths], axis=1)) + 0.1 * rng.normal(size=(7, 40))
    errors = 0.1 * rng.uniform(0.5, 2, (7, 1))
    ours = power_laws._fit(N, y, errors)
    for i in range(40):

        def residuals(at, i=i):
            return (y[:, i] - np.logaddexp(at[0], at[1] - at[2] * np.log(N / N[0]))) / errors[:, 0]

        bounds = ([-60, -60, power_laws.EXPONENTS[0]], [10, 10, power_laws.EXPONENTS[1]])
        starts = [(y[-1, i] + low, y[0, i] - 0.7, b) for b in (0.1, 0.3, 1, 3) for low in (-18, -2, -0.1)]
        best = min(2 * least_squares(residuals, start, bounds=bounds, xtol=1e-12).cost for start in starts)
        assert ours.squares[i] <= best + 1e-9


def test_the_grid_is_the_profile_point_by_point(monkeypatch):
    """The matrix products against ``_profile`` at each of their points, in pieces too."""
    rng = np.random.default_rng(1)
    y, weights, x = rng.normal(size=(7, 5)), rng.dirichlet(np.ones(7), 5).T, np.log(N / N[0])
    found = power_laws._grid(x, y, weights)
    at = power_laws._squares(x, y, weights, found)
    for log_b in np.linspace(*np.log(power_laws.EXPONENTS), 24):
        for log_rho in np.linspace(power_laws.FAR, power_laws._lowest(x, log_b), 40):
            point = np.tile([[log_b], [log_rho]], 5)
            assert (power_laws._squares(x, y, weights, point) >= at * (1 - 1e-9)).all()
    monkeypatch.setattr(power_laws, "FEW", 2000)
    np.testing.assert_array_equal(power_laws._grid(x, y, weights), found)


def test_derivatives_are_differences():
    rng, h = np.random.default_rng(2), 1e-6
    y, weights, x = rng.normal(size=(7, 4)), np.full((7, 4), 1 / 7), np.log(N / N[0])
    at = rng.normal(size=(2, 4))
    derivatives = power_laws._profile(x, y, weights, at)[3:]
    for k in range(2):
        up, down = (power_laws._profile(x, y, weights, at + s * h * np.eye(2)[:, k : k + 1])[0] for s in (1, -1))
        expected = derivatives[k] - (weights * derivatives[k]).sum(0)
        np.testing.assert_allclose((down - up) / (2 * h), expected, atol=1e-8)


def test_units():
    """Risks times k: floor and scale times k. Sizes times k: scale times k^b."""
    values = noisy(risk(*CURVES["ends"]), columns=3)
    one, other = (stats.power_law(N * k, values * m, resamples=50) for k, m in ((1, 1), (640, 1e6)))
    for bound in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(other.floor, bound), 1e6 * getattr(one.floor, bound), rtol=1e-4)
        np.testing.assert_allclose(getattr(other.exponent, bound), getattr(one.exponent, bound), rtol=1e-4)
    expected = 1e6 * one.scale.estimate * 640**one.exponent.estimate
    np.testing.assert_allclose(other.scale.estimate, expected, rtol=1e-4)
    np.testing.assert_allclose(other.goodness, one.goodness, rtol=1e-4)


@pytest.fixture(scope="module")
def fitted() -> dict[str, stats.PowerLaw]:
    return {name: stats.power_law(N, noisy(risk(*truth)), resamples=150) for name, truth in CURVES.items()}


@pytest.mark.parametrize("name", power_laws.RATES)
def test_rates_are_what_the_file_says(fitted, name):
    """200 data sets: three times the binomial's error is 0.05 to 0.07."""
    floor, exponent = power_laws.RATES[name]
    assert holds(fitted[name].floor, CURVES[name][0]).mean() == pytest.approx(floor, abs=0.07)
    if exponent is not None:
        assert holds(fitted[name].exponent, CURVES[name][2]).mean() == pytest.approx(exponent, abs=0.07)
    assert (fitted[name].goodness < 0.05).mean() < 0.2


def test_what_is_known_and_what_not(fitted):
    """Rates as measured with 1,000 data sets, less three errors. A floor of a falling curve touches 0."""
    assert fitted["ends"].identified.mean() > 0.98 and (fitted["ends"].floor.low > 0).mean() > 0.88
    assert fitted["falls"].identified.mean() > 0.98 and (fitted["falls"].floor.low == 0).mean() > 0.9
    assert (fitted["falls"].floor.high < 0.8 * N[-1] ** -0.5).mean() > 0.95
    assert fitted["flat"].identified.mean() < 0.03 and fitted["flat"].floor_identified.mean() > 0.9


def test_a_curve_that_is_none_has_a_bad_fit():
    """One that bends down: no floor, and no line either."""
    found = stats.power_law(N, noisy(N**-0.2 / (1 + N / 3000) ** 0.8, columns=50), resamples=50)
    assert (found.goodness < 0.05).all() and (found.residual > 0.15).all()


def test_a_flat_curve_has_a_floor_and_no_exponent():
    found = stats.power_law(N, np.full((7, 3), 0.3), resamples=20)
    assert found.floor.estimate == pytest.approx(0.3) and found.scale.estimate == 0
    assert np.isnan(found.exponent.estimate) and found.identified is False
    assert [found.exponent.low, found.exponent.high] == list(power_laws.EXPONENTS)
    np.testing.assert_allclose(found.at(N), 0.3)
    rising = stats.power_law(N, noisy(N**0.2, columns=1)[..., 0], resamples=50)
    assert rising.identified is False and rising.goodness < 1e-6


def test_a_short_noisy_curve_does_not_say_whether_it_ends():
    n = np.array([100.0, 150, 220, 330])
    found = stats.power_law(n, noisy(risk(0.01, 1, 0.5, n), 10, 40), resamples=100)
    assert found.floor_identified.mean() < 0.3 and found.identified.mean() < 0.5


def test_columns_are_fits_of_their_own_and_the_same_seed_gives_the_same_bits():
    values = noisy(risk(*CURVES["ends"]), 6, 4).reshape(7, 6, 2, 2)
    found, again = (stats.power_law(N, values, np.median, resamples=30, seed=3) for _ in range(2))
    alone = stats.power_law(N, values[..., 0, 1], np.median, resamples=30, seed=3)
    assert found.floor.low.tobytes() == again.floor.low.tobytes()
    assert found.exponent.high.shape == found.goodness.shape == found.identified.shape == (2, 2)
    assert found.at(N).shape == (7, 2, 2)
    for part in ("floor", "scale", "exponent"):
        for bound in ("estimate", "low", "high"):
            expected = getattr(getattr(alone, part), bound)
            assert getattr(getattr(found, part), bound)[0, 1] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    other = stats.power_law(N, values, np.median, resamples=30, seed=4)
    assert (other.exponent.low != found.exponent.low).any()


def test_one_replicate_gives_a_fit_and_no_bounds():
    found = stats.power_law(N, risk(*CURVES["ends"])[:, None])
    assert found.floor.estimate == pytest.approx(0.02, rel=1e-6)
    assert np.isnan([found.floor.low, found.floor.high, found.exponent.low, found.goodness]).all()
    assert found.identified is False and found.floor_identified is False


@pytest.mark.parametrize(
    ("n", "values", "message"),
    [
        ([1, 2, 3], np.ones((3, 2)), "expected .S,. with S >= 4"),
        ([1, 2, 3, 4], np.zeros((4, 2)), "8 of 8 values are zero"),
        ([1, 2, 2, 4], np.ones((4, 2)), "each once, smallest first"),
    ],
)
def test_what_cannot_be_fitted_is_refused(n, values, message):
    with pytest.raises(ValueError, match=message):
        stats.power_law(np.array(n), values)
