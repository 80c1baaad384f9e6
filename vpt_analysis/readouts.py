"""What a method is trained against: labels or targets, the linear head that reads them from the pooled feature, losses.

A head is drawn and trained with the method, or given; then it is left as it is, or trained from there. **Labels** are
classes, int64 (n,), with the cross-entropy; **targets** are numbers of the backbone's dtype, (n, E), with the squared
error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import VisionTransformer


def features(vit: VisionTransformer) -> int:
    """Components of the pooled feature."""
    return vit.config.width * (2 if vit.config.pool == "cls+mean" else 1)


def new_head(vit: VisionTransformer, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A classifier on ``vit.pool``: normal weights of std 0.01, no bias."""
    head = nn.utils.skip_init(nn.Linear, features(vit), outputs).to(vit.patch.weight)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.01)
        head.bias.zero_()
    return head


def given_heads(
    vit: VisionTransformer, head: nn.Linear | Sequence[nn.Linear] | None, k: int, trained: bool
) -> list[nn.Linear | None]:
    """Copies of the heads that k runs are given, which take a gradient where they are ``trained``; None for runs that
    are given none.

    Raises ``TypeError`` for what is no linear layer, or of another dtype or device, ``ValueError`` for another shape or
    number.
    """
    if head is None:
        return [None] * k
    heads = [head] * k if isinstance(head, nn.Module) else list(head)
    if len(heads) != k:
        raise ValueError(f"{len(heads)} heads for {k} methods; expected one for all, or one each")
    return [checked_copy(vit, each).requires_grad_(trained) for each in heads]


def checked_copy(vit: VisionTransformer, head: nn.Linear) -> nn.Linear:
    like = vit.patch.weight
    if not isinstance(head, nn.Linear):
        raise TypeError(f"the head is {type(head).__name__}; expected a torch.nn.Linear on vit.pool")
    if head.weight.dtype != like.dtype or head.weight.device != like.device:
        raise TypeError(
            f"the head is {head.weight.dtype} on {head.weight.device}, the backbone {like.dtype} on {like.device}; "
            f"move it with head.to(vit.patch.weight)"
        )
    if head.in_features != features(vit):
        raise ValueError(f"the head reads {head.in_features} components; the pooled feature has {features(vit)}")
    copy = nn.utils.skip_init(nn.Linear, head.in_features, head.out_features).to(like)
    with torch.no_grad():
        copy.weight.copy_(head.weight)
        copy.bias.zero_() if head.bias is None else copy.bias.copy_(head.bias)
    return copy


def are_targets(labels: Tensor) -> bool:
    """Whether these are numbers to be met, and not classes."""
    return labels.is_floating_point()


def check_labels(labels: object, vit: VisionTransformer) -> None:
    """Raise ``TypeError`` or ``ValueError`` for what is neither labels nor targets."""
    like = vit.patch.weight
    kind = getattr(labels, "dtype", type(labels).__name__)
    if isinstance(labels, Tensor) and labels.ndim == 2 and labels.dtype == like.dtype:
        energy = labels.square().sum()
        if not torch.isfinite(energy) or energy == 0:
            raise ValueError(f"the sum of squared targets is {energy}; expected finite numbers that are not all zero")
    elif not isinstance(labels, Tensor) or labels.dtype != torch.long:
        raise TypeError(f"labels are {kind}; expected a tensor of torch.int64, or targets (n, E) of {like.dtype}")


def count_outputs(data: list, held_out: list, classes: int | None, heads: list[nn.Linear | None]) -> int:
    """What a head gives for an image: the number of classes, given or from the training labels, or of targets. No label
    lies outside; runs have one kind and one number, which is that of given heads."""
    pairs = [*data, *(pair for pair in held_out if pair is not None)]
    given = {head.out_features for head in heads if head is not None} | ({classes} if classes is not None else set())
    kinds = {are_targets(y) for _, y in pairs}
    if len(kinds) > 1:
        raise ValueError("some images have labels, others targets; runs that train together have one kind throughout")
    if not kinds.pop():
        return count_classes(data, pairs, given)
    found = {y.shape[1] for _, y in pairs} | given
    if len(found) > 1:
        raise ValueError(f"targets, heads and classes are of {sorted(found)} numbers; expected one number of all")
    return found.pop()


def count_classes(data: list, pairs: list, given: set[int]) -> int:
    found = given or {int(y.max()) + 1 for _, y in data}
    if len(found) > 1:
        what = "heads and classes are" if given else "the runs' labels make"
        raise ValueError(f"{what} {sorted(found)} classes; give their number as classes")
    classes = found.pop()
    for _, y in pairs:
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(f"labels lie in [{int(y.min())}, {int(y.max())}]; expected [0, {classes - 1}]")
    return classes


def read(heads: list[nn.Linear], pooled: Tensor) -> Tensor:
    """Pooled features (K, B, F) to scores (K, B, E), each by its own head."""
    if len(heads) == 1:
        return heads[0](pooled[0]).unsqueeze(0)
    weight, bias = torch.stack([h.weight for h in heads]), torch.stack([h.bias for h in heads])
    return torch.baddbmm(bias.unsqueeze(1), pooled, weight.transpose(1, 2))


def mean_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of scores (K, B, E) against labels (K, B), or squared error against targets (K, B, E); mean over
    each member's own batch (and outputs), (K,)."""
    if are_targets(labels):
        return (scores - labels).square().flatten(1).mean(1)
    if len(scores) == 1:
        return F.cross_entropy(scores[0], labels[0]).unsqueeze(0)
    each = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
    return each.unflatten(0, labels.shape).mean(1)
