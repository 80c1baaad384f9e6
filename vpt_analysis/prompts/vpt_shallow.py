"""VPT-Shallow: prompts enter once and travel through every layer."""

from __future__ import annotations

from torch import Tensor

from ..vit import Block, Riders, ViTConfig
from .base import TokenPrompt


class VPTShallow(TokenPrompt):
    r"""Learnable tokens :math:`p \in \mathbb R^{P\times d}` beside the content tokens of the first layer.

    The experts of layer 1 are static, :math:`W_V \mathrm{LN}(p)`; from layer 2 on they are what the prompts have become
    after attending to the image, so they depend on the input. Initialised uniformly in ±√(6/(3·patch²+d)); ``dropout``
    (0 in the official configuration) drops single entries, anew for every image.

    Source: Jia et al., Visual Prompt Tuning, ECCV 2022, eqs. 4-6.
    """

    name = "vpt-shallow"
    experts = "propagated"

    def sets(self, config: ViTConfig) -> int:
        return 1

    def forward(self, layer: int, block: Block, x: Tensor, before: Riders | None) -> tuple[Tensor, None]:
        if before is not None:
            return before.left, None
        return self.prompt_tokens(0, x).expand(len(x), -1, -1), None
