"""What a training step costs: bytes kept for its backward pass, counted, and seconds beside another method's, measured.

Bytes are exact and the same on every run: autograd says which tensors it keeps. Seconds depend on the machine, so they
are taken in turns with those of a reference, and the ratio is what may be reported. On a CPU they are processor time,
which other processes lengthen less.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .cost import Method
from .fits import check_method
from .training import frozen
from .vit import VisionTransformer

STATE = 3  # of each trained scalar AdamW needs its gradient and two moments


def kept_bytes(vit: VisionTransformer, method: Method, images: Tensor, head: nn.Linear, labels: Tensor) -> int:
    """Bytes of the tensors that the forward pass of one step keeps for its backward pass.

    ``images`` (B, C, h, w) normalised, ``labels`` int64 (B,). Each storage counts once and whole, as it stays in memory
    whole. Parameters, images and labels are left out: they are there anyway. Nothing is kept by what takes no gradient,
    so a frozen backbone below the first trained parameter costs nothing. Memory that a kernel uses and gives back
    within the step is not seen.
    """
    there = {t.untyped_storage().data_ptr() for t in (images, labels, *_parameters(vit, method, head))}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:  # what is kept stays alive until the backward pass, so addresses are unique
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in there:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with frozen(vit), saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(vit, method, images, head, labels)
    del loss
    return sum(storages.values())


def state_bytes(*modules: nn.Module) -> int:
    """Bytes of gradients and AdamW's two moments of all that the modules train.

    >>> state_bytes(nn.Linear(2, 1))                            # 3 scalars of 4 bytes, 3 times
    36
    """
    return STATE * sum(p.numel() * p.element_size() for m in modules for p in m.parameters() if p.requires_grad)


def seconds_beside(
    vit: VisionTransformer,
    methods: tuple[Method, Method],
    images: Tensor,
    head: nn.Linear,
    labels: Tensor,
    repeats: int,
) -> np.ndarray:
    """Seconds of a step, forward and backward, of two methods in turns: float64 (repeats, 2), after one step of each
    that is not counted. The optimiser's part is left out, and so are features that a trainer computes once."""
    taken = np.zeros((repeats + 1, 2))
    with frozen(vit):
        for row in taken:
            for i, method in enumerate(methods):
                started = _now(images)
                _loss(vit, method, images, head, labels).backward()
                row[i] = _now(images) - started
                for p in _parameters(method, head):
                    p.grad = None
    return taken[1:]


def _now(images: Tensor) -> float:
    if images.device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(images.device)
    return time.perf_counter()


def _parameters(*modules: nn.Module) -> list[Tensor]:
    return [p for module in modules for p in module.parameters()]


def _loss(vit: VisionTransformer, method: Method, images: Tensor, head: nn.Linear, labels: Tensor) -> Tensor:
    check_method(method)
    return nn.functional.cross_entropy(head(vit.pool(method.encode(vit, images))), labels)
