"""Theorem T9: untied prompts can be split without any change, tied ones cannot; in float64, random and real weights."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.reference import STATIC, backbone, random_images, random_prompt
from vpt_analysis.attention import KeyGroup, attend
from vpt_analysis.prompts import registry

both_weights = pytest.mark.parametrize("weights", ["random", "real"])
UNTIED = tuple(name for name in STATIC if registry.MECHANISMS[name].gate == "untied")
HALF = math.log(2)  # what a score loses when the mass of its key is halved


def twice(group: KeyGroup, keys: tuple, values: tuple) -> KeyGroup:
    """The prompts of ``group`` with the first replaced by two of half its mass, with these keys and values."""
    n, score = group.key.shape[2], group.score

    def halved(s):
        s = s if score is None else score(s)
        return torch.cat([s[..., :2] - HALF, s[..., 2:]], dim=-1)

    def replaced(old, two):
        return torch.cat([*two, old[:, :, 1:n]], dim=2)

    return dataclasses.replace(group, key=replaced(group.key, keys), value=replaced(group.value, values), score=halved)


def attention_of(vit, layer, group) -> torch.Tensor:
    block = vit.blocks[layer]
    tokens = vit.embed(random_images(vit, 2))
    with torch.no_grad():
        return attend(*block.attention.project(block.ln1(tokens)), group)


@both_weights
@pytest.mark.parametrize("name", UNTIED)
@pytest.mark.parametrize("delta", [0.1, 1.0, 10.0])
def test_T9_an_untied_prompt_can_be_split_at_its_key_without_any_change(weights, name, delta):
    """Two atoms at the same key, of half the mass each and with values v ± δ, are the one atom: not identifiable."""
    vit = backbone(weights)
    for layer in (0, vit.config.depth - 1):
        with torch.no_grad():
            _, group = random_prompt(vit, name, 4)(layer, vit.blocks[layer], vit.embed(random_images(vit, 2)), None)
        key, value = group.key[:, :, :1], group.value[:, :, :1]
        direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=value.dtype)
        step = delta * direction / direction.norm()
        before = attention_of(vit, layer, group)
        after = attention_of(vit, layer, twice(group, (key, key), (value - step, value + step)))
        assert (after - before).norm() / before.norm() <= 1e-12


@both_weights
@pytest.mark.parametrize("name", ["vpt-deep", "zero-init", "cross", "norga"])
def test_T9_splitting_a_tied_prompt_changes_the_function_at_second_order(weights, name):
    """Key and value move together with the token, so the split costs δ²: no slow rate from this."""
    vit = backbone(weights)
    layer, block = 0, vit.blocks[0]
    prompt = random_prompt(vit, name, 4)
    tokens = (prompt.below if name == "norga" else prompt).tokens.detach()[layer]
    direction = torch.randn(tokens[:1].shape, generator=torch.Generator().manual_seed(0), dtype=tokens.dtype)
    with torch.no_grad():
        _, group = prompt(layer, block, vit.embed(random_images(vit, 2)), None)
        before, changes = attention_of(vit, layer, group), []
        steps = torch.tensor([4e-3, 2e-3, 1e-3], dtype=torch.float64) * tokens.norm() / direction.norm()
        for step in steps:
            moved = [block.keys_values(tokens[None, :1] + sign * step * direction) for sign in (-1, 1)]
            after = attention_of(vit, layer, twice(group, *zip(*moved, strict=True)))
            changes.append(float((after - before).norm()))
    orders = np.diff(np.log(changes)) / np.diff(np.log(steps.numpy()))
    assert abs(orders - 2).max() <= 0.05 and min(changes) > 0
