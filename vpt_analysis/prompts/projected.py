"""Static prompts with everything of VAPT but the reading of the image: a control."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..vit import Block, ViTConfig
from .base import Prompt, TokenPrompt, checked_count, per_image


class Projected(TokenPrompt):
    r"""VPT-Deep's tokens through the extras of the released VAPT: a trainable LayerNorm a layer and a residual
    projector of width r that all layers share,

    .. math:: G_j = \mathrm{LN}_\ell(p_{\ell j}), \qquad P_j = W_2\,\mathrm{ReLU}(W_1 G_j) + G_j.

    The prompts are those of ``vapt-released`` with learnable tokens in place of what is mixed from the image's patches,
    so they are the same for every image: the control that claim C9 asks for. L·P·d + 2·L·d + 2·r·d parameters. The
    tokens start as VPT's do, not at zero, where a LayerNorm would pass no gradient.

    Source: this project; the extras are those of the code release of Le et al., VAPT, arXiv 2501.18936, ICLR 2026.
    """

    name = "vpt-projected"
    experts = "static, projected"

    def __init__(self, config: ViTConfig, length: int, rank: int = 8, dropout: float = 0.0):
        super().__init__(config, length, dropout=dropout, rank=rank)
        checked_count(f"rank of {self.name}", rank)
        d = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(d, eps=1e-5) for _ in range(config.depth))
        self.down = skip_init(nn.Linear, d, rank, bias=False)
        self.up = skip_init(nn.Linear, rank, d, bias=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        for linear in (self.down, self.up):
            bound = linear.in_features**-0.5
            linear.weight.uniform_(-bound, bound, generator=generator)

    def prompt_tokens(self, layer: int, x: Tensor) -> Tensor:
        normed = self.norms[layer](self.tokens[layer])  # (P, d)
        return per_image(self.up(F.relu(self.down(normed))) + normed, self.dropout, len(x))

    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        Prompt.place(self, layer, block, tokens)  # refuses: what stands in the sequence is made from the tokens
