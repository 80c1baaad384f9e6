"""The study of memorisation, claim C18 and the figure: parts, planted curves, pictures, and what is committed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paper_figures import _registry
from paper_figures import memorisation as drawing
from vpt_analysis import claims, plotting
from vpt_analysis import study as machinery
from vpt_analysis.claims import memorisation as rule
from vpt_analysis.claims.base import Results
from vpt_analysis.probes.memorisation import stored_bits
from vpt_analysis.storage import digest_file
from vpt_analysis.studies import memorisation as study
from vpt_analysis.studies import tasks

FULL = study.config("full")
ARRAYS = {"fitted", "failed", "parameters", "bits", "sizes", "shares"}


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(rule, "RESAMPLES", 500)


def planted(config: dict, slope: float = 0.5, noise: float = 0.03) -> dict[str, np.ndarray]:
    """n = 8 P^slope, log-normal over the seeds; parameters 100 P; twice the steps give half as much again."""
    arrays = {}
    for part in study.parts(config):
        if part["name"].startswith("pilot"):
            continue
        draw = np.exp(noise * np.random.default_rng([part["seed"], part["length"]]).standard_normal())
        twice = 1.5 if part["steps"] > config["steps"].get(part["backbone"], part["steps"]) else 1.0
        n = 8 * part["length"] ** slope * draw * twice
        values = {"fitted": n, "failed": 1.4 * n, "parameters": 100 * part["length"], "bits": 2 * n}
        arrays |= {f"{part['name']}/{name}": np.asarray(value) for name, value in values.items()}
    return arrays


def verdicts(arrays: dict, config: dict = FULL) -> dict[str, str]:
    return {case.name: case.verdict for case in claims.judge("C18", arrays, config).cases}


def figures(case) -> dict[str, object]:
    return {figure.what: figure for figure in case.figures}


# --- the study --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_choices_and_parts_are_plain_values_with_names_of_their_own(tier):
    config = study.config(tier)
    parts = study.parts(config)
    assert json.loads(json.dumps(config)) == config and study.parts(json.loads(json.dumps(config))) == parts
    assert len({part["name"] for part in parts}) == len(parts) and "memorisation" in machinery.names()
    seeds = [part["seed"] for part in parts if not part["name"].startswith("pilot")]
    assert seeds == sorted(seeds) and set(seeds) == set(config["seeds"])
    assert study.PILOT_SEED not in seeds
    for backbone, lengths in config["lengths"].items():
        assert len(lengths) >= rule.LENGTHS and lengths[-1] >= rule.SPAN * lengths[0]
        measured = [(p["mechanism"], p["length"]) for p in parts if p["backbone"] == backbone and p["seed"] == 0
                    and p["kind"] == "labels" and p["steps"] == config["steps"][backbone]]  # fmt: skip
        assert sorted(measured) == sorted((m, n) for m in config["curves"][backbone]["labels"] for n in lengths)


def test_the_full_tier_has_both_backbones_kinds_static_and_adaptive_and_equal_trials_of_rates():
    assert set(FULL["lengths"]) == {"one-layer", "vit-micro"} and len(FULL["seeds"]) >= 3
    for backbone in FULL["lengths"]:
        assert {"vpt-deep", "vapt"} <= set(FULL["curves"][backbone]["labels"]) and "targets" in FULL["curves"][backbone]
    pilots = [part for part in study.parts(FULL) if part["name"].startswith("pilot")]
    assert {part["name"].removeprefix("pilot:") for part in pilots} == set(FULL["rates"])
    assert all(part["rates"] == list(study.RATES) and len(part["sizes"]) == 1 for part in pilots)


def tiny(**changes) -> dict:
    part = study.parts(study.config("quick"))[0]
    return part | {"length": 2, "sizes": [1, 2], "steps": 2, "batch": 2} | changes


@pytest.mark.parametrize(
    ("backbone", "kind"), [("one-layer", "labels"), ("depth-2", "labels"), ("vit-micro", "targets")]
)
def test_a_small_part_has_all_arrays_and_repeats(backbone, kind):
    part = tiny(backbone=backbone, kind=kind, outputs=3)
    found, again = study.compute(part), study.compute(part)
    assert set(found) == ARRAYS and all(f"``{name}``" in study.__doc__ for name in ARRAYS)
    assert all(np.isfinite(a).all() for a in found.values())
    assert all(found[name].tobytes() == again[name].tobytes() for name in found)
    assert found["shares"].shape == (len(found["sizes"]), part["restarts"])
    assert found["fitted"] == 0 or found["fitted"] in found["sizes"]
    other = study.compute(part | {"seed": 1})
    assert other["shares"].shape != found["shares"].shape or (other["shares"] != found["shares"]).any()


def test_a_pilot_has_one_share_a_rate():
    part = tiny(name="pilot:one-layer:vpt-deep", sizes=[6], rates=[0.001, 0.3])
    found = study.compute(part)
    assert found["rates"].tolist() == [0.001, 0.3] and found["shares"].shape == (2,)
    assert ((found["shares"] >= 0) & (found["shares"] <= 1)).all()


# --- the claim --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "verdict"), [(0.5, "supported"), (0.0, "supported"), (1.3, "refuted"), (1.0, "inconclusive")]
)
def test_curves_get_the_verdict_they_were_planted_for(slope, verdict):
    found = claims.judge("C18", planted(FULL, slope), FULL)
    assert len(found.cases) == sum(len(m) for curves in FULL["curves"].values() for m in curves.values())
    if slope != 1.0:
        assert found.verdict == verdict and {case.verdict for case in found.cases} == {verdict}
    else:
        assert "inconclusive" in {case.verdict for case in found.cases}
    for case in found.cases:
        shown = figures(case)
        assert shown["slope against P"].judged and shown["slope against P"].estimate == pytest.approx(slope, abs=0.06)
        parameters = shown["slope against parameters"]
        assert not parameters.judged and parameters.estimate == pytest.approx(slope, abs=0.06)
        assert sum(f.judged for f in shown.values()) == 1
        assert shown["bits a parameter, P = 1"].estimate == pytest.approx(0.16, rel=0.1)


def test_slope_is_that_of_the_mean_logarithms():
    arrays = planted(FULL, 0.7, noise=0.3)
    found = rule.against(Results(arrays, FULL, "memorisation"), "one-layer", "vapt", "labels", "length")
    lengths = FULL["lengths"]["one-layer"]
    n = [[arrays[f"one-layer:vapt:labels:{p}:{FULL['steps']['one-layer']}:{s}/fitted"] for s in FULL["seeds"]]
         for p in lengths]  # fmt: skip
    assert found.estimate == pytest.approx(np.polyfit(np.log(lengths), np.log(n).mean(1), 1)[0], abs=1e-12)
    slopes = [np.polyfit(np.log(lengths), np.log(column), 1)[0] for column in np.array(n).T]
    assert min(slopes) <= found.low < found.estimate < found.high <= max(slopes) and found.n == 3


@pytest.mark.parametrize("array", ["fitted", "failed"])
def test_censored_lengths_give_no_slope(array):
    """0 fitted, or nothing that failed, with one seed: the length is left out, and too few leave no verdict."""
    steps, arrays = FULL["steps"]["one-layer"], planted(FULL)
    whole = verdicts(arrays)
    arrays[f"one-layer:prefix:labels:16:{steps}:1/{array}"] = np.array(0)
    found = claims.judge("C18", arrays, FULL)
    (case,) = (c for c in found.cases if c.name == "one-layer, prefix (static, untied), labels")
    assert case.verdict == "supported" and "P = 16" in case.tally and figures(case)["slope against P"].n == 3
    assert array == "fitted" or "largest n, P = 16 (at least)" in figures(case)
    arrays[f"one-layer:prefix:labels:2:{steps}:0/{array}"] = np.array(0)
    judged = verdicts(arrays)
    assert judged.pop(case.name) == "inconclusive" and whole.pop(case.name) == "supported" and judged == whole
    (case,) = (c for c in claims.judge("C18", arrays, FULL).cases if c.name == case.name)
    assert "slope against P" not in figures(case) and "P = 2, 16" in case.tally


def test_lengths_must_span_enough_and_one_seed_decides_nothing():
    config = FULL | {"lengths": {"one-layer": [1, 2, 3, 4], "vit-micro": [1, 2, 4]}}
    assert set(verdicts(planted(config), config).values()) == {"inconclusive"}
    config = FULL | {"seeds": [0]}
    assert set(verdicts(planted(config), config).values()) == {"inconclusive"}


def test_what_twice_the_steps_give_is_reported():
    found = {c.name: figures(c) for c in claims.judge("C18", planted(FULL), FULL).cases}
    shown = found["vit-micro, VPT-Deep (static), labels"]["gain by twice the steps, P = 8"]
    assert shown.estimate == pytest.approx(1.5) and not shown.judged
    assert not any(w.startswith("gain") for w in found["vit-micro, VAPT (adaptive), labels"])


def test_scope_and_notes_say_what_was_measured():
    found = claims.judge("C18", planted(FULL), FULL, weights="0123456789")
    for words in ("one-layer ViT of width 32", "vit-micro 01234567 on 8 px", "labels of 64 classes",
                  "targets of 1 number", "P = 1 to 16", "3 seeds", "2 starts"):  # fmt: skip
        assert words in found.scope, words
    said = " ".join(found.notes)
    assert "lower bound" in said and "75 % of the cases" in said and "learning rate" in said
    config = study.config("quick")
    assert claims.judge("C18", planted(config), config).scope.startswith("a random one-layer ViT")


def test_missing_arrays_are_an_error():
    arrays = planted(FULL)
    arrays.pop(next(name for name in arrays if name.startswith("vit-micro:vapt:labels:4") and name.endswith("fitted")))
    with pytest.raises(ValueError, match="lack vit-micro:vapt:labels:4"):
        claims.judge("C18", arrays, FULL)


# --- the figure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_all_curves_are_drawn(tier, tmp_path):
    config = study.config(tier)
    assert _registry.study(_registry.load("memorisation")) is study
    arrays = planted(config)
    arrays[f"one-layer:vapt:labels:8:{config['steps']['one-layer']}:0/failed"] = np.array(0)
    with plotting.style():
        figure = drawing.draw(arrays, config)
        plotting.save(figure, tmp_path / "figure.png")
    first = figure.axes[0]
    lines = {line.get_label(): line for line in first.lines}
    for mechanism in config["curves"]["one-layer"]["labels"]:
        n = drawing.means(drawing.curve(arrays, config, "one-layer", mechanism, "labels", "fitted"))[0]
        np.testing.assert_array_equal(lines[drawing.SHORT[mechanism]].get_ydata(), n)
        np.testing.assert_allclose(n, 8 * np.array(config["lengths"]["one-layer"]) ** 0.5, rtol=0.1)
    guide = lines["slope 1"].get_ydata()
    np.testing.assert_allclose(guide / guide[0], config["lengths"]["one-layer"])
    assert sum(len(line.get_xdata()) for line in first.lines if "arrow" in str(line.get_marker())) == 1
    shown = [ax for ax in figure.axes if ax.get_visible() and ax.has_data()]
    assert len(shown) == (6 if tier == "full" else 2) == len(figure.axes)
    assert all(ax.get_xlabel() and ax.get_ylabel() and ax.get_title() for ax in shown)


def test_caption_has_the_numbers():
    said = drawing.caption(planted(FULL), FULL)
    found = rule.against(Results(planted(FULL), FULL, "memorisation"), "vit-micro", "vapt", "labels", "length")
    assert f"VAPT {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]" in said
    for words in ("3 seeds", "95 %", "best of 2 starts", "Depths 1, 2, 4", "1.50 [1.50, 1.50]", "lower bound"):
        assert words in said, words


def test_nothing_fitted_is_drawn_as_a_half():
    assert drawing.means(np.zeros((2, 3)))[0].tolist() == pytest.approx([0.5, 0.5])


# --- committed results ------------------------------------------------------------------------------------------------


def stored() -> tuple[dict, dict]:
    if not (machinery.COMMITTED / "memorisation.npz").exists():  # tests/test_committed_results.py insists on them
        pytest.skip("no committed results: vpt-analysis study memorisation --tier full --commit")
    arrays, record = machinery.committed("memorisation")
    return arrays, record["config"]


def test_they_belong_to_the_shipped_weights():
    stored()
    _, record = machinery.committed("memorisation")
    assert record["inputs"]["weights"] == digest_file(tasks.weights(record["config"]["pretrained"]))


def test_rates_are_those_that_the_committed_pilot_chose():
    arrays, config = stored()
    for pair, rate in config["rates"].items():
        rates, shares = (arrays[f"pilot:{pair}/{name}"] for name in ("rates", "shares"))
        assert rate == rates[int(np.argmax(shares))], pair  # the first, and smallest, of equals


def test_committed_results_hold_together():
    arrays, config = stored()
    for part in study.parts(config):
        if part["name"].startswith("pilot"):
            continue
        found = {name: arrays[f"{part['name']}/{name}"] for name in ARRAYS}
        passed = found["sizes"][found["shares"].max(1) >= study.ENOUGH]
        assert found["fitted"] == (passed.max() if len(passed) else 0)
        above = found["sizes"][found["sizes"] > found["fitted"]]
        assert found["failed"] == (above.min() if len(above) else 0)
        assert found["bits"] == pytest.approx(
            stored_bits(int(found["fitted"]), part["kind"], part["outputs"], study.ENOUGH)
        )


@pytest.mark.parametrize("which", ["one-layer:vpt-deep:labels:1", "depth-1:vpt-deep:labels:4"])
def test_committed_results_computed_again(which):
    """The same n; where rounding differs, as on other machines, training may end one size away."""
    arrays, config = stored()
    part = next(p for p in study.parts(config) if p["name"].startswith(f"{which}:") and p["seed"] == config["seeds"][0])
    found = study.compute(part)
    fitted, grid = int(arrays[f"{part['name']}/fitted"]), [0, *part["sizes"]]
    assert abs(grid.index(int(found["fitted"])) - grid.index(fitted)) <= 1
    assert found["parameters"] == arrays[f"{part['name']}/parameters"]
