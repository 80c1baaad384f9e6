"""What a prompt mechanism is: experts × gate × combine, asked once a layer."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..attention import KeyGroup
from ..vit import Block, VisionTransformer, ViTConfig


class Prompt(nn.Module):
    """Base of all mechanisms.

    A mechanism names its choice on three axes (class attributes ``experts``, ``gate``, ``combine``) and answers
    ``forward(layer, block, x, riders)``: given the block and the content tokens x (B, N, d) that enter it, and the
    prompts that came out of the block before (B, P, d) or None, which tokens travel in the sequence, and which extra
    keys and values does the block attend to. ``length`` 0 is legal and equals no prompt.
    """

    name: ClassVar[str]
    experts: ClassVar[str]
    gate: ClassVar[str] = "tied"
    combine: ClassVar[str] = "joint softmax"

    def __init__(self, config: ViTConfig, length: int, **options):
        super().__init__()
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise ValueError(f"prompt length is {length!r}; expected an integer ≥ 0")
        self.config, self.length, self.options = config, length, options

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the initial parameters from ``generator``."""
        raise NotImplementedError

    def forward(
        self, layer: int, block: Block, x: Tensor, riders: Tensor | None
    ) -> tuple[Tensor | None, KeyGroup | None]:
        raise NotImplementedError

    def check_fits(self, vit: VisionTransformer) -> None:
        """Raise ``ValueError`` where this prompt was made for another backbone, dtype or device."""
        for field in ("width", "depth", "heads", *self.fits_also()):
            mine, its = getattr(self.config, field), getattr(vit.config, field)
            if mine != its:
                raise ValueError(
                    f"this {self.name} prompt was made for a backbone of {field} {mine}, this one has {its}; create it "
                    f"with prompts.create({self.name!r}, vit.config, length)"
                )
        mine, its = next(self.parameters(), None), vit.patch.weight
        if mine is None:
            return
        if mine.dtype != its.dtype or mine.device != its.device:
            raise ValueError(
                f"the prompt is {mine.dtype} on {mine.device}, the backbone {its.dtype} on {its.device}; move it with "
                f"prompt.to(vit.patch.weight)"
            )

    def fits_also(self) -> tuple[str, ...]:
        """Further fields of the config that must agree."""
        return ()


class TokenPrompt(Prompt):
    """Mechanisms whose parameters are tokens alone: ``tokens`` (sets, P, d), with VPT's initialisation and dropout."""

    def __init__(self, config: ViTConfig, length: int, dropout: float = 0.0):
        super().__init__(config, length, dropout=dropout)
        self.tokens = nn.Parameter(torch.empty(self.sets(config), length, config.width))
        self.dropout = checked_dropout(dropout)

    def sets(self, config: ViTConfig) -> int:
        """How many sets of P tokens there are."""
        raise NotImplementedError

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        self.tokens.uniform_(-bound, bound, generator=generator)


def checked_dropout(rate: float) -> nn.Dropout:
    if not 0 <= rate < 1:
        raise ValueError(f"prompt dropout is {rate!r}; expected a share in [0, 1)")
    return nn.Dropout(rate)


def official_bound(config: ViTConfig) -> float:
    r"""VPT's bound :math:`\sqrt{6 / (3 \cdot patch^2 + d)}`, 0.0625 for ViT-B/16 (Jia et al., ECCV 2022, code)."""
    return math.sqrt(6 / (3 * config.patch_size**2 + config.width))


def per_image(tokens: Tensor, dropout: nn.Dropout, batch: int) -> Tensor:
    """Tokens (P, d) as (1, P, d), or as (B, P, d) with a dropout mask for every image, like the official code."""
    if dropout.p and dropout.training:
        return dropout(tokens.expand(batch, -1, -1))
    return tokens.unsqueeze(0)
