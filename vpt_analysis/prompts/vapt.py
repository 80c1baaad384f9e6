"""VAPT: prompts made from the patches of each image, as written and as released."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..errors import unknown
from ..vit import VisionTransformer, ViTConfig
from .base import KeyPrompt, checked_count, checked_dropout, checked_flag, official_bound, per_image
from .content import mean_tokens

ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh}


class VAPT(KeyPrompt):
    r"""Visual Adaptive Prompt Tuning as its equations have it. From the patches :math:`x` (M, d) that enter layer ℓ,

    .. math::
        G_j = \sum_k \alpha_{\ell jk}\,(F_\ell * x)_k, \qquad P_j = W_2\,\sigma(W_1 G_j),

    with one K×K kernel :math:`F_\ell` for all channels, a token-wise projector :math:`\alpha_\ell` (P, M'), and a
    two-layer projector of width r, :math:`W_1, W_2`, shared by all layers. CLS is not read. The prompts act as keys and
    values. M' = (√M−K+1)² and K = 2 give the published count L·P·M' + L·K² + 2·r·d. How α starts is not published; here
    like a linear layer of M' inputs, for at α = 0 without the residual no gradient passes.

    The released code differs, and ``vapt-released`` is this class with all its differences; each is a flag:
    ``static_first`` (layer 1 keeps static tokens), ``norm`` (a trainable LayerNorm a layer before the convolution),
    ``residual`` (:math:`P = W_2\sigma(W_1G) + G`), ``bias`` (of the token projector) and ``zero_init`` (of the token
    projector). ``kernel`` K, ``padding`` (zeros, so that M' = M for odd K; off in both), ``rank`` r, ``activation`` and
    ``dropout`` are options of both.

    ``mean_fed`` is the control that claim C10 asks for: every layer's generator is fed the data set's mean patches, one
    mean a position, in place of the image's, so that all images get the same prompts. Parameters and their gradients'
    gains are kept, and only the reading of the input is gone. ``prepare`` takes the means from training images.

    Convolution and token projector are both linear in x, so they are applied as one matrix (P, M), the convolution's
    adjoint on α: the image is never convolved.

    Source: Le et al., arXiv 2501.18936, ICLR 2026, and its code release.
    """

    name = "vapt"
    experts = "adaptive"

    def __init__(
        self,
        config: ViTConfig,
        length: int,
        *,
        kernel: int = 2,
        padding: bool = False,
        rank: int = 8,
        activation: str = "relu",
        static_first: bool = False,
        norm: bool = False,
        residual: bool = False,
        bias: bool = False,
        zero_init: bool = False,
        mean_fed: bool = False,
        dropout: float = 0.0,
    ):
        options = {
            "kernel": kernel, "padding": padding, "rank": rank, "activation": activation, "static_first": static_first,
            "norm": norm, "residual": residual, "bias": bias, "zero_init": zero_init, "mean_fed": mean_fed,
            "dropout": dropout,
        }  # fmt: skip
        super().__init__(config, length, **options)
        if activation not in ACTIVATIONS:
            raise unknown(f"activation of {self.name}", activation, ACTIVATIONS)
        for what in ("kernel", "rank"):
            checked_count(f"{what} of {self.name}", options[what])
        for what in ("padding", "static_first", "norm", "residual", "bias", "zero_init", "mean_fed"):
            checked_flag(f"{what} of {self.name}", options[what])
        self.pad = (kernel - 1) // 2 if padding else 0
        self.side = config.grid + 2 * self.pad - kernel + 1
        if self.side < 1:
            raise ValueError(f"kernel {kernel} is larger than the {config.grid}×{config.grid} patch grid")
        d, adaptive = config.width, config.depth - static_first
        self.first = nn.Parameter(torch.empty(length, d)) if static_first else None
        if mean_fed:
            self.experts = "static, generated"
            self.register_buffer("means", torch.zeros(adaptive, config.grid**2, d))
        self.norms = nn.ModuleList(nn.LayerNorm(d, eps=1e-5) for _ in range(adaptive if norm else 0))
        self.kernels = nn.ParameterList(torch.empty(kernel, kernel) for _ in range(adaptive))
        made = range(adaptive if length else 0)
        self.projectors = nn.ModuleList(skip_init(nn.Linear, self.side**2, length, bias=bias) for _ in made)
        self.down = skip_init(nn.Linear, d, rank, bias=False)
        self.up = skip_init(nn.Linear, rank, d, bias=False)
        self.activation = ACTIVATIONS[activation]
        self.dropout = checked_dropout(dropout)
        self.channel_dropout = nn.Dropout(dropout)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        if self.first is not None:
            bound = official_bound(self.config)
            self.first.uniform_(-bound, bound, generator=generator)
        for kernel in self.kernels:
            kernel.normal_(generator=generator)
        for linear in (*self.projectors, self.down, self.up):
            bound = linear.in_features**-0.5
            zero = self.options["zero_init"] and linear not in (self.down, self.up)
            for p in linear.parameters():
                p.zero_() if zero else p.uniform_(-bound, bound, generator=generator)

    @torch.no_grad()
    def prepare(self, vit: VisionTransformer, images: Tensor) -> None:
        if self.options["mean_fed"]:
            skipped = int(self.first is not None)
            for i, mean in enumerate(mean_tokens(vit, images)[skipped:]):
                self.means[i] = mean[self.config.prefix :]

    def prompt_tokens(self, layer: int, x: Tensor) -> Tensor:
        if self.first is None:
            return self.generate(layer, x)
        return per_image(self.first, self.dropout, len(x)) if layer == 0 else self.generate(layer - 1, x)

    def generate(self, i: int, x: Tensor) -> Tensor:
        """Content tokens (B, N, d) to the prompts (B, P, d) of the adaptive layer i."""
        if self.options["mean_fed"]:
            return self.project(i, self.means[i][None])
        patches, side = x[:, self.config.prefix :], self.config.grid  # (B, M, d)
        if patches.shape[1] != side * side:
            raise ValueError(
                f"{self.name} reads {side}×{side} patches, these images have {patches.shape[1]}; resize them to "
                f"{self.config.image_size} pixels"
            )
        return self.project(i, patches)

    def project(self, i: int, patches: Tensor) -> Tensor:
        """Patches (B, M, d) to prompts (B, P, d): convolution, token projector, channel projector."""
        if self.norms:
            patches = self.norms[i](patches)
        mixed = self.mixing(i) @ patches  # (B, P, d)
        if self.dropout.p and self.dropout.training:  # whole channels, the same at every position
            mixed = mixed * self.channel_dropout(torch.ones_like(mixed[:, :1]))
        if self.projectors[i].bias is not None:
            mixed = mixed + self.projectors[i].bias[:, None]
        made = self.up(self.dropout(self.activation(self.down(mixed))))
        return made + mixed if self.options["residual"] else made

    def mixing(self, i: int) -> Tensor:
        """Convolution and token projector as one matrix (P, M)."""
        weight = self.projectors[i].weight.unflatten(-1, (1, self.side, self.side))  # (P, 1, √M', √M')
        kernel = self.kernels[i][None, None]
        return F.conv_transpose2d(weight, kernel, padding=self.pad).flatten(1)

    def fits_also(self) -> tuple[str, ...]:
        return ("grid", "prefix")


class VAPTReleased(VAPT):
    """VAPT as its released code computes it: ``vapt`` with every flag as the code has it, but for ``dropout``, which is
    0.1 in the released configuration and 0 here unless given.

    Layer 1 static; a trainable LayerNorm in each of the others; kernel 2 without padding; residual projector; token
    projector with bias, and all of it zero at the start, so that all adaptive prompts are; ReLU; rank 8. Trainable
    parameters on ViT-B/16: 2638 P + 29,228, where the published formula gives 2028 P + 12,336.

    Source: the code release of Le et al., arXiv 2501.18936.
    """

    name = "vapt-released"

    def __init__(
        self,
        config: ViTConfig,
        length: int,
        *,
        kernel: int = 2,
        padding: bool = False,
        rank: int = 8,
        activation: str = "relu",
        static_first: bool = True,
        norm: bool = True,
        residual: bool = True,
        bias: bool = True,
        zero_init: bool = True,
        mean_fed: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(
            config, length, kernel=kernel, padding=padding, rank=rank, activation=activation, static_first=static_first,
            norm=norm, residual=residual, bias=bias, zero_init=zero_init, mean_fed=mean_fed, dropout=dropout,
        )  # fmt: skip
