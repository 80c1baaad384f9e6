"""What a prompt mechanism is: experts × gate × combine, asked once a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..attention import Combine, KeyGroup, joint
from ..fits import check_fits
from ..vit import Block, Riders, VisionTransformer, ViTConfig


class Prompt(nn.Module):
    """Base of all mechanisms.

    A mechanism names its choice on three axes (class attributes ``experts``, ``gate``, ``combine``) and answers
    ``forward(layer, block, x, before)``: given the block and the content tokens x (B, N, d) that enter it, and the
    prompts that went through the block before as ``Riders(entered, left)`` or None, which tokens (B, P, d) travel in
    the sequence, and which extra keys and values does the block attend to; None for neither. ``experts`` begins with
    "static" where they are the same for every image. Length 0 is legal and equals no prompt.

    The answer depends on the arguments and the parameters alone and is made of torch operations that ``torch.vmap``
    can batch; then ``train_many`` trains many prompts of a mechanism in one pass.
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

    def prepare(self, vit: VisionTransformer, images: Tensor) -> None:
        """Take from training images (n, C, h, w) what the mechanism needs to know of them before it is trained; most
        need nothing. Whoever trains a mechanism calls it once, on the images that it will be trained on."""

    def forward(
        self, layer: int, block: Block, x: Tensor, before: Riders | None
    ) -> tuple[Tensor | None, KeyGroup | None]:
        raise NotImplementedError

    def encode(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Content tokens (B, N, d) of the prompted backbone; what the trainer asks of every method."""
        return vit(images, self)

    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        """Make ``tokens`` (P, d) of a layer's sequence the prompts of that layer, where the mechanism holds such."""
        raise ValueError(f"{self.name} prompts are not tokens of a layer's sequence, so prototypes cannot be placed")

    @property
    def keys(self) -> int:
        """How many prompt keys a layer has; the rank bound of static prompts (T3) is the smaller of this and e."""
        return self.length

    def check_fits(self, vit: VisionTransformer) -> None:
        """Raise ``ValueError`` where this prompt was made for another backbone, dtype or device."""
        fields = ("width", "depth", "heads", *self.fits_also())
        check_fits(self, vit, "prompt", fields, f"prompts.create({self.name!r}, vit.config, length)")

    def fits_also(self) -> tuple[str, ...]:
        """Further fields of the config that must agree."""
        return ()


class KeyPrompt(Prompt):
    """Mechanisms that act as extra keys and values, one method an axis.

    By default the key and the value of a prompt are those of one token, which passes the block's LN1 and projections;
    its score is the dot product, and one softmax joins it to the content.
    """

    def forward(self, layer: int, block: Block, x: Tensor, before: Riders | None) -> tuple[None, KeyGroup]:
        return None, KeyGroup(*self.keys_values(layer, block, x), self.score(layer), self.rule(layer))

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        """Experts: keys and values (1 or B, H, P, e)."""
        return block.keys_values(self.prompt_tokens(layer, x))

    def prompt_tokens(self, layer: int, x: Tensor) -> Tensor:
        """Tokens (1 or B, P, d) that stand for the experts of a layer whose content tokens are x (B, N, d)."""
        raise NotImplementedError

    def score(self, layer: int) -> Callable[[Tensor], Tensor] | None:
        """Gate: what is made of the prompt scores (B, H, Q, P); None leaves them."""
        return None

    def rule(self, layer: int) -> Combine:
        """How the prompt output joins the content output."""
        return joint


class TokenPrompt(KeyPrompt):
    """Mechanisms whose experts are learnable ``tokens`` (sets, P, d), with VPT's initialisation and dropout."""

    def __init__(self, config: ViTConfig, length: int, dropout: float = 0.0, **options):
        super().__init__(config, length, dropout=dropout, **options)
        self.tokens = nn.Parameter(torch.empty(self.sets(config), length, config.width))
        self.dropout = checked_dropout(dropout)

    def sets(self, config: ViTConfig) -> int:
        """How many sets of P tokens there are; one a layer by default."""
        return config.depth

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        self.tokens.uniform_(-bound, bound, generator=generator)

    def prompt_tokens(self, layer: int, x: Tensor) -> Tensor:
        return per_image(self.tokens[layer], self.dropout, len(x))

    @torch.no_grad()
    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        if layer < len(self.tokens):
            self.tokens[layer] = tokens


def checked_dropout(rate: float) -> nn.Dropout:
    if not is_number(rate) or not 0 <= rate < 1:
        raise ValueError(f"prompt dropout is {rate!r}; expected a share in [0, 1)")
    return nn.Dropout(rate)


def checked_count(what: str, value: int) -> int:
    """``value`` where it is an integer ≥ 1, else ``ValueError``; True is a flag, not a one."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{what} is {value!r}; expected an integer ≥ 1")
    return value


def checked_flag(what: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{what} is {value!r}; expected True or False")
    return value


def is_number(value: object) -> bool:
    """A finite real number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def official_bound(config: ViTConfig) -> float:
    r"""VPT's bound :math:`\sqrt{6 / (3 \cdot patch^2 + d)}`, 0.0625 for ViT-B/16 (Jia et al., ECCV 2022, code)."""
    return math.sqrt(6 / (3 * config.patch_size**2 + config.width))


def per_image(tokens: Tensor, dropout: nn.Dropout, batch: int) -> Tensor:
    """Tokens (P, d) as (1, P, d), or as (B, P, d) with a dropout mask for every image, like the official code."""
    if dropout.p and dropout.training:
        return dropout(tokens.expand(batch, -1, -1))
    return tokens.unsqueeze(0)
