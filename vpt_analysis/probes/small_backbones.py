"""Backbones small enough for many trainings: random ones of any depth, and a trained one on fewer patches."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..vit import VisionTransformer, ViTConfig


@torch.no_grad()
def random_backbone(config: ViTConfig, seed: int = 0) -> VisionTransformer:
    """A frozen Vision Transformer with random weights in whose layers something happens.

    Entries of matrices have variance 1 / fan-in, tokens and positions 1, biases 0, LayerNorms are the identity: scores
    of LayerNormed tokens have variance near 1, so attention is neither uniform nor one-hot, and each block adds what is
    comparable to its input. (At the usual start of training, std 0.02, attention is uniform to a few percent.)
    """
    vit = VisionTransformer(config, seed)
    generator = torch.Generator().manual_seed(seed)
    for p in vit.parameters():
        if p.ndim > 1:
            fan_in = 1 if p is vit.prefix or p is vit.position else p[0].numel()
            p.copy_(torch.randn(p.shape, generator=generator) * fan_in**-0.5)
    return vit.eval().requires_grad_(False)


@torch.no_grad()
def resized(vit: VisionTransformer, image_size: int) -> VisionTransformer:
    """The same weights for images of another size, positions interpolated as the model itself does for such images;
    mechanisms that read a fixed grid of patches then read the smaller one. Raises ``ValueError`` where the size is no
    multiple of the patch size."""
    config = replace(vit.config, image_size=image_size)
    new, state = VisionTransformer(config), dict(vit.state_dict())
    state["position"] = vit.position_for((config.grid, config.grid))
    new.to(vit.patch.weight).load_state_dict(state)
    return new.eval().requires_grad_(False)


def first_blocks(vit: VisionTransformer, depth: int) -> VisionTransformer:
    """The first ``depth`` blocks with the embedding and the final LayerNorm: a shallower model, of trained weights."""
    if not 1 <= depth <= vit.config.depth:
        raise ValueError(f"{depth} blocks of a backbone of {vit.config.depth}; expected 1 to {vit.config.depth}")
    new = VisionTransformer(replace(vit.config, depth=depth)).to(vit.patch.weight)
    names = new.state_dict().keys()
    new.load_state_dict({name: tensor for name, tensor in vit.state_dict().items() if name in names})
    return new.eval().requires_grad_(False)
