"""The copy of a two-layer estimate that is nearest the truth, among all that are the same function.

The prompts :math:`U \\sigma(W_l x)` do not change when hidden units are renumbered, nor, for an odd activation such as
tanh, when a unit changes its sign: with a permutation matrix P and signs S,
:math:`(W_l, U) \\to (S P W_l,\\; U P^\\top S)`. As U is shared, one choice serves all atoms. Losses on mixing measures
see the difference, so the copy is chosen before they are evaluated. A continuous symmetry, such as ReLU's positive
scale of a unit, has no nearest copy among finitely many and is not handled.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from .atoms import Atoms
from .voronoi import check_comparable, total

MOST = 6  # hidden units: 6! 2^6 = 46,080 copies, all of which are tried


def align(estimate: Atoms, truth: Atoms, odd: bool = True) -> Atoms:
    """The copy of ``estimate`` with the smallest D_2 (``voronoi.d_r``), which is its mass-weighted squared distance.

    ``estimate``: blocks "weight" (..., L', r, d) and "out" (..., L', d, r), the same "out" for all atoms; ``truth``: as
    in ``voronoi.compare``. ``odd``: whether the activation is odd, so that signs are free too. Every copy is tried; of
    equally near ones the first is taken, the estimate itself before all others. The function stays the same (equal
    terms in another order: the same up to rounding).

    Raises ``ValueError`` for other blocks, an "out" that is not shared, more than ``MOST`` hidden units, and as
    ``voronoi.compare`` does.

    >>> truth = Atoms(torch.zeros(1).double(), {"weight": torch.tensor([[[1.0], [2.0]]]).double(),
    ...                                         "out": torch.tensor([[[3.0, 4.0]]]).double()})
    >>> turned = Atoms(truth.log_mass, {"weight": torch.tensor([[[-2.0], [1.0]]]).double(),
    ...                                 "out": torch.tensor([[[-4.0, 3.0]]]).double()})
    >>> align(turned, truth).blocks["weight"].flatten().tolist()
    [1.0, 2.0]
    """
    _check(estimate, truth)
    units = estimate.blocks["weight"].shape[-2]
    order, sign = _nearest(_unit_squares(estimate, truth), estimate.log_mass.exp(), units, odd)
    order, sign = order.unsqueeze(-2), sign.unsqueeze(-2)  # (..., 1, r): the same for all atoms
    weight, out = estimate.blocks["weight"], estimate.blocks["out"]
    weight = weight.gather(-2, order.unsqueeze(-1).expand(weight.shape)) * sign.unsqueeze(-1)
    out = out.gather(-1, order.unsqueeze(-2).expand(out.shape)) * sign.unsqueeze(-2)
    return Atoms(estimate.log_mass, {"weight": weight, "out": out})


def _unit_squares(estimate: Atoms, truth: Atoms) -> Tensor:
    """(..., L', L, 2, r, r): squared distance of true unit k from fitted unit l, as it is and with its sign changed."""

    def units(atoms: Atoms) -> Tensor:  # (..., L, r, 2d)
        return torch.cat([atoms.blocks["weight"], atoms.blocks["out"].transpose(-1, -2)], dim=-1)

    fitted, true = units(estimate)[..., :, None, None, :, :], units(truth)[..., None, :, :, None, :]
    both = [(sign * fitted - true).square().contiguous().sum(-1) for sign in (1, -1)]
    return torch.stack(both, dim=-3)


def _nearest(squares: Tensor, mass: Tensor, units: int, odd: bool) -> tuple[Tensor, Tensor]:
    """Order (..., r) and signs (..., r) of the hidden units of the nearest copy."""
    flips = torch.tensor(list(itertools.product((0, 1) if odd else (0,), repeat=units)))  # (copies, r)
    best = torch.full(mass.shape[:-1], math.inf, dtype=mass.dtype)
    order, flip = best.new_zeros(*best.shape, units).long(), best.new_zeros(*best.shape, units).long()
    for permutation in itertools.permutations(range(units)):
        # Distance of every fitted to every true atom, for all signs at once: (..., L', L, copies).
        atoms = sum(squares[..., flips[:, k], k, permutation[k]] for k in range(units))
        loss = total(mass.unsqueeze(-1) * atoms.amin(-2), -2)  # (..., copies)
        least, which = loss.min(-1)
        better = (least < best).unsqueeze(-1)
        order = torch.where(better, torch.tensor(permutation), order)
        flip = torch.where(better, flips[which], flip)
        best = torch.minimum(best, least)
    return order, 1.0 - 2.0 * flip.to(mass.dtype)


def _check(estimate: Atoms, truth: Atoms) -> None:
    check_comparable(estimate, truth)
    if set(estimate.blocks) != {"weight", "out"}:
        raise ValueError(
            f"blocks {', '.join(sorted(estimate.blocks))}; expected weight and out, only the non-linear family has "
            f"hidden units"
        )
    weight, out = estimate.blocks["weight"], estimate.blocks["out"]
    lead = estimate.log_mass.dim()
    if weight.dim() != lead + 2 or out.shape[lead:] != weight.shape[lead:][::-1]:
        raise ValueError(
            f"weight {tuple(weight.shape)} and out {tuple(out.shape)}; expected (..., L, r, d) and (..., L, d, r)"
        )
    if weight.shape[-2] > MOST:
        raise ValueError(f"{weight.shape[-2]} hidden units; all copies of at most {MOST} can be tried")
    for who, atoms in (("estimate", estimate), ("truth", truth)):
        shared = atoms.blocks["out"]
        if not (shared == shared[..., :1, :, :]).all():
            raise ValueError(f"the atoms of the {who} have an out each; expected one, repeated for every atom")
