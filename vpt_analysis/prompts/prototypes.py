"""Prototype initialisation: static prompts start at centres of the content tokens they will stand beside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..vit import VisionTransformer
from .base import Prompt
from .content import entering
from .registry import create


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
