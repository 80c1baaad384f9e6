r"""Least squares for many prompt mixtures at once: batched Levenberg-Marquardt in a box, with a certificate each.

Minimises :math:`\tfrac12\sum_i\|f_\theta(x_i) - y_i\|^2` over a ``Box``, the compact parameter set that the theory
assumes: without it the estimate of an atom too many runs off to mass 0. All replicates and starts
are one batch; each has its own damping and stops by itself, and those that have stopped cost nothing more.

Far from the minimum a step solves :math:`(J^\top J + \mu D)\,\delta = -g`; near it the Hessian takes the place of
:math:`J^\top J`, damped until it is positive definite. With an atom too many the Jacobian loses rank at the minimum,
and the valley that leads there is curved: Gauss-Newton steps then need hundreds of passes over the data, Hessians in
the coordinates of ``charts`` some tens.

Sources: Marquardt, J. SIAM 11, 1963; the damping of Nielsen, IMM-REP-1999-05, 1999.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .charts import Merged
from .normal_equations import Equations, Normal
from .regression import Regression, Sample

CONVERGED, FLAT, LIMIT, STUCK = "converged", "flat", "limit", "stuck"
NEAR = 1e-3  # of the cost, predicted by a step: from here on the Hessian is used
PATIENCE = 10  # passes after which it is used anyway
DRIFT, LOOK_BACK = 1e-3, 8  # a fit that gained less than this many σ̂² in as many passes drifts along a flat valley
HOPELESS = 1e16  # damping at which no step does any good
NOISE = 1e-12  # of the cost: differences below it are rounding, so that the gradient decides instead


@dataclass(frozen=True)
class Box:
    """The compact set of parameters: log-masses in [``least_mass``, ``radius``], all others in [−radius, radius]."""

    radius: float = 8.0
    least_mass: float = -2.0

    def bounds(self, regression: Regression) -> tuple[Tensor, Tensor]:
        """Lowest and highest values (p,). Raises ``ValueError`` for an empty box."""
        if not (self.radius > 0 and self.least_mass < self.radius):
            raise ValueError(f"{self} is empty; expected a positive radius above the least log-mass")
        high = torch.full((regression.parameters,), float(self.radius), dtype=torch.float64)
        low = -high
        low[: regression.prompts.count] = self.least_mass
        return low, high


BOX = Box()


@dataclass(frozen=True)
class Fits:
    """Where each start ended. ``theta`` (P, p), ``cost`` ½Σ‖r‖² (P,), ``owner`` (P,) the data set of each.

    The certificate: ``gradient`` (P,), norm of the cost's gradient on the coordinates that are free, over n;
    ``decrement`` (P,), how far the minimum of the quadratic model lies below, in units of the noise variance σ̂² (its
    square root is the distance to the minimum in standard errors); ``curvature`` (P,), the smallest eigenvalue of the
    Hessian over n, on the coordinates that are free; ``bound`` (P, p), those that the box holds with descent pointing
    outwards; ``passes`` (P,) over the data; ``status``, one word each: "converged"; "flat", where 8 passes gained less
    than 10⁻³ σ̂², so that the data do not tell the last parameters from many others; "limit", no passes left; "stuck",
    no descent found.
    """

    theta: Tensor
    cost: Tensor
    owner: Tensor
    gradient: Tensor
    decrement: Tensor
    curvature: Tensor
    bound: Tensor
    passes: Tensor
    status: tuple[str, ...]

    @property
    def certified(self) -> Tensor:
        """(P,): a strict local minimum over the box, to the tolerance: converged, with positive curvature."""
        return torch.tensor([s == CONVERGED for s in self.status]) & (self.curvature > 0)


def fit(
    regression: Regression,
    sample: Sample,
    start: Tensor,
    owner: Tensor | None = None,
    box: Box = BOX,
    tolerance: float = 1e-6,
    passes: int = 60,
) -> Fits:
    """Least squares from ``start`` (P, p) on the data sets ``owner`` (P,) of ``sample`` (default: one start each).

    ``tolerance`` bounds ``Fits.decrement``: 1e-6 is a thousandth of a standard error. ``passes``: most passes over the
    data. Fits that end without meeting it have another status than "converged". Raises ``ValueError`` for
    shapes that do not fit, numbers that are not finite, a start outside of the box.
    """
    start = start.to(torch.float64)
    owner = torch.arange(len(start)) if owner is None else owner
    _check(regression, sample, start, owner, box, tolerance, passes)
    search = _Search(Equations(regression, sample), start, owner, box, tolerance)
    for _ in range(passes):
        if not search.step():
            break
    return search.finish()


class _Search:
    """The state of all problems; ``step`` makes one pass over the data for those that have not stopped."""

    def __init__(self, equations: Equations, start: Tensor, owner: Tensor, box: Box, tolerance: float):
        self.equations, self.owner, self.tolerance = equations, owner, tolerance
        self.bounds = box.bounds(equations.regression)
        count = len(start)
        self.theta = start.clone()
        self.now = equations.at(self.theta, owner)
        self.damping, self.growth = start.new_full((count,), 1e-3), start.new_full((count,), 2.0)
        self.exact = torch.zeros(count, dtype=torch.bool)  # whether the Hessian is asked for
        self.is_exact = torch.zeros(count, dtype=torch.bool)  # whether ``now.matrix`` is one
        self.passes = torch.ones(count, dtype=torch.long)
        self.earlier = self.now.cost.unsqueeze(1).repeat(1, LOOK_BACK)  # costs of the last passes, in a ring
        self.status = [LIMIT] * count
        self.running = torch.ones(count, dtype=torch.bool)
        self._judge(torch.arange(count))

    def step(self) -> bool:
        """One trial step of every running problem. False when none runs."""
        at = self.running.nonzero()[:, 0]
        if not len(at):
            return False
        now = self.now.of(at)
        trial, promised = self._trial(at, now)
        self.exact[at] |= (promised <= NEAR * now.cost) | (self.passes[at] > PATIENCE)
        found = self.equations.at(trial, self.owner[at], self.exact[at])
        self.passes[at] += 1
        good, ratio = _better(now, found, promised)
        better, worse = at[good], at[~good]
        self.theta[better] = trial[good]
        self.now.put(better, Normal(found.cost[good], found.gradient[good], found.matrix[good]))
        self.is_exact[better] = self.exact[better]
        self.damping[better] *= (1 - (2 * ratio[good] - 1) ** 3).clamp(0.1, 2.0)
        self.damping[worse] *= self.growth[worse]
        self.growth[better], self.growth[worse] = 2.0, 2 * self.growth[worse]
        self._judge(better)
        self._stop(worse[self.damping[worse] > HOPELESS], STUCK)
        self._stop_drifting(at)
        return True

    def _stop_drifting(self, at: Tensor) -> None:
        """Those of ``at`` that are late and have gained next to nothing since the ring was last here."""
        place, cost = self.passes[at] % LOOK_BACK, self.now.cost[at]
        gained = self.earlier[at, place] - cost
        self.earlier[at, place] = cost
        late = self.running[at] & self.is_exact[at] & (self.passes[at] > 2 * LOOK_BACK)
        self._stop(at[late & (gained < DRIFT * _variance(cost, self.equations.sample))], FLAT)

    def _stop(self, at: Tensor, status: str) -> None:
        self.running[at] = False
        for i in at.tolist():
            self.status[i] = status

    def _trial(self, at: Tensor, now: Normal) -> tuple[Tensor, Tensor]:
        """Where the step (matrix + μ D) δ = −g leads, in the coordinates of ``charts`` and on those that are free, and
        the descent that the quadratic model promises. μ grows until the left side is positive definite."""
        theta = self.theta[at]
        held = _held(theta, now.gradient, self.bounds)
        chart = Merged(self.equations.regression.prompts, theta, held)
        matrix, gradient = _reduced(now, ~held)
        to_theta = chart.jacobian()
        matrix = to_theta.mT @ matrix @ to_theta + chart.bend(gradient) * self.is_exact[at, None, None]
        gradient = (gradient.unsqueeze(1) @ to_theta)[:, 0]
        scale = matrix.diagonal(dim1=1, dim2=2).abs()
        scale = scale.clamp_min(1e-10 * scale.amax(1, keepdim=True))
        while True:
            factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(self.damping[at, None] * scale))
            if not failed.any() or self.damping[at].max() > HOPELESS:
                break  # what has failed gives a step that is no number, which is refused
            self.damping[at[failed > 0]] *= 4
        step = -torch.cholesky_solve(gradient.unsqueeze(2), factor)
        promised = -(gradient.unsqueeze(1) @ step + 0.5 * step.mT @ matrix @ step)[:, 0, 0]
        return chart.moved(step[:, :, 0]).clamp(*self.bounds), promised

    def _judge(self, at: Tensor) -> None:
        """Stop those whose undamped Newton step would gain nothing."""
        at = at[self.is_exact[at]]
        if not len(at):
            return
        found = _decrement(self.theta[at], self.now.of(at), self.bounds, self.equations.sample)
        self._stop(at[found <= self.tolerance], CONVERGED)

    def finish(self) -> Fits:
        """The certificates, from the Hessians at the end."""
        late = (~self.is_exact).nonzero()[:, 0]
        if len(late):
            self.now.put(late, self.equations.at(self.theta[late], self.owner[late], torch.ones(len(late), dtype=bool)))
        sample = self.equations.sample
        held = _held(self.theta, self.now.gradient, self.bounds)
        matrix, gradient = _reduced(self.now, ~held)
        lowest = torch.linalg.eigvalsh(matrix)[:, 0] / sample.n
        slope = gradient.norm(dim=1) / sample.n
        decrement = _decrement(self.theta, self.now, self.bounds, sample)
        return Fits(
            self.theta, self.now.cost, self.owner, slope, decrement, lowest, held, self.passes, tuple(self.status)
        )  # fmt: skip


def _better(now: Normal, found: Normal, promised: Tensor) -> tuple[Tensor, Tensor]:
    """Which trials are accepted, and the ratio of achieved to promised descent."""
    ratio = (now.cost - found.cost) / promised.clamp_min(1e-300)
    tiny = promised.abs() <= NOISE * now.cost
    calmer = found.gradient.norm(dim=1) <= now.gradient.norm(dim=1)
    good = torch.isfinite(found.cost) & torch.where(tiny, calmer, (promised > 0) & (ratio > 1e-4))
    return good, torch.where(tiny, torch.ones_like(ratio), ratio)


def _held(theta: Tensor, gradient: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
    """Coordinates on the box's boundary that descent would push out of it."""
    low, high = bounds
    return ((theta >= high) & (gradient < 0)) | ((theta <= low) & (gradient > 0))


def _reduced(now: Normal, free: Tensor) -> tuple[Tensor, Tensor]:
    """Matrix and gradient on the free coordinates; the others are decoupled, with the largest diagonal entry."""
    both = free.unsqueeze(1) & free.unsqueeze(2)
    largest = now.matrix.diagonal(dim1=1, dim2=2).abs().amax(1, keepdim=True)
    return now.matrix * both + torch.diag_embed(~free * largest), now.gradient * free


def _decrement(theta: Tensor, now: Normal, bounds: tuple[Tensor, Tensor], sample: Sample) -> Tensor:
    """½ gᵀH⁻¹g over σ̂² = 2 cost / (n E), on the free coordinates; infinite where H is not positive definite."""
    matrix, gradient = _reduced(now, ~_held(theta, now.gradient, bounds))
    factor, failed = torch.linalg.cholesky_ex(matrix)
    solved = torch.cholesky_solve(gradient.unsqueeze(2), factor)[:, :, 0]
    found = 0.5 * (gradient * solved).sum(1) / _variance(now.cost, sample)
    return torch.where((failed > 0) | ~torch.isfinite(found), torch.inf, found)


def _variance(cost: Tensor, sample: Sample) -> Tensor:
    """σ̂² = 2 cost / (n E)."""
    return (2 * cost / (sample.n * sample.y.shape[1])).clamp_min(1e-30)


def _check(regression: Regression, sample: Sample, start: Tensor, owner: Tensor, box: Box, tolerance: float,
           passes: int) -> None:  # fmt: skip
    if start.dim() != 2 or start.shape[1] != regression.parameters or len(start) == 0:
        raise ValueError(f"start has shape {tuple(start.shape)}; expected (starts, {regression.parameters})")
    if sample.x.shape[1] != regression.known.d or sample.y.shape[1] != regression.known.outputs:
        raise ValueError(
            f"the sample has d = {sample.x.shape[1]} and E = {sample.y.shape[1]}; the model has d = "
            f"{regression.known.d} and E = {regression.known.outputs}"
        )
    if owner.shape != start.shape[:1] or owner.min() < 0 or owner.max() >= len(sample):
        raise ValueError(f"owner names the data set of each of {len(start)} starts, from 0 to {len(sample) - 1}")
    for what, tensor in (("start", start), *zip(("x", "y", "lse", "content"), sample.tensors, strict=True)):
        if not torch.isfinite(tensor.sum()):  # the sum alone: a mask would take memory that grows with n
            raise ValueError(f"{what} holds numbers that are not finite")
    if not (tolerance > 0 and passes >= 0):
        raise ValueError(f"tolerance {tolerance}, passes {passes}; expected a positive one and 0 or more")
    low, high = box.bounds(regression)
    if ((start < low) | (start > high)).any():
        raise ValueError(f"a start lies outside of {box}; move it in with .clamp(*box.bounds(regression))")
