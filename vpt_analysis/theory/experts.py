r"""What a family of prompt experts is: how parameters become scores and experts, with their derivatives.

Whatever the family, a sample meets the parameters only through numbers that are linear in them: **key predictors**
:math:`q_c = \tilde x\cdot\psi_c` with the features :math:`\tilde x = (x, 1)`, and **value predictors**
:math:`o_k\in\mathbb R^E`, the same for every sample. Together they are one linear image of the parameters,
:math:`\psi = T\theta`; scores and experts are small functions of them, whose derivatives each family gives
(``Derivatives``) and ``normal_equations`` joins. A tied prompt is an untied one with (k, v) = (K p, V p): the same
derivatives, another T.

Shapes: R problems, L atoms, n samples, d inputs, E outputs, D = d + 1 features, C key and O value predictors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

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
