"""The study of skills, its claim C17 on planted results, its figure, and a part of its committed results."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from paper_figures import _registry
from paper_figures import skills as figure
from vpt_analysis import claims, plotting
from vpt_analysis import study as machinery
from vpt_analysis.claims import skills as claim
from vpt_analysis.claims.base import Results
from vpt_analysis.storage import digest_file
from vpt_analysis.studies import skills as study
from vpt_analysis.studies import tasks

FULL = study.config("full")
JUDGED = ("toy-sort, descending", "toy-sort, add-1", "toy-mixture, histogram")
OLD = [task for model, task, _ in FULL["tasks"] if study.kind(model, task) == "elicited"]


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """Of three seeds 300 resamples have the same range as 10,000."""
    monkeypatch.setattr(claim, "RESAMPLES", 300)


def planted(config: dict = FULL, spread: float = 0.01, **levels: float) -> dict[str, np.ndarray]:
    """Shares of whole sequences around a level a method ("vpt_deep" for "vpt-deep"), half of the rest for tokens."""
    arrays = {}
    for part in study.parts(config):
        level = levels.get(part["method"].replace("-", "_"), 0.02)
        whole = np.clip(level + spread * np.linspace(-1, 1, len(config["seeds"])), 0, 1)
        made = {
            "whole": whole,
            "tokens": 0.5 + whole / 2,
            "before": np.array([0.0, 0.3]),
            "parameters": np.array(3_000),
            "rate": np.array(0.5 if part["method"] == "prefix" else 0.05),
        }
        arrays |= {f"{part['name']}/{name}": value for name, value in made.items()}
    return arrays


def judged(arrays: dict, config: dict = FULL):
    return claims.judge(claim.CLAIMS[0], arrays, config)


# --- the study --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_every_method_has_every_task_of_both_models(tier):
    config = study.config(tier)
    parts = study.parts(config)
    assert {p["method"] for p in parts} == set(study.METHODS) and {p["model"] for p in parts} == set(study.NEW)
    assert len({p["name"] for p in parts}) == len(parts) == 6 * len(config["tasks"])
    for which in {(p["model"], p["task"]) for p in parts}:  # equal tuning and equal steps
        same = [{k: v for k, v in p.items() if k not in ("name", "method", "options")} for p in parts
                if (p["model"], p["task"]) == which]  # fmt: skip
        assert all(other == same[0] for other in same)
    assert set(study.inputs(config)) == {"weights of toy-sort", "weights of toy-mixture"}


def test_the_full_tier_has_seeds_for_intervals_and_all_kinds_of_tasks():
    assert len(FULL["seeds"]) >= 3 and len(FULL["rates"]) >= 3
    kinds = {(model, t, study.kind(model, t)) for model, t, _ in FULL["tasks"]}
    assert {t for m, t, kind in kinds if (m, kind) == ("toy-sort", "new")} == {"descending", "add-1"}
    assert {t for m, t, kind in kinds if (m, kind) == ("toy-mixture", "new")} == {"ascending-add-1", "histogram"}
    assert 0 < len(OLD) and set(OLD) <= set(study.ELICITED)
    assert not {m for m, _, kind in kinds if kind == "elicited"} - {"toy-mixture"}


SMALL = {"steps": 4, "batch": 4, "rates": [0.01, 0.1], "seeds": [0, 1], "test": 20, "validation": 10}


@pytest.mark.parametrize("name", ["toy-sort:descending:vapt", "toy-mixture:histogram:lora", "toy-sort:add-1:full"])
def test_a_small_part_has_the_arrays_that_the_docstring_names(name):
    (part,) = (p for p in study.parts(FULL) if p["name"] == name)
    found = study.compute(part | SMALL)
    assert all(np.isfinite(a).all() for a in found.values())
    assert all(f"``{array}``" in study.__doc__ for array in found)
    assert found["whole"].shape == found["tokens"].shape == found["loss"].shape == (2,)
    assert found["trials"].shape == (2,) and found["rate"] in SMALL["rates"] and found["before"].shape == (2,)
    again, other = study.compute(part | SMALL), study.compute(part | SMALL | {"seeds": [2, 3]})
    assert all(found[k].tobytes() == again[k].tobytes() for k in found)
    assert (found["loss"] != other["loss"]).any() and (found["before"] == other["before"]).all()


def test_scope_and_notes_name_what_limits_the_verdicts():
    found = judged(planted(lora=0.9))
    for words in (
        "toy-sort",
        "toy-mixture",
        "3,200",
        "6,144",
        "1,800 (toy-mixture, histogram)",
        "3 seeds",
        "2,000 test",
    ):
        assert words in found.scope, words
    said = " ".join(found.notes)
    for words in ("causal GPT", "modulo 8", "75 %", "double histogram", "numbers of steps bound"):
        assert words in said, words


# --- C17 --------------------------------------------------------------------------------------------------------------


def test_bounds_and_resamples_are_those_of_the_rule():
    assert (claim.LITTLE, claim.LEARNED) == (5.0, 50.0) and "RESAMPLES = 10_000" in inspect.getsource(claim)
    assert "before any result of the full tier was seen" in inspect.getdoc(claim)


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({"prefix": 0.02, "lora": 0.9}, "supported"),
        ({"prefix": 0.02, "lora": 0.9, "vpt_deep": 0.9, "vapt": 0.9}, "supported"),  # reported, not judged
        ({"prefix": 0.3, "lora": 0.9}, "refuted"),
        ({"prefix": 0.95, "lora": 0.6}, "refuted"),
        ({"prefix": 0.05, "lora": 0.9}, "inconclusive"),  # reaches across 5 %
        ({"prefix": 0.02, "lora": 0.5}, "inconclusive"),
        ({"prefix": 0.02, "lora": 0.2, "full": 1.0}, "inconclusive"),  # LoRA has not learned it either
        ({"prefix": 0.3, "lora": 0.2}, "inconclusive"),
    ],
)
def test_planted_results_get_their_verdict(levels, verdict):
    found = judged(planted(**levels))
    assert found.verdict == verdict and [c.name for c in found.cases] == list(JUDGED)
    assert {c.verdict for c in found.cases} == {verdict}
    assert all({f.what for f in c.figures if f.judged} == {f"{m}, whole sequences (%)" for m in claim.JUDGED}
               for c in found.cases)  # fmt: skip


def test_one_task_that_differs_leaves_the_claim_inconclusive():
    arrays = planted(prefix=0.01, lora=0.9)
    arrays["toy-sort:add-1:prefix/whole"] = np.array([0.2, 0.3, 0.4])
    found = judged(arrays)
    assert found.verdict == "inconclusive" and "The cases contradict each other" in " ".join(found.notes)
    assert {c.name: c.verdict for c in found.cases}["toy-sort, add-1"] == "refuted"
    (shown,) = (f for c in found.cases if c.name == "toy-sort, add-1" for f in c.figures
                if f.what == "prefix, whole sequences (%)")  # fmt: skip
    assert (shown.estimate, shown.low, shown.high, shown.n) == pytest.approx((30, 20, 40, 3))


def test_elicited_skills_and_compositions_are_reported_and_judge_nothing():
    arrays = planted(prefix=0.01, lora=0.9)
    for task in (*OLD, "ascending-add-1"):
        arrays[f"toy-mixture:{task}:prefix/whole"] = np.full(3, 0.97)
    found = judged(arrays)
    assert found.verdict == "supported"
    (case,) = (c for c in found.cases if c.name == "toy-mixture, histogram")
    shown = {f.what: f.estimate for f in case.figures if f.what.endswith("by prefix (%)") and not f.judged}
    assert shown == {f"elicited: {t} by prefix (%)": 97.0 for t in OLD} | {
        "composition: ascending-add-1 by prefix (%)": 97.0
    }
    assert not any("elicited" in f.what for c in found.cases[:2] for f in c.figures)


def test_rates_at_the_edge_of_those_tried_are_named():
    names = {f.what for f in judged(planted(lora=0.9)).cases[0].figures if "rate chosen" in f.what and not f.judged}
    assert names == {"prefix, rate chosen (largest tried)"} | {
        f"{m}, rate chosen" for m in study.METHODS if m != "prefix"
    }


def test_one_seed_decides_nothing():
    config = FULL | {"seeds": [0]}
    found = judged(planted(config, prefix=0.0, lora=1.0), config)
    assert found.verdict == "inconclusive" and "One seed has no interval" in " ".join(found.notes)


def test_the_papers_numbers_stand_beside_ours():
    rows = claim.published()
    assert {(r["model"], r["task"], r["method"], r["accuracy"]) for r in rows} >= {
        ("toy-sort", "descending", "prefix", 0.0), ("toy-sort", "descending", "full", 84.91),
        ("toy-mixture", "add-2", "prefix", 99.25), ("toy-mixture", "histogram", "lora", 92.38),
        ("toy-mixture", "ascending-add-1", "prefix", 71.59),
    }  # fmt: skip
    cells = {(model, task) for model, task, _ in FULL["tasks"]}
    assert all((r["model"], r["task"]) in cells and r["method"] in study.METHODS for r in rows)


# --- the figure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_the_figure_shows_every_mean_and_the_papers_numbers(tier, tmp_path):
    assert _registry.study(_registry.load("skills")) is study
    config = study.config(tier)
    arrays = planted(config, prefix=0.11, vapt=0.2, norga=0.3, lora=0.9, full=0.8)
    with plotting.style():
        drawn = figure.draw(arrays, config)
        plotting.save(drawn, tmp_path / "skills.png")
    assert [ax.get_xlabel() for ax in drawn.axes] == [f"task, {m}" for m in study.models(config)]
    assert drawn.axes[0].get_ylabel() == "whole sequences right (%)"
    for ax, model in zip(drawn.axes, study.models(config), strict=True):
        found = [task for task, _ in figure.cells(config, model)]
        points = {(round(float(line.get_xdata()[0]), 6), round(float(line.get_ydata()[0]), 6)) for line in ax.lines
                  if np.size(line.get_xdata()) == 1}  # fmt: skip
        for x, task in enumerate(found):
            for i, method in enumerate(config["methods"]):
                mean = 100 * arrays[f"{model}:{task}:{method}/whole"].mean()
                assert (round(figure.position(config, x, i), 6), round(mean, 6)) in points
        hollow = [line.get_ydata()[0] for line in ax.lines if line.get_markerfacecolor() == "none"]
        assert sorted(hollow) == sorted(r["accuracy"] for r in claim.published()
                                        if r["model"] == model and r["task"] in found)  # fmt: skip
        assert len({figure.position(config, 0, i) for i in range(6)}) == 6


def test_the_caption_has_the_numbers():
    said = figure.caption(planted(prefix=0.11, lora=0.9), FULL)
    for words in ("n = 2,000", "3 seeds", "95 %", "LoRA 90.0 % [89.0, 91.0]", "prefix (static) 11.0 %",
                  "1,800 (toy-mixture, histogram)",
                  "lora 3,000", "92.38 %", "toy-mixture, ascending, then add 1 (composed)"):  # fmt: skip
        assert words in said, words


# --- committed results ------------------------------------------------------------------------------------------------


def test_committed_results_belong_to_the_shipped_weights_and_counts_are_equal():
    arrays, record = machinery.committed("skills")
    for model in study.models(FULL):
        assert record["inputs"][f"weights of {model}"] == digest_file(tasks.weights(model))
    for part in study.parts(record["config"]):
        parameters = int(arrays[f"{part['name']}/parameters"])
        assert part["method"] == "full" or abs(parameters / part["parameters"] - 1) <= 0.05
        assert arrays[f"{part['name']}/rate"] in part["rates"]


def test_a_part_computed_again_gives_the_same_numbers():
    """Its first seed, at the rate that was chosen, of the cheapest part; elsewhere rounding differs, and training lets
    it grow."""
    arrays, record = machinery.committed("skills")
    (part,) = (p for p in study.parts(record["config"]) if p["name"] == "toy-mixture:add-2:prefix")
    stored = {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(f"{part['name']}/")}
    found = study.compute(part | {"rates": [float(stored["rate"])], "seeds": part["seeds"][:1], "validation": 10})
    assert found["size"] == stored["size"] and found["parameters"] == stored["parameters"]
    np.testing.assert_allclose(found["before"], stored["before"], atol=0.001)
    np.testing.assert_allclose(found["curve"][0, :3], stored["curve"][0, :3], rtol=0.02)
    assert abs(found["whole"][0] - stored["whole"][0]) <= 0.05 and abs(found["tokens"][0] - stored["tokens"][0]) <= 0.02


def test_verdicts_come_from_the_committed_arrays():
    arrays, record = machinery.committed("skills")
    cases = claim.skills(Results(arrays, record["config"], "skills"))
    assert [c.name for c in cases] == list(JUDGED)
