"""Methods that train nothing: an image has the same pooled feature at every step, and it is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from .baselines.linear import Linear
from .members import Member, in_evaluation, pooled
from .vit import VisionTransformer


def is_constant(method: nn.Module) -> bool:
    """Whether nothing in ``method`` is trained or drawn, so that a head on it sees the same features at every step.

    >>> is_constant(nn.Identity()), is_constant(nn.Dropout(0.1)), is_constant(nn.Linear(1, 1))
    (True, False, False)
    """
    trained = any(p.numel() and p.requires_grad for p in method.parameters())
    return not trained and not any(isinstance(m, _DropoutNd) and m.p > 0 for m in method.modules())


def features_for_images(vit: VisionTransformer, members: Sequence[Member], precision: str) -> None:
    """Put in place of every member's images their pooled features (n, F): one pass for all that read the same.

    Those of the images to train on are computed in ``precision``, as a step would, those of validation images in the
    backbone's, as ``accuracy`` does.
    """
    known: dict[tuple, tuple[Tensor, Tensor]] = {}

    def features(method: nn.Module, images: Tensor, precision: str) -> Tensor:
        # All linear probes are one; of others nothing is known but that one object stays as it is.
        key = (Linear if isinstance(method, Linear) else id(method), id(images), precision)
        if key not in known:  # the images are kept, so that no other tensor gets their id
            known[key] = images, in_parts(vit, method, images, precision)
        return known[key][1]

    for m in members:
        m.images = features(m.method, m.images, precision)
        if m.validation is not None:
            images, labels = m.validation
            m.validation = features(m.method, images, "model"), labels


@torch.no_grad()
def in_parts(vit: VisionTransformer, method: nn.Module, images: Tensor, precision: str) -> Tensor:
    """Pooled features (n, F), 256 images at a time, as ``accuracy`` takes them."""
    bfloat16 = torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with in_evaluation(method), bfloat16:
        return torch.cat([pooled(vit, method, part) for part in images.split(256)])
