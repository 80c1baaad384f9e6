"""Voronoi cells and the losses on mixing measures that the rates of the papers are stated in.

A fitted atom belongs to the cell of the true atom that is nearest to it; its mass plays no part. A cell with one fitted
atom is *exact*, with several *over-fitted*, and it may be empty. With :math:`\\Delta` a fitted atom minus the true atom
of its cell, block by block, :math:`M_j` the sum over cells of mass differences and Euclidean (Frobenius) norms,

.. math::

    D_1 &= \\sum_{|V_j| = 1} e^{b_i} \\sum_{\\text{blocks}} \\|\\Delta\\|
         + \\sum_{|V_j| > 1} \\sum_{i \\in V_j} e^{b_i} \\sum_{\\text{blocks}} \\|\\Delta\\|^2 + M, \\\\
    D_r &= \\sum_j \\sum_{i \\in V_j} e^{b_i} \\sum_{\\text{blocks}} \\|\\Delta\\|^r + M, \\qquad
    M = \\sum_j \\Bigl| \\sum_{i \\in V_j} e^{b_i} - e^{b^*_j} \\Bigr| .

Names differ between papers, and one name means different losses:

- ``d_1`` follows the loss of the upper bounds of Le et al., Mixture of Experts Meets Prompt-Based Continual Learning,
  arXiv 2405.14124 (NoRGa; section 4, called L1 there). As we understand it, D_1 of the VAPT paper, arXiv 2501.18936,
  has the same form; we have not read its text.
- ``d_r`` follows the loss of the lower bounds, appendix A of the same NoRGa paper (called L with the indices 2 and r).
  As we understand it, the loss with the index r of arXiv 2410.02200 has the same form, over keys and values. That
  paper's D_2 and D_3 are others, which we have not found: our D_r with r = 2 or 3 is *not* a reading of them.

So D_1 of the upper bounds and D_r with r = 1 differ where a cell holds several atoms; here they are ``d_1`` and
``d_r[1]``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .atoms import Atoms

MULTIPLIED = 64  # powers up to this one are products


@dataclass(frozen=True)
class Voronoi:
    """An estimate beside the truth. Tensors of the estimate's batch shape (R,), but for ``cell`` and ``size``.

    ``cell``: (R, L'), the true atom of each fitted one. ``size``: (R, L), fitted atoms in each cell.
    ``d_1``, ``d_r`` (by order r) and ``mass_error`` (M above): the losses, see the module.
    ``exact_mean``, ``exact_max``: distance over all blocks, ‖Δ‖, of atoms alone in their cell, without their mass.
    ``over_mean``, ``over_max``: of atoms that share a cell, weighted by mass, and the largest.
    ``mass_exact``, ``mass_over``: the parts of ``mass_error`` from cells with one atom and with several; what is left
    is the mass of empty cells. NaN, in these six, where an estimate has no such cell.
    """

    cell: Tensor
    size: Tensor
    d_1: Tensor
    d_r: Mapping[float, Tensor]
    mass_error: Tensor
    mass_exact: Tensor
    mass_over: Tensor
    exact_mean: Tensor
    exact_max: Tensor
    over_mean: Tensor
    over_max: Tensor


def compare(estimate: Atoms, truth: Atoms, orders: Sequence[float] = (1, 2, 3, 4)) -> Voronoi:
    """Cells, losses and distances of an estimate, float64.

    ``estimate``: (..., L'), any number of leading dimensions. ``truth``: (L,), or (..., L) with the same leading ones.
    ``orders``: the r of D_r, each ≥ 1. Where a family has symmetries (``alignment.align``), choose the copy first.
    Every element of a batch gets the bits that it gets alone.

    Raises ``ValueError`` where blocks, shapes or dtypes do not fit, values are not finite, or an order is below 1.

    >>> def atoms(masses, values):
    ...     masses, values = torch.tensor(masses).double(), torch.tensor(values).double()
    ...     return Atoms(masses.log(), {"value": values.unsqueeze(-1)})
    >>> found = compare(atoms([1, 1, 1], [0.5, 9.0, 13.0]), atoms([1, 2], [0.0, 10.0]))
    >>> found.cell.tolist(), found.size.tolist()
    ([0, 1, 1], [1, 2])
    >>> float(found.d_1), float(found.d_r[1])         # 0.5 + 1² + 3², and 0.5 + 1 + 3; no mass is missing
    (10.5, 4.5)
    """
    check_comparable(estimate, truth)
    check_orders(orders)
    squares = pair_squares(estimate, truth)
    cell = nearest(squares)
    own = [square.gather(-1, cell.unsqueeze(-1)).squeeze(-1) for square in squares.values()]  # (..., L') a block
    inside = cell.unsqueeze(-1) == torch.arange(truth.count, device=cell.device)  # (..., L', L)
    size = inside.sum(-2)
    alone = size.gather(-1, cell) == 1
    mass = estimate.log_mass.exp()
    held = total(torch.where(inside, mass.unsqueeze(-1), 0.0), -2)  # (..., L)
    error = (held - truth.log_mass.exp()).abs()
    missing = total(error, -1)
    linear, square = sum(s.sqrt() for s in own), sum(own)
    distance = square.sqrt()
    weight = (estimate.log_mass - estimate.log_mass.amax(-1, keepdim=True)).exp()
    return Voronoi(
        cell=cell,
        size=size,
        d_1=total(mass * torch.where(alone, linear, square), -1) + missing,
        d_r={r: total(mass * sum(power(s.sqrt(), r) for s in own), -1) + missing for r in orders},
        mass_error=missing,
        mass_exact=_sum(error, size == 1),
        mass_over=_sum(error, size > 1),
        exact_mean=_mean(distance, alone, torch.ones_like(weight)),
        exact_max=_largest(distance, alone),
        over_mean=_mean(distance, ~alone, weight),
        over_max=_largest(distance, ~alone),
    )


def d_1(estimate: Atoms, truth: Atoms) -> Tensor:
    """The loss of the upper bounds, D_1 above: (...,). Raises as ``compare`` does."""
    return compare(estimate, truth, ()).d_1


def d_r(estimate: Atoms, truth: Atoms, r: float) -> Tensor:
    """The loss of the lower bounds, D_r above: (...,). Raises as ``compare`` does."""
    return compare(estimate, truth, (r,)).d_r[r]


def cells(estimate: Atoms, truth: Atoms) -> Tensor:
    """For each fitted atom the index of the nearest true atom, (..., L') int64; of equally near ones the lowest.

    Nearest in the Euclidean distance over all blocks together, without the mass. Raises as ``compare`` does.
    """
    check_comparable(estimate, truth)
    return nearest(pair_squares(estimate, truth))


def pair_squares(estimate: Atoms, truth: Atoms) -> dict[str, Tensor]:
    """Squared distance of every fitted to every true atom, by block: (..., L', L) each."""
    found = {}
    for name, block in estimate.blocks.items():
        fitted = block.flatten(estimate.log_mass.dim())
        true = truth.blocks[name].flatten(truth.log_mass.dim())
        difference = fitted.unsqueeze(-2) - true.unsqueeze(-3)  # (..., L', L, parameters)
        # Contiguous: the order of a sum over the last dimension then depends on its length alone, not on the batch.
        found[name] = difference.square().contiguous().sum(-1)
    return found


def nearest(squares: Mapping[str, Tensor]) -> Tensor:
    """Index of the nearest true atom; ``argmin`` gives the first of equal ones."""
    return sum(squares.values()).argmin(-1)


def total(values: Tensor, dim: int) -> Tensor:
    """Sum over a short dimension, term by term: the same bits whatever the batch around it and the threads."""
    return functools.reduce(torch.add, values.unbind(dim))


def power(values: Tensor, r: float) -> Tensor:
    """values ** r for values ≥ 0, with the same bits for an element wherever it stands in a tensor.

    torch's own power rounds otherwise in the vectorised part of a tensor than in its last few elements.
    """
    if r == int(r) and r <= MULTIPLIED:
        return functools.reduce(torch.mul, [values] * int(r))
    return (r * values.log()).exp()


def _sum(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where.any(-1), total(torch.where(where, values, 0.0), -1), math.nan)


def _mean(values: Tensor, where: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over the atoms that ``where`` picks; 0 / 0 = NaN where it picks none."""
    weight = torch.where(where, weight, 0.0)
    return total(weight * values, -1) / total(weight, -1)


def _largest(values: Tensor, where: Tensor) -> Tensor:
    return torch.where(where.any(-1), torch.where(where, values, -math.inf).amax(-1), math.nan)


def check_comparable(estimate: Atoms, truth: Atoms) -> None:
    """Raise ``ValueError`` where two measures have other blocks, shapes, dtypes than asked for, or odd values."""
    if set(estimate.blocks) != set(truth.blocks):
        raise ValueError(
            f"the estimate has the blocks {', '.join(sorted(estimate.blocks))}, the truth "
            f"{', '.join(sorted(truth.blocks))}; expected the same family on both sides"
        )
    lead, true_lead = estimate.log_mass.shape[:-1], truth.log_mass.shape[:-1]
    if true_lead not in (lead, torch.Size()):
        raise ValueError(f"a truth with leading shape {tuple(true_lead)}; expected () or the estimate's {tuple(lead)}")
    if not estimate.count or not truth.count:
        raise ValueError(f"{estimate.count} fitted and {truth.count} true atoms; expected at least one on both sides")
    for name, block in estimate.blocks.items():
        fitted, true = block.shape[len(lead) + 1 :], truth.blocks[name].shape[len(true_lead) + 1 :]
        if fitted != true:
            raise ValueError(f"block {name!r}: {tuple(fitted)} in an atom of the estimate, {tuple(true)} of the truth")
    for who, atoms in (("the estimate", estimate), ("the truth", truth)):
        for name, values in (("log_mass", atoms.log_mass), *atoms.blocks.items()):
            _check_values(f"{name!r} of {who}", values)


def _check_values(what: str, values: Tensor) -> None:
    if values.dtype != torch.float64:
        raise ValueError(f"{what} is {values.dtype}; expected torch.float64, convert it with .double()")
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        raise ValueError(f"{what} has {bad} of {values.numel()} values that are not finite; leave such fits out")


def check_orders(orders: Sequence[float]) -> None:
    for r in orders:
        if not 1 <= r < math.inf:
            raise ValueError(f"order r = {r}; expected a finite number ≥ 1")
