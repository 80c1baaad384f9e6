"""One cell of a comparison: an arm, trained on one training subset at each of some learning rates."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from .. import training
from ..backbones import load_backbone
from ..data.image_set import ImageSet
from ..training import Trained, Training
from ..vit import VisionTransformer, parameter_count
from .arms import Arm, create, load_modules
from .splits import Split, split


def run(config: dict) -> dict[str, np.ndarray]:
    """What a cell gives, from its config alone.

    The config has ``backbone``, ``task``, ``subset``, ``seed``, ``arm`` (``Arm.plain``), ``rates`` (R), ``carve``,
    ``pool``, ``validation`` and ``test`` (numbers of images, see ``splits.split``), ``steps``, ``batch``,
    ``optimiser``, ``weight_decay``, ``device`` and ``modules`` (files of one's own that register mechanisms). The seed
    draws the subset, the start and the order of images. Arrays: ``test`` (R,) accuracy in [0, 1], ``loss`` (R,) of the
    last tenth of the steps in nats, ``images`` trained on, ``classes``, and ``parameters`` trained without the head;
    with ``carve``, ``validation`` (R,) too, and ``own``: whether its images were carved from the training subset.
    """
    load_modules(config["modules"])
    vit, arm = backbone(config["backbone"], config["device"]), Arm(**config["arm"])
    images = split(
        config["task"], vit.config.image_size, config["subset"], config["seed"], config["pool"], config["carve"],
        config["validation"], config["test"],
    )  # fmt: skip
    plans = [
        Training(
            steps=config["steps"], lr=rate, weight_decay=config["weight_decay"], seed=config["seed"],
            batch=min(config["batch"], len(images.train)), optimiser=config["optimiser"],
        )
        for rate in config["rates"]
    ]  # fmt: skip
    methods, trained = train(vit, arm, images, plans, config["seed"])
    found = {"test": judged(vit, methods, trained, images.test)}
    if images.validation is not None:
        found |= {"validation": judged(vit, methods, trained, images.validation), "own": np.array(images.own)}
    last = max(1, config["steps"] // 10)
    return found | {
        "loss": np.array([t.losses[-last:].mean() for t in trained]),
        "images": np.array(len(images.train)),
        "classes": np.array(len(images.train.class_names)),
        "parameters": np.array(parameter_count(methods[0])),
    }


def train(
    vit: VisionTransformer, arm: Arm, images: Split, plans: list[Training], seed: int
) -> tuple[list[nn.Module], list[Trained]]:
    """The arm trained by each plan: methods and what their training gave."""
    pixels, labels = pixels_of(vit, images.train), images.train.labels
    first, heads = create(arm, vit, pixels, seed), None
    methods = [first, *(copy.deepcopy(first) for _ in plans[1:])]
    if arm.start == "tied":
        plans, earlier = [replace(p, steps=p.steps - p.steps // 2) for p in plans], plans
        earlier = [replace(p, steps=p.steps // 2, lr=p.lr / arm.scale) for p in earlier]
        heads = warm_up(vit, arm, methods, images, earlier, seed)
    classes = len(images.train.class_names)
    if arm.prompted or not parameter_count(first):  # these go through the backbone together
        return methods, training.train_many(
            vit, methods, pixels, labels, plans, classes=classes, head=heads, train_head=True, label=arm.name
        )
    each = zip(methods, plans, strict=True)
    return methods, [training.train(vit, m, pixels, labels, p, classes=classes, label=arm.name) for m, p in each]


def warm_up(
    vit: VisionTransformer, arm: Arm, methods: list, images: Split, plans: list[Training], seed: int
) -> list[nn.Linear]:
    """Start untied prompts at keys and values of VPT-Deep prompts that are trained by ``plans``, one each; the heads
    that were trained with those."""
    prompts, trained = train(vit, Arm("tied", "vpt-deep", length=arm.length), images, plans, seed)
    for method, prompt in zip(methods, prompts, strict=True):
        for layer, block in enumerate(vit.blocks):
            method.place(layer, block, prompt.tokens[layer].detach())
    return [t.head for t in trained]


def judged(vit: VisionTransformer, methods: list[nn.Module], trained: list[Trained], images: ImageSet) -> np.ndarray:
    """Top-1 accuracy of each method with its head, (R,)."""
    pixels = pixels_of(vit, images)
    pairs = zip(methods, trained, strict=True)
    return np.array([training.accuracy(vit, m, t.head, pixels, images.labels) for m, t in pairs])


def pixels_of(vit: VisionTransformer, images: ImageSet) -> Tensor:
    """All images as the backbone wants them, where it is."""
    return images.normalised(vit.config).to(vit.patch.weight)


@functools.lru_cache(maxsize=1)
def backbone(name: str, device: str = "cpu") -> VisionTransformer:
    """A backbone, loaded once a process; training leaves it as it is."""
    return load_backbone(Path(name) if Path(name).suffix else name, device=device)
