"""A minimal Vision Transformer (Dosovitskiy et al., ICLR 2021) that can attend to extra keys and values.

Pre-LN blocks with optional LayerScale; CLS and optional register tokens; learned positions. It covers ViT, DeiT and
DINOv2 encoders (with registers). What prompts do stays outside: a block takes extra keys and values, the model asks the
prompt for them layer by layer, and nothing here knows a mechanism.

Shapes: B images, N content tokens [CLS, registers, patches], d width, H heads, e = d / H head width, P prompts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from .attention import KeyGroup, attend

POOLS = ("cls", "mean", "cls+mean")
GELUS = ("exact", "tanh")


@dataclass(frozen=True)
class ViTConfig:
    """Architecture of a Vision Transformer.

    ``image_size`` and ``patch_size`` in pixels; ``width`` d, ``depth`` L, ``heads`` H, ``mlp_width`` (0: 4 d).
    ``registers`` counts further learned tokens beside CLS (DINOv2's registers, DeiT's distillation token).
    ``antialias`` filters positions when they are interpolated to a smaller grid (timm does, Hugging Face does not).
    ``pool`` says what a classifier reads: CLS, the mean of the patches, or both side by side. ``classes`` > 0 adds one.
    ``pixel_mean`` and ``pixel_std`` are what images are normalised with before they are given to the model.

    >>> ViTConfig(image_size=32, patch_size=4, width=128, depth=8, heads=4).tokens
    65
    """

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int = 0
    channels: int = 3
    registers: int = 0
    layer_scale: bool = False
    gelu: str = "exact"
    eps: float = 1e-6
    antialias: bool = False
    pool: str = "cls"
    classes: int = 0
    pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        for name in ("image_size", "patch_size", "width", "depth", "heads", "channels"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"ViTConfig.{name} is {value!r}; expected a positive integer")
        for name in ("registers", "classes", "mlp_width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"ViTConfig.{name} is {value!r}; expected an integer ≥ 0")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.gelu not in GELUS:
            raise ValueError(f"ViTConfig.gelu is {self.gelu!r}; expected one of {GELUS}")
        if self.pool not in POOLS:
            raise ValueError(f"ViTConfig.pool is {self.pool!r}; expected one of {POOLS}")
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)
        for name in ("pixel_mean", "pixel_std"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def prefix(self) -> int:
        """Tokens before the patches: CLS and registers."""
        return 1 + self.registers

    @property
    def tokens(self) -> int:
        """N at the configured image size."""
        return self.prefix + self.grid**2

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def to_dict(self) -> dict:
        return asdict(self)


class Attention(nn.Module):
    """Multi-head self-attention: one projection to queries, keys and values, one out of the heads."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = skip_init(nn.Linear, width, 3 * width)
        self.out = skip_init(nn.Linear, width, width)

    def project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised tokens (B, N, d) to query, key, value, each (B, H, N, e)."""
        return self._heads(self.qkv(u), 3).unbind(0)

    def keys_values(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values only, each (B, H, P, e)."""
        width = u.shape[-1]
        return self._heads(F.linear(u, self.qkv.weight[width:], self.qkv.bias[width:]), 2).unbind(0)

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (parts, B, H, N, e)

    def merge(self, y: Tensor) -> Tensor:
        """Head outputs (B, H, N, e) through W_O to (B, N, d)."""
        return self.out(y.transpose(1, 2).flatten(2))

    def head_weights(self) -> Tensor:
        """W_O cut into heads: (H, e, d), so that head h adds ``y[:, h] @ head_weights()[h]`` to the residual stream."""
        return self.out.weight.T.unflatten(0, (self.heads, -1))


class Riders(NamedTuple):
    """Prompts that travelled through a block in the sequence, (B, P, d) each: as they entered it, and as they left."""

    entered: Tensor
    left: Tensor


class Block(nn.Module):
    """Pre-LN Transformer block: x + γ₁·MSA(LN(x)), then x + γ₂·MLP(LN(x))."""

    def __init__(self, config: ViTConfig):
        super().__init__()
        d = config.width
        self.ln1 = nn.LayerNorm(d, eps=config.eps)
        self.attention = Attention(d, config.heads)
        self.ln2 = nn.LayerNorm(d, eps=config.eps)
        self.fc1 = skip_init(nn.Linear, d, config.mlp_width)
        self.fc2 = skip_init(nn.Linear, config.mlp_width, d)
        self.gelu = "none" if config.gelu == "exact" else "tanh"
        self.scale1 = nn.Parameter(torch.ones(d)) if config.layer_scale else None
        self.scale2 = nn.Parameter(torch.ones(d)) if config.layer_scale else None

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, P, e) that ``tokens`` (B, P, d) would have if they stood in this block's sequence."""
        return self.attention.keys_values(self.ln1(tokens))

    def forward(
        self, x: Tensor, extra: KeyGroup | None = None, attend: Callable = attend, first: int | None = None
    ) -> Tensor:
        """(B, N, d) to (B, N, d), of the ``first`` tokens alone where not all are wanted; all are attended to.
        ``attend(query, key, value, extra)`` may be replaced to look inside."""
        query, key, value = self.attention.project(self.ln1(x))
        if first is not None:
            x, query = x[:, :first], query[:, :, :first]
        if extra is not None and extra.temperature is not None:
            query = query / extra.temperature
        y = self.attention.merge(attend(query, key, value, extra))
        x = x + (y if self.scale1 is None else self.scale1 * y)
        h = self.fc2(F.gelu(self.fc1(self.ln2(x)), approximate=self.gelu))
        return x + (h if self.scale2 is None else self.scale2 * h)


class VisionTransformer(nn.Module):
    """Vision Transformer with an optional prompt.

    ``vit(images, prompt=None)`` maps images (B, C, h, w), normalised, of the model's dtype and device, to the content
    tokens (B, N, d) after the final LayerNorm, in the order [CLS, registers, patches]; prompts are left out. Image
    sides must be multiples of the patch size; positions are interpolated (bicubic) where the grid is not the
    configured one. Raises ``ValueError`` or ``TypeError`` on input it cannot take.

    >>> vit = VisionTransformer(ViTConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2), seed=0)
    >>> vit(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, config: ViTConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.gives: int | None = None  # how many tokens come out; None: all
        d = config.width
        self.patch = skip_init(nn.Conv2d, config.channels, d, config.patch_size, stride=config.patch_size)
        self.prefix = nn.Parameter(torch.empty(1, config.prefix, d))  # CLS, registers
        self.position = nn.Parameter(torch.empty(1, config.tokens, d))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, eps=config.eps)
        features = 2 * d if config.pool == "cls+mean" else d
        self.head = skip_init(nn.Linear, features, config.classes) if config.classes else None
        self.initialise(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Truncated normal, std 0.02, for matrices and tokens; zero biases; LayerNorm at identity."""
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                p.zero_()
            elif p.ndim > 1:
                nn.init.trunc_normal_(p, std=0.02, generator=generator)
            elif "scale" in name:
                p.fill_(1e-1)
        self.position[:, 1 : self.config.prefix] = 0  # registers have no place in the image

    def forward(self, images: Tensor, prompt: nn.Module | None = None) -> Tensor:
        return self.norm(self.encode(self.embed(images), prompt))

    def embed(self, images: Tensor) -> Tensor:
        """Images to the tokens that enter the first block, (B, N, d)."""
        self.check_images(images)
        x = self.patch(images)  # (B, d, h, w)
        position = self.position_for(x.shape[-2:])
        prefix = self.prefix.expand(len(x), -1, -1)
        return torch.cat([prefix, x.flatten(2).transpose(1, 2)], dim=1) + position

    def encode(
        self, x: Tensor, prompt: nn.Module | None = None, attend_at: Callable | None = None, stop: int | None = None
    ) -> Tensor:
        """Run the blocks (the first ``stop`` of them) on embedded tokens (B, N, d).

        The prompt is asked once a layer, ``prompt(layer, block, x, before)``, ``before`` being the ``Riders`` of the
        last block, and answers with the tokens that travel in the sequence (B, P, d) or None, and with extra keys and
        values or None; one of length 0 is not asked. ``attend_at(layer)`` gives the attention function of that layer,
        for those who look inside.
        """
        if prompt is not None:
            if not hasattr(prompt, "check_fits") or not hasattr(prompt, "length"):
                hint = " A baseline changes the whole model: baseline.encode(vit, images)." * hasattr(
                    prompt, "check_fits"
                )
                raise TypeError(
                    f"prompt is {type(prompt).__name__}; expected a prompt: prompts.create(name, vit.config, length)."
                    + hint
                )
            prompt.check_fits(self)
            prompt = prompt if prompt.length else None
        n, before, riders, extra = x.shape[1], None, None, None
        for layer, block in enumerate(self.blocks[:stop]):
            if prompt is not None:
                riders, extra = prompt(layer, block, x, before)
            sequence = x if riders is None else torch.cat([x, riders], dim=1)
            first = self.gives if layer + 1 == len(self.blocks) else None
            sequence = block(sequence, extra, attend if attend_at is None else attend_at(layer), first)
            x = sequence[:, :n]
            before = None if riders is None else Riders(riders, sequence[:, n:])
        return x

    def pool(self, tokens: Tensor) -> Tensor:
        """Content tokens (B, N, d) to one feature an image: (B, d), or (B, 2d) for "cls+mean"."""
        cls, patches = tokens[:, 0], tokens[:, self.config.prefix :]
        if self.config.pool == "cls":
            return cls
        mean = patches.mean(1)
        return mean if self.config.pool == "mean" else torch.cat([cls, mean], dim=-1)

    def for_pooling(self) -> VisionTransformer:
        """This model without what ``pool`` does not read: where that is CLS, its last block computes no other token and
        it gives (B, 1, d). The pooled features are the same up to rounding; modules and parameters are shared."""
        model = copy.copy(self)
        model.gives = 1 if self.config.pool == "cls" else None
        return model

    def classify(self, images: Tensor, prompt: nn.Module | None = None) -> Tensor:
        """Class scores (B, classes) from the model's own classifier."""
        if self.head is None:
            raise ValueError(
                "this Vision Transformer has no classifier (config.classes is 0); use vit.pool(vit(images))"
            )
        return self.head(self.pool(self(images, prompt)))

    def position_for(self, grid: tuple[int, int]) -> Tensor:
        """Positions for a patch grid (h, w): (1, N, d); bicubic, half-pixel centres, in float32 or better."""
        side, k = self.config.grid, self.config.prefix
        if tuple(grid) == (side, side):
            return self.position
        p = self.position[:, k:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        p = p if p.dtype == torch.float64 else p.float()
        p = F.interpolate(p, size=tuple(grid), mode="bicubic", align_corners=False, antialias=self.config.antialias)
        p = p.permute(0, 2, 3, 1).flatten(1, 2).to(self.position.dtype)
        return torch.cat([self.position[:, :k], p], dim=1)

    def check_images(self, images: Tensor) -> None:
        c, weight = self.config, self.patch.weight
        if not isinstance(images, Tensor):
            raise TypeError(f"images are {type(images).__name__}; expected a torch tensor (B, {c.channels}, h, w)")
        if images.ndim != 4:
            raise ValueError(f"images have shape {tuple(images.shape)}; expected 4 dimensions (B, {c.channels}, h, w)")
        if images.shape[1] != c.channels:
            raise ValueError(f"images have {images.shape[1]} channels; this model takes {c.channels}")
        if min(images.shape[-2:]) < c.patch_size or any(s % c.patch_size for s in images.shape[-2:]):
            raise ValueError(
                f"images are {images.shape[-2]}×{images.shape[-1]} pixels; sides must be positive multiples of the "
                f"patch size {c.patch_size}. Resize them first."
            )
        if images.dtype != weight.dtype:
            raise TypeError(
                f"images are {images.dtype}, the model is {weight.dtype}; normalise integers to floats, then "
                f"images.to({weight.dtype})"
            )
        if images.device != weight.device:
            raise ValueError(f"images are on {images.device}, the model is on {weight.device}; move one of them")
        if not torch.isfinite(images).all():
            bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
            raise ValueError(f"images {bad[:8]} of the batch have NaN or infinite pixels")


def parameter_count(module: nn.Module, trainable_only: bool = False) -> int:
    """Number of scalars in a module's parameters."""
    return sum(math.prod(p.shape) for p in module.parameters() if p.requires_grad or not trainable_only)
