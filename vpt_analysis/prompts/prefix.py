"""Prefix tuning: keys and values of their own, not tied through one token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..vit import Block, ViTConfig
from .base import KeyPrompt, official_bound


class Prefix(KeyPrompt):
    r"""Learnable keys and values :math:`k'_\ell, v'_\ell \in \mathbb R^{P\times d}` for every layer, independent.

    They stand beside the projected keys and values and pass neither LN1 nor a projection, so their scale is that of
    their initialisation, uniform in ±√(6/(3·patch²+d)), far below the content's. That, and not the missing tie alone,
    sets them apart from VPT-Deep; ``prefix-scaled`` separates the two.

    Source: Li and Liang, Prefix-Tuning, ACL 2021; "no share" of Le et al., ICLR 2025, arXiv 2410.02200, and its code.
    """

    name = "prefix"
    experts = "static, untied"
    gate = "untied"

    def __init__(self, config: ViTConfig, length: int):
        super().__init__(config, length)
        self.key = nn.Parameter(torch.empty(config.depth, length, config.width))
        self.value = nn.Parameter(torch.empty(config.depth, length, config.width))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        for p in (self.key, self.value):
            p.uniform_(-bound, bound, generator=generator)

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        return in_heads(self.key[layer], self.config.heads), in_heads(self.value[layer], self.config.heads)

    @torch.no_grad()
    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        for mine, made in zip((self.key, self.value), block.keys_values(tokens[None]), strict=True):
            mine[layer] = made[0].transpose(0, 1).flatten(1)  # (H, P, e) to (P, d)


def in_heads(x: Tensor, heads: int) -> Tensor:
    """Keys or values (P, d) cut into heads: (1, H, P, e)."""
    return x.unflatten(-1, (heads, -1)).transpose(0, 1).unsqueeze(0)
