"""Backbones and prompts whose gates and values are set by hand."""

from __future__ import annotations

import torch

import vpt_analysis as va
from tests.reference import FixedKeys, random_vit


def blind(**changes) -> va.VisionTransformer:
    """A backbone whose queries are the ones vector and whose content keys are 0: scores are sums of prompt keys."""
    vit = random_vit(**changes)
    d = vit.config.width
    with torch.no_grad():
        for block in vit.blocks:
            block.attention.qkv.weight[: 2 * d] = 0
            block.attention.qkv.bias[:d] = 1
            block.attention.qkv.bias[d : 2 * d] = 0
    return vit


def half_spoken(**changes) -> va.VisionTransformer:
    """A ``blind`` backbone whose content values have zeros in the second half of every head."""
    vit = blind(**changes)
    c = vit.config
    silent = torch.arange(c.width) % c.head_width >= c.head_width // 2
    with torch.no_grad():
        for block in vit.blocks:
            block.attention.qkv.weight[2 * c.width :][silent] = 0
            block.attention.qkv.bias[2 * c.width :][silent] = 0
    return vit


def planted(vit: va.VisionTransformer, scores: list[float], value: torch.Tensor | None = None, **group) -> FixedKeys:
    """Prompts with these scores for every query of a ``blind`` backbone, and values (P, e), the same in every head."""
    c = vit.config
    s = torch.tensor(scores, dtype=torch.float64)
    key = (s / c.head_width**0.5).view(1, 1, -1, 1).expand(1, c.heads, -1, c.head_width).contiguous()
    if value is None:
        value = torch.randn(len(scores), c.head_width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return FixedKeys(c, key, value.expand(1, c.heads, -1, -1).contiguous(), **group)
