"""What does one prompt do? Take its key and value out of one layer, and look at what the model then says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import KeyGroup
from ..bank import stateless
from ..errors import unknown
from ..prompts.base import Prompt
from ..stats.intervals import Interval
from ..vit import VisionTransformer
from .over_images import bootstrap_means, check_sample

MEASURES = ("feature", "scores", "loss")


@dataclass(frozen=True)
class Ablation:
    """Effects (n, L', P') of taking out one prompt key, in the ``layers`` asked for, and their means with intervals
    (L', P'), over images. P' counts the prompt keys of a layer, ``prompt.keys``."""

    measure: str
    layers: tuple[int, ...]
    effects: np.ndarray
    mean: Interval


@torch.no_grad()
def ablation(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt,
    head: nn.Module | None = None,
    labels: Tensor | None = None,
    measure: str = "feature",
    layers: Iterable[int] | None = None,
    batch: int = 64,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Ablation:
    r"""Effect of each prompt of each layer: that of the model without its key and value in this layer, all else as is.

    Exact: the softmax is taken over the keys that are left, and the layers that follow are run again, so adaptive
    prompts see what has changed. ``measure``: "feature", :math:`\|z - z_0\| / \|z_0\|` of what a classifier reads
    (``vit.pool``: the final CLS, or the mean of the patches); "scores", the same of ``head``'s class scores, of their
    differences between classes; "loss", the cross-entropy of ``head`` on ``labels`` without the prompt minus that with
    it, in nats, positive where the prompt helps.

    Raises ``ValueError`` for prompts that travel in the sequence, since their own later layers and the content's depend
    on them and no key alone can be taken away; for gates that hold tensors out of sight; where ``measure`` lacks a head
    or labels; and as ``gate_usage`` does.
    """
    check_sample(images, prompt, batch)
    prompt.check_fits(vit)
    read = reader(vit, measure, head, labels, len(images))
    wanted = sorted(set(range(vit.config.depth) if layers is None else layers))
    if not wanted or not set(wanted) <= set(range(vit.config.depth)):
        raise ValueError(f"layers {wanted} asked for; this backbone has layers 0 to {vit.config.depth - 1}")
    found = []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        x, entered = vit.embed(images[rows]), []
        for layer, block in enumerate(vit.blocks):
            entered.append(x)
            x = block(x, keys_of(prompt, layer, block, x))
        plain = vit.pool(vit.norm(x))
        found.append(torch.stack([removed(vit, prompt, i, entered[i], plain, read, rows) for i in wanted], dim=1))
    effects = torch.cat(found).double().cpu().numpy()  # (n, L', P')
    flat, shape = effects.reshape(len(effects), -1), effects.shape[1:]
    mean = bootstrap_means(flat, lambda m: m.reshape(-1, *shape), resamples, level, seed)
    return Ablation(measure, tuple(wanted), effects, mean)


def removed(
    vit: VisionTransformer, prompt: Prompt, layer: int, x: Tensor, plain: Tensor, read: Callable, rows: slice
) -> Tensor:
    """Effects (B, P') of each key of one layer, whose content tokens are x (B, N, d)."""
    block = vit.blocks[layer]
    group, effects = keys_of(prompt, layer, block, x), []
    if group is None:
        raise ValueError(f"{prompt.name} has no prompts in layer {layer}; ask for the layers that have some")
    for j in range(group.key.shape[2]):
        y = block(x, without(group, j, prompt.name))
        for later, after in enumerate(vit.blocks[layer + 1 :], start=layer + 1):
            y = after(y, keys_of(prompt, later, after, y))
        effects.append(read(vit.pool(vit.norm(y)), plain, rows))
    return torch.stack(effects, dim=1)


def keys_of(prompt: Prompt, layer: int, block: nn.Module, x: Tensor) -> KeyGroup | None:
    """The extra keys of a layer, None where it has none; ``ValueError`` for prompts that travel in the sequence."""
    riders, group = prompt(layer, block, x, None)
    if riders is not None:
        raise ValueError(
            f"{prompt.name} prompts travel in the sequence: they attend and are attended to in every layer, so "
            f"there is no key of one layer to take out alone. Prompts that enter as keys and values can be measured"
        )
    return group


def without(group: KeyGroup, j: int, name: str = "these") -> KeyGroup:
    """``group`` without its key j: what is left attends as if it had never been there.

    Tensors of the gate that have an entry a prompt, in their last dimension, lose the entry.
    """
    prompts = group.key.shape[2]
    left = torch.tensor([i for i in range(prompts) if i != j], device=group.key.device, dtype=torch.long)

    def cut(value: object) -> object:
        if isinstance(value, Tensor):
            own = prompts > 1 and value.ndim > 0 and value.shape[-1] == prompts
            return value.index_select(-1, left) if own else value
        if dataclasses.is_dataclass(value):
            parts = {f.name: cut(getattr(value, f.name)) for f in dataclasses.fields(value)}
            return dataclasses.replace(value, **parts)
        if callable(value) and not stateless(value):
            raise ValueError(
                f"the gate of {name} prompts is a {type(value).__name__} that may hold tensors out of sight, so no key "
                f"can be taken out of it; make it a dataclass with the tensors as fields"
            )
        return value

    score = None if group.score is None else cut(group.score)
    key, value = (t.index_select(2, left) for t in (group.key, group.value))
    return dataclasses.replace(group, key=key, value=value, score=score)


def reader(
    vit: VisionTransformer, measure: str, head: nn.Module | None, labels: Tensor | None, n: int
) -> Callable[[Tensor, Tensor, slice], Tensor]:
    """Features without and with a prompt (B, F) each, and which images they are of, to effects (B,)."""
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    if measure == "feature":
        return lambda z, plain, rows: change(z, plain)
    head = vit.head if head is None else head
    if head is None:
        raise ValueError(f"measure {measure!r} needs class scores; give the trained classifier as head")
    if measure == "scores":

        def scores(z: Tensor, plain: Tensor, rows: slice) -> Tensor:
            a, b = (s - s.mean(-1, keepdim=True) for s in (head(z), head(plain)))
            return change(a, b)

        return scores
    if not isinstance(labels, Tensor) or labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(f"measure 'loss' needs labels, one integer for each of the {n} images")

    def loss(z: Tensor, plain: Tensor, rows: slice) -> Tensor:
        y = labels[rows].to(z.device)
        return F.cross_entropy(head(z), y, reduction="none") - F.cross_entropy(head(plain), y, reduction="none")

    return loss


def change(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖ / ‖b‖ of each row."""
    return (a - b).norm(dim=-1) / b.norm(dim=-1)
