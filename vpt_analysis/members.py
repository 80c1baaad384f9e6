"""One run among those that train together: its method and head, its data and their order, its evaluations."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

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
    """What belongs to one run. ``labels`` lie beside the ``images``; ``validation`` is a pair of both, or None.

    ``stopped`` is the number of steps after which its patience was at an end, 0 while it is not.
    """

    def __init__(
        self,
        method: nn.Module,
        images: Tensor,
        labels: Tensor,
        validation: tuple[Tensor, Tensor] | None,
        head: nn.Linear,
        order: Order,
    ):
        self.method, self.images, self.labels, self.validation = method, images, labels, validation
        self.head, self.order = head, order
        self.evaluated: list[int] = []
        self.accuracies: list[float] = []
        self.best: dict | None = None
        self.stopped = 0

    def evaluate(self, vit: VisionTransformer, step: int, patience: int) -> None:
        """Measure validation accuracy after ``step`` steps; with ``patience``, keep the best state and stop in time."""
        if self.validation is None or self.stopped:
            return
        self.evaluated.append(step)
        self.accuracies.append(accuracy(vit, self.method, self.head, *self.validation))
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
            "evaluated": self.evaluated, "accuracies": self.accuracies, "best": self.best, "stopped": self.stopped,
        }  # fmt: skip

    def load_state_dict(self, state: dict) -> None:
        for name in ("method", "head", "order"):
            getattr(self, name).load_state_dict(state[name])
        self.evaluated, self.accuracies = state["evaluated"], state["accuracies"]
        self.best, self.stopped = state["best"], state["stopped"]


def new_head(vit: VisionTransformer, classes: int, generator: torch.Generator) -> nn.Linear:
    """A classifier on ``vit.pool``: normal weights of std 0.01, no bias."""
    features = vit.config.width * (2 if vit.config.pool == "cls+mean" else 1)
    head = nn.utils.skip_init(nn.Linear, features, classes).to(vit.patch.weight)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.01)
        head.bias.zero_()
    return head


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
        if not isinstance(y, Tensor) or y.dtype != torch.long:
            kind = getattr(y, "dtype", type(y).__name__)
            raise TypeError(f"labels are {kind}; expected a tensor of torch.int64")
        vit.check_images(x[:1])
    moved = {id(y): y.to(vit.patch.weight.device) for y in labels}
    return [(x, moved[id(y)]) for x, y in zip(images, labels, strict=True)]


def validation_pairs(vit: VisionTransformer, validation, k: int) -> list[tuple[Tensor, Tensor]]:
    if isinstance(validation[0], Tensor):
        validation = [validation] * k
    return pairs(vit, [x for x, _ in validation], [y for _, y in validation], k, "validation images")


def count_classes(data: list, held_out: list, classes: int | None) -> int:
    """The number of classes, given or from the training labels; no label lies outside."""
    found = {int(y.max()) + 1 for _, y in data}
    if classes is None and len(found) > 1:
        raise ValueError(f"the runs' labels make {sorted(found)} classes; give their number as classes")
    classes = classes or found.pop()
    for _, y in [*data, *(pair for pair in held_out if pair is not None)]:
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(f"labels lie in [{int(y.min())}, {int(y.max())}]; expected [0, {classes - 1}]")
    return classes


@torch.no_grad()
def accuracy(
    vit: VisionTransformer, method: nn.Module | None, head: nn.Linear, images: Tensor, labels: Tensor
) -> float:
    """Top-1 accuracy, a share in [0, 1], of ``head`` on the pooled feature; without dropout. ``method`` may be None."""
    hits = 0
    with in_evaluation(method):
        for start in range(0, len(images), 256):
            part = images[start : start + 256]
            scores = head(vit.pool(vit(part) if method is None else method.encode(vit, part)))
            hits += (scores.argmax(-1).cpu() == labels[start : start + 256].cpu()).sum().item()
    return hits / len(images)


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
