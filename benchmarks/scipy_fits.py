"""``scipy.optimize.least_squares`` on one data set of a prompt mixture, as well as it can be used there.

The frozen experts are computed beforehand, as for ours. The analytic Jacobian is one of the small costs beside scipy's
own linear algebra. Options are scipy's defaults, tolerances too (1e-8), but for one solver with ours.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from vpt_analysis.theory.regression import Regression, Sample
from vpt_analysis.threads import one_thread

TOLERANCE = 1e-6  # of our fits, in noise variances 2 cost / (n E)
TRF = {"box": True, "jacobian": True, "same_tolerance": False, "method": "trf"}
SOLVERS = {
    "trf, analytic Jacobian": TRF,
    "trf, analytic Jacobian, our tolerance": TRF | {"same_tolerance": True},
    "trf, differences": TRF | {"jacobian": False},
    "lm, no box (another problem)": TRF | {"box": False, "method": "lm"},
}


@dataclass(frozen=True)
class Outcome:
    """``evaluations`` of the residuals, without those for differences; ``success``: a tolerance was met."""

    seconds: float
    cost: float
    theta: np.ndarray
    evaluations: int
    success: bool


def solve(student: Regression, sample: Sample, start: Tensor, bounds: tuple[Tensor, Tensor], solver: str) -> Outcome:
    """One call on one data set from ``start`` (p,), on one thread: callers run as many at a time as there are cores."""
    how, first, peer = SOLVERS[solver], start.numpy(), Problem(student, sample)
    options = {"method": how["method"]}
    if how["box"]:
        options["bounds"] = tuple(bound.numpy() for bound in bounds)
    if how["jacobian"]:
        options["jac"] = peer.jacobian
    if how["same_tolerance"]:
        options |= {"ftol": 2 * TOLERANCE / sample.y.numel(), "xtol": None, "gtol": None}
    with one_thread():
        peer.residuals(first), peer.jacobian(first)  # the first call in a process is slow
        begin = time.perf_counter()
        found = least_squares(peer.residuals, first, **options)
        seconds = time.perf_counter() - begin
    return Outcome(seconds, found.cost, found.x, found.nfev, found.success)


class Problem:
    """Residuals (E·n,) and their Jacobian (E·n, p) at theta (p,), numpy, of one data set."""

    def __init__(self, student: Regression, sample: Sample):
        self.student, self.sample = student, sample
        prompts, x = student.prompts, sample.x[0]
        features = torch.cat([x, x.new_ones(1, sample.n)])  # (D, n)
        keys, values = prompts.linear(prompts.blocks(torch.eye(prompts.size, dtype=torch.float64)))
        self.key_slopes = torch.einsum("pcd,dn->cpn", keys, features)  # ∂q_c/∂theta
        self.value_slopes = values.permute(0, 2, 1)  # ∂o_k/∂theta, (p, E, O)
        self.used = [column.any(1).nonzero()[:, 0].tolist() for column in keys.permute(1, 0, 2)]  # theta behind q_c

    def residuals(self, theta: np.ndarray) -> np.ndarray:
        sample = self.sample
        return (self.student.mix(_batch(theta), sample.x, sample.lse, sample.content) - sample.y).numpy().ravel()

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """Σ_c m_c ∂q_c/∂theta + Σ_k w_k ∂o_k/∂theta, see ``theory.normal_equations``."""
        m, w = self.multipliers(_batch(theta))
        found = (self.value_slopes.flatten(0, 1) @ w).unflatten(0, self.value_slopes.shape[:2])  # (p, E, n)
        for c, used in enumerate(self.used):
            for parameter in used:
                found[parameter].addcmul_(self.key_slopes[c, parameter], m[c])
        return found.flatten(1).T.numpy()

    def multipliers(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """m (C, E, n) and w (O, n): derivatives of the mixture with respect to the predictors."""
        prompts, sample = self.student.prompts, self.sample
        keys, values = prompts.predictors(theta, sample.x)
        scores, experts = prompts.experts(keys, values, sample.x)
        gates = torch.softmax(torch.cat([sample.lse.unsqueeze(1), scores], 1), 1)[0]
        g = gates[1:]
        f = gates[0] * sample.content[0] + (g.unsqueeze(1) * experts[0]).sum(0)
        slopes = prompts.derivatives(keys, values, sample.x)
        m, w = f.new_zeros(keys.shape[1], *f.shape), f.new_zeros(values.shape[1], sample.n)
        for (c, j), slope in slopes.score.items():
            m[c] += slope * g[j] * (experts[0, j] - f)
        for (c, j), slope in slopes.expert.items():
            m[c] += slope[0] * g[j]
        for (k, j), slope in slopes.value.items():
            w[k] += slope[0] * g[j]
        return m, w


def _batch(theta: np.ndarray) -> Tensor:
    return torch.from_numpy(theta).unsqueeze(0)


def jacobian_error(student: Regression, sample: Sample, theta: Tensor) -> float:
    """Largest difference between ``Problem.jacobian`` and autodiff, over the largest entry."""
    expected = torch.autograd.functional.jacobian(
        lambda t: student.mix(t[None], sample.x, sample.lse, sample.content).flatten(), theta
    )
    found = torch.from_numpy(Problem(student, sample).jacobian(theta.numpy()))
    return float((found - expected).abs().max() / expected.abs().max())
