"""The Vision Transformer by its definition, its positions on other grids, and the inputs it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import vpt_analysis as va
from tests.reference import random_images, random_vit
from vpt_analysis.vit import parameter_count


def by_hand(vit: va.VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """The forward pass written out with matrix products, head by head."""
    c, w = vit.config, vit.state_dict()
    d, e, p = c.width, c.head_width, c.patch_size

    def ln(x, name):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(var + c.eps) * w[name + ".weight"] + w[name + ".bias"]

    patches = images.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    x = patches @ w["patch.weight"].flatten(1).T + w["patch.bias"]
    x = torch.cat([w["prefix"].expand(len(x), -1, -1), x], 1) + w["position"]
    for i in range(c.depth):
        b, u = f"blocks.{i}.", ln(x, f"blocks.{i}.ln1")
        qkv = u @ w[b + "attention.qkv.weight"].T + w[b + "attention.qkv.bias"]
        heads = []
        for h in range(c.heads):
            q, k, v = (qkv[..., j * d + h * e : j * d + (h + 1) * e] for j in range(3))
            heads.append(torch.softmax(q @ k.mT / math.sqrt(e), -1) @ v)
        y = torch.cat(heads, -1) @ w[b + "attention.out.weight"].T + w[b + "attention.out.bias"]
        x = x + y * w.get(b + "scale1", 1.0)
        h = ln(x, b + "ln2") @ w[b + "fc1.weight"].T + w[b + "fc1.bias"]
        h = F.gelu(h, approximate="none" if c.gelu == "exact" else "tanh")
        x = x + (h @ w[b + "fc2.weight"].T + w[b + "fc2.bias"]) * w.get(b + "scale2", 1.0)
    return ln(x, "norm")


@pytest.mark.parametrize(
    "changes", [{}, {"registers": 3}, {"layer_scale": True}, {"gelu": "tanh", "mlp_width": 40}, {"heads": 1}]
)
def test_the_forward_pass_by_hand(changes):
    vit = random_vit(**changes)
    images = random_images(vit)
    assert (vit(images) - by_hand(vit, images)).abs().max() <= 1e-11


def test_another_grid_interpolates_positions_of_patches_only():
    vit = random_vit(registers=2)
    grid = vit.position[:, 3:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(6, 3), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    got = vit.position_for((6, 3))
    assert torch.equal(got[:, 3:], expected) and torch.equal(got[:, :3], vit.position[:, :3])
    assert vit(torch.zeros(1, 3, 48, 24, dtype=torch.float64)).shape == (1, 3 + 18, 24)
    assert vit.position_for((4, 4)) is vit.position


def test_pooling_and_classifier():
    for pool, width in (("cls", 24), ("mean", 24), ("cls+mean", 48)):
        vit = random_vit(pool=pool, classes=5, registers=1)
        tokens = vit(random_images(vit))
        features = vit.pool(tokens)
        assert features.shape == (3, width)
        if "mean" in pool:
            assert torch.allclose(features[:, -24:], tokens[:, 2:].mean(1))
        if "cls" in pool:
            assert torch.equal(features[:, :24], tokens[:, 0])
        assert torch.allclose(vit.classify(random_images(vit)), features @ vit.head.weight.T + vit.head.bias)
    with pytest.raises(ValueError, match="no classifier"):
        random_vit().classify(random_images(random_vit()))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    config = va.ViTConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2, layer_scale=True, registers=1)
    before = torch.get_rng_state()
    a, b, c = (va.VisionTransformer(config, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["patch.weight"], c["patch.weight"])
    assert (a["position"][:, 1] == 0).all()


def test_parameter_count_of_vit_b16():
    d, n = 768, 197
    count = 3 * 256 * d + d + d + n * d + 12 * (4 * d * d + 4 * d + 8 * d * d + 5 * d + 4 * d) + 2 * d
    vit = va.VisionTransformer(va.ViTConfig(image_size=224, patch_size=16, width=d, depth=12, heads=12))
    assert parameter_count(vit) == count == 85_798_656


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 25}, "width 25 is not a multiple of heads 3"),
        ({"image_size": 33}, "image_size 33 is not a multiple of patch_size 8"),
        ({"depth": 0}, "depth is 0; expected a positive integer"),
        ({"heads": True}, "heads is True"),
        ({"registers": -1}, "registers is -1; expected an integer"),
        ({"gelu": "relu"}, "gelu is 'relu'; expected one of"),
        ({"pool": "max"}, "pool is 'max'; expected one of"),
    ],
)
def test_refused_configurations(changes, message):
    fields = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 3, "heads": 3} | changes
    with pytest.raises(ValueError, match=message):
        va.ViTConfig(**fields)


def pixel(value):
    images = torch.zeros(4, 3, 32, 32)
    images[2, 1, 5, 5] = value
    return images


@pytest.mark.parametrize(
    "images, error, message",
    [
        ([[1.0]], TypeError, "images are list; expected a torch tensor"),
        (torch.zeros(3, 32, 32), ValueError, "expected 4 dimensions"),
        (torch.zeros(2, 1, 32, 32), ValueError, "images have 1 channels; this model takes 3"),
        (torch.zeros(2, 3, 30, 32), ValueError, "30×32 pixels; sides must be positive multiples of the patch size 8"),
        (torch.zeros(2, 3, 0, 32), ValueError, "0×32 pixels"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), TypeError, "images are torch.uint8, the model is torch.float32"),
        (
            torch.zeros(2, 3, 32, 32, dtype=torch.float64),
            TypeError,
            "images are torch.float64, the model is torch.float32",
        ),
        (torch.zeros(2, 3, 32, 32, device="meta"), ValueError, "images are on meta, the model is on cpu"),
        (pixel(float("nan")), ValueError, r"images \[2\] of the batch have NaN or infinite pixels"),
        (pixel(float("inf")), ValueError, r"images \[2\] of the batch have NaN or infinite pixels"),
    ],
)
def test_refused_images(images, error, message):
    with pytest.raises(error, match=message):
        random_vit(torch.float32)(images)
