"""Zero-initialised attention: a softmax of its own for the prompts, behind a gate that starts closed."""

from __future__ import annotations

import torch
from torch import nn

from ..attention import Separate
from ..vit import ViTConfig
from .base import TokenPrompt


class ZeroInit(TokenPrompt):
    r"""Outputs :math:`y = c + \tanh(\alpha_{\ell h})\,o`: content and prompts have softmaxes of their own.

    The content is not shrunk by :math:`1-\lambda`, and at α = 0, where training starts, the model is the plain one
    (T12). One α for every layer and head, zero at the start. Tokens as VPT-Deep's; the original's pass no LayerNorm.

    Source: Zhang et al., LLaMA-Adapter, 2023, and its code (a gate a head); Diep et al., ICML 2025, arXiv 2502.03029.
    """

    name = "zero-init"
    experts = "static"
    combine = "separate softmaxes, tanh(α)"

    def __init__(self, config: ViTConfig, length: int, dropout: float = 0.0):
        super().__init__(config, length, dropout)
        self.alpha = nn.Parameter(torch.empty(config.depth, config.heads))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        self.alpha.zero_()

    def rule(self, layer: int) -> Separate:
        return Separate(self.alpha[layer][:, None])  # (H, 1), over (B, H, Q)
