"""Maximum likelihood of the softmax-contaminated mixture, many replicates at once, each with a certificate.

The likelihood has no global maximum: as ν → 0 the prompt can pass through d points exactly, and the frozen expert pays
for all others. The estimator is therefore a local maximum, the one that is reached from a start near the truth, as in
simulations of this kind. Newton's method with the exact Hessian finds it; where the Hessian is not negative definite,
its eigenvalues are taken by their absolute values, and steps that lower the likelihood are shortened.

With few points there may be none near by either: where a gate of 0 and 1 explains the sample, β and τ run off to
infinity, as in logistic regression of separated classes. The certificate tells such fits from others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .contaminated import Frozen, Prompt, Sums, derivatives, sample, scores

POINTS = 16_384  # held at a time, over all replicates: about what a core's cache takes
SMALLEST = 1e-10  # eigenvalue of the scaled information that a step may divide by, and that counts as positive
SHORTEST = 1e9  # damping beyond which no step helps


@dataclass(frozen=True)
class Certificate:
    """What a point says of itself: gradient g and observed information I there, I scaled to a diagonal of ±1.

    - ``gradient`` (R,): the largest :math:`|g_k| / \\sqrt{|I_{kk}|}`;
    - ``curvature`` (R,): smallest eigenvalue of the scaled I, positive at a strict maximum;
    - ``distance`` (R,): :math:`\\sqrt{g^\\top I^{-1} g}`, to the maximum in standard errors; infinite where the
      curvature is not positive;
    - ``step`` (R,): the largest entry of Newton's step over 1 + |parameter|. Of estimates that run off to infinity the
      distance shrinks, the step does not.
    """

    gradient: Tensor
    curvature: Tensor
    distance: Tensor
    step: Tensor

    def passed(self, tolerance: float) -> Tensor:
        """Whether this is a maximum to ``tolerance``, (R,): curvature positive, distance and step within it."""
        return (self.curvature > SMALLEST) & (self.distance <= tolerance) & (self.step <= tolerance)


@dataclass(frozen=True)
class Fit:
    """Estimates of R problems, ``prompt`` with batch (R,), their ``log_likelihood`` (R,) in nats, ``certificate``,
    whether it passed, ``converged`` (R,), and ``iterations`` (R,), trials of steps."""

    prompt: Prompt
    log_likelihood: Tensor
    certificate: Certificate
    converged: Tensor
    iterations: Tensor

    def check(self) -> Fit:
        """This fit; raises ``RuntimeError`` where a problem has not converged."""
        missing = int((~self.converged).sum())
        if missing:
            found = self.certificate
            raise RuntimeError(
                f"{missing} of {len(self.converged)} fits have not converged (largest step {found.step.max():.1e}, "
                f"smallest curvature {found.curvature.min():.1e}); allow more iterations, start nearer, or take more "
                f"points"
            )
        return self


def fit(start: Prompt, frozen: Frozen, x: Tensor, y: Tensor, tolerance: float = 1e-8, iterations: int = 200) -> Fit:
    """Local maximum of the likelihood of each replicate, from its ``start``: batch (R,), ``x`` (R, n, d), ``y`` (R, n).

    Every problem stops by itself: where its certificate passes, where no step helps, or after ``iterations`` trials.
    ``Fit.converged`` tells which, and ``Fit.check`` insists. The likelihood never falls by more than its rounding.
    Memory beyond the data does not grow with n. Raises ``ValueError`` where shapes or dtypes do not fit, numbers (or
    the likelihood at the start) are not finite, or there are fewer points than parameters.
    """
    _check(start, frozen, x, y)

    def evaluate(vector: Tensor, rows: Tensor) -> Sums:
        return _all_points(vector, frozen, x, y, rows)

    state = _State.at(start.vector.clone(), evaluate)
    for _ in range(iterations):
        passed = certificate(state.vector, state.sums).passed(tolerance)
        active = (~passed & (state.damping < SHORTEST)).nonzero()[:, 0]
        if not len(active):
            break
        state.try_steps(active, evaluate, rounding=1e-14 * x.shape[1])
    found = certificate(state.vector, state.sums)
    return Fit(Prompt.of(state.vector), state.sums.value, found, found.passed(tolerance), state.trials)


@dataclass
class _State:
    """Where R problems are: ``vector`` (R, p), its ``sums``, the ``damping`` of the next step, ``trials`` so far."""

    vector: Tensor
    sums: Sums
    damping: Tensor
    trials: Tensor

    @staticmethod
    def at(vector: Tensor, evaluate: Callable[[Tensor, Tensor], Sums]) -> _State:
        """Raises ``ValueError`` where the likelihood or its derivatives are not finite."""
        sums = evaluate(vector, torch.arange(len(vector)))
        if not _finite(sums).all():
            bad = (~_finite(sums)).nonzero()[:, 0].tolist()
            raise ValueError(f"the likelihood at the start of problems {bad} is not finite; start nearer to the data")
        zeros = torch.zeros(len(vector), dtype=torch.float64)
        return _State(vector, sums, zeros, zeros.long())

    def try_steps(self, active: Tensor, evaluate: Callable[[Tensor, Tensor], Sums], rounding: float) -> None:
        """One trial for each ``active`` problem: kept where the likelihood does not fall by more than ``rounding`` (and
        that of its own size), else the next is damped more."""
        before, damping = _rows(self.sums, active), self.damping[active]
        vector = self.vector[active] + _newton(before, damping)
        after = evaluate(vector, active)
        better = _finite(after) & (after.value >= before.value - rounding - 1e-14 * before.value.abs())
        kept = active[better]
        self.vector[kept] = vector[better]
        for field in fields(Sums):
            getattr(self.sums, field.name)[kept] = getattr(after, field.name)[better]
        relaxed = torch.where(damping > 1e-4, damping / 10, 0.0)
        self.damping[active] = torch.where(better, relaxed, (damping * 10).clamp(min=1e-3))
        self.trials[active] += 1


def certificate(vector: Tensor, sums: Sums) -> Certificate:
    """The certificate of R points ``vector`` (R, p) with the ``sums`` there."""
    values, vectors, scale = _scaled(sums)
    gradient = sums.gradient / scale
    along = (vectors.mT @ gradient[..., None]).squeeze(-1)
    distance = torch.where(values[:, 0] > 0, (along.square() / values).sum(-1).clamp(min=0).sqrt(), math.inf)
    step = (_newton(sums, torch.zeros_like(distance)) / (1 + vector.abs())).abs().amax(-1)
    return Certificate(gradient.abs().amax(-1), values[:, 0], distance, step)


def _newton(sums: Sums, damping: Tensor) -> Tensor:
    """Newton's step (R, p), with absolute eigenvalues, no smaller than ``SMALLEST``, plus the damping (R,)."""
    values, vectors, scale = _scaled(sums)
    along = (vectors.mT @ (sums.gradient / scale)[..., None]).squeeze(-1)
    along = along / (values.abs().clamp(min=SMALLEST) + damping[:, None])
    return (vectors @ along[..., None]).squeeze(-1) / scale


def _scaled(sums: Sums) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (R, p), vectors (R, p, p) of the observed information over ``scale`` (R, p) on both sides, the root
    of its diagonal's absolute values: units drop out, and signs of eigenvalues stay as they are (Sylvester)."""
    information = -sums.hessian
    scale = information.diagonal(dim1=-2, dim2=-1).abs().clamp(min=1e-200).sqrt()
    values, vectors = torch.linalg.eigh(information / scale[:, :, None] / scale[:, None, :])
    return values, vectors, scale


def _all_points(vector: Tensor, frozen: Frozen, x: Tensor, y: Tensor, rows: Tensor) -> Sums:
    """Sums over all points of the replicates ``rows``, some points at a time."""
    prompt, few = Prompt.of(vector), max(1, POINTS // len(rows))
    total = None
    for i in range(0, x.shape[1], few):
        some = x[:, i : i + few], y[:, i : i + few]
        found = derivatives(prompt, frozen, *(some if len(rows) == len(x) else (part[rows] for part in some)))
        total = found if total is None else total + found
    return total


def _rows(sums: Sums, rows: Tensor) -> Sums:
    return Sums(sums.value[rows], sums.gradient[rows], sums.hessian[rows])


def _finite(sums: Sums) -> Tensor:
    return sums.value.isfinite() & sums.gradient.isfinite().all(-1) & sums.hessian.isfinite().flatten(1).all(-1)


def information(truth: Prompt, frozen: Frozen, draws: int, seed: int) -> Tensor:
    """Expected Fisher information of one point, (p, p), in ``Prompt.vector``: the mean of score times score over
    ``draws`` points from the model. Scores that are nearly collinear stay so in every sample, so that small eigenvalues
    have small errors; in a mean of Hessians they would drown in the chance of the large ones."""
    x, y = sample(truth, frozen, draws, [seed])
    total = 0.0
    for i in range(0, draws, POINTS):
        rows = scores(truth, frozen, x[0, i : i + POINTS], y[0, i : i + POINTS])
        total = total + rows.T @ rows
    return total / draws


def _check(start: Prompt, frozen: Frozen, x: Tensor, y: Tensor) -> None:
    r, n, d = x.shape if x.dim() == 3 else (0, 0, 0)
    if not r or tuple(y.shape) != (r, n):
        raise ValueError(f"x has shape {tuple(x.shape)}, y {tuple(y.shape)}; expected (R, n, d) and (R, n)")
    if x.dtype != torch.float64 or y.dtype != torch.float64:
        raise ValueError(f"x is {x.dtype}, y {y.dtype}; expected float64: likelihoods are compared to the last digits")
    if tuple(start.beta.shape) != (r, d) or len(frozen.eta) != d:
        raise ValueError(
            f"a start of shape {tuple(start.beta.shape)} and a frozen expert of dimension {len(frozen.eta)}; expected "
            f"{(r, d)} and {d}, as the data have"
        )
    if n < 2 * d + 2:
        raise ValueError(f"{n} points for {2 * d + 2} parameters; expected at least as many points")
    if not (x.isfinite().all() and y.isfinite().all() and start.vector.isfinite().all()):
        raise ValueError("the data or the start hold numbers that are not finite; leave them out, or find why")
