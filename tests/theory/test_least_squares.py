"""Fits against scipy's, against normal equations where the problem is linear, at zero noise, and in a box."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize
import torch

from tests.theory.mixtures import NAMES, Problem, permuted, problem
from vpt_analysis.theory import regression, starts
from vpt_analysis.theory.frozen import frozen
from vpt_analysis.theory.least_squares import BOX, Box, Fits, fit


def near(case: Problem, spread: float = 0.1, box: Box = BOX) -> torch.Tensor:
    found = starts.near(case.student, case.truth, case.theta, len(case.data), 0, spread)
    return found.clamp(*box.bounds(case.student))


def by_scipy(case: Problem, which: int, start: torch.Tensor, box: Box = BOX, evaluations: int = 250):
    """``scipy.optimize.least_squares`` on one data set, in the same box, with tolerances at rounding."""
    x, y = case.data.x[which : which + 1], case.data.y[which]

    def residual(theta):
        return (case.student.predict(theta[None], x)[0] - y).flatten()

    def jacobian(theta):
        return torch.func.jacfwd(residual)(torch.from_numpy(np.array(theta))).numpy()

    low, high = (bound.numpy() for bound in box.bounds(case.student))
    return scipy.optimize.least_squares(
        lambda theta: residual(torch.from_numpy(np.array(theta))).numpy(), start.numpy(), jacobian, bounds=(low, high),
        xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=evaluations,
    )  # fmt: skip


@pytest.mark.parametrize("family", NAMES)
def test_exact_specifications_end_where_scipy_ends(family):
    case = problem(family, d=2, n=120, replicates=3, hidden=1)
    start = near(case)
    found = fit(case.student, case.data, start, tolerance=1e-10)
    assert found.certified.all()
    for which in range(3):
        other = by_scipy(case, which, start[which])
        assert other.status > 0 and abs(other.cost / found.cost[which].item() - 1) <= 1e-8
        np.testing.assert_allclose(other.x, found.theta[which].numpy(), atol=1e-4)


@pytest.mark.parametrize("family", NAMES)
def test_atoms_too_many_end_where_scipy_ends_and_scipy_finds_no_descent_from_there(family):
    """From one start two methods may end in different minima: so once the same start, and always the same end."""
    case = problem(family, extra=1, d=2, n=120, replicates=4, hidden=1)
    start = near(case)
    found = fit(case.student, case.data, start, tolerance=1e-9, passes=120)
    certified, agree = found.certified.nonzero()[:, 0].tolist(), []
    for which in certified:
        cost = found.cost[which].item()
        again = by_scipy(case, which, found.theta[which], evaluations=20)
        assert 1 - again.cost / cost <= 1e-8
        agree.append(abs(by_scipy(case, which, start[which], evaluations=100).cost / cost - 1) <= 1e-8)
    assert any(agree)


@pytest.mark.parametrize("family", NAMES)
def test_in_a_box_that_is_too_small_fits_end_on_its_boundary_where_scipy_ends(family):
    case = problem(family, d=2, n=100, replicates=2, hidden=1)
    box = Box(0.6 * float(case.theta.abs().max()), -0.5)
    start = near(case, box=box)
    found = fit(case.student, case.data, start, box=box, tolerance=1e-10)
    low, high = box.bounds(case.student)
    assert ((found.theta >= low) & (found.theta <= high)).all()
    assert found.certified.all() and found.bound.any(1).all()
    theta = found.theta.clone().requires_grad_()
    error = case.student.predict(theta, case.data.x) - case.data.y
    (gradient,) = torch.autograd.grad(0.5 * error.square().sum(), theta)
    at_low, at_high = found.theta == low, found.theta == high
    assert torch.equal(found.bound, (at_low & (gradient > 0)) | (at_high & (gradient < 0)))
    free = gradient[~(at_low | at_high)]
    assert free.numel() == 0 or free.abs().max() < 1e-3 * gradient.abs().max()
    for which in range(2):
        other = by_scipy(case, which, found.theta[which], box)
        assert 1 - other.cost / found.cost[which].item() <= 1e-8


# --- problems that are linear -----------------------------------------------------------------------------------------


def linear_problem(family: str, d: int, outputs: int) -> tuple[Problem, Box]:
    """Prompts that the key projection does not see (K = 0), whose log-mass a box holds: what is left to estimate
    enters f linearly."""
    known = frozen(d, outputs, 3, min(2, d), seed=4)
    known = dataclasses.replace(known, key=torch.zeros_like(known.key))
    model, box = regression.model(family, known, 1), Box(3.0, 3.0 - 1e-9)
    theta = torch.linspace(-1, 1, model.parameters, dtype=torch.float64)[None].clone()
    theta[:, 0] = 3.0
    return Problem(model, theta, model, regression.sample(model, theta, 60, 3, 1, noise=0.3)), box


def design(case: Problem, mass: torch.Tensor, which: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A and b of ‖A w − b‖², for what is left: f = g₀ c + g V p, and f = g₀ c + g V U W x."""
    known, x = case.student.known, case.data.x[which]
    gate = torch.sigmoid(mass - case.data.lse[which])  # (n,): one atom beside the merged content
    rest = case.data.y[which] - (1 - gate) * case.data.content[which]
    if case.student.prompts.name == "tied":
        columns = [known.value[:, k, None] * gate for k in range(known.d)]
    else:
        through = known.value @ known.out  # (E, r)
        columns = [through[:, k, None] * gate * x[m] for k in range(through.shape[1]) for m in range(known.d)]
    return torch.stack([c.flatten() for c in columns], 1), rest.flatten()


@pytest.mark.parametrize("family", ["tied", "linear"])
@pytest.mark.parametrize(("d", "outputs"), [(1, 1), (2, 3), (3, 3)])
def test_a_linear_problem_is_solved_by_its_normal_equations(family, d, outputs):
    """With d = 1 a problem of one parameter. The mass starts at either end of its box, one of which holds it."""
    case, box = linear_problem(family, d, outputs)
    start = (0.9 * case.theta).expand(6, -1).clone()
    start[:3, 0], start[3:, 0] = 3.0 - 1e-9, 3.0
    found = fit(case.student, case.data, start, torch.arange(3).repeat(2), box=box, tolerance=1e-9)
    assert found.certified.unflatten(0, (2, 3)).any(0).all()
    for i in found.certified.nonzero()[:, 0].tolist():
        matrix, target = design(case, found.theta[i, 0], found.owner[i].item())
        normal = matrix.T @ matrix
        solution = torch.linalg.solve(normal, matrix.T @ target)
        deviations = 0.3 * torch.linalg.inv(normal).diagonal().sqrt()
        assert ((found.theta[i, 1:] - solution).abs() <= 1e-4 * deviations).all()
        assert found.cost[i].item() == pytest.approx(0.5 * (matrix @ solution - target).square().sum().item(), rel=1e-9)
        lowest = torch.linalg.eigvalsh(normal)[0].item() / 60
        assert found.bound[i].tolist() == [True] + [False] * len(solution)
        assert found.curvature[i].item() == pytest.approx(lowest, rel=1e-9)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("family", ["untied", "norga"])
def test_values_are_linear_least_squares_given_the_keys(family, extra):
    case = problem(family, extra=extra, d=2, n=120, replicates=3)
    found = fit(case.student, case.data, near(case), tolerance=1e-12, passes=120)
    values = case.student.prompts.blocks(torch.arange(case.student.parameters)[None])["value"][0].flatten()
    checked = 0
    for which in found.certified.nonzero()[:, 0].tolist():
        theta, x, y = found.theta[which], case.data.x[which : which + 1], case.data.y[which].flatten()
        at_zero = theta.clone()
        at_zero[values] = 0.0

        def predicted(t, x=x):
            return case.student.predict(t[None], x).flatten()

        base = predicted(at_zero)
        columns = []
        for place in values:
            one = at_zero.clone()
            one[place] = 1.0
            columns.append(predicted(one) - base)
        matrix = torch.stack(columns, 1)
        solution = torch.linalg.lstsq(matrix, y - base).solution
        if not found.bound[which, values].any():
            torch.testing.assert_close(theta[values], solution, rtol=0, atol=1e-5)
            checked += 1
    assert checked >= 1


# --- noise, batches, threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", NAMES)
def test_without_noise_the_truth_is_found(family):
    case = problem(family, d=2, n=60, replicates=2, hidden=1, noise=0.0)
    found = fit(case.student, case.data, near(case, spread=0.05))
    assert (found.theta - case.theta).abs().max() <= 1e-12 and (found.cost < 1e-26).all()
    assert (found.curvature > 1e-4).all()
    stays = fit(case.student, case.data, case.theta.expand(2, -1))
    assert (stays.theta - case.theta).abs().max() <= 1e-14


def test_without_noise_atoms_too_many_predict_the_truth():
    case = problem("tied", extra=1, d=2, n=60, replicates=2, noise=0.0)
    found = fit(case.student, case.data, near(case), passes=120)
    assert (found.cost < 1e-6).all()
    fresh = regression.sample(case.truth, case.theta, 500, 1, 9)
    error = case.student.predict(found.theta, fresh.x) - case.truth.predict(case.theta, fresh.x)
    assert error.abs().max() < 0.01


@pytest.mark.parametrize("family", ["untied", "nonlinear"])
def test_problems_of_a_batch_do_not_know_each_other(family):
    case = problem(family, extra=1, d=2, n=80, replicates=3, hidden=1)
    owner, start = torch.tensor([2, 0, 2, 1]), case.elsewhere(0.5, 4)
    together = fit(case.student, case.data, start, owner, passes=8)
    assert torch.equal(together.owner, owner)
    for i, which in enumerate(owner.tolist()):
        alone = fit(case.student, case.data.of(torch.tensor([which])), start[i : i + 1], passes=8)
        torch.testing.assert_close(alone.theta[0], together.theta[i], rtol=1e-6, atol=1e-6)
        assert alone.cost[0].item() == pytest.approx(together.cost[i].item(), rel=1e-9)
        assert alone.passes[0] == together.passes[i] and alone.status[0] == together.status[i]


@pytest.mark.parametrize("family", NAMES)
def test_the_order_of_the_atoms_at_the_start_does_not_change_the_fit(family):
    case = problem(family, count=3, d=2, n=80, replicates=2, hidden=1)
    start = near(case)
    one, two = (
        fit(case.student, case.data, s, tolerance=1e-10) for s in (start, permuted(case.student, start, [2, 0, 1]))
    )
    torch.testing.assert_close(one.cost, two.cost, rtol=1e-9, atol=0)
    torch.testing.assert_close(permuted(case.student, one.theta, [2, 0, 1]), two.theta, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["tied", "nonlinear"])
def test_fits_give_equal_bytes_with_one_and_two_threads(family):
    case = problem(family, extra=1, d=4, n=2000, replicates=3, outputs=3)
    start, before, found = near(case), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            found.append(fit(case.student, case.data, start, passes=1))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for name in ("theta", "cost", "gradient", "decrement", "bound"):
            assert getattr(other, name).numpy().tobytes() == getattr(found[0], name).numpy().tobytes(), name
        torch.testing.assert_close(other.curvature, found[0].curvature, rtol=1e-9, atol=1e-12)  # LAPACK's eigenvalues


def test_a_start_is_left_as_it_was_and_a_fit_never_ends_higher():
    case = problem("norga", extra=1, d=2, n=60, replicates=3)
    start = case.elsewhere(1.0)
    kept = start.clone()
    costs = [fit(case.student, case.data, start, passes=passes).cost for passes in (0, 1, 2, 4, 8, 16)]
    assert torch.equal(start, kept)
    for early, late in zip(costs, costs[1:], strict=False):
        assert (late <= early * (1 + 1e-9)).all()
    assert (costs[-1] < 0.5 * costs[0]).all()
    by_hand = 0.5 * (case.student.predict(start, case.data.x) - case.data.y).square().sum((1, 2))
    torch.testing.assert_close(costs[0], by_hand, rtol=1e-12, atol=0)


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(message: str, start=None, data=None, **options) -> None:
    case = problem("tied", d=3, outputs=2, n=10, replicates=2)
    start = case.theta.expand(2, -1).clone() if start is None else start(case.theta.expand(2, -1).clone())
    with pytest.raises(ValueError, match=message):
        fit(case.student, data(case.data) if data else case.data, start, **options)


def replaced(name: str, value: float):
    def change(data):
        tensor = getattr(data, name).clone()
        tensor[1, ..., 3] = value
        return dataclasses.replace(data, **{name: tensor})

    return change


def test_starts_and_owners_that_do_not_fit_are_refused():
    refused(r"start has shape \(8,\); expected \(starts, 8\)", start=lambda s: s[0])
    refused(r"start has shape \(2, 7\); expected \(starts, 8\)", start=lambda s: s[:, 1:])
    refused(r"start has shape \(0, 8\); expected \(starts, 8\)", start=lambda s: s[:0])
    for owner in ([0, 2], [-1, 0], [0]):
        refused("owner names the data set of each of 2 starts, from 0 to 1", owner=torch.tensor(owner))
    refused("owner names the data set of each of 4 starts, from 0 to 1", start=lambda s: torch.cat([s, s]))


def test_starts_outside_of_the_box_and_empty_boxes_are_refused():
    refused(
        r"a start lies outside of Box\(radius=8.0, least_mass=-2.0\); move it in with .clamp", start=lambda s: s * 9
    )
    refused(r"outside of Box\(radius=8.0, least_mass=3.0\)", box=Box(8.0, 3.0))
    for box in (Box(0.0, -2.0), Box(-1.0, -2.0), Box(2.0, 2.0), Box(math.nan, -2.0)):
        refused("is empty; expected a positive radius above the least log-mass", box=box)


@pytest.mark.parametrize("name", ["x", "y", "lse", "content"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(name, value):
    refused(f"{name} holds numbers that are not finite", data=replaced(name, value))
    refused("start holds numbers that are not finite", start=lambda s: s * value)


def test_samples_of_another_model_and_wrong_options_are_refused():
    other = problem("tied", d=4, outputs=2, n=10, replicates=2)
    refused("the sample has d = 4 and E = 2; the model has d = 3 and E = 2", data=lambda _: other.data)
    refused("tolerance 0.0, passes 10; expected a positive one and 0 or more", tolerance=0.0, passes=10)
    refused("tolerance 1e-06, passes -1", passes=-1)
    assert isinstance(fit(other.student, other.data, other.theta.expand(2, -1), passes=0), Fits)
