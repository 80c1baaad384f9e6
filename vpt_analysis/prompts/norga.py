"""NoRGa: a residual non-linear gate on the prompt scores, for any static experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..vit import Block, ViTConfig
from .base import KeyPrompt
from .gates import Residual, checked_activation
from .registry import build


class NoRGa(KeyPrompt):
    r"""Prompt scores :math:`\hat s' = s' + \alpha_\ell\,\sigma(\tau_\ell s')`, one learnable pair a layer.

    The content's scores stay as they are; one softmax joins all. ``on`` names the mechanism that gives the keys and
    values: "vpt-deep" (tied, as for visual prompts) or "prefix" (untied, as in the paper's continual learning), or any
    other with static keys and values in the same softmax. σ is tanh (the default of the released code), sigmoid or
    gelu. ``activation="identity"`` is the control with the same parameters and no non-linearity:
    :math:`(1+\alpha\tau)s'`, a learnable temperature. Both scalars start at 1, as in the released code, and act on
    scores divided by √e; at α = 0 the gate is that of the mechanism below. The released code reshapes its prefixes so
    that keys and values mix between the images of a batch; that is not reproduced.

    Source: Le et al., Mixture of Experts Meets Prompt-Based Continual Learning, NeurIPS 2024, eq. 12, and its code.
    """

    name = "norga"
    experts = "static"
    gate = "residual, non-linear"

    def __init__(
        self, config: ViTConfig, length: int, on: str = "vpt-deep", activation: str = "tanh", dropout: float = 0.0
    ):
        super().__init__(config, length, on=on, activation=checked_activation(activation), dropout=dropout)
        below = build(on, config, length, **({"dropout": dropout} if dropout else {}))
        static = isinstance(below, KeyPrompt) and below.experts.startswith("static")
        if not static or isinstance(below, NoRGa) or below.combine != self.combine:
            raise ValueError(
                f"norga on {on!r}: expected a mechanism of static keys and values that join the content's by one "
                f"softmax, such as 'vpt-deep' or 'prefix'"
            )
        self.below = below
        self.alpha = nn.Parameter(torch.empty(config.depth))
        self.tau = nn.Parameter(torch.empty(config.depth))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        self.below.initialise(generator)
        self.alpha.fill_(1.0)
        self.tau.fill_(1.0)

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.below.keys_values(layer, block, x)

    def score(self, layer: int) -> Residual:
        return Residual(self.alpha[layer], self.tau[layer], self.options["activation"])

    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        self.below.place(layer, block, tokens)

    @property
    def keys(self) -> int:
        return self.below.keys
