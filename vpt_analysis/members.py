"""One run among those that train together: its method and head, its data and their order, its evaluations."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .bank import Bank
from .baselines.base import Baseline
from .baselines.linear import Linear
from .prompts.base import Prompt
from .readouts import are_targets, check_labels
from .vit import VisionTransformer


class Order:
    """Index batches from seeded permutations of n: no batch repeats an image, and none has more than n.

    >>> order = Order(4, 2, torch.Generator().manual_seed(0))
    >>> sorted([*order.next().tolist(), *order.next().tolist()])
    [0, 1, 2, 3]
    """

    def __init__(self, n: int, size: int, generator: torch.Generator):
        self.n, self.size, self.generator = n, min(size, n), generator
        self.left = torch.empty(0, dtype=torch.long)

    def next(self) -> Tensor:
        if len(self.left) < self.size:
            self.left = torch.randperm(self.n, generator=self.generator)
        batch, self.left = self.left[: self.size], self.left[self.size :]
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        return {"left": self.left.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.left = state["left"]
        self.generator.set_state(state["generator"])


class Member:
    """What belongs to one run. ``labels`` lie beside the ``images``; ``validation`` is a pair of both, or None. Pooled
    features stand in for images where the method leaves them as they are (``constants``).

    ``trains_head``: whether the head is trained, or given. ``fitted``: shares of its own images after ``evaluated``
    steps, ``accuracies`` those of the validation images. ``stopped`` is the number of steps after which it had fitted
    enough or its patience was at an end, 0 while neither is so.
    """

    def __init__(
        self,
        method: nn.Module,
        images: Tensor,
        labels: Tensor,
        validation: tuple[Tensor, Tensor] | None,
        head: nn.Linear,
        order: Order,
        trains_head: bool = True,
    ):
        self.method, self.images, self.labels, self.validation = method, images, labels, validation
        self.head, self.order, self.trains_head = head, order, trains_head
        self.evaluated: list[int] = []
        self.fitted: list[float] = []
        self.accuracies: list[float] = []
        self.best: dict | None = None
        self.stopped = 0

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser moves."""
        return [*self.method.parameters(), *(self.head.parameters() if self.trains_head else ())]

    def evaluate(self, vit: VisionTransformer, step: int, patience: int, enough: float = 0.0) -> None:
        """Measure, after ``step`` steps, what is asked for: with ``enough``, the share of its own images, and stop when
        it is reached; that of validation images, with ``patience`` keeping the best state and stopping in time."""
        if self.stopped or (self.validation is None and not enough):
            return
        self.evaluated.append(step)
        if enough:
            self.fitted.append(share(vit, self.method, self.head, self.images, self.labels))
            self.stopped = step if self.fitted[-1] >= enough else 0
        if self.validation is not None:
            self.validate(vit, step, patience)

    def validate(self, vit: VisionTransformer, step: int, patience: int) -> None:
        self.accuracies.append(share(vit, self.method, self.head, *self.validation))
        best = int(np.argmax(self.accuracies))  # the first of equals
        if patience and best == len(self.accuracies) - 1:
            both = {"method": self.method.state_dict(), "head": self.head.state_dict()}
            self.best = copy.deepcopy({"step": step} | both)
        if patience and len(self.accuracies) - 1 - best >= patience:
            self.stopped = step

    def keep_best(self) -> int | None:
        """Put the best state back, where one was kept, and say after how many steps it was reached."""
        if self.best is None:
            return None
        self.method.load_state_dict(self.best["method"])
        self.head.load_state_dict(self.best["head"])
        return self.best["step"]

    def state_dict(self) -> dict:
        return {
            "method": self.method.state_dict(), "head": self.head.state_dict(), "order": self.order.state_dict(),
            "evaluated": self.evaluated, "fitted": self.fitted, "accuracies": self.accuracies, "best": self.best,
            "stopped": self.stopped,
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        for name in ("method", "head", "order"):
            getattr(self, name).load_state_dict(state[name])
        self.evaluated, self.fitted, self.accuracies = state["evaluated"], state["fitted"], state["accuracies"]
        self.best, self.stopped = state["best"], state["stopped"]


def pairs(vit: VisionTransformer, images, labels, k: int, what: str) -> list[tuple[Tensor, Tensor]]:
    """Checked images and labels of each of k runs; shared tensors stay one and the same object."""
    if isinstance(images, Tensor):
        images = [images] * k
    if isinstance(labels, Tensor) or not (isinstance(labels, (list, tuple)) and isinstance(labels[0], Tensor)):
        labels = [labels] * k
    if len(images) != k or len(labels) != k:
        raise ValueError(
            f"{len(images)} tensors of {what} and {len(labels)} of labels for {k} methods; expected one for all, or {k}"
        )
    for x, y in zip(images, labels, strict=True):
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"{len(x)} {what} and {len(y)} labels given; expected as many, and at least one")
        check_labels(y, vit)
        vit.check_images(x[:1])
    moved = {id(y): y.to(vit.patch.weight.device) for y in labels}
    return [(x, moved[id(y)]) for x, y in zip(images, labels, strict=True)]


def validation_pairs(vit: VisionTransformer, validation, k: int) -> list[tuple[Tensor, Tensor]]:
    if isinstance(validation[0], Tensor):
        validation = [validation] * k
    return pairs(vit, [x for x, _ in validation], [y for _, y in validation], k, "validation images")


def share(vit: VisionTransformer, method: nn.Module | None, head: nn.Linear, images: Tensor, labels: Tensor) -> float:
    """How much of labels or targets is met: ``accuracy`` or ``explained``; 1 where all is."""
    return (explained if are_targets(labels) else accuracy)(vit, method, head, images, labels)


@torch.no_grad()
def accuracy(
    vit: VisionTransformer, method: nn.Module | None, head: nn.Linear, images: Tensor, labels: Tensor
) -> float:
    """Top-1 accuracy, a share in [0, 1], of ``head`` on the pooled feature; without dropout. ``method`` may be None.

    In place of images their pooled features (n, F) may be given, where they are at hand.
    """
    hits = 0
    for scores, part in scored(vit, method, head, images, labels):
        hits += (scores.argmax(-1).cpu() == part.cpu()).sum().item()
    return hits / len(images)


@torch.no_grad()
def explained(
    vit: VisionTransformer, method: nn.Module | None, head: nn.Linear, images: Tensor, targets: Tensor
) -> float:
    r"""Share of the targets' energy that is met, :math:`1 - \sum\|s - t\|^2 / \sum\|t\|^2` (at most 1; below 0 where 0
    would be nearer), without dropout; ``targets`` (n, E)."""
    missed = 0.0
    for scores, part in scored(vit, method, head, images, targets):
        missed += (scores.double() - part.double()).square().sum().item()
    return 1 - missed / targets.double().square().sum().item()


def scored(
    vit: VisionTransformer, method: nn.Module | None, head: nn.Linear, images: Tensor, labels: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores of the images, 256 at a time and in evaluation mode, with what they are compared to."""
    with in_evaluation(method):
        for start in range(0, len(images), 256):
            part = images[start : start + 256]
            yield head(pooled(vit, method, part)), labels[start : start + 256]


def pooled(vit: VisionTransformer, method: nn.Module | None, images: Tensor) -> Tensor:
    """What a head reads of images, (B, F); features that stand in for them pass as they are. Where the method does no
    more to the tokens than the backbone, those that are not pooled are not computed."""
    if images.ndim == 2:
        return images
    if method is None:
        return vit.pool(vit.for_pooling()(images))
    plain = type(method).encode in (Prompt.encode, Baseline.encode, Linear.encode, Bank.encode)
    return vit.pool(method.encode(vit.for_pooling() if plain else vit, images))


@contextlib.contextmanager
def in_evaluation(module: nn.Module | None) -> Iterator[None]:
    """``module`` is in evaluation mode inside the block, and as it was after it."""
    if module is None or not module.training:
        yield
        return
    module.eval()
    try:
        yield
    finally:
        module.train()
