"""Linear probe: the frozen features as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from ..vit import VisionTransformer
from .base import Baseline, twin


class Linear(Baseline):
    """Nothing is trained but the classifier on top; no gradient is kept for the backbone's pass."""

    name = "linear"

    def adapted(self, vit: VisionTransformer) -> VisionTransformer:
        return twin(vit, {})

    @torch.no_grad()
    def encode(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        return super().encode(vit, images)
