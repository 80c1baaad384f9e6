r"""Coordinates in which the valley of two atoms that share one place is nearly straight.

Two atoms :math:`(b_1, \omega_1), (b_2, \omega_2)` close to each other act, to first order, as one with their total mass
and mean parameters. Least squares with an atom too many therefore runs along a valley where those stay and the rest
changes; in the atoms' own parameters it is curved, and steps must be short. Here the two nearest atoms are described by

.. math:: b = \log(e^{b_1} + e^{b_2}), \quad u = b_1 - b_2, \quad
          \bar\omega = s\,\omega_1 + (1 - s)\,\omega_2, \quad \Delta = \omega_1 - \omega_2, \qquad s = \sigma(u),

and all others by themselves. Steps are made there: matrix :math:`A^\top H A + \sum_j g_j\,\partial^2\theta_j` with
:math:`A = \partial\theta/\partial\eta`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .families import Family


class Merged:
    """Coordinates eta (P, p) of parameters theta (P, p). Where the two atoms have a coordinate that is ``held`` (P, p)
    at its value, or there is only one atom, eta = theta."""

    def __init__(self, prompts: Family, theta: Tensor, held: Tensor):
        self.problems = torch.arange(len(theta))
        masses, atoms = places(prompts)
        first, second = nearest(theta[:, atoms]) if prompts.count > 1 else (self.problems * 0, self.problems * 0)
        self.mass_1, self.mass_2 = masses[first], masses[second]  # (P,)
        self.atom_1, self.atom_2 = atoms[first], atoms[second]  # (P, q)
        theirs = torch.cat([self.mass_1[:, None], self.mass_2[:, None], self.atom_1, self.atom_2], 1)
        self.plain = held.gather(1, theirs).any(1) | (first == second)
        b_1, b_2 = (theta[self.problems, mass] for mass in (self.mass_1, self.mass_2))
        x_1, x_2 = (theta.gather(1, atom) for atom in (self.atom_1, self.atom_2))
        self.share = torch.sigmoid(b_1 - b_2).unsqueeze(1)  # s, (P, 1)
        self.gap = x_1 - x_2  # Δ, (P, q)
        mean = self.share * x_1 + (1 - self.share) * x_2
        self.eta = torch.where(
            self.plain.unsqueeze(1), theta, self._put(theta, torch.logaddexp(b_1, b_2), b_1 - b_2, mean, self.gap)
        )

    def _put(self, like: Tensor, one: Tensor, two: Tensor, first: Tensor, second: Tensor) -> Tensor:
        found = like.clone()
        found[self.problems, self.mass_1], found[self.problems, self.mass_2] = one, two
        return found.scatter(1, self.atom_1, first).scatter(1, self.atom_2, second)

    def moved(self, step: Tensor) -> Tensor:
        """theta at eta + step."""
        eta = self.eta + step
        b, u = (eta[self.problems, mass] for mass in (self.mass_1, self.mass_2))
        mean, gap = (eta.gather(1, atom) for atom in (self.atom_1, self.atom_2))
        share = torch.sigmoid(u).unsqueeze(1)
        theta = self._put(eta, b + F.logsigmoid(u), b + F.logsigmoid(-u), mean + (1 - share) * gap, mean - share * gap)
        return torch.where(self.plain.unsqueeze(1), eta, theta)

    def jacobian(self) -> Tensor:
        """A = ∂theta/∂eta: (P, p, p)."""
        share, spread = self.share, self.share * (1 - self.share)
        found = torch.eye(self.eta.shape[1], dtype=self.eta.dtype).repeat(len(self.eta), 1, 1)
        at, one, two = self.problems, self.mass_1, self.mass_2
        found[at, one, two], found[at, two, one], found[at, two, two] = 1 - share[:, 0], 1.0, -share[:, 0]
        each, first, second = at.unsqueeze(1), self.atom_1, self.atom_2
        found[each, first, second], found[each, second, first], found[each, second, second] = 1 - share, 1.0, -share
        found[each, first, two.unsqueeze(1)] = found[each, second, two.unsqueeze(1)] = -spread * self.gap
        found[self.plain] = torch.eye(self.eta.shape[1], dtype=self.eta.dtype)
        return found

    def bend(self, gradient: Tensor) -> Tensor:
        """Σ_j g_j ∂²theta_j/∂eta²: (P, p, p), for the ``gradient`` g (P, p) with respect to theta."""
        share, spread = self.share[:, 0], (self.share * (1 - self.share))[:, 0]
        both = gradient.gather(1, self.atom_1) + gradient.gather(1, self.atom_2)  # (P, q)
        masses = gradient[self.problems, self.mass_1] + gradient[self.problems, self.mass_2]
        found = gradient.new_zeros(*gradient.shape, gradient.shape[1])
        found[self.problems, self.mass_2, self.mass_2] = -spread * (masses + (1 - 2 * share) * (both * self.gap).sum(1))
        each, two, cross = self.problems.unsqueeze(1), self.mass_2.unsqueeze(1), -spread.unsqueeze(1) * both
        found[each, two, self.atom_2] = found[each, self.atom_2, two] = cross
        found[self.plain] = 0
        return found


def places(prompts: Family) -> tuple[Tensor, Tensor]:
    """Where theta keeps the log-masses (L,) and what belongs to one atom alone (L, q)."""
    sizes = {name: math.prod(shape) for name, shape in prompts.layout.items()}
    pieces = dict(zip(sizes, torch.arange(prompts.size).split(list(sizes.values())), strict=True))
    own = [pieces[name].unflatten(0, (prompts.count, -1)) for name in prompts.shapes if name not in prompts.shared]
    return pieces["log_mass"], torch.cat(own, 1)


def nearest(atoms: Tensor) -> tuple[Tensor, Tensor]:
    """The two atoms with the smallest distance, of (P, L, q): their indices (P,), (P,)."""
    count = atoms.shape[1]
    distance = torch.cdist(atoms, atoms, compute_mode="donot_use_mm_for_euclid_dist")
    found = (distance + torch.diag(distance.new_full((count,), torch.inf))).flatten(1).argmin(1)
    return found // count, found % count
