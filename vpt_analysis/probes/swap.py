"""Do adaptive prompts use the image they were made from? Swap them, and read the class off them. (C11)"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from ..attention import KeyGroup
from ..prompts.base import Prompt
from ..vit import Block, Riders, VisionTransformer


class Recorded(Prompt):
    """A prompt that answers as ``prompt`` does and keeps its keys and values, one ``KeyGroup`` a layer."""

    def __init__(self, prompt: Prompt):
        super().__init__(prompt.config, prompt.length)
        self.name, self.prompt, self.groups = prompt.name, prompt, []

    def forward(self, layer: int, block: Block, x: Tensor, before: Riders | None) -> tuple[None, KeyGroup]:
        riders, group = self.prompt(layer, block, x, before)
        if riders is not None:
            raise ValueError(f"{self.name} prompts travel with their image and cannot be given to another one")
        self.groups.append(group)
        return None, group


class Replayed(Prompt):
    """Keys and values recorded elsewhere, whatever the image."""

    def __init__(self, prompt: Prompt, groups: list[KeyGroup]):
        super().__init__(prompt.config, prompt.length)
        self.name, self.groups = prompt.name, groups

    def forward(self, layer: int, block: Block, x: Tensor, before: Riders | None) -> tuple[None, KeyGroup]:
        return None, self.groups[layer]


@torch.no_grad()
def recorded(vit: VisionTransformer, images: Tensor, prompt: Prompt, batch: int = 64) -> list[KeyGroup]:
    """The prompts' keys and values of every layer on ``images`` (n, C, h, w): leading size n, or 1 where static."""
    parts = []
    for start in range(0, len(images), batch):
        watch = Recorded(prompt)
        vit(images[start : start + batch], watch)
        parts.append(watch.groups)
    return [joined([part[layer] for part in parts]) for layer in range(vit.config.depth)]


def joined(groups: list[KeyGroup]) -> KeyGroup:
    if len(groups[0].key) == 1:
        return groups[0]
    return dataclasses.replace(
        groups[0], key=torch.cat([g.key for g in groups]), value=torch.cat([g.value for g in groups])
    )


def picked(group: KeyGroup, index: Tensor) -> KeyGroup:
    return dataclasses.replace(group, key=group.key[index], value=group.value[index])


def partners(labels: Tensor, seed: int = 0) -> Tensor:
    """For every image another one of another class, each used once: a permutation of n.

    >>> labels = torch.tensor([0, 0, 1, 1, 2])
    >>> bool((labels != labels[partners(labels)]).all())
    True
    """
    counts = torch.bincount(labels)
    if 2 * int(counts.max()) > len(labels):
        raise ValueError(f"one class has {int(counts.max())} of {len(labels)} images; a partner of another is lacking")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    partner = torch.empty_like(order)
    partner[order] = order.roll(int(counts.max()))  # sorted by class: steps of the largest class leave every class
    return partner


@torch.no_grad()
def swapped_hits(
    vit: VisionTransformer, prompt: Prompt, head: nn.Linear, images: Tensor, labels: Tensor, seed: int = 0
) -> np.ndarray:
    """Whether each image is classified rightly with its own prompts and with those of another class: (n, 2).

    The other image's prompts are those of its own undisturbed run. For static prompts both columns agree.
    """
    groups, labels = recorded(vit, images, prompt), labels.cpu()
    partner = partners(labels, seed)
    hits = []
    for start in range(0, len(images), 64):
        rows = slice(start, start + 64)
        for index in (torch.arange(len(images))[rows], partner[rows]):
            some = [
                g if len(g.key) == 1 else dataclasses.replace(g, key=g.key[index], value=g.value[index]) for g in groups
            ]
            scores = head(vit.pool(vit(images[rows], Replayed(prompt, some))))
            hits.append(scores.argmax(-1).cpu() == labels[rows])
    return torch.stack([torch.cat(hits[::2]), torch.cat(hits[1::2])], dim=1).numpy()


def class_information(
    vit: VisionTransformer, prompt: Prompt, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> np.ndarray:
    """Accuracy with which a ridge classifier tells the class from the prompts' values of one layer: (L,).

    Fitted on the values (P·d numbers an image, standardised) of ``train`` (images, labels), judged on ``test``. Static
    prompts carry nothing: the accuracy is that of always naming one class.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = [recorded(vit, images, prompt) for images, _ in (train, test)]
    found = []
    for groups in zip(*made, strict=True):
        x, z = (
            g.value.expand(len(images), -1, -1, -1).flatten(1).double().cpu().numpy()
            for g, (images, _) in zip(groups, (train, test), strict=True)
        )
        reader = make_pipeline(StandardScaler(), RidgeClassifier(alpha=float(x.shape[1])))
        found.append(reader.fit(x, train[1].cpu().numpy()).score(z, test[1].cpu().numpy()))
    return np.array(found)
