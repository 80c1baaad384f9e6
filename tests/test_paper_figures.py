"""The figures themselves, on a tiny backbone: the numbers behind them, their pictures and their captions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from paper_figures import offset_map, spectrum
from vpt_analysis import plotting, study
from vpt_analysis.probes import states
from vpt_analysis.studies import tasks

TINY = {"train_images": 20, "images": 12, "steps": 2, "batch": 8, "length": 3}


def results(module, config: dict) -> dict[str, np.ndarray]:
    return {f"{p['name']}/{k}": v for p in module.parts(config) for k, v in module.compute(p).items()}


@pytest.fixture(scope="module")
def spectrum_results(tiny_backbone):
    config = spectrum.config("quick") | TINY | {"backbone": tiny_backbone, "seeds": [0, 1]}
    return config, results(spectrum, config)


@pytest.fixture(scope="module")
def map_results(tiny_backbone):
    config = offset_map.config("quick") | TINY | {"backbone": tiny_backbone}
    return config, results(offset_map, config)


def test_spectrum_shares_sum_to_1_and_static_experts_have_none(spectrum_results):
    _, arrays = spectrum_results
    for queries in spectrum.QUERIES:
        for mechanism in spectrum.MECHANISMS:
            shares = arrays[f"digits-{mechanism}-0/{queries}/shares"]
            np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-9)
        np.testing.assert_allclose(arrays[f"digits-vpt-deep-0/{queries}/shares"][:, 2:], 0, atol=1e-12)


def test_state_variance_of_static_prompts_is_0(spectrum_results):
    _, arrays = spectrum_results
    np.testing.assert_array_equal(arrays["digits-vpt-deep-0/states"], 0)
    # VPT-Shallow's have not met the image before the first layer.
    np.testing.assert_allclose(arrays["digits-vpt-shallow-0/states"][0], 0, atol=1e-12)


def test_state_variance_is_the_ratio_of_variances(tiny_backbone):
    """Against the definition, on states taken out one image at a time."""
    vit = va.load_backbone(tiny_backbone)
    prompt = va.prompts.create("vpt-shallow", vit.config, 4, seed=1)
    images = torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    inputs = []
    hook = vit.blocks[2].register_forward_pre_hook(lambda _, args: inputs.append(args[0][0, 17:].double()))
    with torch.no_grad():
        for image in images:
            vit(image[None], prompt)
    hook.remove()
    seen = torch.stack(inputs)  # (n, P, d)
    between_images = (seen - seen.mean(0)).square().mean((0, 1)).sum()
    total = (seen - seen.mean((0, 1))).square().mean((0, 1)).sum()
    share, low, high = states.state_variance(vit, images, prompt)[2]
    assert share == pytest.approx(float(between_images / total), rel=1e-5)
    assert 0 < low <= high < 1


@pytest.mark.parametrize("module", [spectrum, offset_map], ids=lambda m: m.__name__.split(".")[1])
def test_same_part_same_bits(module, tiny_backbone):
    config = module.config("quick") | TINY | {"backbone": tiny_backbone}
    part = module.parts(config)[0]
    first, second = module.compute(part), module.compute(part)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def test_offset_map_measures_what_decompose_gives(tiny_backbone):
    vit = va.load_backbone(tiny_backbone)
    prompt = va.prompts.create("vpt-deep", vit.config, 3, seed=0)
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = offset_map.measure(vit, images, prompt)
    split = va.decompose(vit, images, prompt, keep=("mass", "terms"))
    for layer, part in enumerate(split):
        np.testing.assert_allclose(seen["mass"][:, layer], part.mass, rtol=1e-5)
        offset, content = (t.square().sum(-1) for t in (part.prompt_term, part.content_term))
        np.testing.assert_allclose(seen["share"][:, layer], offset / (offset + content), rtol=1e-4)


def test_untrained_and_trained_prompts_differ_and_shares_lie_in_0_1(map_results):
    _, arrays = map_results
    assert arrays["seed0/untrained/share"].shape == arrays["seed0/trained/share"].shape == (12, 3, 2)
    assert (arrays["seed0/untrained/share"] != arrays["seed0/trained/share"]).any()
    for name, array in arrays.items():
        if not name.endswith("pictures"):
            assert (array >= 0).all() and (array <= 1).all(), name


@pytest.mark.parametrize("which", ["spectrum", "offset_map"])
def test_picture_and_caption_come_from_the_arrays(which, request, tmp_path):
    module = {"spectrum": spectrum, "offset_map": offset_map}[which]
    config, arrays = request.getfixturevalue("spectrum_results" if which == "spectrum" else "map_results")
    with plotting.style():
        figure = module.draw(arrays, config)
        plotting.save(figure, tmp_path / "figure.png")
    written = {t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text"))}
    assert "layer" in written and any(word in text for text in written for word in ("share", "mass"))
    text = module.caption(arrays, config)
    assert f"n = {config['images']}" in text and "95 %" in text and f"P = {config['length']}" in text
    assert f"{len(config['seeds'])} seed" in text


def test_verdict_needs_every_layer():
    yes, no = np.array([True, True]), np.array([False, False])
    mixed = np.array([True, False])
    assert spectrum.judge(yes, no) == "supported"
    assert spectrum.judge(no, yes) == "refuted"
    assert spectrum.judge(mixed, ~mixed) == spectrum.judge(no, no) == "inconclusive"


def test_interval_of_seeds_holds_that_of_each():
    config = {"seeds": [0, 1]}
    arrays = {}
    for seed in (0, 1):
        arrays[f"d-m-{seed}/cls/shares"] = np.full((2, 4), 0.5 + 0.1 * seed)
        arrays[f"d-m-{seed}/cls/intervals"] = np.full((2, 4, 2), [0.4, 0.55]) + 0.1 * seed
    shares, intervals = spectrum.pooled(arrays, config, "d", "m", "cls")
    np.testing.assert_allclose(shares, 0.55)
    np.testing.assert_allclose(intervals, np.broadcast_to([0.4, 0.65], (2, 4, 2)))


def test_full_tier_without_data_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv(tasks.VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match=f"set {tasks.VARIABLE}.*--tier committed"):
        tasks.files(["cifar100"])
    monkeypatch.setenv(tasks.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no cifar100.tar in"):
        tasks.files(["cifar100"])
    assert tasks.files(["digits", "shapes-count"]) == {}


def test_missing_backbone_is_named():
    with pytest.raises(FileNotFoundError, match="'vit-huge' is not at"):
        tasks.weights("vit-huge")


def test_full_tier_finds_its_data(data_dir, monkeypatch):
    monkeypatch.setenv(tasks.VARIABLE, str(data_dir))
    for module in (spectrum, offset_map):
        names = module.config("full")["data"]
        found = tasks.files([names] if isinstance(names, str) else names)
        assert found and all(path.is_file() for path in found.values())


def test_number_of_jobs_changes_no_bit(tiny_backbone, tmp_path):
    config = spectrum.config("quick") | TINY | {"backbone": tiny_backbone}
    parts = spectrum.parts(config)
    found = []
    for jobs in (1, 2):
        found.append(study.collect(spectrum, parts, tmp_path / str(jobs), jobs))
    assert list(found[0]) == list(found[1])
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name], err_msg=name)
