"""VFPT: a part of the prompts is given by its Fourier transform."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attention import wide
from ..vit import ViTConfig
from .base import TokenPrompt, is_number, per_image


class VFPT(TokenPrompt):
    r"""VPT-Deep whose first ⌊share·P⌋ prompts are :math:`\mathrm{Re}\,F_\mathrm{seq} F_\mathrm{hid}\, p`.

    A linear and static reparametrisation: the experts are as constant as VPT-Deep's. The real part of a two-dimensional
    transform is even in (k, l), so Fourier prompts come in tied pairs, and about half of their dimensions are free.

    Source: Zeng et al., Visual Fourier Prompt Tuning, NeurIPS 2024, arXiv 2411.01327, and its code.
    """

    name = "vfpt"
    experts = "static, Fourier"

    def __init__(self, config: ViTConfig, length: int, share: float = 0.5, dropout: float = 0.0):
        super().__init__(config, length, dropout, share=share)
        if not is_number(share) or not 0 <= share <= 1:
            raise ValueError(f"share of Fourier prompts is {share!r}; expected a number in [0, 1]")
        self.fourier = int(share * length + 1e-9)  # 0.29 · 100 is 28.999… in floating point

    def prompt_tokens(self, layer: int, x: Tensor) -> Tensor:
        tokens = self.tokens[layer]
        if self.fourier:
            part = tokens[: self.fourier].to(wide(tokens))  # torch has no transform in half precision
            part = torch.fft.fft2(part).real.to(tokens.dtype)  # over hidden dimensions and over the sequence
            tokens = torch.cat([part, tokens[self.fourier :]])
        return per_image(tokens, self.dropout, len(x))
