"""LoRA: weights of the attention moved by matrices of low rank."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..vit import VisionTransformer, ViTConfig
from .base import Baseline, twin, uniform

TARGETS = "qkvo"


class LoRA(Baseline):
    r"""Low-rank changes of the attention's projections in every layer,

    .. math::
        W' = W + \frac{\alpha}{r} B A, \qquad A \in \mathbb R^{r\times d},\; B \in \mathbb R^{d\times r},

    for each of ``targets``: letters of "qkvo", queries and values by default. 2 r d scalars a target and layer.
    ``rank`` r in [1, d], ``alpha`` α. A from the uniform distribution in ±1/√d, as the released code draws it (the
    paper says Gaussian), B zero, so that training begins at the plain model. ``down`` (L, T, r, d) holds A and ``up``
    (L, T, d, r) holds B, T targets in the order of "qkvo". Biases are not trained.

    Queries, keys and values come from one fused matrix here. A LoRA on a fused matrix, as the package ``peft`` would
    put it there, has one A for all three and moves the keys with them; so each target has factors of its own, added to
    its rows. The product is merged into the weight once a forward pass, for all images.

    Raises ``ValueError`` on options out of range. Source: Hu et al., LoRA, ICLR 2022, eq. 3.
    """

    name = "lora"

    def __init__(self, config: ViTConfig, rank: int = 8, alpha: float = 8.0, targets: str = "qv"):
        super().__init__(config, rank=rank, alpha=alpha, targets=targets)
        d = config.width
        if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= d:
            raise ValueError(f"rank is {rank!r}; expected an integer from 1 to the width {d}")
        if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not math.isfinite(alpha):
            raise ValueError(f"alpha is {alpha!r}; expected a finite number")
        if not isinstance(targets, str) or not targets or len(set(targets) & set(TARGETS)) != len(targets):
            raise ValueError(f"targets are {targets!r}; expected some of the letters of {TARGETS!r}, each once")
        self.scale, self.targets = alpha / rank, [t for t in TARGETS if t in targets]
        self.down = nn.Parameter(torch.empty(config.depth, len(targets), rank, d))
        self.up = nn.Parameter(torch.empty(config.depth, len(targets), d, rank))

    @torch.no_grad()
    def initialise(self, vit: VisionTransformer, generator: torch.Generator) -> None:
        self.down.copy_(uniform(self.down.shape, self.config.width**-0.5, generator))
        self.up.zero_()

    def adapted(self, vit: VisionTransformer) -> VisionTransformer:
        changes = self.scale * (self.up @ self.down)  # (L, T, d, d)
        tensors = {}
        for layer, block in enumerate(vit.blocks):
            change = dict(zip(self.targets, changes[layer], strict=True))
            weights = dict(zip("qkv", block.attention.qkv.weight.detach().chunk(3), strict=True))
            weights["o"] = block.attention.out.weight.detach()
            moved = {t: w + change[t] if t in change else w for t, w in weights.items()}
            tensors[f"blocks.{layer}.attention.qkv.weight"] = torch.cat([moved[t] for t in "qkv"])
            tensors[f"blocks.{layer}.attention.out.weight"] = moved["o"]
        return twin(vit, tensors)
