"""Gated Prompt Tuning: prompts that travel, each layer mixing what they have become with what they were."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..attention import KeyGroup
from ..vit import Block, Riders, ViTConfig
from .base import TokenPrompt, is_number

TEMPERATURES = (0.01, 10.0)


class Gated(TokenPrompt):
    r"""Tokens enter once and travel. Layer ℓ+1 takes in

    .. math:: P^{\ell+1}_\mathrm{in} = g_\ell P^\ell_\mathrm{out} + (1-g_\ell) P^\ell_\mathrm{in},

    and every layer divides all its scores, content's too, by a learnable temperature :math:`t_\ell`, kept in [0.01,
    10].

    :math:`g_\ell` is the sigmoid of a learnable logit, one a layer, that starts at ``-gate_init`` (10 in the released
    configuration, 5 in its example); at g = 0 the prompts are static and the same in every layer, at g = 1 they are
    VPT-Shallow's. The temperature starts at 1. As it rescales the content's scores, the content pattern is another one
    than without prompts (theorem T2 speaks of a temperature of 1).

    Source: Yoo et al., Improving Visual Prompt Tuning for Self-supervised Vision Transformers, ICML 2023, and its code.
    """

    name = "gated"
    experts = "propagated, gated"
    gate = "tied, temperature of all scores"

    def __init__(self, config: ViTConfig, length: int, gate_init: float = 5.0, dropout: float = 0.0):
        super().__init__(config, length, dropout, gate_init=gate_init)
        if not is_number(gate_init):
            raise ValueError(f"gate_init of gated is {gate_init!r}; expected a finite number, such as 5")
        self.logit = nn.Parameter(torch.empty(config.depth - 1))
        self.temperature = nn.Parameter(torch.empty(config.depth))

    def sets(self, config: ViTConfig) -> int:
        return 1

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        self.logit.fill_(-float(self.options["gate_init"]))
        self.temperature.fill_(1.0)

    def forward(self, layer: int, block: Block, x: Tensor, before: Riders | None) -> tuple[Tensor, KeyGroup]:
        if before is None:
            riders = self.prompt_tokens(0, x).expand(len(x), -1, -1)
        else:
            g = torch.sigmoid(self.logit[layer - 1])
            riders = g * before.left + (1 - g) * before.entered
        none = x.new_zeros(1, self.config.heads, 0, self.config.head_width)
        return riders, KeyGroup(none, none, temperature=self.temperature[layer].clamp(*TEMPERATURES))
