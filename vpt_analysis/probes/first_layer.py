"""A target for the first layer of any backbone: two images whose attention outputs at CLS are swapped."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..vit import VisionTransformer
from .one_layer import OneLayer
from .reachable import Reachable, family, reachable


@torch.no_grad()
def swapped(vit: VisionTransformer, mechanism: str, images: Tensor) -> Reachable:
    """Whether static prompts give each of the first two ``images`` (n, C, h, w) what layer 1 attends to in the other.

    The CLS token that enters layer 1 is that of every image, and so is its query: the case in which static prompts are
    bound. Targets are in the residual stream after the attention, computed in float64. Raises ``ValueError`` for
    adaptive mechanisms, for fewer than two images, and where the two are the same to layer 1.
    """
    family(mechanism)  # refuses before anything is computed
    if len(images) < 2:
        raise ValueError(f"{len(images)} image given; swapping outputs takes two")
    twin = copy.deepcopy(vit).double()
    tokens = twin.embed(images[:2].double())
    layer = OneLayer(twin.blocks[0], tokens, (0,))
    attended = layer.content.flatten(1) @ layer.out.T  # (2, d)
    if (attended[0] - attended[1]).norm() <= 1e-12 * attended.norm():
        raise ValueError("both images have the same attention output in layer 1, so there is nothing to swap")
    targets = layer.base + attended.flip(0)
    return reachable(twin.blocks[0], tokens, targets[:, None], mechanism, at="residual")
