"""Train one prompt and a linear classifier on a frozen backbone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .progress import progress
from .prompts.base import Prompt
from .vit import VisionTransformer


@dataclass(frozen=True)
class Trained:
    """``head``: the classifier on the pooled feature; ``losses``: cross-entropy in nats at every step."""

    head: nn.Linear
    losses: np.ndarray


@contextlib.contextmanager
def frozen(vit: VisionTransformer) -> Iterator[None]:
    """No parameter of ``vit`` takes a gradient inside the block; what did so before does so again after it."""
    trainable = [p for p in vit.parameters() if p.requires_grad]
    vit.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def train_prompt(
    vit: VisionTransformer,
    prompt: Prompt,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    lr: float = 1e-2,
    weight_decay: float = 1e-4,
    batch: int = 64,
    seed: int = 0,
    classes: int | None = None,
    label: str = "train",
) -> Trained:
    """Train ``prompt`` in place, together with a new linear head on ``vit.pool``; the backbone does not move.

    ``images`` (n, C, h, w) normalised, ``labels`` int64 (n,) in [0, classes). AdamW, a tenth of the steps warm-up, then
    a cosine to 0; batches are drawn epoch by epoch without replacement. Same seed, same bits on one machine.
    """
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(f"{len(images)} images and {len(labels)} labels given; expected as many, and at least one")
    for name, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if not isinstance(labels, Tensor) or labels.dtype != torch.long:
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"labels are {kind}; expected a tensor of torch.int64")
    classes = classes or int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels lie in [{int(labels.min())}, {int(labels.max())}]; expected [0, {classes - 1}]")
    generator = torch.Generator().manual_seed(seed)
    features = vit.config.width * (2 if vit.config.pool == "cls+mean" else 1)
    head = nn.utils.skip_init(nn.Linear, features, classes).to(images)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.01)
        head.bias.zero_()
    optimiser = torch.optim.AdamW([*prompt.parameters(), *head.parameters()], lr=lr, weight_decay=weight_decay)
    losses = np.zeros(steps)
    prompt.train()
    with frozen(vit), torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout draws from the global generator
        for step, index in enumerate(progress(batches(len(images), batch, steps, generator), label, steps)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, steps, steps // 10, lr)
            loss = F.cross_entropy(head(vit.pool(vit(images[index], prompt))), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[step] = loss.item()
    prompt.eval()
    return Trained(head, losses)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def batches(n: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """``steps`` index batches from seeded permutations of n; no batch repeats an image, and none has more than n."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        while len(order) < min(size, n):
            order = torch.randperm(n, generator=generator)
        yield order[:size]
        order = order[size:]


@torch.no_grad()
def accuracy(vit: VisionTransformer, prompt: Prompt | None, head: nn.Linear, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy, a share in [0, 1]."""
    hits = 0
    for start in range(0, len(images), 256):
        scores = head(vit.pool(vit(images[start : start + 256], prompt)))
        hits += (scores.argmax(-1) == labels[start : start + 256]).sum().item()
    return hits / len(images)
