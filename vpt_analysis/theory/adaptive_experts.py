"""Prompts made from the input: U W x with a frozen U (linear), U σ(W x) with a learned U that all share (VAPT)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import unknown
from .experts import ONE, Derivatives, Family


class _Adaptive(Family):
    """Key predictors z = W x (L·r), log-masses (L), and what ``outer`` adds; a = σ(z)."""

    @property
    def hidden(self) -> int:
        """r."""
        return self.known.out.shape[1]

    def activation(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """σ(z), σ'(z) and σ''(z)."""
        raise NotImplementedError

    def outer(self, keys: Tensor, values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """κ = (K U)ᵀx (R, r, n) and ω = (V U)ᵀ (R or 1, r, E): score and expert of an atom are Σ κ_k a_k, Σ ω_k a_k."""
        raise NotImplementedError

    def linear(self, blocks):
        weight = F.pad(blocks["weight"].flatten(1, 2), (0, 1))
        none = weight.new_zeros(len(weight), 0, self.known.outputs)
        return torch.cat([weight, self.constant(blocks["log_mass"])], 1), none

    def inner(self, keys: Tensor) -> Tensor:
        """z (R, L, r, n)."""
        return keys[:, : self.count * self.hidden].unflatten(1, (self.count, self.hidden))

    def experts(self, keys, values, x):
        first = self.count * self.hidden
        a = self.activation(self.inner(keys))[0]
        kappa, omega = self.outer(keys, values, x)
        scores = (kappa.unsqueeze(1) * a).sum(2) + keys[:, first : first + self.count]
        return scores, torch.einsum("rke,rlkn->rlen", omega.expand(len(a), -1, -1), a)

    def derivatives(self, keys, values, x):
        first, units = self.count * self.hidden, range(self.hidden)
        _, slope, _ = self.activation(self.inner(keys))
        kappa, omega = self.outer(keys, values, x)
        score = {(first + j, j): ONE for j in range(self.count)}
        expert = {}
        for j, k in itertools.product(range(self.count), units):
            score[j * self.hidden + k, j] = kappa[:, k] * slope[:, j, k]
            expert[j * self.hidden + k, j] = omega[:, k, :, None] * slope[:, j, k, None]
        return Derivatives(score=score, expert=expert)


class Linear(_Adaptive):
    name = "linear"

    @property
    def shapes(self):
        return {"weight": (self.hidden, self.known.d)}

    def activation(self, z):
        return z, torch.ones_like(z), torch.zeros_like(z)

    def outer(self, keys, values, x):
        known = self.known
        return (known.key @ known.out).T @ x, (known.value @ known.out).T.unsqueeze(0)

    def draw(self, directions, normal):
        return {"weight": 0.5 * _rows(directions, self.hidden, normal)}


@dataclass(frozen=True)
class Nonlinear(_Adaptive):
    activation_name: str = "tanh"

    name = "nonlinear"
    shared = ("out",)

    def __post_init__(self) -> None:
        if self.activation_name not in ACTIVATIONS:
            raise unknown("activation", self.activation_name, ACTIVATIONS)

    @property
    def shapes(self):
        return {"weight": (self.hidden, self.known.d), "out": (self.known.d, self.hidden)}

    def linear(self, blocks):
        inner, _ = super().linear(blocks)
        out = blocks["out"].mT  # (R, r, d)
        return torch.cat([inner, F.pad(out @ self.known.key.T, (0, 1))], 1), out @ self.known.value.T

    def activation(self, z):
        return ACTIVATIONS[self.activation_name](z)

    def outer(self, keys, values, x):
        return keys[:, -self.hidden :], values

    def derivatives(self, keys, values, x):
        found, units = super().derivatives(keys, values, x), self.hidden
        a, slope, bend = self.activation(self.inner(keys))
        kappa, omega = self.outer(keys, values, x)
        outer = self.count * units + self.count  # where κ begins
        for j, k in itertools.product(range(self.count), range(units)):
            c = j * units + k
            found.score[outer + k, j] = found.value[k, j] = a[:, j, k]
            found.score_bends[c, c, j] = kappa[:, k] * bend[:, j, k]
            found.score_bends[c, outer + k, j] = found.mixed_bends[c, k, j] = slope[:, j, k]
            found.expert_bends[c, c, j] = omega[:, k, :, None] * bend[:, j, k, None]
        return found

    def draw(self, directions, normal):
        out = 2.0 * torch.linalg.qr(normal(self.known.d, self.hidden))[0]
        weight = _rows(directions, self.hidden, normal)
        return {"weight": weight, "out": out.expand(self.count, -1, -1)}


def _rows(directions: Tensor, hidden: int, normal: Callable[..., Tensor]) -> Tensor:
    """(L, r, d): the directions, and for every further hidden unit random ones of the same length."""
    count, d = directions.shape
    more = F.normalize(normal(count, hidden - 1, d), dim=-1) * directions.norm(dim=-1)[:, None, None]
    return torch.cat([directions.unsqueeze(1), more], 1)


def _tanh(z):
    a = torch.tanh(z)
    slope = 1 - a.square()
    return a, slope, -2 * a * slope


def _gelu(z):
    cdf, density = 0.5 * (1 + torch.erf(z / math.sqrt(2))), torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return z * cdf, cdf + z * density, (2 - z.square()) * density


def _relu(z):
    return z.relu(), (z > 0).to(z.dtype), torch.zeros_like(z)


ACTIVATIONS = {"tanh": _tanh, "gelu": _gelu, "relu": _relu}
