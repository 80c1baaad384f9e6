"""Gates that are more than a dot product: what is made of the prompt scores before the softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import unknown

ACTIVATIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": torch.nn.functional.gelu, "identity": lambda s: s}


@dataclass(frozen=True)
class Residual:
    r"""Scores :math:`s \mapsto s + \alpha\,\sigma(\tau s)`; ``alpha`` and ``tau`` broadcast over (B, H, Q, P).

    With the identity for σ this is :math:`(1 + \alpha\tau)\,s`: a temperature and nothing else.

    >>> Residual(torch.tensor(0.5), torch.tensor(2.0), "identity")(torch.tensor([1.0, -3.0]))
    tensor([ 2., -6.])
    """

    alpha: Tensor
    tau: Tensor
    activation: str = "tanh"

    def __call__(self, s: Tensor) -> Tensor:
        return s + self.alpha.to(s.dtype) * ACTIVATIONS[self.activation](self.tau.to(s.dtype) * s)


def checked_activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise unknown("activation of the gate", name, ACTIVATIONS)
    return name
