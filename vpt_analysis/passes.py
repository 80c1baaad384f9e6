"""How runs that train together go through the backbone: which of them at a time, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import wide
from .bank import Bank, gather
from .constants import is_constant
from .fits import check_method
from .members import Member, pooled
from .readouts import mean_loss, read
from .settings import Training
from .vit import VisionTransformer

# Components of tokens that a bank takes through the backbone at a time on a CPU: 16 images of 65 tokens of width 128.
# More leave its caches, and runs by themselves are faster; fewer wait for Python.
FOLD = 16 * 65 * 128


def check_together(vit: VisionTransformer, methods: Sequence[nn.Module]) -> None:
    """Raise ``TypeError`` or ``ValueError`` for methods that cannot train together, or not on this backbone."""
    for method in methods:
        check_method(method)
    alike = methods if len(methods) == 1 or all(map(is_constant, methods)) else [Bank(methods)]
    for method in alike:
        method.check_fits(vit)


def folded(vit: VisionTransformer, members: list[Member], batch: int) -> list[tuple[nn.Module, list[Member]]]:
    """The members that go through the backbone together, with the method that stands for them: one, or a bank."""
    if members and members[0].images.ndim == 2:  # features: no backbone, and all heads read together
        return [(members[0].method, members)]
    most = len(members)
    if members and vit.patch.weight.device.type == "cpu":
        (h, w), p = members[0].images.shape[-2:], vit.config.patch_size
        tokens = vit.config.prefix + (h // p) * (w // p)
        most = max(1, FOLD // (batch * tokens * vit.config.width))
    parts = [members[i : i + most] for i in range(0, len(members), most)]
    return [(part[0].method if len(part) == 1 else Bank([m.method for m in part]), part) for part in parts]


def backward(vit: VisionTransformer, method: nn.Module, members: list[Member], plan: Training) -> Tensor:
    """Gradients of one step of the members that ``method`` stands for, summed over its batches; their losses (K,)."""
    orders = [m.order.next() for m in members]
    total = 0
    for indices in zip(*(order.split(plan.batch) for order in orders), strict=True):
        images, labels = (gather([getattr(m, what) for m in members], indices) for what in ("images", "labels"))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            features = pooled(vit, method, images).unflatten(0, (len(members), -1))  # (K, B, F)
            scores = read([m.head for m in members], features)
        loss = mean_loss(scores.to(wide(scores)), labels.unflatten(0, (len(members), -1)))
        loss = loss * (len(indices[0]) / len(orders[0]))
        loss.sum().backward()
        total = total + loss.detach()
    return total
