"""The softmax-contaminated mixture: one frozen expert, one prompt expert, a softmax gate between them.

With inputs :math:`X \\sim N(0, I_d)`, gate score :math:`s = \\beta^\\top x + \\tau` and the expert
:math:`h(x, \\eta) = \\tanh(\\eta^\\top x)`,

.. math:: p(y \\mid x) = \\frac{1}{1 + e^s} f_0(y \\mid h(x, \\eta_0), \\nu_0)
          + \\frac{e^s}{1 + e^s} N(y;\\, h(x, \\eta), \\nu).

The frozen density f₀ is known; (β, τ, η, ν) of the prompt are not. Where f₀ is no Gaussian the two parts can be told
apart; where it is one, the prompt that equals the frozen expert has no β and τ, and near it they are hard to estimate.

Source: the model of Yan et al., arXiv 2505.18455 (NeurIPS 2025). As we understand it, ν₀ is a variance there; that the
Laplace density has the variance ν₀ too, hence the scale √(ν₀/2), is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..errors import unknown

FAMILIES = ("laplace", "gaussian")


@dataclass(frozen=True)
class Frozen:
    """The frozen expert f₀: its ``family``, direction ``eta`` (d,) and variance ``variance``.

    Raises ``ValueError`` for another family, an ``eta`` that is no vector, or a variance that is not positive.
    """

    family: str
    eta: Tensor
    variance: float

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise unknown("family of the frozen expert", self.family, FAMILIES)
        if self.eta.dim() != 1 or self.eta.dtype != torch.float64:
            raise ValueError(f"frozen eta is {self.eta.dtype} of shape {tuple(self.eta.shape)}; expected float64 (d,)")
        if not 0 < self.variance < math.inf:
            raise ValueError(f"the frozen expert's variance is {self.variance}; expected a positive number")

    def log_density(self, x: Tensor, y: Tensor) -> Tensor:
        """log f₀(y | x): ``x`` (..., d), ``y`` (...) → (...)."""
        residual = y - torch.tanh(x @ self.eta)
        if self.family == "laplace":
            scale = math.sqrt(self.variance / 2)
            return -residual.abs() / scale - math.log(2 * scale)
        return normal_log_density(residual, torch.tensor(math.log(self.variance), dtype=torch.float64))


@dataclass(frozen=True)
class Prompt:
    """The unknowns, float64: ``beta`` (..., d), ``tau`` (...), ``eta`` (..., d), ``log_nu`` (...), the logarithm of the
    prompt's variance ν. Leading dimensions are a batch. Raises ``ValueError`` where shapes or dtypes do not fit."""

    beta: Tensor
    tau: Tensor
    eta: Tensor
    log_nu: Tensor

    def __post_init__(self) -> None:
        shapes = {name: tuple(value.shape) for name, value in vars(self).items()}
        batch = shapes["tau"]
        if shapes["log_nu"] != batch or shapes["beta"] != shapes["eta"] or shapes["beta"][:-1] != batch:
            raise ValueError(f"shapes {shapes}; expected (..., d) for beta and eta, (...) for tau and log_nu")
        if not shapes["beta"] or any(value.dtype != torch.float64 for value in vars(self).values()):
            raise ValueError(f"beta of shape {shapes['beta']}, {self.beta.dtype}; expected float64 with a last axis d")

    @property
    def vector(self) -> Tensor:
        """(β, τ, η, log ν) in a row: (..., 2 d + 2)."""
        return torch.cat([self.beta, self.tau[..., None], self.eta, self.log_nu[..., None]], -1)

    @staticmethod
    def of(vector: Tensor) -> Prompt:
        """The prompt whose ``vector`` this is; raises ``ValueError`` where the length is not 2 d + 2.

        >>> Prompt.of(torch.arange(6.0, dtype=torch.float64)).eta
        tensor([3., 4.], dtype=torch.float64)
        """
        d, odd = divmod(vector.shape[-1] - 2, 2)
        if odd or d < 1:
            raise ValueError(f"a vector of {vector.shape[-1]} numbers; expected 2 d + 2 for inputs of dimension d")
        return Prompt(vector[..., :d], vector[..., d], vector[..., d + 1 : 2 * d + 1], vector[..., -1])

    def errors(self, truth: Prompt) -> dict[str, Tensor]:
        """Distances to ``truth``, by quantity: |β̂ − β|, |τ̂ − τ|, |η̂ − η| (Euclidean) and |ν̂ − ν|, each (...)."""
        return {
            "beta": (self.beta - truth.beta).norm(dim=-1),
            "tau": (self.tau - truth.tau).abs(),
            "eta": (self.eta - truth.eta).norm(dim=-1),
            "nu": (self.log_nu.exp() - truth.log_nu.exp()).abs(),
        }


def normal_log_density(residual: Tensor, log_variance: Tensor) -> Tensor:
    """log N(residual; 0, e^{log_variance}).

    >>> zero = torch.tensor(0.0, dtype=torch.float64)
    >>> round(normal_log_density(zero, zero).exp().item(), 4)                  # 1/√(2π)
    0.3989
    """
    return -0.5 * (residual.square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))


def log_density(prompt: Prompt, frozen: Frozen, x: Tensor, y: Tensor) -> Tensor:
    """log p(y | x), ``x`` (..., n, d), ``y`` (..., n) → (..., n): the definition, differentiable, and the reference of
    ``derivatives``. The logarithm of a sum of exponentials keeps it finite where one part has no mass."""
    score = (x @ prompt.beta[..., None]).squeeze(-1) + prompt.tau[..., None]
    mean = torch.tanh((x @ prompt.eta[..., None]).squeeze(-1))
    own = normal_log_density(y - mean, prompt.log_nu[..., None])
    return torch.logaddexp(frozen.log_density(x, y), score + own) - softplus(score)


def sample(truth: Prompt, frozen: Frozen, n: int, seeds: Sequence) -> tuple[Tensor, Tensor]:
    """``x`` (R, n, d) and ``y`` (R, n) of one truth (no batch), float64. Replicate r depends on ``seeds[r]`` alone (a
    whole number or several), whatever the others are. Raises ``ValueError`` for a batch of truths or no points."""
    if truth.tau.dim() or n < 1:
        raise ValueError(f"{n} points of a truth of shape {tuple(truth.tau.shape)}; expected at least 1, of one truth")
    d = len(truth.beta)
    x, y = torch.empty(len(seeds), n, d, dtype=torch.float64), torch.empty(len(seeds), n, dtype=torch.float64)
    for row, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        x[row] = torch.from_numpy(rng.standard_normal((n, d)))
        gate = torch.sigmoid(x[row] @ truth.beta + truth.tau).numpy()
        own = torch.from_numpy(rng.random(n) < gate)
        noise = torch.from_numpy(rng.standard_normal(n)) * (0.5 * truth.log_nu).exp()
        frozen_noise = torch.from_numpy(_frozen_noise(frozen, rng, n))
        means = torch.tanh(x[row] @ truth.eta), torch.tanh(x[row] @ frozen.eta)
        y[row] = torch.where(own, means[0] + noise, means[1] + frozen_noise)
    return x, y


def _frozen_noise(frozen: Frozen, rng: np.random.Generator, n: int) -> np.ndarray:
    if frozen.family == "laplace":
        return rng.laplace(scale=math.sqrt(frozen.variance / 2), size=n)
    return rng.standard_normal(n) * math.sqrt(frozen.variance)


@dataclass(frozen=True)
class Sums:
    """The log-likelihood of all points, ``value`` (R,), with its ``gradient`` (R, p) and ``hessian`` (R, p, p) in
    ``Prompt.vector``, p = 2 d + 2; nats."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.value + other.value, self.gradient + other.gradient, self.hessian + other.hessian)


def derivatives(prompt: Prompt, frozen: Frozen, x: Tensor, y: Tensor) -> Sums:
    r"""Sums over n of log p and its exact derivatives: ``prompt`` (R, ...), ``x`` (R, n, d), ``y`` (R, n).

    A point's log p is a function of three numbers, s = βᵀx + τ, t = ηᵀx and ρ = log ν. With the gate g = σ(s), the
    posterior q = σ(s + log N − log f₀) that the prompt made the point, and a = log N,

    .. math:: \partial_s = q - g, \quad \partial_t = q a_t, \quad \partial_\rho = q a_\rho, \quad
              \partial_s^2 = q (1 - q) - g (1 - g), \quad \partial_{su} = q (1 - q) a_u, \quad
              \partial_{uv} = q (1 - q) a_u a_v + q a_{uv}.

    All sums are products with the matrix of rows (x, 1), so that p × p numbers a point are never held.
    """
    z = torch.cat([x, torch.ones_like(y)[..., None]], -1)  # (R, n, d + 1)
    at = _at_points(prompt, frozen, x, y)
    both = at.q * (1 - at.q)
    t_rho = both * at.a_t * at.a_rho - at.q * at.a_t
    rho_rho = both * at.a_rho.square() - at.q * (at.a_rho + 0.5)
    columns = [at.value, at.q - at.g, at.q * at.a_t, at.q * at.a_rho, both * at.a_rho, t_rho, rho_rho]
    sums = z.mT @ torch.stack(columns, -1)  # (R, d + 1, 7)
    weights = [both - at.g * (1 - at.g), both * at.a_t, both * at.a_t.square() + at.q * at.a_tt]
    weighted = torch.stack(weights, -1)[..., None] * z[:, :, None, :]  # (R, n, 3, d + 1)
    grams = (z.mT @ weighted.flatten(2)).unflatten(2, (3, -1))
    return _assembled(sums, *grams.unbind(2))


def scores(prompt: Prompt, frozen: Frozen, x: Tensor, y: Tensor) -> Tensor:
    """Gradients of log p(y | x) in ``Prompt.vector``, point by point: one prompt, ``x`` (n, d), ``y`` (n) → (n, p)."""
    at = _at_points(prompt, frozen, x, y)
    gate, expert = (at.q - at.g)[:, None], (at.q * at.a_t)[:, None]
    return torch.cat([gate * x, gate, expert * x, (at.q * at.a_rho)[:, None]], -1)


@dataclass(frozen=True)
class _AtPoints:
    """log p, g, q and the derivatives of a = log N (see ``derivatives``), each (..., n)."""

    value: Tensor
    g: Tensor
    q: Tensor
    a_t: Tensor
    a_tt: Tensor
    a_rho: Tensor


def _at_points(prompt: Prompt, frozen: Frozen, x: Tensor, y: Tensor) -> _AtPoints:
    s, t = (x @ torch.stack([prompt.beta, prompt.eta], -1)).unbind(-1)
    s, log_nu = s + prompt.tau[..., None], prompt.log_nu[..., None]
    mean, precision = torch.tanh(t), (-log_nu).exp()
    residual, slope = y - mean, 1 - mean.square()
    a_t, a_rho = residual * precision * slope, 0.5 * (residual.square() * precision - 1)
    a_tt = -slope.square() * precision - 2 * mean * a_t
    own, other = s + normal_log_density(residual, log_nu), frozen.log_density(x, y)
    value = torch.logaddexp(other, own) - softplus(s)
    return _AtPoints(value, torch.sigmoid(s), torch.sigmoid(own - other), a_t, a_tt, a_rho)


def _assembled(sums: Tensor, ss: Tensor, st: Tensor, tt: Tensor) -> Sums:
    """Blocks in the order (β, τ), η, ρ. ``sums`` (R, d + 1, 7): of columns times x, and in the last row of columns."""
    value, g_s, g_t, g_rho, s_rho, t_rho, rho_rho = sums.unbind(-1)  # (R, d + 1) each
    gradient = torch.cat([g_s, g_t[:, :-1], g_rho[:, -1:]], -1)
    last = torch.cat([s_rho, t_rho[:, :-1]], -1)[..., None]  # (R, 2 d + 1, 1)
    upper = torch.cat([ss, st[:, :, :-1]], -1)
    lower = torch.cat([st[:, :, :-1].mT, tt[:, :-1, :-1]], -1)
    hessian = torch.cat([torch.cat([upper, lower], -2), last], -1)
    hessian = torch.cat([hessian, torch.cat([last.mT, rho_rho[:, -1:, None]], -1)], -2)
    return Sums(value[:, -1], gradient, (hessian + hessian.mT) / 2)
