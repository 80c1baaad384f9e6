"""How much of the CLS token's attention do the prompts take, and is it more than chance tokens would? (C20)"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from ..decomposition import decompose
from ..prompts.base import Prompt, TokenPrompt
from ..vit import VisionTransformer


def cls_mass(vit: VisionTransformer, images: Tensor, prompt: Prompt, batch: int = 64) -> np.ndarray:
    """Weight of the prompt output in the CLS query's attention, λ for a joint softmax: (n, L, H)."""
    found = [
        torch.stack([s.mass[:, :, 0] for s in decompose(vit, images[i : i + batch], prompt, keep=("mass",))], dim=1)
        for i in range(0, len(images), batch)
    ]
    return torch.cat(found).double().cpu().numpy()


@torch.no_grad()
def norm_matched(prompt: TokenPrompt, seed: int = 0) -> TokenPrompt:
    """A copy whose tokens point in random directions and keep their norms, each its own."""
    if not isinstance(prompt, TokenPrompt):
        raise ValueError(f"{prompt.name} prompts are not learnable tokens; norm-matched random ones need those")
    other = copy.deepcopy(prompt)
    draw = torch.randn(prompt.tokens.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    norms = prompt.tokens.norm(dim=-1, keepdim=True)
    other.tokens.copy_((draw / draw.norm(dim=-1, keepdim=True)).to(norms) * norms)
    return other
