"""Untied prefixes on the scale of the content's keys and values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..vit import Block, ViTConfig
from .base import KeyPrompt, official_bound


class PrefixScaled(KeyPrompt):
    r"""Key :math:`W_K\,\mathrm{LN}(a)+b_K` and value :math:`W_V\,\mathrm{LN}(b)+b_V` of two independent tokens a, b.

    Like ``prefix``, keys and values are not tied; like VPT-Deep, both are made by the block's LN1 and projections, so
    that they have the scale of the content's keys and values and the same gain of the gradient. Only the tie differs
    from VPT-Deep, only scale and gain from ``prefix``: the control that claim C14 asks for.

    Source: this project; the confound is that of the released code of Le et al., ICLR 2025, arXiv 2410.02200.
    """

    name = "prefix-scaled"
    experts = "static, untied"
    gate = "untied"

    def __init__(self, config: ViTConfig, length: int):
        super().__init__(config, length)
        self.key_tokens = nn.Parameter(torch.empty(config.depth, length, config.width))
        self.value_tokens = nn.Parameter(torch.empty(config.depth, length, config.width))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        for p in (self.key_tokens, self.value_tokens):
            p.uniform_(-bound, bound, generator=generator)

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([self.key_tokens[layer], self.value_tokens[layer]])  # (2, P, d)
        key, value = block.keys_values(both)
        return key[:1], value[1:]

    @torch.no_grad()
    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        self.key_tokens[layer] = tokens
        self.value_tokens[layer] = tokens
