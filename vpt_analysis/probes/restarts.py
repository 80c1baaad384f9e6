r"""Least squares of few outputs from many starts at once.

Levenberg-Marquardt steps in the space of the outputs: with m residuals and p parameters, m ≪ p,
:math:`\delta = -J^\top (J J^\top + \mu I)^{-1} r`, an m × m system a start. Each start has its own damping; costs never
rise. Sources: Levenberg 1944, Marquardt 1963; the damping of Nielsen, IMM-REP-1999-05, 1999.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

HOPELESS = 1e12  # damping, relative to the mean eigenvalue of J Jᵀ, at which no step does any good


@dataclass(frozen=True, eq=False)
class Restarts:
    """Where each start ended: ``theta`` (K, p) and ``norm`` ‖r‖ (K,); ``steps`` taken by the longest."""

    theta: Tensor
    norm: Tensor
    steps: int

    def reached(self, within: float = 0.01) -> int:
        """How many starts ended within this share of the best.

        >>> Restarts(torch.zeros(3, 1), torch.tensor([2.0, 1.0, 1.005]), 5).reached()
        2
        """
        return int((self.norm <= (1 + within) * self.norm.min()).sum())


def minimise(
    residual: Callable[..., Tensor],
    starts: Tensor,
    steps: int = 200,
    tolerance: float = 1e-9,
    zero: float = 0.0,
    data: Mapping[str, Tensor] | None = None,
) -> Restarts:
    """Minimise ‖``residual``(θ)‖ from ``starts`` (K, p), float64.

    ``residual`` maps one θ (p,) to (m,) in operations that ``torch.vmap`` can batch. Where the starts are of different
    problems, ``data`` has what differs, a row a start, and residual(θ, data of one start) is minimised. A start stops
    when a step lowers its cost by less than ``tolerance`` of it, ten times in a row, or its norm falls below ``zero``.
    Raises ``ValueError`` for starts that are not float64 (K, p) or have no finite cost.
    """
    if starts.ndim != 2 or len(starts) == 0 or starts.dtype != torch.float64:
        raise ValueError(f"starts are {starts.dtype} of shape {tuple(starts.shape)}; expected float64 (K, p)")

    def rows(at: Tensor) -> tuple[dict[str, Tensor], ...]:
        return () if data is None else ({name: value[at] for name, value in data.items()},)

    def both(theta: Tensor, *known) -> tuple[Tensor, Tensor]:
        r = residual(theta, *known)
        return r, r

    with torch.no_grad():
        derivatives = torch.vmap(torch.func.jacrev(both, has_aux=True))
        costs = torch.vmap(lambda theta, *known: residual(theta, *known).square().sum())
        theta = starts.clone()
        cost = costs(theta, *rows(torch.arange(len(theta))))
        if not torch.isfinite(cost).all():
            raise ValueError(f"{int((~torch.isfinite(cost)).sum())} of {len(starts)} starts have no finite cost")
        damping, growth = torch.full_like(cost, 1e-2), torch.full_like(cost, 2.0)
        idle = torch.zeros(len(theta), dtype=torch.long)
        running = cost > zero**2
        taken = 0
        while taken < steps and running.any():
            taken += 1
            at = running.nonzero()[:, 0]
            jacobian, r = derivatives(theta[at], *rows(at))  # (k, m, p), (k, m)
            gram = jacobian @ jacobian.mT
            level = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
            eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
            solved = torch.linalg.solve(gram + (damping[at] * level)[:, None, None] * eye, r[..., None])
            step = -(jacobian.mT @ solved)[..., 0]
            trial = theta[at] + step
            found = costs(trial, *rows(at))
            promised = cost[at] - ((jacobian @ step[..., None])[..., 0] + r).square().sum(1)
            ratio = (cost[at] - found) / promised.clamp_min(1e-300)
            good = torch.isfinite(found) & (found < cost[at])
            slow = ~good | (cost[at] - found <= tolerance * cost[at])
            idle[at] = torch.where(slow, idle[at] + 1, 0)
            better, worse = at[good], at[~good]
            theta[better], cost[better] = trial[good], found[good]
            damping[better] *= (1 - (2 * ratio[good] - 1) ** 3).clamp(0.1, 2.0)
            damping[worse] *= growth[worse]
            growth[better], growth[worse] = 2.0, 2 * growth[worse]
            running &= (cost > zero**2) & (idle < 10) & (damping < HOPELESS)
    return Restarts(theta, cost.sqrt(), taken)
