"""Prototype initialisation: static prompts start at centres of the content tokens they will stand beside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..vit import VisionTransformer
from .base import Prompt
from .registry import create

SAMPLE = 20_000  # content tokens a layer that the clustering sees


@torch.no_grad()
def from_prototypes(name: str, vit: VisionTransformer, images: Tensor, length: int, seed: int = 0, **options) -> Prompt:
    """A prompt of the mechanism ``name`` whose tokens in each layer are ``length`` cluster centres (k-means) of the
    content tokens that enter that layer on ``images`` (n, C, h, w) without a prompt.

    The class of functions is that of the mechanism: only the start changes. Untied and reparametrised keys and values
    start at those of the centres, VFPT's Fourier part at their transforms. Prompts that travel have tokens in layer 1
    only. SPT's released code draws tokens at random by default; its k-means variant is what is done here. Raises
    ``ValueError`` for mechanisms whose prompts are not tokens of a layer's sequence, and for fewer tokens than prompts.

    Source: Wang et al., Revisiting the Power of Prompt for Visual Tuning (SPT), ICML 2024.
    """
    from sklearn.cluster import KMeans

    if not len(images):
        raise ValueError("no images given; prototypes are centres of their content tokens, so give some")
    prompt = create(name, vit.config, length, seed, **options).to(vit.patch.weight)
    for layer, tokens in enumerate(entering(vit, images, np.random.default_rng(seed))):
        if len(tokens) < length:
            raise ValueError(f"{len(tokens)} content tokens for {length} prototypes; give more images")
        some = tokens.double().cpu().numpy()
        centres = KMeans(length, n_init=1, random_state=seed).fit(some).cluster_centers_ if length else some[:0]
        prompt.place(layer, vit.blocks[layer], torch.from_numpy(centres).to(vit.patch.weight))
    return prompt


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

    hooks = [
        block.register_forward_pre_hook(lambda _, args, layer=layer: keep(layer, args[0].flatten(0, 1)))
        for layer, block in enumerate(vit.blocks)
    ]
    try:
        for start in range(0, len(images), batch):
            first = start * per_image
            vit(images[start : start + batch])
    finally:
        for hook in hooks:
            hook.remove()
    return [
        torch.cat(tokens)[torch.from_numpy(np.searchsorted(order, shuffled))]
        for tokens, order, shuffled in zip(found, wanted, orders, strict=True)
    ]
