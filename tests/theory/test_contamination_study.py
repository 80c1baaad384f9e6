"""The contamination study on small sizes, its exponents in the limit, and its figure on planted and computed arrays."""

from __future__ import annotations

import numpy as np
import pytest

from paper_figures import published_slopes as figure
from vpt_analysis import plotting
from vpt_analysis import study as machinery
from vpt_analysis.studies import contamination as study

SMALL = {"sizes": [2000, 3000, 4000], "seeds": [0, 1, 2, 3], "draws": 20_000, "decades": [3, 6, 12, 14, 16]}


@pytest.fixture(scope="module")
def small() -> tuple[dict, dict[str, np.ndarray]]:
    config = study.config("quick") | SMALL
    return config, {f"{p['name']}/{k}": v for p in study.parts(config) for k, v in study.compute(p).items()}


def part(**changes) -> dict:
    config = study.config("quick") | SMALL
    return next(p for p in study.parts(config) if "n" in p) | changes


def test_the_full_tier_has_the_published_sizes_and_replicates():
    config = study.config("full")
    assert len(config["seeds"]) == 40 and len(config["sizes"]) == 20
    assert (config["sizes"][0], config["sizes"][-1]) == (1000, 100_000)
    for row in study.tables.read("slopes"):
        if row["arxiv"] == study.PAPER:
            assert (row["n_low"], row["n_high"], row["replicates"], row["dimension"]) == (
                1000,
                100_000,
                40,
                config["d"],
            )
    names = [p["name"] for p in study.parts(config)]
    assert len(set(names)) == len(names) == 42 and "contamination" in machinery.names()
    assert study.inputs(config) == {}


def test_the_prompt_comes_nearer_as_the_docstring_says():
    distances = []
    for n in (1e3, 1e5):
        truth, frozen = study.model(part(setup="near"), n)
        np.testing.assert_allclose((truth.eta - frozen.eta)[[0, 2, 3, 4, 5, 6, 7]], 0, atol=0)
        distances.append([(truth.eta - frozen.eta).norm().item(), truth.log_nu.exp().item() - frozen.variance])
        assert frozen.family == "gaussian"
    np.testing.assert_allclose(distances[0], [3 * 0.001**0.5 * 1e3**-0.125, 3 * 0.001 * 1e3**-0.125], rtol=1e-12)
    np.testing.assert_allclose(np.log(np.divide(*distances)) / np.log(1e-2), -0.125, rtol=1e-9)
    truth, frozen = study.model(part(setup="distinguishable"), 1e3)
    assert frozen.family == "laplace" and (truth.eta - frozen.eta).norm().item() == pytest.approx(2**0.5)
    assert truth.beta.norm().item() == pytest.approx(1) and truth.tau.item() == 1
    assert study.model(part(gate="constant"), 1e3)[0].beta.norm() == 0


def test_every_fit_is_certified_and_a_start_at_the_truth_finds_no_other(small):
    config, arrays = small
    for setup in config["setups"]:
        for n in config["sizes"]:
            found = {name: arrays[f"{setup}:{n}/{name}"] for name in ("converged", "curvature", "step", "restart")}
            assert found["converged"].all() and (found["curvature"] > 0).all() and (found["step"] <= 1e-8).all()
            assert np.abs(found["restart"]).max() < 1e-8
    assert all(np.isfinite(a).all() for a in arrays.values())


def test_medians_are_what_the_information_predicts():
    """24 replicates of the first set-up: medians within 3 of their standard errors (1.25 σ/√24, of numbers with σ
    about as large as the median) of the prediction."""
    found = study.compute(part(setup="distinguishable", n=2000, seeds=list(range(24))))
    medians = np.array([np.median(found[q]) for q in study.QUANTITIES])
    ratio = medians / found["predicted"]
    assert (ratio > 0.45).all() and (ratio < 1.75).all()
    assert abs(ratio[[0, 2]] - 1).max() < 0.25  # norms of 8 numbers vary less


def test_the_published_exponents_are_the_limits_of_a_constant_gate(small):
    """n = 1e12 to 1e16, from the information alone. With a gate that varies, η and ν are estimated at n^-1/2."""
    config, arrays = small
    decades, constant = figure.local(arrays, config, "constant")
    assert decades[-1] == 15
    np.testing.assert_allclose(constant[-1], [-0.375, -0.25, -0.375, -0.375], atol=0.02)
    _, varying = figure.local(arrays, config, "varying")
    np.testing.assert_allclose(varying[-1], [-0.375, -0.375, -0.5, -0.5], atol=0.02)
    assert (constant[0] < [-0.39, -0.32, -0.49, -0.46]).all()  # at n that people have they are not there yet


def test_same_part_same_bits_and_replicates_do_not_know_each_other():
    first = study.compute(part(n=500, setup="distinguishable", seeds=list(range(12))))
    again = study.compute(part(n=500, setup="distinguishable", seeds=list(range(12))))
    assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in again.items()}
    one = study.compute(part(n=500, setup="distinguishable", seeds=[11]))
    np.testing.assert_allclose(one["beta"], first["beta"][11:], rtol=1e-9)


@pytest.mark.parametrize("name", ["distinguishable:1000", "near:1624", "information:constant"])
def test_committed_results_computed_again(name):
    """The bits on the machine that made them; elsewhere what Newton's steps leave of other rounding."""
    arrays, record = machinery.committed("contamination")
    (again,) = (p for p in study.parts(record["config"]) if p["name"] == name)
    found = study.compute(again)
    for key in {"beta", "tau", "eta", "nu", "predicted"} & set(found):
        np.testing.assert_allclose(found[key], arrays[f"{name}/{key}"], rtol=1e-5, err_msg=key)
    assert ("converged" not in found) or arrays[f"{name}/converged"].mean() > 0.9


def test_unknown_setups_are_refused():
    with pytest.raises(ValueError, match="unknown set-up 'nearer'; did you mean 'near'"):
        study.model(part(setup="nearer"), 1e3)
    with pytest.raises(ValueError, match="unknown gate 'varies'"):
        study.model(part(gate="varies"), 1e3)


# --- the figure -------------------------------------------------------------------------------------------------------


def planted(exponents: dict[str, float], off: int = 0) -> tuple[dict, dict[str, np.ndarray]]:
    """Errors that follow power laws, with ``off`` fits of the smallest size off by 1e6 and not converged."""
    config = study.config("quick") | {"sizes": [100, 1000, 10_000, 100_000], "seeds": list(range(20))}
    arrays = {f"information:{gate}/predicted": np.ones((len(config["decades"]), 4)) for gate in figure.GATES}
    for setup in config["setups"]:
        for n in config["sizes"]:
            noise = np.exp(0.1 * np.random.default_rng(n).standard_normal((4, 20)))
            converged, scale = np.ones(20, dtype=bool), np.ones(20)
            if n == 100:
                converged[:off], scale[:off] = False, 1e6
            part = {q: scale * n ** exponents[q] * e for q, e in zip(study.QUANTITIES, noise, strict=True)}
            part |= {"converged": converged, "restart": np.zeros(20)}
            part["predicted"] = np.array([n ** exponents[q] for q in study.QUANTITIES])
            arrays |= {f"{setup}:{n}/{name}": value for name, value in part.items()}
    return config, arrays


EXPONENTS = {"beta": -0.5, "tau": -0.25, "eta": -0.375, "nu": -1.0}


def test_slopes_are_those_that_were_planted():
    config, arrays = planted(EXPONENTS)
    slope, expected = figure.slopes(arrays, config, "near")
    wanted = list(EXPONENTS.values())
    np.testing.assert_allclose(expected, wanted, atol=1e-12)
    np.testing.assert_allclose(slope.estimate, wanted, atol=0.02)
    assert (slope.low <= slope.estimate).all() and (slope.high - slope.low < 0.05).all()


def test_sizes_with_many_fits_that_run_off_enter_no_slope():
    config, arrays = planted(EXPONENTS, off=12)
    assert figure.enough(arrays, config, "near").tolist() == [False, True, True, True]
    np.testing.assert_allclose(figure.slopes(arrays, config, "near")[0].estimate, list(EXPONENTS.values()), atol=0.03)
    config, arrays = planted(EXPONENTS, off=2)
    assert figure.enough(arrays, config, "near").all()  # 18 of 20: the median bears it
    assert "4 of 160 fits are not certified" in figure.caption(arrays, config)  # 2 in each set-up


def test_published_numbers_go_to_their_parameter():
    config = study.config("quick")
    assert figure.printed(config, "distinguishable", "nu") == ([-0.54], -0.5)
    assert figure.printed(config, "near", "tau") == ([-0.23, -0.22], -0.25)
    for quantity in ("beta", "eta", "nu"):
        assert figure.printed(config, "near", quantity) == ([-0.35, -0.39], -0.375)


def test_agreement_counts_the_printed_slopes_in_our_intervals():
    config, arrays = planted({"beta": -0.45, "tau": -0.8, "eta": -0.37, "nu": -0.54})
    assert figure.agreeing(arrays, config, "distinguishable") == 2  # β −0.45 and ν −0.54 are printed
    assert figure.agreeing(arrays, config, "near") == 1  # η, of which −0.39 to −0.35 is known


def test_picture_and_caption_come_from_the_arrays(small, tmp_path):
    config, arrays = small
    with plotting.style():
        drawn = figure.draw(arrays, config)
        plotting.save(drawn, tmp_path / "figure.png")
    for ax in drawn.axes:
        assert ax.get_xlabel() and (ax.get_ylabel() or ax in drawn.axes[1:2] + drawn.axes[4:5])
    text = figure.caption(arrays, config)
    slope, _ = figure.slopes(arrays, config, "distinguishable")
    assert f"β −{abs(slope.estimate[0]):.2f} [" in text
    for words in (
        "4 replicates",
        "95 %",
        "Not comparable",
        "0 of 24 fits",
        "d = 32",
        "linear experts, softmax gate −0.11",
    ):
        assert words in text, words
