r"""Train methods on tasks over sequences: frozen backbone, frozen readout, fresh sequences at every step.

The readout is the backbone's own classifier, applied to each patch token: position i of the answer is read from patch
token i after the final LayerNorm. It is not trained; no method gets a head of its own. The loss is the cross-entropy in
nats, mean over positions and sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bank import Bank
from ..data import sequences
from ..fits import check_method
from ..members import in_evaluation
from ..prompts.base import Prompt
from ..training import frozen, learning_rate, training_mode
from ..vit import VisionTransformer


@dataclass(frozen=True)
class Plan:
    """How a method is trained: Adam for ``steps`` steps of ``batch`` fresh sequences; the rate rises over the share
    ``warmup`` to its peak and falls to 0 by half a cosine."""

    steps: int
    batch: int = 64
    warmup: float = 0.1

    def __post_init__(self):
        for name in ("steps", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected an integer ≥ 1")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup!r}; expected a share from 0 to 1")


def check_backbone(vit: VisionTransformer) -> None:
    """Raise ``ValueError`` where the backbone cannot read sequences and answer at each position."""
    c = vit.config
    if c.patch_size != 1 or vit.head is None or c.classes != c.channels or c.pool == "cls+mean":
        raise ValueError(
            f"the backbone has patches of {c.patch_size} pixels, {c.channels} channels, {c.classes} classes and pool "
            f"{c.pool!r}; a model of sequences has patches of 1 pixel, one channel and one class a symbol, and a "
            f"readout as wide as a token (pool 'mean'), such as the bundled 'toy-sort'"
        )


def scores(vit: VisionTransformer, method: nn.Module | None, x: Tensor) -> Tensor:
    """Scores of the symbols at every position, (B, n, kinds), for sequences x (B, n)."""
    pictures = sequences.images(x, vit.config.channels, vit.patch.weight.dtype)
    tokens = vit(pictures) if method is None else method.encode(vit, pictures)
    return vit.head(tokens[:, vit.config.prefix :])


@dataclass(frozen=True)
class Hits:
    """Shares of right answers in [0, 1]: of ``whole`` sequences, and of single ``tokens``; ``loss`` in nats."""

    whole: float
    tokens: float
    loss: float


@torch.no_grad()
def measure(vit: VisionTransformer, method: nn.Module | None, task: str, x: Tensor, batch: int = 500) -> Hits:
    """What a method, or the backbone alone, makes of the sequences x (n, length) of a task."""
    right, losses, kinds = [], [], vit.config.channels
    with in_evaluation(method):
        for part in x.split(batch):
            wanted, found = sequences.answers(task, part, kinds), scores(vit, method, part)
            right.append(found.argmax(-1) == wanted)
            losses.append(F.cross_entropy(found.flatten(0, 1).double(), wanted.flatten(), reduction="none"))
    hits = torch.cat(right)
    return Hits(hits.all(-1).double().mean().item(), hits.double().mean().item(), torch.cat(losses).mean().item())


def fit(
    vit: VisionTransformer,
    methods: Sequence[nn.Module],
    task: str,
    plan: Plan,
    rates: Sequence[float],
    seeds: Sequence[int],
) -> np.ndarray:
    """Train ``methods`` in place, each with its own peak rate, on sequences drawn from its own seed: losses (steps, K).

    Prompts of one mechanism go through the backbone together (``Bank``), other methods one after the other; the result
    is that of separate runs up to rounding. Same arguments, same bits on one CPU and thread count.
    """
    check_backbone(vit)
    if not methods or not len(methods) == len(rates) == len(seeds):
        raise ValueError(f"{len(methods)} methods, {len(rates)} rates and {len(seeds)} seeds; expected as many of each")
    for method, rate in zip(methods, rates, strict=True):
        check_method(method)
        method.check_fits(vit)
        if not 0 < rate < math.inf:
            raise ValueError(f"learning rate is {rate!r}; expected a finite number above 0")
    if len(methods) > 1 and not isinstance(methods[0], Prompt):
        alone = [fit(vit, [m], task, plan, [r], [s]) for m, r, s in zip(methods, rates, seeds, strict=True)]
        return np.concatenate(alone, axis=1)
    together = methods[0] if len(methods) == 1 else Bank(methods)
    groups = [{"params": list(m.parameters()), "lr": r, "peak": r} for m, r in zip(methods, rates, strict=True)]
    optimiser = torch.optim.Adam(groups)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    size, warmup = (vit.config.grid**2, vit.config.channels), int(plan.steps * plan.warmup + 1e-9)
    losses = torch.zeros(plan.steps, len(methods), dtype=torch.float64)
    with frozen(vit), training_mode(together):
        for step in range(plan.steps):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, plan.steps, warmup, group["peak"])
            x = torch.cat([sequences.draw(plan.batch, *size, g) for g in generators])
            wanted = sequences.answers(task, x, size[1])
            each = F.cross_entropy(scores(vit, together, x).flatten(0, 1), wanted.flatten(), reduction="none")
            loss = each.unflatten(0, (len(methods), -1)).mean(1)  # (K,)
            optimiser.zero_grad()
            loss.sum().backward()
            optimiser.step()
            losses[step] = loss.detach()
    optimiser.zero_grad()
    return losses.numpy()
