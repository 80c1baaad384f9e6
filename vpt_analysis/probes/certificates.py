r"""Inputs that share a query: the outputs that static prompts of any length can give them, and how to prove it.

One head, one query q, n inputs with content outputs :math:`c_a` and log-sum-exps :math:`\mathrm{lse}_a`. Static prompts
have one output o and one log-mass :math:`L = \mathrm{lse}'` for all of them (T10), so with :math:`t = e^{-L}` and
:math:`E_a = e^{\mathrm{lse}_a}` targets :math:`y_a` are met exactly where

.. math:: o - y_a = t\,E_a (y_a - c_a) \qquad \text{for all } a,

which is linear in (o, t). In the coordinate :math:`\tau = t/(1+t)` and with :math:`\omega = (1-\tau)\,o`, the error of
the output a is

.. math:: \hat y_a - y_a = \frac{\omega - f_a(\tau)}{(1-\tau) + \tau E_a}, \qquad
          f_a(\tau) = (1-\tau)\,y_a + \tau E_a (y_a - c_a) .

**Certificate.** Whatever the multipliers :math:`\eta_a`, the norm D of
:math:`\eta_a\,((1-\tau)+\tau E_a)` bounds all errors together from below, ‖ŷ − y‖ ≥ A/D, by

.. math:: A(\tau) = \min_\omega \sum_a \eta_a\cdot\omega - \sum_a \eta_a\cdot f_a(\tau) .

A is affine in τ on an interval and D convex, so A/D is quasi-concave where A > 0: on the interval it is least at an
end. A list of intervals that cover all τ, with multipliers each, so proves a distance that no static prompt of any
length comes below, and plain arithmetic checks it. [Own derivation.]

Shapes: n inputs, D output width, d width of the tokens, K intervals. numpy, float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

ROUNDING = 1e-11  # of the sizes that enter a sum, taken off the proved side


@dataclass(frozen=True, eq=False)
class Ball:
    r"""Prompt tokens behind a LayerNorm: values ``matrix`` @ z + ``offset``, scores ``score`` · z + ``shift``, ‖z‖ <
    ``radius``.

    z is the centred, normalised token. A LayerNorm with ε > 0 fills the open ball of radius √d. The output of any
    number of prompts has :math:`\bar z`, their weighted mean, in the ball, and as one prompt at least scores no less
    than the mean, :math:`L \ge \text{score}\cdot\bar z + \text{shift}`. Scores are bounded from below too, so that
    prompts cannot be switched off: P of them have a log-mass of :math:`\log P` more than the least score, or above.

    ``matrix`` (D, d), ``offset`` (D,), ``score`` (d,); ``prompts``: how many there are at least.
    """

    matrix: np.ndarray
    offset: np.ndarray
    score: np.ndarray
    shift: float
    radius: float
    prompts: int = 1

    @property
    def least(self) -> float:
        """The log-mass is not below this."""
        return self.shift - self.radius * float(np.linalg.norm(self.score)) + math.log(self.prompts)


@dataclass(frozen=True, eq=False)
class SharedQuery:
    """n inputs that share a query: ``content`` outputs (n, D), ``lse`` (n,) in nats, ``target`` outputs (n, D).

    ``values``: where prompts' values come from; None where they are free (untied keys and values), which holds more
    than any other family. ``additive``: the prompt output is added to the content's, y = c + w with any w, instead of
    joined by one softmax. Raises ``ValueError`` for shapes that do not fit or numbers that are not finite.
    """

    content: np.ndarray
    lse: np.ndarray
    target: np.ndarray
    values: Ball | None = None
    additive: bool = False

    def __post_init__(self):
        for name in ("content", "lse", "target"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        n, shape = len(self.lse), self.content.shape
        if self.lse.ndim != 1 or n == 0 or len(shape) != 2 or shape != self.target.shape or shape[0] != n:
            raise ValueError(
                f"content {shape}, lse {self.lse.shape}, target {self.target.shape}; expected (n, D), (n,), (n, D)"
            )
        if not all(np.isfinite(x).all() for x in (self.content, self.lse, self.target)):
            raise ValueError("content outputs, log-sum-exps or targets hold numbers that are not finite")
        if self.additive and self.values is not None:
            raise ValueError("an additive prompt output is certified with free values only; leave values out")
        if self.values is not None and self.values.matrix.shape[0] != shape[1]:
            raise ValueError(f"values have {self.values.matrix.shape[0]} dimensions, the outputs {shape[1]}")

    @property
    def n(self) -> int:
        return len(self.lse)

    @property
    def centre(self) -> float:
        """The masses E are taken relative to this log-mass, so that τ = 1/2 is where prompts balance the content."""
        return 0.0 if self.additive else float(self.lse.mean())

    @cached_property
    def masses(self) -> np.ndarray:
        return np.ones(self.n) if self.additive else np.exp(self.lse - self.centre)

    @cached_property
    def span(self) -> tuple[float, float]:
        """All τ that prompts can have; 0 is infinite mass, 1 none."""
        if self.additive:
            return 1.0, 1.0
        return 0.0, (1.0 if self.values is None else tau_of(self.values.least, self.centre))

    def aim(self, tau: float) -> np.ndarray:
        """f(τ), (n, D)."""
        return (1 - tau) * self.target + tau * self.masses[:, None] * (self.target - self.content)

    def scale(self, tau: float) -> np.ndarray:
        """(1 − τ) + τ E, (n,)."""
        return (1 - tau) + tau * self.masses

    def log_mass(self, tau: float) -> float:
        """L of prompts at τ; infinite at the ends."""
        return self.centre + (math.log1p(-tau) if tau < 1 else -math.inf) - (math.log(tau) if tau > 0 else -math.inf)

    def outputs(self, output: np.ndarray, log_mass: float) -> np.ndarray:
        """What prompts of this ``output`` (D,) and log-mass make of the inputs, by the split: (n, D)."""
        if self.additive:
            return self.content + output
        weight = 1 / (1 + np.exp(self.lse - log_mass))[:, None]
        return (1 - weight) * self.content + weight * output


def tau_of(log_mass: float, centre: float) -> float:
    """τ of prompts with this log-mass.

    >>> tau_of(2.0, centre=2.0)
    0.5
    """
    return 1 / (1 + math.exp(min(log_mass - centre, 700.0)))


@dataclass(frozen=True, eq=False)
class Certificate:
    """A proof that no static prompts reach the targets: ``edges`` (K + 1,) of the intervals in τ, ``eta`` (K, n, D),
    and ``mu`` (K,) ≥ 0, the multipliers of L ≥ score · z̄ + shift (0 for free values)."""

    edges: np.ndarray
    eta: np.ndarray
    mu: np.ndarray

    def bound(self, problem: SharedQuery) -> float:
        """The distance ‖ŷ − y‖ over all inputs that this proves; 0.0 where it proves nothing.

        Plain arithmetic, with an allowance for rounding. Raises ``ValueError`` where the shapes are not those of the
        problem.
        """
        k = len(self.mu)
        if self.edges.shape != (k + 1,) or self.eta.shape != (k, *problem.target.shape):
            raise ValueError(
                f"certificate with edges {self.edges.shape}, eta {self.eta.shape}, mu {self.mu.shape}; expected "
                f"(K + 1,), (K, {problem.n}, {problem.target.shape[1]}), (K,)"
            )
        low, high = problem.span
        covers = k > 0 and self.edges[0] <= low and self.edges[-1] >= high and (np.diff(self.edges) >= 0).all()
        if not covers or not (self.mu >= 0).all() or not np.isfinite(self.eta).all():
            return 0.0
        pieces = zip(self.edges[:-1], self.edges[1:], self.eta, self.mu, strict=True)
        return min(piece_bound(problem, *piece) for piece in pieces)


def piece_bound(problem: SharedQuery, start: float, end: float, eta: np.ndarray, mu: float) -> float:
    """The distance proved for τ in [start, end]: the smaller of A/D at the two ends, 0.0 where A is not positive."""
    found = [_ratio(problem, tau, start, eta, mu) for tau in (start, end)]
    return max(0.0, min(found))


def _ratio(problem: SharedQuery, tau: float, start: float, eta: np.ndarray, mu: float) -> float:
    if problem.values is None:
        # ω is free, so the multipliers must sum to 0: the last is minus the sum of the others, and only differences
        # of f enter.
        aim = problem.aim(tau)
        eta = np.concatenate([eta[:-1], -eta[:-1].sum(0, keepdims=True)])
        aim = aim - aim[-1]
        height, sizes = -float((eta * aim).sum()), float((np.abs(eta) * np.abs(aim)).sum())
    else:
        aim = problem.aim(tau)
        total = eta.sum(0)
        least, size = _least_value(problem, total, start, mu)
        height = (1 - tau) * least - float((eta * aim).sum())
        sizes = (1 - tau) * size + float((np.abs(eta) * np.abs(aim)).sum())
    size = float(np.linalg.norm(eta * problem.scale(tau)[:, None]))
    height -= ROUNDING * sizes
    return height / size if size > 0 and math.isfinite(height) else 0.0


def _least_value(problem: SharedQuery, total: np.ndarray, start: float, mu: float) -> tuple[float, float]:
    """A lower bound of total · (M z + m) over the ball and score · z ≤ limit, and the sizes of its summands.

    For every μ ≥ 0, p · z = (p + μ score) · z − μ score · z ≥ −R ‖p + μ score‖ − μ limit, p = Mᵀ total.
    """
    ball = problem.values
    limit = problem.log_mass(start) - ball.shift  # L falls with τ: the start allows the most
    across = ball.radius * float(np.linalg.norm(ball.matrix.T @ total + mu * ball.score))
    held = 0.0 if mu == 0 else mu * limit
    offset = float(total @ ball.offset)
    return offset - across - held, float(np.abs(total) @ np.abs(ball.offset)) + across + abs(held)
