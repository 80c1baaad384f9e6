r"""The families of prompt experts: how parameters become scores and experts, with analytic derivatives.

========== ==================================== ============================= ==========================
family     parameters of an atom                score                         expert
========== ==================================== ============================= ==========================
tied       prompt p (d)                         (K p)·x                       V p
untied     key k (d), value v (E)               k·x                           v
norga      key k (d), value v (E)               t + α tanh(τ t), t = k·x      v
linear     weight W (r, d); U is frozen         (K U W x)·x                   V U W x
nonlinear  weight W (r, d); out U (d, r) shared (K U σ(W x))·x                V U σ(W x)
========== ==================================== ============================= ==========================

Every atom has a log-mass b besides. In the linear family only the product U W is identified, so U is frozen there.

Whatever the family, a sample meets the parameters only through numbers that are linear in them: **key predictors**
:math:`q_c = \tilde x\cdot\psi_c` with the features :math:`\tilde x = (x, 1)`, and **value predictors**
:math:`o_k\in\mathbb R^E`, the same for every sample. Together they are one linear image of the parameters,
:math:`\psi = T\theta`; scores and experts are small functions of them, whose derivatives each family gives
(``Derivatives``) and ``normal_equations`` joins. A tied prompt is an untied one with (k, v) = (K p, V p): the same
derivatives, another T.

Sources: static prompts as tied and untied experts, Le et al., arXiv 2410.02200; NoRGa's gate, arXiv 2405.14124, eq. 12,
with α = τ = 1 as in its theory; VAPT's prompts W₂σ(W₁X), arXiv 2501.18936.

Shapes: R problems, L atoms, n samples, d inputs, E outputs, D = d + 1 features, C key and O value predictors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import unknown
from .atoms import Atoms
from .frozen import Frozen


@dataclass(frozen=True)
class Derivatives:
    """First and second derivatives of the scores s_l and experts e_l with respect to the predictors; what is not listed
    is 0. Tensors are (R or 1, n or 1), with E before n where they are of experts.

    ``score`` (c, l): ∂s_l/∂q_c · ``expert`` (c, l): ∂e_l/∂q_c · ``value`` (k, l): the number a in ∂e_l/∂o_k = a I ·
    ``score_bends`` (c, c', l): ∂²s_l/∂q_c∂q_c' · ``expert_bends`` (c, c', l): ∂²e_l/∂q_c∂q_c', both with c ≤ c' ·
    ``mixed_bends`` (c, k, l): the number a in ∂²e_l/∂q_c∂o_k = a I. Experts are linear in the value predictors.
    """

    score: dict[tuple[int, int], Tensor]
    expert: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    value: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    score_bends: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    expert_bends: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)
    mixed_bends: dict[tuple[int, int, int], Tensor] = field(default_factory=dict)


ONE = torch.ones(1, 1, dtype=torch.float64)


@dataclass(frozen=True)
class Family:
    """Prompt experts of one kind, ``count`` of them, over the experts and projections of ``known``.

    Parameters theta (R, p) hold the log-masses (L) and then the blocks, flat.
    """

    known: Frozen
    count: int

    name = ""
    shared = ()  # blocks that all atoms have in common

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block of one atom."""
        raise NotImplementedError

    def linear(self, blocks: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """psi = T theta: coefficients of the key predictors (R, C, D) and the value predictors (R, O, E)."""
        raise NotImplementedError

    def experts(self, keys: Tensor, values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores with their log-masses (R, L, n) and experts (R, L, E, n or 1), from the predictors (R, C, n) and
        (R, O, E)."""
        raise NotImplementedError

    def derivatives(self, keys: Tensor, values: Tensor, x: Tensor) -> Derivatives:
        """Of scores and experts with respect to the predictors."""
        raise NotImplementedError

    def draw(self, directions: Tensor, normal: Callable[..., Tensor]) -> dict[str, Tensor]:
        """Blocks (L, *) of atoms whose scores vary along ``directions`` (L, d); the rest from ``normal(*shape)``."""
        raise NotImplementedError

    @property
    def layout(self) -> dict[str, tuple[int, ...]]:
        """Shape of every block in theta, log-masses first."""
        blocks = {k: shape if k in self.shared else (self.count, *shape) for k, shape in self.shapes.items()}
        return {"log_mass": (self.count,)} | blocks

    @property
    def size(self) -> int:
        """p."""
        return sum(math.prod(shape) for shape in self.layout.values())

    def blocks(self, theta: Tensor) -> dict[str, Tensor]:
        """theta (R, p) cut into its blocks, (R, *) each."""
        pieces = theta.split([math.prod(shape) for shape in self.layout.values()], dim=-1)
        return {k: t.unflatten(-1, shape) for (k, shape), t in zip(self.layout.items(), pieces, strict=True)}

    def unpack(self, theta: Tensor) -> Atoms:
        blocks = self.blocks(theta)
        log_mass = blocks.pop("log_mass")
        for k in self.shared:
            blocks[k] = blocks[k].unsqueeze(1).expand(-1, self.count, *[-1] * (blocks[k].dim() - 1))
        return Atoms(log_mass, blocks)

    def pack(self, atoms: Atoms) -> Tensor:
        """theta (R, p) of atoms (R, L). Raises ``ValueError`` for atoms of another family or number."""
        found = {k: tuple(block.shape[2:]) for k, block in atoms.blocks.items()}
        if atoms.log_mass.dim() != 2 or atoms.count != self.count or found != self.shapes:
            raise ValueError(
                f"log-masses of shape {tuple(atoms.log_mass.shape)} and blocks {found}; the {self.name} family with "
                f"{self.count} atoms has (R, {self.count}) and {self.shapes}"
            )
        blocks = [atoms.blocks[k][:, 0] if k in self.shared else atoms.blocks[k] for k in self.shapes]
        return torch.cat([t.flatten(1) for t in (atoms.log_mass, *blocks)], 1)

    def pullback(self) -> Tensor:
        """T: (C·D + O·E, p), the linear map from parameters to predictors, read off its columns."""
        keys, values = self.linear(self.blocks(torch.eye(self.size, dtype=torch.float64)))
        return torch.cat([keys.flatten(1), values.flatten(1)], 1).T

    def predictors(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Key predictors (R, C, n) and value predictors (R, O, E) at inputs x (R or 1, d, n)."""
        coefficients, values = self.linear(self.blocks(theta))
        return coefficients[..., :-1] @ x + coefficients[..., -1:], values

    def constant(self, log_mass: Tensor) -> Tensor:
        """Coefficients (R, L, D) of predictors that are the log-masses (R, L) alone."""
        return F.pad(log_mass.unsqueeze(-1), (self.known.d, 0))


class Untied(Family):
    name = "untied"

    @property
    def shapes(self):
        return {"key": (self.known.d,), "value": (self.known.outputs,)}

    def linear(self, blocks):
        return torch.cat([blocks["key"], blocks["log_mass"].unsqueeze(-1)], -1), blocks["value"]

    def experts(self, keys, values, x):
        return keys, values.unsqueeze(-1)

    def derivatives(self, keys, values, x):
        each = {(j, j): ONE for j in range(self.count)}
        return Derivatives(score=each, value=each)

    def draw(self, directions, normal):
        return {"key": directions, "value": 1.5 * normal(self.count, self.known.outputs)}


class Tied(Untied):
    name = "tied"

    @property
    def shapes(self):
        return {"prompt": (self.known.d,)}

    def linear(self, blocks):
        prompt = blocks["prompt"]
        return super().linear(blocks | {"key": prompt @ self.known.key.T, "value": prompt @ self.known.value.T})

    def draw(self, directions, normal):
        return {"prompt": directions @ self.known.key}  # K is orthonormal: K p is the direction


@dataclass(frozen=True)
class Norga(Untied):
    alpha: float = 1.0
    tau: float = 1.0

    name = "norga"

    def linear(self, blocks):
        return torch.cat([F.pad(blocks["key"], (0, 1)), self.constant(blocks["log_mass"])], 1), blocks["value"]

    def experts(self, keys, values, x):
        t, log_mass = keys.chunk(2, 1)
        return t + self.alpha * torch.tanh(self.tau * t) + log_mass, values.unsqueeze(-1)

    def derivatives(self, keys, values, x):
        count, a, b = self.count, self.alpha, self.tau
        t = torch.tanh(b * keys[:, :count])
        slope, bend = 1 + a * b * (1 - t.square()), -2 * a * b**2 * t * (1 - t.square())
        each = {(j, j): ONE for j in range(count)}
        score = {(j, j): slope[:, j] for j in range(count)} | {(count + j, j): ONE for j in range(count)}
        return Derivatives(score=score, value=each, score_bends={(j, j, j): bend[:, j] for j in range(count)})


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
FAMILIES = {kind.name: kind for kind in (Tied, Untied, Norga, Linear, Nonlinear)}


def family(name: str, known: Frozen, count: int, **options) -> Family:
    """``count`` prompt experts of the family of that name. Options: ``alpha``, ``tau`` of norga, ``activation_name`` of
    nonlinear ("tanh", "gelu", "relu"). Raises ``ValueError`` for unknown names and fewer than one expert."""
    if name not in FAMILIES:
        raise unknown("family of prompt experts", name, FAMILIES)
    if count < 1:
        raise ValueError(f"{count} prompt experts asked for; expected at least 1")
    return FAMILIES[name](known, count, **options)
