"""E²VPT: prompt tokens, and key-value prompts beside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..vit import Block, ViTConfig
from .base import TokenPrompt, checked_count, checked_flag
from .prefix import in_heads


class E2VPT(TokenPrompt):
    r"""VPT-Deep's tokens, plus :math:`P_K, P_V` beside the projected keys and values: K' = [K; P_K], V' = [V; P_V].

    ``key_values`` of them a layer (5 in the released code), Kaiming-uniform with bound √(6/(key_values·e)); with
    ``share`` (the released default) :math:`P_K = P_V`. A layer then has P + ``key_values`` prompt keys, and the
    key-value prompts' gate need not factor through :math:`W_K\mathrm{LN}(p)`. The pruning of tokens and segments, which
    follows training in the paper, is not part of the mechanism.

    Source: Han et al., E²VPT, ICCV 2023, and its code.
    """

    name = "e2vpt"
    experts = "static, tokens and key-values"
    gate = "tied, and untied from W_K"

    def __init__(self, config: ViTConfig, length: int, key_values: int = 5, share: bool = True, dropout: float = 0.0):
        super().__init__(config, length, dropout, key_values=key_values, share=share)
        checked_count("number of key-value prompts", key_values)
        sets = 1 if checked_flag("share of e2vpt", share) else 2
        self.key_values = nn.Parameter(torch.empty(sets, config.depth, key_values, config.width))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        bound = (6 / (self.key_values.shape[2] * self.config.head_width)) ** 0.5
        self.key_values.uniform_(-bound, bound, generator=generator)

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        tied = super().keys_values(layer, block, x)
        own = (in_heads(p, self.config.heads) for p in (self.key_values[0, layer], self.key_values[-1, layer]))
        return tuple(
            torch.cat([t, o.expand(len(t), -1, -1, -1)], dim=2) for t, o in zip(tied, own, strict=True)
        )  # (1 or B, H, P + key_values, e)

    @property
    def keys(self) -> int:
        return self.length + self.options["key_values"] if self.length else 0
