"""The figures of the studies estimation and approximation, on planted arrays of the sizes of both tiers."""

from __future__ import annotations

import numpy as np
import pytest

from paper_figures import _registry, approximation_vs_estimation, rates
from tests.planted_claims import FLOORS, bent, changed, few_laws, none_in, planted, risks
from vpt_analysis import plotting
from vpt_analysis.studies import approximation, estimation

SLOPES = {"function": -0.5, "d_1": -0.42, "d_2": -0.05, "exact": -0.6, "over": -0.22}
NOISE = 0.02  # so that no curve is bent by chance


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(rates, "RESAMPLES", 50)
    few_laws(monkeypatch)


@pytest.fixture(scope="module", params=["quick", "full"])
def results(request) -> tuple[dict, dict[str, np.ndarray]]:
    config = estimation.config(request.param)
    return config, planted(config, NOISE, **SLOPES)


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


def drawn(module, arrays: dict, config: dict, path):
    with plotting.style():
        figure = module.draw(arrays, config)
        plotting.save(figure, path / "figure.png")
    return figure


def test_figures_are_registered_with_their_studies():
    assert {"rates", "approximation_vs_estimation"} <= set(_registry.names())
    for name, study in (("rates", estimation), ("approximation_vs_estimation", approximation)):
        module = _registry.load(name)
        assert _registry.study(module) is study and module.TITLE


# --- rates ------------------------------------------------------------------------------------------------------------


def test_rates_are_drawn_with_every_family_and_both_specifications(results, tmp_path):
    config, arrays = results
    figure = drawn(rates, arrays, config, tmp_path)
    above, below = figure.subfigs
    assert (len(above.axes), len(below.axes)) == (10, 5)
    assert [ax.get_title() for ax in above.axes[:5]] == list(rates.NAMES.values())
    assert [ax.get_title() for ax in below.axes] == list(rates.SHOWN.values())
    assert all(ax.get_xlabel() for ax in above.axes[5:] + below.axes)
    assert all(above.axes[i].get_ylabel() for i in (0, 5)) and below.axes[0].get_ylabel()
    written = texts(figure)
    for words in ("−1/2", "−1/4", "started near the truth", "random starts", "no line: slope means nothing"):
        assert words in written, words
    rows = [t.get_text() for t in below.axes[0].get_yticklabels()]
    assert len(rows) == 5 * len(config["dimensions"]) and rows[0] == "tied (VPT), d = 4"


def test_curves_are_medians_with_their_intervals():
    config = estimation.config("quick")
    arrays = planted(config, NOISE, **SLOPES)
    found = rates.medians(arrays, config, "tied", "over", "d_1")
    wanted = [np.median(arrays[f"tied:4:over:near:{n}/d_1"]) for n in config["sizes"]]
    np.testing.assert_array_equal(found[:, 0], config["sizes"])
    np.testing.assert_allclose(found[:, 1], wanted, rtol=1e-14)
    assert (found[:, 2] <= found[:, 1]).all() and (found[:, 1] <= found[:, 3]).all()
    assert rates.medians(arrays, config, "tied", "exact", "over").shape == (0, 4)  # nothing is over-fitted there
    arrays = changed(arrays, "over", lambda n, v: none_in(0.05 if n == 250 else 0.5)(n, v))
    assert rates.medians(arrays, config, "tied", "over", "over")[:, 0].tolist() == [250]
    assert rates.middle(estimation.config("full")) == 8


def test_slopes_stand_where_they_were_planted(results):
    config, arrays = results
    found = rates.slopes(arrays, config)
    assert len(found) == 5 * len(config["dimensions"]) * 2 * 5
    for (_, _, _, quantity), slope in found.items():
        assert slope.straight and slope.estimate == pytest.approx(SLOPES[quantity], abs=0.05)


def test_bent_curves_are_crosses_and_those_without_atoms_are_not_there():
    config = estimation.config("quick")
    arrays = changed(planted(config, NOISE), "d_1", bent, "untied:4:over:near")
    arrays = changed(arrays, "over", none_in(0.5), "linear:4:over")
    with plotting.style():
        below = rates.draw(arrays, config).subfigs[1]
    markers = [[line.get_marker() for line in ax.lines if line.get_marker() not in ("", "None")] for ax in below.axes]
    assert [found.count("x") for found in markers] == [0, 1, 0, 0, 0]
    assert [len(found) for found in markers] == [10, 10, 10, 10, 8]
    said = rates.caption(arrays, config)
    assert "1 of 48 curves are bent" in said and "2 are left out" in said
    assert "over-fitted atoms not judged" in said and "(bent)" in said


def test_caption_of_rates_has_the_numbers(results):
    config, arrays = results
    arrays = changed(arrays, "converged", lambda n, v: np.arange(40) >= 8)
    said = rates.caption(arrays, config)
    d = rates.middle(config)
    slope = rates.slopes(arrays, config)["nonlinear", d, "near", "exact"]
    assert f"exact atoms −{abs(slope.estimate):.2f} [−{abs(slope.low):.2f}, −{abs(slope.high):.2f}]" in said
    for words in ("40 replicates", "95 %", f"d = {d}", f"to {config['sizes'][-1]:,}", "80 % certified", "0 of"):
        assert words in said, words


# --- approximation and estimation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_risks_are_drawn_with_fitted_floors(tier, tmp_path):
    config = approximation.config(tier)
    arrays = risks(FLOORS["supported"], config=config)
    figure = drawn(approximation_vs_estimation, arrays, config, tmp_path)
    assert [ax.get_title() for ax in figure.axes] == list(approximation_vs_estimation.TITLES.values())
    assert figure.axes[0].get_ylabel() and all(ax.get_xlabel() == "n, samples" for ax in figure.axes)
    assert "adaptive student, p = 27" in texts(figure) and "slope −1" in texts(figure)
    for ax, teacher in zip(figure.axes, config["teachers"], strict=True):
        levels = {float(y[0]) for y in (line.get_ydata() for line in ax.lines) if len(y) == 2 and y[0] == y[1]}
        wanted = FLOORS["supported"][teacher]
        for student in ("static", "adaptive"):
            assert min(abs(level / wanted[student] - 1) for level in levels) < 0.15
    none = drawn(approximation_vs_estimation, risks(FLOORS["refuted"], config=config), config, tmp_path)
    assert len(none.axes[0].lines) < len(figure.axes[0].lines)  # a floor of 0 is no line


def test_caption_of_the_risks_has_the_numbers():
    config = approximation.config("full")
    arrays = risks(FLOORS["refuted"], config=config)
    said = approximation_vs_estimation.caption(arrays, config)
    fitted = approximation_vs_estimation.law(arrays, config, "static", "adaptive")
    assert fitted.floor.estimate == pytest.approx(0.5, rel=0.05)
    assert f"adaptive student floor {fitted.floor.estimate:.2g} [" in said
    for words in ("40 replicates", "95 %", "d = 8", "best of 8 random starts", "from 100 to 25,000", "exponent 1.0"):
        assert words in said, words
    assert "on the static teacher, static student's risk lower" in said and "100.0 % of the fits" in said
