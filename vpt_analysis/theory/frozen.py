"""What a prompt mixture is added to: frozen experts with quadratic scores, and the projections of prompts."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frozen:
    """What is known: pre-trained experts and projections, float64.

    ``quadratic`` A (N₀, d, d), ``offset`` a (N₀,), ``expert`` H (N₀, E, d); ``key`` K (d, d) and ``value`` V (E, d)
    make the score (K p)·x and the expert V p of a prompt p; ``out`` U (d, r) lies behind linear adaptive prompts.
    """

    quadratic: Tensor
    offset: Tensor
    expert: Tensor
    key: Tensor
    value: Tensor
    out: Tensor

    @property
    def d(self) -> int:
        return self.key.shape[0]

    @property
    def outputs(self) -> int:
        """E."""
        return self.value.shape[0]

    def content(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The frozen experts as one: log-sum-exp of their scores (R, n) and their output (R, E, n), for x (R, d, n)."""
        scores = torch.einsum("rin,jik,rkn->rjn", x, self.quadratic, x) + self.offset[:, None]
        experts = torch.einsum("jei,rin->rjen", self.expert, x)
        return torch.logsumexp(scores, 1), (torch.softmax(scores, 1).unsqueeze(2) * experts).sum(1)


def frozen(d: int, outputs: int, experts: int = 4, hidden: int = 1, seed: int = 0) -> Frozen:
    """Random frozen experts and projections. Scores have a standard deviation near 1, experts' outputs near 1.

    ``hidden``: r, the width of the adaptive prompts' bottleneck.

    >>> frozen(d=3, outputs=2).expert.shape
    torch.Size([4, 2, 3])
    """
    for name, value in (("d", d), ("outputs", outputs), ("experts", experts), ("hidden", hidden)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if hidden > d:
        raise ValueError(f"hidden is {hidden}, more than d = {d}: a bottleneck is no wider than what it carries")
    normal = normal_draws(seed)
    quadratic = normal(experts, d, d)
    return Frozen(
        quadratic=(quadratic + quadratic.mT) / (2 * d),
        offset=0.5 * normal(experts),
        expert=normal(experts, outputs, d) / math.sqrt(d),
        key=torch.linalg.qr(normal(d, d))[0],
        value=normal(outputs, d) / math.sqrt(d) * 2,
        out=torch.linalg.qr(normal(d, hidden))[0],
    )


def normal_draws(seed: int) -> Callable[..., Tensor]:
    """``torch.randn`` in float64 from a generator of its own."""
    return functools.partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
