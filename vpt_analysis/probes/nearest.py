r"""The outputs nearest to the targets that static prompts of any length reach, with a certificate of the distance.

At one τ (see ``certificates.py``) the nearest output is a least-squares problem: with weights
:math:`w_a = ((1-\tau)+\tau E_a)^{-2}` minimise :math:`\sum_a w_a \|\omega - f_a(\tau)\|^2` over ω, which is free, or
(1 − τ)(M z + m) with z in a ball and below a plane. Its residuals, weighted, are multipliers that prove its optimality,
and on a small interval of τ they lose little: branch and bound over τ closes the gap between the distance that prompts
attain and the one that is proved.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from .certificates import Ball, Certificate, SharedQuery, piece_bound

FIRST_PIECES = 8
INSIDE = 1e-9  # prompts that attain a distance have τ in [INSIDE, 1 − INSIDE]: neither mass nor output is infinite


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest outputs of static prompts of any length.

    ``distance``: ‖ŷ − y‖ over all inputs, attained by prompts of ``output`` (D,) and ``log_mass``, or approached by
    them; ``bound``: no static prompts come nearer, as ``certificate`` proves (None where nothing is to be proved: the
    distance is 0). ``token`` (d,): the mean z̄ of the normalised prompt tokens, where values come from a ``Ball``.
    """

    distance: float
    bound: float
    output: np.ndarray
    log_mass: float
    token: np.ndarray | None
    certificate: Certificate | None


def nearest(problem: SharedQuery, gap: float = 1e-3, pieces: int = 1000, zero: float = 1e-10) -> Nearest:
    """Project the targets onto what static prompts of any length reach.

    Intervals of τ are halved until ``bound`` ≥ (1 − ``gap``) ``distance`` or there are ``pieces`` of them; a distance
    below ``zero`` of the targets' norm counts as 0 and is not certified. Raises ``ValueError`` for parameters out of
    range.

    >>> two = SharedQuery([[1., 0.], [0., 1.]], [0., 0.], [[2., 0.], [0., 0.5]])
    >>> found = nearest(two)
    >>> round(found.distance, 3), found.certificate.bound(two) > 0.99 * found.distance
    (0.791, True)
    """
    if not (0 < gap < 1 and pieces >= 1 and zero >= 0):
        raise ValueError(f"gap {gap}, pieces {pieces}, zero {zero}; expected 0 < gap < 1, pieces ≥ 1, zero ≥ 0")
    search = _Search(problem)
    floor = zero * float(np.linalg.norm(problem.target))
    search.refine()
    while search.best.distance > floor and len(search.heap) < pieces:
        if search.heap[0][0] >= (1 - gap) * search.best.distance or not search.split():
            break
    best = search.best if search.best.distance <= floor else search.polished()
    certificate = None if best.distance <= floor else search.certificate()
    output = best.omega if problem.additive else best.omega / (1 - best.tau)
    bound = 0.0 if certificate is None else certificate.bound(problem)
    return Nearest(best.distance, bound, output, problem.log_mass(best.tau), best.token, certificate)


@dataclass(frozen=True, eq=False)
class Point:
    """The nearest outputs at one τ, and the multipliers that prove it."""

    tau: float
    distance: float
    omega: np.ndarray
    token: np.ndarray | None
    eta: np.ndarray
    mu: float


def nearest_at(problem: SharedQuery, tau: float, solver: BallSolver | None = None) -> Point:
    """The least-squares problem at one τ."""
    aim, scale = problem.aim(tau), problem.scale(tau)
    weight = scale**-2
    middle = weight @ aim / weight.sum()
    token, mu = None, 0.0
    if problem.values is None:
        omega = middle
    else:
        solver = solver or BallSolver(problem.values)
        limit = problem.log_mass(tau) - problem.values.shift
        token = solver.solve(middle / (1 - tau) - problem.values.offset, limit)
        omega = (1 - tau) * (problem.values.matrix @ token + problem.values.offset)
    residual = omega - aim
    eta = weight[:, None] * residual
    if problem.values is not None:
        mu = solver.multiplier(problem.values.matrix.T @ eta.sum(0), limit)
    return Point(tau, float(np.linalg.norm(residual / scale[:, None])), omega, token, eta, mu)


class BallSolver:
    """min ‖M z − b‖ over ‖z‖ ≤ R and score · z ≤ limit, by the singular values of M."""

    def __init__(self, ball: Ball):
        self.ball = ball

    @cached_property
    def whole(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.linalg.svd(self.ball.matrix, full_matrices=False)

    @cached_property
    def plane(self) -> tuple[np.ndarray, np.ndarray]:
        """The score's direction (d,), and a basis (d, d − 1) of what is orthogonal to it."""
        score = self.ball.score
        basis = np.linalg.svd(score[None])[2]
        return score / np.linalg.norm(score), basis[1:].T

    @cached_property
    def within(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.linalg.svd(self.ball.matrix @ self.plane[1], full_matrices=False)

    def solve(self, aim: np.ndarray, limit: float) -> np.ndarray:
        """z (d,) for b = ``aim`` (D,)."""
        ball = self.ball
        z = in_ball(self.whole, aim, ball.radius)
        if ball.score @ z <= limit:
            return z
        # The best point breaks the bound on the score, so the best one that keeps it lies on the plane.
        direction, basis = self.plane
        height = limit / float(np.linalg.norm(ball.score))
        height = max(height, -ball.radius)
        left = math.sqrt(max(0.0, ball.radius**2 - height**2))
        y = in_ball(self.within, aim - height * (ball.matrix @ direction), left)
        return height * direction + basis @ y

    def multiplier(self, p: np.ndarray, limit: float) -> float:
        """μ ≥ 0 with the largest −R ‖p + μ score‖ − μ limit."""
        norm = float(np.linalg.norm(self.ball.score))
        cosine = limit / (self.ball.radius * norm) if norm else math.inf
        if not abs(cosine) < 1:
            return 0.0
        along = float(p @ self.ball.score) / norm
        across = math.sqrt(max(0.0, float(p @ p) - along**2))
        return max(0.0, -(along + cosine * across / math.sqrt(1 - cosine**2)) / norm)


def in_ball(factors: tuple[np.ndarray, np.ndarray, np.ndarray], aim: np.ndarray, radius: float) -> np.ndarray:
    """min ‖M z − b‖ over ‖z‖ ≤ R, of least norm where several: z = V σ/(σ² + ν) Uᵀ b, with ν ≥ 0 that fits the ball."""
    u, sigma, vt = factors
    keep = sigma > 1e-12 * sigma.max(initial=0.0)
    sigma, along = sigma[keep], (u.T @ aim)[keep]

    def norm(nu: float) -> float:
        return float(np.linalg.norm(sigma * along / (sigma**2 + nu)))

    nu = 0.0
    if norm(0.0) > radius:
        if radius == 0:
            return np.zeros(vt.shape[1])
        high = float(np.linalg.norm(sigma * along)) / radius
        nu = brentq(lambda x: norm(x) - radius, 0.0, high, xtol=1e-15 * high, rtol=1e-14)
    return vt[keep].T @ (sigma * along / (sigma**2 + nu))


class _Search:
    """Branch and bound: a heap of intervals (bound, start, end, η, μ), the lowest bound first."""

    def __init__(self, problem: SharedQuery):
        self.problem = problem
        self.solver = None if problem.values is None else BallSolver(problem.values)
        low, high = problem.span
        self.heap: list = []
        self.count = 0
        self.best = self.at((low + high) / 2)
        edges = np.linspace(low, high, FIRST_PIECES + 1) if high > low else np.array([low, high])
        for start, end in zip(edges[:-1], edges[1:], strict=True):
            self.add(start, end)

    def at(self, tau: float) -> Point:
        high = self.problem.span[1]
        tau = high if self.problem.additive else min(max(tau, INSIDE), high, 1 - INSIDE)
        return nearest_at(self.problem, tau, self.solver)

    def consider(self, tau: float) -> Point:
        found = self.at(tau)
        if found.distance < self.best.distance:
            self.best = found
        return found

    def add(self, start: float, end: float) -> None:
        point = self.consider((start + end) / 2)
        mu = point.mu if start > 0 else 0.0
        bound = piece_bound(self.problem, start, end, point.eta, mu)
        self.count += 1
        heapq.heappush(self.heap, (bound, self.count, start, end, point.eta, mu))

    def split(self) -> bool:
        _, _, start, end, *_ = self.heap[0]
        middle = (start + end) / 2
        if not start < middle < end:
            return False
        heapq.heappop(self.heap)
        self.add(start, middle)
        self.add(middle, end)
        return True

    def refine(self) -> None:
        """τ at which the differences of the f are least: where there are two inputs or more and all targets can be met,
        it is there."""
        problem = self.problem
        if problem.additive or problem.n < 2:
            return
        one, two = (x - x.mean(0) for x in (problem.aim(0.0), problem.aim(1.0)))
        step = one - two
        if (step**2).sum() > 0:
            self.consider(float((one * step).sum() / (step**2).sum()))

    def polished(self) -> Point:
        """The best point, moved to the minimum between its neighbours."""
        low, high = self.problem.span
        ends = sorted({e for piece in self.heap for e in piece[2:4]})
        start = max((e for e in ends if e < self.best.tau), default=low)
        end = min((e for e in ends if e > self.best.tau), default=high)
        if end > start:
            found = minimize_scalar(
                lambda tau: self.at(tau).distance, bounds=(start, end), method="bounded", options={"xatol": 1e-12}
            )
            self.consider(float(found.x))
        return self.best

    def certificate(self) -> Certificate:
        pieces = sorted(self.heap, key=lambda piece: piece[2:4])
        edges = np.array([pieces[0][2], *(p[3] for p in pieces)])
        return Certificate(edges, np.stack([p[4] for p in pieces]), np.array([p[5] for p in pieces]))
