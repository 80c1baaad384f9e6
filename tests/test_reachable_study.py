"""The study of Wang pairs: its grid, small parts from end to end, the committed results, claim C16, and the figure."""

from __future__ import annotations

import functools
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from paper_figures import _registry
from paper_figures import reachable as picture
from vpt_analysis import claims, plotting, sources
from vpt_analysis import study as machinery
from vpt_analysis.attention import KeyGroup
from vpt_analysis.claims import reachable as rule
from vpt_analysis.claims import text
from vpt_analysis.claims.base import Results
from vpt_analysis.probes.one_layer import OneLayer
from vpt_analysis.studies import reachable as study

CONFIG = study.config("full") | {"seeds": list(range(12))}
K, S = 12, 6
STATIC = {"plain": 0.5, "bound": 0.4, "bound_tied": 0.42, "built": 0.41}
ERRORS = {"prefix": 0.41, "vpt-deep": 0.45, "norga": 0.43, "vapt": 0.1, "lora": 1e-9, "lora-v": 1e-9}


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(rule, "RESAMPLES", 400)


def small(**which) -> dict:
    """A part of the quick tier with two pairs and few steps."""
    found = (p for p in study.parts(study.config("quick")) if all(p[k] == v for k, v in which.items()))
    part = next(found) | {"seeds": [0, 1], "steps": 6}
    if part["lengths"] == [0]:
        return part
    return part | {"lengths": [1, 3], "restarts": [2, 1]}


def planted(static: dict | None = None, errors: dict | None = None, layers=("mlp", "norm"), config=CONFIG) -> dict:
    """Arrays whose judged settings (of ``layers``) have these means, with noise of 10 % over pairs."""
    rng, arrays = np.random.default_rng(0), {}
    noise = np.exp(0.1 * rng.standard_normal(K))
    for part in study.parts(config):
        judged = [part["layer"], part["target"]] in config["judged"] and part["layer"] in layers
        values = STATIC | ((static or {}) if judged else {})
        means = ERRORS | ((errors or {}) if judged else {})
        n = len(part["lengths"])
        if part["method"] == "certificate":
            found = {name: value * noise for name, value in values.items()}
            tied = part["layer"] == "norm"
            found |= {"proved": np.ones(K, bool), "floors": tied * np.linspace(0.42, 0.44, n) * noise[:, None],
                      "mass": tied * np.full((K, n), 0.1), "ranks": np.full((K, 4), 0.1)}  # fmt: skip
            found |= {"content": np.tile([[0.0, 0.0], [1.0, 0.0]], (K, 1, 1)), "nearest": np.zeros((K, 2, 2)),
                      "target": np.tile([[0.0, 1.0], [1.0, -1.0]], (K, 1, 1)), "off_plane": np.zeros(K),
                      "segments": np.tile([[[0.0, 1.0], [1.0, 1.0]], [[1.0, -1.0], [0.0, -1.0]]], (K, 1, 1, 1)),
                      "shift_bounds": np.full((K, 3), 0.2), "shift_plain": np.full((K, 3), 0.3)}  # fmt: skip
        else:
            fall = np.linspace(1.05, 1.0, n)[:, None]
            found = {"errors": means[part["method"]] * fall * noise, "reached": np.full((n, K), 5),
                     "starts": np.full(n, 10), "parameters": np.full(n, 16)}  # fmt: skip
        arrays |= {f"{part['name']}/{name}": value for name, value in found.items()}
    return arrays


def judge(arrays: dict, config: dict = CONFIG):
    return claims.judge("C16", arrays, config)


# --- grid -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_choices_and_parts_are_plain_values_with_names_of_their_own(tier):
    config = study.config(tier)
    parts = study.parts(config)
    assert json.loads(json.dumps(config)) == config and study.parts(json.loads(json.dumps(config))) == parts
    names = [part["name"] for part in parts]
    assert len(set(names)) == len(names) and study.inputs(config) == {} and "reachable" in machinery.names()
    for part in parts:
        assert len(part["lengths"]) == len(part["restarts"]) and part["lengths"] == sorted(part["lengths"])


def test_the_full_tier_covers_what_the_claim_asks_for():
    """C16: P up to 200, many restarts, static, adaptive and LoRA of rank 1; the construction's assumptions."""
    config = study.config("full")
    assert len(config["seeds"]) >= 10 and config["lengths"] == [1, 2, 5, 10, 50, 200]
    for layer, target in config["judged"]:
        methods = {p["method"] for p in study.parts(config) if (p["layer"], p["target"]) == (layer, target)}
        assert methods == {"certificate", *config["methods"]} >= {"prefix", "vpt-deep", "vapt", "lora"}
    assert {study.LAYERS[layer]["norm"] for layer, _ in config["judged"]} == {True, False}
    assert all(0 <= kind["mlp"] < 1 for kind in study.LAYERS.values())
    assert {target for _, target in config["beside"]} == {"line", "free", "swap"}
    assert study.config("quick")["judged"] == config["judged"] and study.config("quick")["shift"] == config["shift"]


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["mlp", "norm"])
def test_a_certificate_part_has_finite_arrays_and_the_assumptions(layer):
    found = study.compute(small(layer=layer, method="certificate"))
    assert all(np.isfinite(v).all() and len(v) == 2 for v in found.values())
    assert (found["bound"] > 0).all() and (found["bound_tied"] <= found["plain"]).all() and found["proved"].all()
    assert (found["bound"] <= found["built"]).all()
    assert (found["ranks"] > 1e-4).all() and (found["query_gap"] == 0).all() and (found["spare"] >= 0).all()
    assert (found["slope"] < 1).all() and (found["target_gap"] > 0.1).all() and (found["off_plane"] <= 1e-9).all()
    assert found["floors"].shape == found["mass"].shape == (2, 2)
    assert found["mass"].any() == found["floors"].any() == (layer == "norm")
    if layer == "norm":
        assert (np.diff(found["mass"]) > 0).all() and (found["floors"] >= found["bound"][:, None] - 1e-6).all()
    assert (np.diff(found["shift_bounds"][:, [0, 1]]) > 0).all()


@pytest.mark.parametrize("method, static", [("prefix", True), ("norga", True), ("vapt", False), ("lora", False)])
def test_a_fitted_part_has_errors_by_length_and_pair(method, static):
    part = small(layer="norm", method=method)
    found = study.compute(part)
    lengths = len(part["lengths"])
    assert found["errors"].shape == found["reached"].shape == (lengths, 2) and np.isfinite(found["errors"]).all()
    assert found["starts"].tolist() == ([4] if method == "lora" else [2, 3])
    if static:
        bound = study.compute(small(layer="norm", method="certificate"))["bound"]
        assert (found["errors"] >= bound).all()
    again = study.compute(part)
    assert all((again[name] == found[name]).all() for name in found)


def test_segments_hold_all_outputs_of_static_prompts_with_the_other_on_target():
    """Prompts of three random lengths that put one input on its target, run through the layer."""
    part = small(layer="norm", method="certificate")
    made = study._pair(part, 1, part["shift"])
    found, rng = study.plane(made), np.random.default_rng(0)
    layer = OneLayer(made.vit.blocks[0], made.tokens, (0,))
    wanted = layer.head_targets(made.targets, "block")[0][:, 0].numpy()
    out, content = layer.out.numpy(), layer.content[:, 0].numpy() @ layer.out.numpy().T
    origin, first = content[0], content[1] - content[0]
    basis = np.linalg.qr(np.stack([first, wanted[0] - origin]).T)[0]
    basis = basis * np.sign([basis[:, 0] @ first, basis[:, 1] @ (wanted[0] - origin)])
    query = layer.query[0, 0].numpy()
    for a in (0, 1):
        start, end = found["segments"][a]
        for length in (1, 2, 7):
            scores = rng.normal(size=length)
            log_mass = np.log(np.exp(scores).sum())
            weight = 1 / (1 + np.exp(layer.lse[:, 0].numpy() - log_mass))
            output = content[a] + (wanted[a] - content[a]) / weight[a]  # of the prompts, so that a is on target
            values = rng.normal(size=(length, 8))
            values += np.linalg.solve(out, output) - np.exp(scores - log_mass) @ values
            key = np.outer(scores, query) / (query @ query)
            group = KeyGroup(*(torch.from_numpy(x)[None, None] for x in (key, values)))
            outputs = layer.block(made.tokens, group)[:, 0].numpy() - layer.base.numpy()
            seen = (_before_mlp(layer, outputs) - origin) @ basis / np.linalg.norm(first)
            assert np.allclose(seen[a], found["target"][a], atol=1e-8)
            along = (seen[1 - a] - start) @ (end - start) / ((end - start) @ (end - start))
            assert 0 <= along <= 1 and np.allclose(seen[1 - a], start + along * (end - start), atol=1e-8)


def _before_mlp(layer: OneLayer, outputs: np.ndarray) -> np.ndarray:
    """The "norm" layer's MLP has weights 0, but a bias."""
    return outputs - layer.block.fc2.bias.numpy()


# --- committed results ------------------------------------------------------------------------------------------------


def test_committed_errors_lie_above_what_is_proved_and_fall_with_the_length():
    arrays, record = machinery.committed("reachable")
    for layer, target in record["config"]["judged"]:
        setting = f"{layer}:{target}"
        bound, built = (arrays[f"{setting}:certificate/{name}"] for name in ("bound", "built"))
        for method in study.STATIC:
            assert (arrays[f"{setting}:{method}/errors"] >= bound).all(), (setting, method)
        assert (np.diff(arrays[f"{setting}:prefix/errors"], axis=0) <= 1e-12).all()
        assert (arrays[f"{setting}:prefix/errors"].min(0) <= 1.001 * built).all()
        assert arrays[f"{setting}:certificate/proved"].all() and (arrays[f"{setting}:certificate/spare"] >= 0).all()
    tied, floors = arrays["norm:line:vpt-deep/errors"], arrays["norm:line:certificate/floors"]
    assert (tied >= floors.T).all()


def test_parts_computed_again_give_the_same_numbers():
    arrays, record = machinery.committed("reachable")
    parts = {part["name"]: part for part in study.parts(record["config"])}
    found = study.compute(parts["norm:line:certificate"] | {"seeds": [0, 5]})
    for name, value in found.items():
        stored = arrays[f"norm:line:certificate/{name}"][[0, 5]]
        assert np.allclose(value, stored, rtol=1e-4, atol=1e-6), name
    cut = {"seeds": [0, 5], "lengths": [1], "restarts": [8]}
    found = study.compute(parts["norm:line:vpt-deep"] | cut)
    assert np.allclose(found["errors"], arrays["norm:line:vpt-deep/errors"][:1, [0, 5]], rtol=1e-3)
    found = study.compute(parts["mlp:line:lora-v"] | {"seeds": [0, 5]})
    assert (found["errors"] <= 1e-6).all() and (arrays["mlp:line:lora-v/errors"][:, [0, 5]] <= 1e-6).all()


# --- the claim --------------------------------------------------------------------------------------------------------


def test_numbers_of_the_rule():
    assert (rule.STAYS, rule.FITS) == (0.05, 0.01) and "RESAMPLES = 10_000" in inspect.getsource(rule)
    assert claims.CLAIMS["C16"].study == "reachable"


@pytest.mark.parametrize(
    "static, errors, verdict",
    [
        ({}, {}, "supported"),
        ({}, {"vapt": 0.9}, "supported"),  # adaptive prompts are reported
        ({}, {"lora-v": 0.9}, "supported"),
        ({"bound": 1e-4, "built": 1e-3}, {}, "refuted"),
        ({"bound": 0.0}, {"vpt-deep": 1e-4}, "refuted"),
        ({"bound": 0.0}, {"vpt-deep": 1e-4, "lora": 0.5}, "refuted"),
        ({}, {"lora": 0.02}, "inconclusive"),
        ({"bound": 0.04}, {}, "inconclusive"),  # fitted errors alone do not speak of any length
        ({"bound": 0.05}, {}, "inconclusive"),  # the interval reaches across
        ({"bound": 0.02, "built": 0.03}, {}, "inconclusive"),
    ],
)
def test_the_verdict_is_the_planted_one(static, errors, verdict):
    found = judge(planted(static, errors))
    assert [case.verdict for case in found.cases] == [verdict] * 2 and found.verdict == verdict


def test_both_layers_must_agree():
    found = judge(planted({"bound": 0.0}, layers=("norm",)))
    assert [case.verdict for case in found.cases] == ["supported", "inconclusive"] and found.verdict == "inconclusive"


def test_other_targets_and_heads_are_reported_and_do_not_judge():
    arrays = planted()
    for name in [n for n in arrays if n.startswith(("mlp:free", "heads:", "norm:swap"))]:
        if name.endswith(("/errors", "/bound", "/built", "/plain")):
            arrays[name] = np.zeros_like(arrays[name])
    found = judge(arrays)
    assert found.verdict == "supported"
    figures = {f.what: f for f in found.cases[1].figures}
    assert figures["two heads: certified"].estimate == 0 and not figures["two heads: certified"].judged
    assert {what for what, f in figures.items() if f.judged} == {
        "static, any length: certified", "static: best found", "LoRA, rank 1"
    }  # fmt: skip
    assert max(map(len, text.shown(found).splitlines())) <= text.WIDTH


def test_the_best_static_error_is_over_methods_lengths_and_prompts_made():
    arrays = planted()
    results = functools.partial(Results, config=CONFIG, study="reachable")
    for name, value in (("norga/errors", 0.01), ("certificate/built", 0.02), ("certificate/plain", 0.03)):
        changed = dict(arrays)
        key = f"norm:line:{name}"
        changed[key] = arrays[key].copy()
        changed[key][..., 3] = value
        found = rule.best_static(results(changed), "norm:line")
        assert found[3] == value and (np.delete(found, 3) > 0.2).all()


def test_missing_and_broken_arrays_are_errors():
    arrays = planted()
    with pytest.raises(ValueError, match="norm:line:lora/errors: some values are not finite"):
        judge(arrays | {"norm:line:lora/errors": np.full((1, K), np.nan)})
    del arrays["mlp:line:certificate/bound"]
    with pytest.raises(ValueError, match="lack mlp:line:certificate/bound; .*vpt-analysis study reachable"):
        judge(arrays)


def test_scope_and_notes_say_what_a_verdict_holds_for(tmp_path):
    said = study.scope(study.config("full"), None)
    for words in ("16 pairs", "width 8", "P = 1, 2, 5, 10, 50, 200", "8 random starts", "any P", "slope ≤ 1/2"):
        assert words in said, words
    assert "second-hand" in " ".join(study.notes(CONFIG, ()))
    whole, without = Path(study.__file__), tmp_path / "study.py"
    without.write_text(whole.read_text().split("\n\n\ndef scope(")[0] + "\n")
    assert sources.computing_code(without) == sources.computing_code(whole)


# --- the figure -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_the_figure_shows_every_method_and_the_plane(tier, tmp_path):
    config = study.config(tier)
    arrays = planted(config=config)
    assert _registry.study(_registry.load("reachable")) is study
    with plotting.style():
        figure = picture.draw(arrays, config)
        plotting.save(figure, tmp_path / "figure.png")
    left, right = figure.subfigs
    panels = left.axes
    assert [ax.get_title() for ax in panels] == list(picture.TITLES.values())
    assert panels[0].get_ylabel() and all(ax.get_xlabel() == "P, prompts" for ax in panels)
    assert right.axes[0].get_xlabel() and right.axes[0].get_ylabel()
    written = {t.get_text() for t in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))}
    assert {*picture.SHOWN.values(), "certified, any length", "c₁", "y₂", "static, exactly P"} <= written
    assert [len(ax.child_axes) for ax in panels] == [0, 1]  # tied prompts are magnified where their mass is bounded
    lora = next(line for line in panels[0].lines if line.get_label() == "LoRA, rank 1")
    assert (lora.get_ydata() == picture.LEAST).all()


def test_curves_are_best_up_to_each_length():
    arrays = planted()
    key = "norm:line:vpt-deep/errors"
    arrays[key] = arrays[key] * np.array([1.0, 1.2, 0.9, 2.0, 0.5, 1.0])[:, None]
    found = picture.curve(arrays, "norm:line", "vpt-deep")
    means = arrays[key].mean(1)
    assert np.allclose(found.estimate[[0, 2, 3, 4, 5]], means[[0, 2, 2, 4, 4]]) and (np.diff(found.estimate) <= 0).all()
    assert (found.low <= found.estimate).all() and (found.estimate <= found.high).all() and found.n == K


def test_the_caption_has_the_numbers():
    config, arrays = study.config("full"), planted()
    said = picture.caption(arrays, config)
    bound = rule.mean(arrays["norm:line:certificate/bound"])
    assert f"certified {bound.estimate:.2g} [{bound.low:.2g}, {bound.high:.2g}]" in said
    for words in ("n = 16 pairs", "95 %", "width 8", "LoRA below 1e-06", "What follows", "Behind a LayerNorm: "):
        assert words in said, words
