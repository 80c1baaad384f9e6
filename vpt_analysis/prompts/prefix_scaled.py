"""Untied prefixes on the scale of the content's keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from ..vit import Block
from .prefix import Prefix


class PrefixScaled(Prefix):
    r"""Key :math:`W_K\,\mathrm{LN}(a)+b_K` and value :math:`W_V\,\mathrm{LN}(b)+b_V` of two independent tokens a, b.

    Like ``prefix``, keys and values are not tied; like VPT-Deep, both are made by the block's LN1 and projections, so
    that they have the scale of the content's keys and values and the same gain of the gradient. Only the tie differs
    from VPT-Deep, only scale and gain from ``prefix``: the control that claim C14 asks for.

    Source: this project; the confound is that of the released code of Le et al., ICLR 2025, arXiv 2410.02200.
    """

    name = "prefix-scaled"

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([self.key[layer], self.value[layer]])  # (2, P, d)
        key, value = block.keys_values(both)
        return key[:1], value[1:]

    @torch.no_grad()
    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        self.key[layer] = tokens
        self.value[layer] = tokens
