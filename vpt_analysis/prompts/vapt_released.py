"""VAPT as released: prompts made from the patches of each image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..attention import KeyGroup
from ..vit import Block, ViTConfig
from .base import Prompt, checked_dropout, official_bound, per_image


class VAPTReleased(Prompt):
    r"""Visual Adaptive Prompt Tuning as its released code computes it.

    Layer 1 has static prompts. In layer ℓ ≥ 2, from the patches :math:`x` (M, d) that enter it,

    .. math::
        G = W_\ell\,\mathrm{drop}(F_\ell * \mathrm{LN}_\ell(x)) + b_\ell, \qquad
        P_\ell = W_2\,\mathrm{relu}(W_1 G) + G,

    with one K×K kernel :math:`F_\ell` for all channels and no padding, a token-wise projector :math:`W_\ell` from the
    M' = (√M−K+1)² positions to P prompts, and a bottleneck :math:`W_2, W_1` of rank r shared by all layers. CLS is not
    read. The prompts act as keys and values. Kernel from N(0, 1); token projectors, and so all adaptive prompts, start
    at zero. The published equations have neither the LayerNorm, nor the residual, nor the bias, nor a static layer.

    Source: Le et al., arXiv 2501.18936, and its code release.
    """

    name = "vapt-released"
    experts = "adaptive"

    def __init__(self, config: ViTConfig, length: int, kernel: int = 2, rank: int = 8, dropout: float = 0.0):
        super().__init__(config, length, kernel=kernel, rank=rank, dropout=dropout)
        side = config.grid - kernel + 1
        if side < 1:
            raise ValueError(f"kernel {kernel} is larger than the {config.grid}×{config.grid} patch grid")
        d, adaptive = config.width, config.depth - 1
        self.first = nn.Parameter(torch.empty(length, d))
        self.norms = nn.ModuleList(nn.LayerNorm(d, eps=1e-5) for _ in range(adaptive))
        self.kernels = nn.ParameterList(torch.empty(kernel, kernel) for _ in range(adaptive))
        self.projectors = nn.ModuleList(skip_init(nn.Linear, side * side, length) for _ in range(adaptive) if length)
        self.down = skip_init(nn.Linear, d, rank, bias=False)
        self.up = skip_init(nn.Linear, rank, d, bias=False)
        self.dropout = checked_dropout(dropout)
        self.channel_dropout = nn.Dropout2d(dropout)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        bound = official_bound(self.config)
        self.first.uniform_(-bound, bound, generator=generator)
        for kernel in self.kernels:
            kernel.normal_(generator=generator)
        for projector in self.projectors:
            projector.weight.zero_()
            projector.bias.zero_()
        for linear in (self.down, self.up):
            linear.weight.uniform_(-(linear.in_features**-0.5), linear.in_features**-0.5, generator=generator)

    def forward(
        self, layer: int, block: Block, x: Tensor, riders: Tensor | None
    ) -> tuple[Tensor | None, KeyGroup | None]:
        if self.length == 0:
            return None, None
        tokens = per_image(self.first, self.dropout, len(x)) if layer == 0 else self.generate(layer - 1, x)
        return None, KeyGroup(*block.keys_values(tokens))

    def generate(self, i: int, x: Tensor) -> Tensor:
        """Content tokens (B, N, d) to the adaptive prompts (B, P, d) of layer i + 2."""
        side = self.config.grid
        patches = x[:, self.config.prefix :]
        if patches.shape[1] != side * side:
            raise ValueError(
                f"vapt-released reads {side}×{side} patches, these images have {patches.shape[1]}; resize them to "
                f"{self.config.image_size} pixels"
            )
        image = self.norms[i](patches).transpose(1, 2).unflatten(2, (side, side))  # (B, d, h, w)
        batch, d = image.shape[:2]
        kernel = self.kernels[i][None, None]
        smooth = F.conv2d(image.flatten(0, 1).unsqueeze(1), kernel).view(batch, d, *[side - kernel.shape[-1] + 1] * 2)
        mixed = self.projectors[i](self.channel_dropout(smooth).flatten(2)).transpose(1, 2)  # (B, P, d)
        return self.up(self.dropout(F.relu(self.down(mixed)))) + mixed

    def fits_also(self) -> tuple[str, ...]:
        return ("grid", "prefix")
