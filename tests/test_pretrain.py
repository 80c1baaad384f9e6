"""The recipe of the bundled backbone: it learns and resumes in the same bits; the shipped weights fit their card."""

from __future__ import annotations

import dataclasses
import functools
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import vpt_analysis as va
from tests.reference import WEIGHTS
from vpt_analysis import pretrain as module
from vpt_analysis.pretrain import Recipe, augment, pretrain
from vpt_analysis.storage import digest_file
from vpt_analysis.training import accuracy, learning_rate


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """All of the recipe, on a model that trains in seconds."""
    config = functools.partial(va.ViTConfig, image_size=32, patch_size=8, width=32, depth=2, heads=2)
    monkeypatch.setattr(module, "micro_config", lambda classes: config(classes=classes))


TINY = Recipe(epochs=4, early_epochs=2, batch=16, warmup=0.5, lr=2e-3)


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory):
    """Two classes, red and blue, as an npz of WebP bytes."""
    path, arrays, rng = tmp_path_factory.mktemp("data") / "two.npz", {}, np.random.default_rng(0)
    for split, n in (("train", 48), ("test", 20)):
        labels, blobs = np.arange(n) % 2, []
        for label in labels:
            pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
            pixels[..., 2 * label] += 150
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "WEBP", quality=90)
            blobs.append(np.frombuffer(buffer.getvalue(), np.uint8))
        arrays[f"{split}_bytes"], arrays[f"{split}_labels"] = np.concatenate(blobs), labels.astype(np.int64)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, blobs)])
    np.savez(path, class_names=np.array(["red", "blue"]), **arrays)
    return path


def test_it_learns_and_writes_weights_card_and_log(packed_file, tmp_path):
    card = pretrain(packed_file, tmp_path, dataclasses.replace(TINY, epochs=8))
    assert card["top1"] > 0.9 and len(card["log"]) == 8
    flags = "--epochs 8 --early-epochs 2 --batch 16 --lr 0.002"
    assert card["command"] == f"vpt-analysis pretrain --data two.npz --out DIR {flags}"
    vit = va.load_backbone(tmp_path / "vit.safetensors", dtype=torch.float32)
    test = va.data.packed(packed_file, "test")
    assert accuracy(vit, None, vit.head, test.normalised(vit.config), test.labels) == card["top1"]
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    assert card["weights_sha256"] == digest_file(tmp_path / "vit.safetensors")
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 8


def test_an_interrupted_run_ends_in_the_same_bits(packed_file, tmp_path, monkeypatch):
    pretrain(packed_file, tmp_path / "whole", TINY)
    original, calls = module._batch, []

    def stops(*args):
        calls.append(1)
        if len(calls) == 8:  # in the third epoch of three steps each
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(module, "_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        pretrain(packed_file, tmp_path / "parts", TINY)
    calls.extend([1] * 99)
    pretrain(packed_file, tmp_path / "parts", TINY)
    whole, parts = (digest_file(tmp_path / d / "vit.safetensors") for d in ("whole", "parts"))
    assert whole == parts


def test_a_second_run_starts_where_the_first_stopped(packed_file, tmp_path):
    first = pretrain(packed_file, tmp_path / "a", dataclasses.replace(TINY, stop=4))
    second = pretrain(packed_file, tmp_path / "b", dataclasses.replace(TINY, lr=0.0, stop=1), start=tmp_path / "a")
    assert len(first["log"]) == 1 and first["start"] is None and second["start"] == json.loads(json.dumps(first))
    assert "--start START" in second["command"] and second["top1"] == first["top1"]
    a, b = (va.load_backbone(tmp_path / d / "vit.safetensors", dtype=torch.float32) for d in "ab")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    with pytest.raises(FileNotFoundError):
        pretrain(packed_file, tmp_path / "c", TINY, start=tmp_path / "none")
    backbones = va.VisionTransformer(va.ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, classes=2))
    va.backbones.save(backbones, tmp_path / "a" / "vit.safetensors")
    with pytest.raises(ValueError, match="width=16.*expected.*width=32"):
        pretrain(packed_file, tmp_path / "c", TINY, start=tmp_path / "a")


def test_a_checkpoint_of_another_recipe_is_refused(packed_file, tmp_path):
    short = dataclasses.replace(TINY, epochs=1, early_epochs=1)
    pretrain(packed_file, tmp_path, short)
    with pytest.raises(ValueError, match="belongs to a run with another recipe"):
        pretrain(packed_file, tmp_path, dataclasses.replace(short, lr=1.0))


@pytest.mark.parametrize("change", [{"batch": 0}, {"epochs": -1}, {"lr": -1.0}, {"lr": float("nan")}])
def test_impossible_recipes(change):
    with pytest.raises(ValueError, match="expected at least"):
        Recipe(**change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_an_accelerator_that_is_not_there(packed_file, tmp_path):
    with pytest.raises(ValueError, match="no CUDA here; use 'cpu'"):
        pretrain(packed_file, tmp_path, TINY, device="cuda")


def test_too_few_images_for_a_batch(packed_file, tmp_path):
    with pytest.raises(ValueError, match="48 training images do not fill one batch of 64"):
        pretrain(packed_file, tmp_path, Recipe(batch=64))


def test_augmentation_without_cropping_is_the_image_or_its_mirror():
    images = torch.rand(32, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    out = augment(images, 8, (10.0, 10.0), generator)  # an area share beyond 1 is clamped to the whole image
    mirrored = (out - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    same = (out - images).abs().amax((1, 2, 3)) < 1e-5
    assert (mirrored ^ same).all() and mirrored.any() and same.any()


def test_crops_stay_inside_the_image():
    ramp = torch.linspace(0, 1, 32).expand(64, 1, 32, 32)
    out = augment(ramp, 24, (0.3, 0.9), torch.Generator().manual_seed(0))
    assert out.shape == (64, 1, 24, 24) and out.min() >= 0 and out.max() <= 1
    span = out.amax((1, 2, 3)) - out.amin((1, 2, 3))
    assert span.min() > 0.3 and span.max() <= 1.0 and span.std() > 0.05


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [learning_rate(s, 100, 10, 2.0) for s in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == 2.0 == max(rates) and rates[-1] < 0.01
    assert all(a <= b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a >= b for a, b in zip(rates[10:99], rates[11:], strict=True))


def test_the_shipped_weights_are_those_of_their_card():
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    vit = va.load_backbone("vit-micro")
    assert card["weights_sha256"] == digest_file(WEIGHTS) and WEIGHTS.stat().st_size <= 5 * 2**20
    assert va.vit.parameter_count(vit) == card["parameters"]
    assert vit.config.to_dict() == va.ViTConfig(**card["config"]).to_dict()
    assert card["top1"] >= 0.2  # 40 times chance; an untrained or damaged file has 0.005


def test_the_shipped_weights_reach_the_accuracy_of_their_card(data_dir):
    """A tenth of the test split; the interval is four standard errors."""
    card = json.loads(WEIGHTS.with_suffix(".json").read_text())
    vit, test = va.load_backbone("vit-micro"), va.data.packed(data_dir / "tinyimagenet32.npz", "test")
    part = test.subset(n=1000, seed=0)
    top1 = accuracy(vit, None, vit.head, part.normalised(vit.config), part.labels)
    assert abs(top1 - card["top1"]) <= 4 * (0.25 / 1000) ** 0.5
