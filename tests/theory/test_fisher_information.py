"""Exact specifications at moderate n: estimates scatter as the Fisher information says, and predictions with them."""

from __future__ import annotations

import pytest
import torch

from tests.theory.mixtures import Problem, problem
from vpt_analysis.theory import regression, starts
from vpt_analysis.theory.least_squares import fit
from vpt_analysis.theory.normal_equations import Equations

REPLICATES, NOISE, SIZES = 200, 0.1, (500, 2000)


@pytest.fixture(scope="module", params=["tied", "nonlinear"])
def estimates(request) -> dict[int, tuple[Problem, torch.Tensor]]:
    found = {}
    for n in SIZES:
        case = problem(request.param, d=3, n=n, replicates=REPLICATES, hidden=1, noise=NOISE)
        start = starts.near(case.student, case.truth, case.theta, REPLICATES, 0, spread=0.02)
        fits = fit(case.student, case.data, start)
        assert fits.certified.all()
        found[n] = case, fits.theta
    return found


@pytest.mark.parametrize("n", SIZES)
def test_estimates_have_the_covariance_of_the_inverse_information(estimates, n):
    """With JᵀJ = C Cᵀ at the truth, Cᵀ(θ̂ − θ)/σ is N(0, I) as n grows. Over R replicates a mean has the deviation
    R^−½ = 0.07, a variance (2/R)^½ = 0.1, a covariance 0.07, the mean of all p variances (2/Rp)^½ ≤ 0.036."""
    case, theta = estimates[n]
    owner = torch.arange(REPLICATES)
    information = Equations(case.student, case.data).at(case.theta.expand(REPLICATES, -1), owner).matrix
    root = torch.linalg.cholesky(information)
    z = (root.mT @ (theta - case.theta).unsqueeze(2))[:, :, 0] / NOISE
    p = z.shape[1]
    assert abs(z.square().mean() - 1) < 4 * (2 / (REPLICATES * p)) ** 0.5
    assert z.mean(0).abs().max() < 0.28
    covariance = z.T @ z / REPLICATES
    assert (covariance.diagonal() - 1).abs().max() < 0.4
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.28


def test_predictions_err_as_sigma_times_the_root_of_p_over_n(estimates):
    """E‖f̂ − f‖² = σ² p / n + o(1/n): level and rate, to what 200 replicates allow."""
    roots = {}
    for n, (case, theta) in estimates.items():
        fresh = regression.sample(case.truth, case.theta, 2000, 1, 77)
        error = regression.function_error(case.student, theta, case.truth, case.theta, fresh)[:, 0]
        roots[n] = error.square().mean().sqrt().item()
        assert roots[n] == pytest.approx(NOISE * (case.student.parameters / n) ** 0.5, rel=0.1)
    small, large = SIZES
    slope = torch.tensor(roots[large] / roots[small]).log() / torch.tensor(large / small).log()
    assert abs(slope + 0.5) < 0.06
