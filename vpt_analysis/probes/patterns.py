"""How far do prompts change which content a query attends to? (C2)"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..decomposition import decompose
from ..prompts.base import Prompt
from ..vit import VisionTransformer


@torch.no_grad()
def content_divergence(vit: VisionTransformer, images: Tensor, prompt: Prompt, batch: int = 32) -> np.ndarray:
    r"""KL divergence between the content patterns with and without the prompt, in nats: (n, L), means over heads and
    queries of each image.

    The pattern of a query is its gates over the content alone, renormalised, :math:`a = \mathrm{softmax}(s)`; measured
    is :math:`\sum_j a_j \log(a_j / a^0_j)`, with :math:`a^0` that of the model without a prompt on the same image. With
    a layer's inputs fixed a joint softmax leaves it at 0 (theorem T2); here the model runs freely, so what the prompts
    of the layers before did to the inputs is in it.
    """
    found = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        with_prompt, without = (decompose(vit, some, p, keep=("gates",)) for p in (prompt, None))
        layers = []
        for prompted, plain in zip(with_prompt, without, strict=True):
            a, b = (normalised(s.content_gates.double()) for s in (prompted, plain))
            layers.append((a * (a / b).log()).sum(-1).mean((1, 2)))
        found.append(torch.stack(layers, dim=1))
    return torch.cat(found).cpu().numpy()


def normalised(gates: Tensor) -> Tensor:
    """Rows of gates (B, H, N, N) that sum to 1, none below the smallest normal number: the logarithm is taken."""
    gates = gates / gates.sum(-1, keepdim=True)
    return gates.clamp_min(torch.finfo(gates.dtype).tiny)
