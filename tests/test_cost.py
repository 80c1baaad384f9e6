"""Costs against formulas by hand, for the plain model and what each method adds."""

from __future__ import annotations

import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, random_prompt, random_vit
from vpt_analysis import baselines
from vpt_analysis.cost import cost
from vpt_analysis.vit import parameter_count

D, L, PATCH = 24, 3, 8


def blocks(n: int, mlp_width: int = 4 * D, keys: int | None = None) -> int:
    """FLOPs of all blocks on n tokens that attend to ``keys`` keys."""
    return L * (2 * n * D * (4 * D + 2 * mlp_width) + 4 * n * (n if keys is None else keys) * D)


def embedding(patches: int) -> int:
    return 2 * patches * 3 * PATCH**2 * D


@pytest.mark.parametrize(
    "changes, image_size, patches, prefix",
    [({}, None, 16, 1), ({"registers": 3, "mlp_width": 40}, None, 16, 4), ({"classes": 7}, 48, 36, 1)],
)
def test_the_plain_model(changes, image_size, patches, prefix, dtype):
    vit = random_vit(dtype, **changes)
    got = cost(vit, image_size=image_size)
    assert got.flops == embedding(patches) + blocks(patches + prefix, changes.get("mlp_width", 4 * D))
    assert got.trainable == got.extra_flops == got.share == 0
    head = 7 * (D + 1) if "classes" in changes else 0
    assert got.parameters == parameter_count(vit) - head


def test_deit_s_costs_what_is_printed_everywhere():
    """22 M parameters, 4.6 G multiply-adds an image of 224 pixels (Touvron et al., DeiT, ICML 2021)."""
    got = cost(va.VisionTransformer(va.ViTConfig(image_size=224, patch_size=16, width=384, depth=12, heads=6)))
    assert round(got.flops / 2e9, 1) == 4.6 and round(got.parameters / 1e6) == 22


def test_prompts_as_keys_and_values_or_in_the_sequence():
    vit, p, n = random_vit(), 5, 17
    deep = cost(vit, random_prompt(vit, "vpt-deep", p))
    assert deep.extra_flops == L * (2 * p * D * 2 * D + 4 * n * p * D) and deep.trainable == L * p * D
    shallow = cost(vit, random_prompt(vit, "vpt-shallow", p))
    assert shallow.extra_flops == blocks(n + p) - blocks(n) and shallow.trainable == p * D


@pytest.mark.parametrize(
    "name, options, extra",
    [
        ("linear", {}, 0),
        ("full", {}, 0),
        ("bias", {}, 0),
        ("lora", {"rank": 4}, L * 2 * 2 * D * 4 * D),
        ("lora", {"rank": 4, "targets": "qkvo"}, L * 4 * 2 * D * 4 * D),
        ("adapter", {"width": 6}, L * 2 * 17 * 2 * D * 6),
        ("adapter", {"width": 6, "placement": "both"}, L * 2 * 2 * 17 * 2 * D * 6),
    ],
)
def test_baselines(name, options, extra):
    vit = random_vit()
    got = cost(vit, baselines.create(name, vit, **options))
    assert got.extra_flops == extra and got.flops == embedding(16) + blocks(17) + extra


def every_method(vit):
    yield from (random_prompt(vit, name, 5) for name in MECHANISMS)
    yield from (baselines.create(name, vit) for name in baselines.names())


def test_any_method_and_nothing_changes_by_counting():
    vit = random_vit()
    state = torch.get_rng_state()
    for method in every_method(vit):
        method.train()
        before = {k: v.clone() for k, v in method.state_dict().items()}
        got = cost(vit, method)
        assert got.trainable == sum(p.numel() for p in method.parameters()), method.name
        assert got.flops == embedding(16) + blocks(17) + got.extra_flops
        assert (got.extra_flops > 0) == (method.name not in ("linear", "full", "bias")), method.name
        assert method.training and all(torch.equal(before[k], v) for k, v in method.state_dict().items())
    dropping = va.prompts.create("vpt-deep", vit.config, 5, dropout=0.5).double().train()
    assert cost(vit, dropping).extra_flops == cost(vit, dropping.eval()).extra_flops
    assert torch.equal(torch.get_rng_state(), state)


def test_share_of_trained_parameters():
    vit = random_vit()
    got = cost(vit, baselines.create("full", vit))
    assert got.share == 1 and cost(vit, baselines.create("lora", vit, rank=1)).share == L * 4 * D / got.parameters


def test_a_size_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="sides must be positive multiples of the patch size 8"):
        cost(random_vit(), image_size=20)
    with pytest.raises(ValueError, match="sides must be positive multiples"):
        cost(random_vit(), image_size=0)
