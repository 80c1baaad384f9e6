"""Prefix tuning with keys and values that share a latent."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..vit import Block, ViTConfig
from .base import KeyPrompt, checked_count, official_bound
from .prefix import in_heads


class PrefixShared(KeyPrompt):
    r"""Keys and values :math:`[k', v'] = W_2 \tanh(W_1 p'_\ell + b_1) + b_2` of one latent :math:`p'_\ell` (P, d).

    The reparametrisation that ties key and value of a prefix, as VPT's single token does, with a bottleneck of width
    ``rank`` in every layer. Keys and values enter raw, without LN1 or projection.

    Source: "deep share" of Le et al., Revisiting Prefix-tuning, ICLR 2025, arXiv 2410.02200, and its code.
    """

    name = "prefix-shared"
    experts = "static, reparametrised"
    gate = "tied through a latent"

    def __init__(self, config: ViTConfig, length: int, rank: int = 48):
        super().__init__(config, length, rank=rank)
        checked_count("rank of the shared latent", rank)
        d = config.width
        self.latent = nn.Parameter(torch.empty(config.depth, length, d))
        self.down = nn.ModuleList(skip_init(nn.Linear, d, rank) for _ in range(config.depth))
        self.up = nn.ModuleList(skip_init(nn.Linear, rank, 2 * d) for _ in range(config.depth))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        self.latent.uniform_(-bound, bound, generator=generator)
        for linear in (*self.down, *self.up):  # torch's own initialisation of a linear layer
            bound = linear.in_features**-0.5
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def place(self, layer: int, block: Block, tokens: Tensor) -> None:
        """Latents and first layer stay; the second becomes the least-squares map to the tokens' keys and values, exact
        for up to ``rank`` + 1 prompts."""
        hidden = torch.tanh(self.down[layer](self.latent[layer]))  # (P, r)
        wanted = torch.cat(
            [m[0].transpose(0, 1).flatten(1) for m in block.keys_values(tokens[None])], dim=-1
        )  # (P, 2d)
        known = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=-1).double()
        found = torch.linalg.pinv(known) @ wanted.double()  # (r + 1, 2d)
        self.up[layer].weight.copy_(found[:-1].T)
        self.up[layer].bias.copy_(found[-1])

    def keys_values(self, layer: int, block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.up[layer](torch.tanh(self.down[layer](self.latent[layer]))).chunk(2, dim=-1)  # (P, d)
        return in_heads(key, self.config.heads), in_heads(value, self.config.heads)
