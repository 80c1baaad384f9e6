"""Where least squares starts: near the truth, or at random; and estimates that do not hide which.

``near`` gives every true atom a fitted one at its place, and every atom too many the place of a true one, whose mass is
shared; all are then moved at random. This is how the simulations of the theory papers start (arXiv 2405.13997,
2505.18455). ``at_random`` knows nothing of the truth. Large samples are approached through smaller ones of the same
data, which costs little and leaves few passes over all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .atoms import Atoms
from .frozen import normal_draws
from .least_squares import BOX, Box, Fits, fit
from .regression import Regression, Sample, hash_seed, teacher

FEW = 500  # samples on which random starts are compared
STAGE = 10  # a fit of n samples begins with n / 10 of them, where these are at least FEW
SCREEN = 30  # passes of a comparison
SAME = 1e-6  # of the cost: below, two starts have found the same minimum


@dataclass(frozen=True)
class Estimate:
    """The best fit of every data set, with what other starts found. ``agreeing`` (R,): share of the starts that reached
    its cost to 1e-6 on the samples where they were compared; 1 for a single start."""

    fits: Fits
    agreeing: Tensor


def near(
    student: Regression, truth: Regression, theta: Tensor, replicates: int, seed: int, spread: float = 0.1
) -> Tensor:
    """Starts (R, p) of a ``student`` near the true parameters ``theta`` (1, p): its atoms are those of ``truth``, the
    ones too many copies of the true atoms in turn, and everything is moved by ``spread`` · N(0, 1).

    Raises ``ValueError`` where the student's family differs or it has fewer atoms.
    """
    extra = student.prompts.count - truth.prompts.count
    if student.prompts.name != truth.prompts.name or extra < 0:
        raise ValueError(
            f"no start near the truth for {student.prompts.count} {student.prompts.name} atoms where the truth has "
            f"{truth.prompts.count} {truth.prompts.name} ones: same family and at least as many are needed"
        )
    atoms, count = truth.atoms(theta), truth.prompts.count
    starts = []
    for replicate in range(replicates):
        place = torch.tensor([*range(count), *((replicate + i) % count for i in range(extra))])
        shared = torch.bincount(place, minlength=count).to(torch.float64).log()
        blocks = {name: block[:, place] for name, block in atoms.blocks.items()}
        starts.append(student.pack(Atoms((atoms.log_mass - shared)[:, place], blocks)))
    return torch.cat(starts) + spread * normal_draws(hash_seed(seed, 1))(replicates, student.parameters)


def at_random(student: Regression, starts: int, seed: int) -> Tensor:
    """``starts`` (P, p), drawn as true parameters are drawn."""
    return torch.cat([teacher(student, hash_seed(seed, i)) for i in range(starts)])


def staged(student: Regression, sample: Sample, start: Tensor, box: Box = BOX, **options) -> Fits:
    """``fit`` in ``box`` from ``start`` (R, p), through a tenth of the samples, a hundredth, … before all of them."""
    sizes, n = [], sample.n // STAGE
    while n >= FEW:
        sizes.insert(0, n)
        n //= STAGE
    start = start.clamp(*box.bounds(student))
    for n in sizes:
        start = fit(student, sample.first(n), start, box=box, **options).theta
    return fit(student, sample, start, box=box, **options)


def estimate_near(student: Regression, sample: Sample, start: Tensor, **options) -> Estimate:
    """From one start (R, p) for every data set."""
    return Estimate(staged(student, sample, start, **options), torch.ones(len(start), dtype=torch.float64))


def estimate_random(
    student: Regression, sample: Sample, restarts: int, seed: int, box: Box = BOX, **options
) -> Estimate:
    """From the best of ``restarts`` random starts for every data set, compared on its first samples."""
    count, few = len(sample), sample.first(min(FEW, sample.n))
    start = at_random(student, restarts * count, seed).clamp(*box.bounds(student))
    owner = torch.arange(count).repeat_interleave(restarts)
    found = fit(student, few, start, owner, box=box, passes=SCREEN)
    cost = found.cost.unflatten(0, (count, restarts))
    lowest, which = cost.min(1)
    agreeing = (cost <= lowest.unsqueeze(1) * (1 + SAME)).to(torch.float64).mean(1)
    best = found.theta.unflatten(0, (count, restarts))[torch.arange(count), which]
    return Estimate(staged(student, sample, best, box=box, **options), agreeing)
