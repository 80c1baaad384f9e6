"""Do prompts that travel through the layers depend on the image? (C5)"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..prompts.base import Prompt
from ..vit import VisionTransformer


@torch.no_grad()
def prompt_states(vit: VisionTransformer, images: Tensor, prompt: Prompt, batch: int = 64) -> Tensor:
    """Prompts as they enter each block in the sequence: (n, L, P, d), float64; P is 0 for those that do not travel."""
    states: list[Tensor] = []
    hooks = [b.register_forward_pre_hook(lambda _, args: states.append(args[0])) for b in vit.blocks]
    found = []
    try:
        for start in range(0, len(images), batch):
            states.clear()
            content = vit(images[start : start + batch], prompt).shape[1]
            found.append(torch.stack([s[:, content:].double() for s in states], dim=1))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(found)


def state_variance(
    vit: VisionTransformer, images: Tensor, prompt: Prompt, resamples: int = 2000, seed: int = 0
) -> np.ndarray:
    """Between-image share of the variance of the prompt states that enter each layer, (L, 3): share, low, high.

    Over images b and prompts j, the variance of the states s_bj splits into that of the means over images (between the
    prompts) and the rest (between the images). The 95 % interval is a percentile bootstrap over images. Prompts that do
    not travel are the same for every image by construction: zeros.
    """
    s = prompt_states(vit, images, prompt).cpu().numpy()
    n, layers, p, _ = s.shape
    if p == 0:
        return np.zeros((layers, 3))
    squares = (s**2).sum((2, 3))  # (n, L)
    rng = np.random.default_rng(seed)
    weights = np.concatenate([np.full((1, n), 1 / n), rng.multinomial(n, np.full(n, 1 / n), resamples) / n])
    shares = np.empty((len(weights), layers))
    for layer in range(layers):
        gram = s[:, layer].reshape(n, -1)
        gram = gram @ gram.T  # (n, n): ‖weighted mean over images‖² is wᵀ G w
        centre = s[:, layer].sum(1)
        centre = centre @ centre.T / p  # the same for the mean over images and prompts, times P
        means, grand = (((weights @ g) * weights).sum(1) for g in (gram, centre))
        second = weights @ squares[:, layer]
        shares[:, layer] = (second - means) / (second - grand)
    return np.stack([shares[0], *np.quantile(shares[1:], [0.025, 0.975], axis=0)], axis=1)
