"""The floor of static prompts of any length where inputs share a query: proved from both sides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .one_layer import OneLayer
from .reachable import reachable


@dataclass(frozen=True)
class AnyLength:
    """No static prompts of any length come below ``low`` of the change's energy, as certificates prove; prompts of a
    length of ``groups`` (one for each query that there is) attain ``high``, or come as near to it as one likes."""

    low: float
    high: float
    groups: int


@torch.no_grad()
def any_length(layer: OneLayer, change: Tensor, gap: float = 1e-3) -> AnyLength:
    """The floor of static prompts of any length, free keys and values, for targets ``layer.content + change``.

    Items with a common query (CLS before the first layer mixes it with an image) get one prompt output and one mass, so
    the floor is a problem in (output, mass) for each head: solved, and certified by ``reachable``. Raises
    ``ValueError`` where no two items share a query: then no length is too short to be made up for by a longer one.
    """
    items = len(layer.content)
    groups = len(layer.groups())
    if groups == items:
        raise ValueError(
            f"the {items} queries all differ, so static prompts as long as that can meet any targets; a floor of any "
            f"length needs inputs that share queries, as CLS does in the first layer"
        )
    q = len(layer.rows)
    targets = (layer.content + change).unflatten(0, (-1, q)).transpose(1, 2)  # (n, H, Q, e)
    found = reachable(layer.block, layer.tokens, targets, "prefix", tuple(layer.rows), at="heads", gap=gap)
    energy = float(change.square().sum())
    # Each certificate is checked again by plain arithmetic; a distance of 0 has none.
    low = sum(p.nearest.certificate.bound(p.problem) ** 2 for p in found.proofs if p.nearest.certificate is not None)
    return AnyLength(low / energy, sum(p.nearest.distance**2 for p in found.proofs) / energy, groups)
