"""Content tokens that enter each layer of the backbone without a prompt: what mechanisms may take from data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..vit import VisionTransformer

SAMPLE = 20_000  # content tokens a layer that a clustering sees


@torch.no_grad()
def mean_tokens(vit: VisionTransformer, images: Tensor, batch: int = 64) -> list[Tensor]:
    """Means over ``images`` (n, C, h, w) of the content tokens that enter each layer, one a position: (N, d) a layer.
    Raises ``ValueError`` where there are no images."""
    if not len(images):
        raise ValueError("no images given; means are those of their content tokens, so give some")
    sums: list[Tensor | float] = [0.0 for _ in vit.blocks]

    def add(layer: int, tokens: Tensor) -> None:
        sums[layer] = sums[layer] + tokens.sum(0, dtype=torch.float64)

    with watched(vit, add):
        for start in range(0, len(images), batch):
            vit(images[start : start + batch])
    return [(s / len(images)).to(vit.patch.weight.dtype) for s in sums]


def entering(vit: VisionTransformer, images: Tensor, rng: np.random.Generator, batch: int = 64) -> list[Tensor]:
    """Content tokens that enter each layer without a prompt, in random order and ``SAMPLE`` of them at most: (m, d) a
    layer. Only those are held."""
    per_image = vit.embed(images[:1]).shape[1]
    orders = [rng.permutation(len(images) * per_image)[:SAMPLE] for _ in vit.blocks]
    wanted = [np.sort(order) for order in orders]
    found: list[list[Tensor]] = [[] for _ in vit.blocks]
    first = 0  # of the batch under way, among all tokens

    def keep(layer: int, tokens: Tensor) -> None:
        low, high = np.searchsorted(wanted[layer], [first, first + len(tokens)])
        found[layer].append(tokens[torch.from_numpy(wanted[layer][low:high] - first).to(tokens.device)])

    with watched(vit, lambda layer, tokens: keep(layer, tokens.flatten(0, 1))):
        for start in range(0, len(images), batch):
            first = start * per_image
            vit(images[start : start + batch])
    return [
        torch.cat(tokens)[torch.from_numpy(np.searchsorted(order, shuffled))]
        for tokens, order, shuffled in zip(found, wanted, orders, strict=True)
    ]


@contextlib.contextmanager
def watched(vit: VisionTransformer, see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Inside the block, ``see(layer, tokens)`` is called with the content tokens (B, N, d) that enter each layer."""
    hooks = [
        block.register_forward_pre_hook(lambda _, args, layer=layer: see(layer, args[0]))
        for layer, block in enumerate(vit.blocks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
