"""The study of tangent dimensions and its figure: sizes, small parts, planted arrays, and the committed results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from paper_figures import _registry, tangent_dimension
from vpt_analysis import plotting, study
from vpt_analysis.probes.jacobian import Jacobian
from vpt_analysis.probes.sketch import gaussian
from vpt_analysis.studies import tangent


@pytest.fixture(scope="module")
def vit() -> va.VisionTransformer:
    return va.load_backbone("vit-micro")


@pytest.fixture
def tiny(tmp_path) -> dict:
    """A small part: VPT-Deep of 2 · 3 · 8 parameters on a backbone of its own, all 10 · 8 rows."""
    made = va.VisionTransformer(va.ViTConfig(image_size=16, patch_size=4, width=8, depth=2, heads=2), seed=0)
    va.backbones.save(made, tmp_path / "tiny.safetensors")
    (part, *_) = tangent.parts(tangent.config("quick"))
    return part | {"backbone": str(tmp_path / "tiny.safetensors"), "parameters": 48}


def planted(config: dict) -> dict[str, np.ndarray]:
    """k-th of the prompts: 100 + 50 k directions of ``parameters``; e2vpt certified; vfpt, the last one, left out."""
    found = {}
    for k, name in enumerate(tangent_dimension.parts_of(config)):
        method = name.partition(":")[0]
        fits, p = method != "vfpt", config["parameters"]
        arrays = {"size": k, "parameters": p if fits else 9999, "fits": fits}
        if fits:
            rank = 100 + 50 * k
            s = np.geomspace(1, 1e-5, rank).astype(np.float32)
            arrays |= {
                "scale": 3.0, "singular": np.append(s, np.float32(1e-8)), "rank": rank, "threshold": 1e-6,
                "below": 1e-8, "certified": method == "e2vpt", "closure": 1.0, "functionals": 12 + k, "exact": False,
                "energy": np.array([2.0, 1.0, 3.0]), "participation": np.array([2.0, 1.0, 3.0]),
                "effective": np.array([1.0, 10.0 + k, 20.0]), "diagonal": np.ones(8, np.float32),
                "alignment": np.tile([0.2, 0.1, 0.3], (10, 1)), "top1": 0.5,
            }  # fmt: skip
        found |= {f"{name}/{key}": np.asarray(value) for key, value in arrays.items()}
    return found


def small() -> dict:
    methods = ["vpt-deep", "vapt", "e2vpt", "lora", "vfpt"]
    return tangent.config("full") | {"methods": methods, "trained": ["vapt"]}


# --- the study --------------------------------------------------------------------------------------------------------


LATER = {"vpt-projected"}  # a control that was added when the results were there


def test_every_registered_method_has_a_part():
    config = tangent.config("full")
    assert {*config["methods"]} == {*va.prompts.names(), *va.baselines.names()} - LATER
    assert config["images"] >= 256 and set(config["trained"]) == set(config["rates"])
    assert tangent.inputs(config).keys() == {"weights"}  # no data to download


def test_sizes_are_those_nearest_to_the_count(vit):
    parts = {p["method"]: p for p in tangent.parts(tangent.config("full")) if p["name"].endswith("initial")}
    found = {m: tangent.matched(vit, parts[m])[1] for m in ("vpt-deep", "prefix", "vapt", "lora", "bias", "linear")}
    assert {m: int(f["parameters"]) for m, f in found.items()} == {
        "vpt-deep": 8 * 2 * 128, "prefix": 8 * 2 * 128, "vapt": 8 * (3 * 49 + 4) + 2 * 4 * 128, "lora": 8 * 2 * 128,
        "bias": 11520, "linear": 0,
    }  # fmt: skip
    assert [m for m, f in found.items() if not f["fits"]] == ["bias", "linear"]
    assert tangent.compute(parts["bias"]).keys() == {"size", "parameters", "fits"}


def test_a_small_part_has_the_arrays_of_the_committed_ones(tiny):
    found = tangent.compute(tiny)
    arrays, _ = study.committed("tangent")
    assert {f"vpt-deep:initial/{key}" for key in found} == {k for k in arrays if k.startswith("vpt-deep:initial/")}
    assert all(np.isfinite(a).all() for a in found.values())
    assert found["exact"] and found["certified"] and found["alignment"].shape == (10, 3)
    s = found["singular"].astype(float)
    assert (
        s.shape == (48,) and found["rank"] == (s > found["threshold"]).sum() <= 48 - 6
    )  # the mean of a prompt is null
    assert np.isclose(found["energy"][0], np.square(found["scale"] * s).sum(), rtol=1e-5)
    assert np.isclose(found["diagonal"].sum(), found["energy"][0], rtol=1e-5)


def test_trained_points_are_trained(tiny):
    training = {"steps": 5, "batch": 10, "lr": 0.1, "train_images": 40}
    before, after = tangent.compute(tiny), tangent.compute(tiny | training)
    assert 0 <= after["top1"] <= 1 and "top1" not in before
    assert abs(after["singular"] - before["singular"]).max() > 1e-3


def test_rates_are_those_of_the_config():
    config = tangent.config("full") | {"rates": {"vpt-deep": 1.0, "vapt": 2.0, "lora": 3.0}}
    rates = {p["method"]: p["lr"] for p in tangent.parts(config) if "lr" in p}
    assert rates == config["rates"]


# --- the committed results --------------------------------------------------------------------------------------------


def test_committed_kernels_computed_again(vit):
    """The tangent kernel's diagonal on 6 images, of the three functionals of the sketch that all images share."""
    arrays, record = study.committed("tangent")
    config = record["config"]
    part = {p["name"]: p for p in tangent.parts(config)}
    images = va.data.load(config["data"], "test", 32).subset(n=config["images"], seed=0).normalised(vit.config)[:6]
    for name in ("vpt-deep:initial", "prefix:initial", "lora:initial"):
        method, sizes = tangent.matched(vit, part[name])
        assert int(sizes["parameters"]) == int(arrays[f"{name}/parameters"])
        m = int(arrays[f"{name}/functionals"])  # of the sketch and one more
        drawn = gaussian(config["images"] * m, 128, torch.Generator().manual_seed(part[name]["seed"]))
        rows = next(Jacobian(vit, method, images, batch=6).rows(drawn.view(-1, m, 128)[0, :3]))[1]
        again = rows.double().square().sum(-1).mean(-1).numpy()
        assert np.allclose(again, arrays[f"{name}/diagonal"][:6], rtol=1e-3), name


def test_committed_numbers_agree_with_each_other():
    arrays, record = study.committed("tangent")
    names = [n for n in tangent_dimension.parts_of(record["config"]) if arrays[f"{n}/fits"]]
    assert len(names) >= 12
    for name in names:
        get = {k.rpartition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{name}/")}
        s = get["singular"].astype(float)
        assert get["rank"] == (s > get["threshold"] * (1 + 1e-6)).sum() <= get["parameters"], name
        assert get["threshold"] >= record["config"]["tolerance"] * (1 - 1e-9)
        for ridge, effective in zip(record["config"]["ridges"], get["effective"], strict=True):
            assert np.isclose((s**2 / (s**2 + ridge)).sum(), effective, rtol=1e-4), name
        sketch, (energy, low, high) = np.square(get["scale"] * s).sum(), get["energy"]
        assert low <= energy <= high and abs(sketch - energy) <= 3 * (high - low), name
    assert arrays["lora:initial/rank"] == arrays["lora:initial/parameters"] // 2  # B is zero: no derivative by A
    assert arrays["zero-init:initial/rank"] == 8 * 4  # and here only the gates of all heads
    assert all(arrays[f"{m}:trained/top1"] > 0.5 for m in record["config"]["trained"])  # of 10 classes


# --- the figure -------------------------------------------------------------------------------------------------------


def test_figure_is_registered_and_draws_every_method(tmp_path):
    assert _registry.study(_registry.load("tangent_dimension")) is tangent
    config = small()
    with plotting.style():
        figure = tangent_dimension.draw(planted(config), config)
        plotting.save(figure, tmp_path / "figure.png")
    left, middle, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["E²VPT", "VPT-Deep", "VAPT, trained", "VAPT", "LoRA"]
    assert all(ax.get_xlabel() for ax in figure.axes) and middle.get_ylabel()
    lines = {line.get_label(): line for line in left.lines}
    ranks = lines["above 10⁻⁶ of the first"].get_xdata()
    np.testing.assert_allclose(ranks * 2048, [200, 100, 350, 150, 250])  # by kind, then by rank
    assert lines["the same, certified"].get_ydata().tolist() == [0]
    np.testing.assert_allclose(right.lines[0].get_xdata(), 0.2)
    assert {line.get_label() for line in middle.lines} == {"VPT-Deep", "VAPT", "LoRA", "VAPT, trained"}


def test_counts_stop_where_rounding_begins():
    arrays = planted(small())
    arrays["vapt:initial/threshold"] = np.array(1e-3)
    s = np.geomspace(1, 1e-5, 150)
    assert tangent_dimension.counted(arrays, "vapt:initial", 1e-6) == (s > 1e-3).sum()
    assert tangent_dimension.counted(arrays, "vapt:initial", 1e-2) == (s > 1e-2).sum()


def test_caption_has_the_numbers():
    config, arrays = small(), planted(small())
    said = tangent_dimension.caption(arrays, config)
    for words in (
        "256 digits images", "4 methods of 2,048 to 2,048 parameters", "1 of 5 ranks are certified", "12 to 17 random",
        "VFPT (nearest 9,999 parameters)", "static prompts (2 methods) 5 to 10 % and 10 to 12",
        "VAPT (adaptive prompts) 7 % and 11", "LoRA (changes of weights) 12 % and 13",
        "VAPT, trained 17 % and 15 (accuracy 50 %)",
    ):  # fmt: skip
        assert words in said, words
    assert "belongs to a single image" not in said
    arrays["vapt:initial/diagonal"] = np.array([100.0] + [1.0] * 100)
    assert "belongs to a single image, where it is above 20 %: VAPT 50 %" in tangent_dimension.caption(arrays, config)
