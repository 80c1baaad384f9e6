"""Adapters: small bottleneck networks between the frozen layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ..vit import VisionTransformer, ViTConfig
from .base import Baseline, twin, uniform

PLACEMENTS = {"mlp": ("mlp",), "attention": ("attention",), "both": ("attention", "mlp")}
ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}


class Bottleneck(nn.Module):
    """y + W_up σ(W_down y + b_down) + b_up, for y (B, N, d)."""

    def __init__(self, d: int, width: int, activation: str):
        super().__init__()
        self.down, self.up = skip_init(nn.Linear, d, width), skip_init(nn.Linear, width, d)
        self.activation = ACTIVATIONS[activation]

    def forward(self, y: Tensor) -> Tensor:
        return y + self.up(self.activation(self.down(y)))


class Adapter(Baseline):
    r"""A bottleneck of ``width`` m after sublayers of every block,

    .. math:: y \leftarrow y + W_{up}\,\sigma(W_{down}\,y + b_{down}) + b_{up}, \; W_{down} \in \mathbb R^{m\times d},

    where y (B, N, d) is what the sublayer is about to add to the residual stream (before LayerScale). ``placement``:
    "mlp" (one a block, Pfeiffer), "both" (after the attention's output projection too, Houlsby) or "attention".
    ``activation`` σ: "gelu" or "relu". 2 d m + m + d scalars a bottleneck. ``W_down`` from the uniform distribution in
    ±1/√d; all else zero, so that training begins at the plain model.

    Raises ``ValueError`` on options out of range. Sources: Houlsby et al., ICML 2019; Pfeiffer et al., EACL 2021.
    """

    name = "adapter"

    def __init__(self, config: ViTConfig, width: int = 8, placement: str = "mlp", activation: str = "gelu"):
        super().__init__(config, width=width, placement=placement, activation=activation)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise ValueError(f"width is {width!r}; expected an integer ≥ 1")
        for option, value, known in (("placement", placement, PLACEMENTS), ("activation", activation, ACTIVATIONS)):
            if value not in known:
                raise ValueError(f"{option} is {value!r}; expected one of {', '.join(known)}")
        self.layers = nn.ModuleList(
            nn.ModuleDict({place: Bottleneck(config.width, width, activation) for place in PLACEMENTS[placement]})
            for _ in range(config.depth)
        )

    @torch.no_grad()
    def initialise(self, vit: VisionTransformer, generator: torch.Generator) -> None:
        for name, p in self.named_parameters():
            if name.endswith("down.weight"):
                p.copy_(uniform(p.shape, self.config.width**-0.5, generator))
            else:
                p.zero_()

    def adapted(self, vit: VisionTransformer) -> VisionTransformer:
        model = twin(vit, {})
        for block, adapters in zip(model.blocks, self.layers, strict=True):
            if "attention" in adapters:
                block.attention.out = nn.Sequential(block.attention.out, adapters["attention"])
            if "mlp" in adapters:
                block.fc2 = nn.Sequential(block.fc2, adapters["mlp"])
        return model
