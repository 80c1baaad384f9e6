"""VPT-Shallow: prompts enter once and travel through every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import KeyGroup
from ..vit import Block, ViTConfig
from .base import Prompt, checked_dropout, official_bound, per_image


class VPTShallow(Prompt):
    r"""Learnable tokens :math:`p \in \mathbb R^{P\times d}` beside the content tokens of the first layer.

    The experts of layer 1 are static, :math:`W_V \mathrm{LN}(p)`; from layer 2 on they are what the prompts have become
    after attending to the image, so they depend on the input. Initialised uniformly in ±√(6/(3·patch²+d)); ``dropout``
    (0 in the official configuration) drops single entries, anew for every image.

    Source: Jia et al., Visual Prompt Tuning, ECCV 2022, eqs. 4-6.
    """

    name = "vpt-shallow"
    experts = "propagated"

    def __init__(self, config: ViTConfig, length: int, dropout: float = 0.0):
        super().__init__(config, length, dropout=dropout)
        self.tokens = nn.Parameter(torch.empty(1, length, config.width))
        self.dropout = checked_dropout(dropout)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        self.tokens.uniform_(-bound, bound, generator=generator)

    def forward(
        self, layer: int, block: Block, x: Tensor, riders: Tensor | None
    ) -> tuple[Tensor | None, KeyGroup | None]:
        if self.length == 0:
            return None, None
        if layer == 0:
            riders = per_image(self.tokens[0], self.dropout, len(x)).expand(len(x), -1, -1)
        return riders, None
