"""Mixing measures: the unknown of the prompt-mixture regression, as atoms with masses.

A mixing measure is :math:`G = \\sum_l e^{b_l}\\,\\delta_{\\omega_l}`: atoms :math:`\\omega_l`, each with the mass
:math:`e^{b_l}`. Its order means nothing, so that two lists of atoms that differ by a permutation are one measure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Atoms:
    """``log_mass`` b: (..., L), natural logarithms; ``blocks``: the parameters by name, each (..., L, *).

    Leading dimensions are a batch (replicates, restarts). Raises ``ValueError`` where a block does not begin with the
    shape of ``log_mass``.
    """

    log_mass: Tensor
    blocks: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        shape = tuple(self.log_mass.shape)
        if not shape or not self.blocks:
            raise ValueError(
                f"log-masses of shape {shape} and {len(self.blocks)} blocks; expected (..., L) and at least 1"
            )
        for name, block in self.blocks.items():
            if tuple(block.shape[: len(shape)]) != shape or block.dim() == len(shape):
                raise ValueError(f"block {name!r} has shape {tuple(block.shape)}; expected {shape} and more after it")

    @property
    def count(self) -> int:
        """L, the number of atoms."""
        return self.log_mass.shape[-1]
