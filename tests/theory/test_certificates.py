"""What a fit says of itself, computed again with autograd; and bad ends, which must not be certified."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.theory.mixtures import NAMES, Problem, problem
from vpt_analysis.theory import regression, starts
from vpt_analysis.theory.atoms import Atoms
from vpt_analysis.theory.least_squares import BOX, Box, Fits, fit


def near(case: Problem, box: Box = BOX) -> torch.Tensor:
    found = starts.near(case.student, case.truth, case.theta, len(case.data), 0)
    return found.clamp(*box.bounds(case.student))


def again(case: Problem, found: Fits, box: Box) -> dict[str, torch.Tensor]:
    """The certificate from the definitions in the docstring of ``Fits``, by autograd, one problem after the other."""
    low, high = box.bounds(case.student)
    n, outputs = case.data.n, case.data.y.shape[1]
    rows = []
    for theta, which in zip(found.theta, found.owner.tolist(), strict=True):
        x, y = case.data.x[which : which + 1], case.data.y[which]

        def cost(t, x=x, y=y):
            return 0.5 * (case.student.predict(t[None], x)[0] - y).square().sum()

        g, hessian = torch.func.grad(cost)(theta), torch.func.hessian(cost)(theta)
        held = ((theta == low) & (g > 0)) | ((theta == high) & (g < 0))
        free = (~held).nonzero()[:, 0]
        h, g = hessian[free][:, free], g[free]
        lowest = torch.linalg.eigvalsh(h)[0]
        decrement = 0.5 * g @ torch.linalg.solve(h, g) if lowest > 0 else torch.tensor(math.inf, dtype=theta.dtype)
        variance = 2 * cost(theta) / (n * outputs)
        rows.append((cost(theta), g.norm() / n, decrement / variance, lowest / n, held))
    names = ("cost", "gradient", "decrement", "curvature", "bound")
    return {name: torch.stack(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.mark.parametrize("passes", [0, 3, 60])
@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("family", NAMES)
def test_certificates_are_those_of_autograd(family, extra, passes):
    """Wherever a fit ends: at its start, on the way, at a minimum; on the boundary of the box and inside."""
    case = problem(family, extra=extra, d=2, n=70, replicates=3, hidden=1)
    box = Box(8.0, -1.0)
    found = fit(case.student, case.data, near(case, box), box=box, passes=passes)
    true = again(case, found, box)
    torch.testing.assert_close(found.cost, true["cost"], rtol=1e-11, atol=0)
    assert torch.equal(found.bound, true["bound"])
    scale = true["curvature"].abs().max()
    torch.testing.assert_close(found.curvature, true["curvature"], rtol=1e-7, atol=1e-11 * float(scale.clamp_min(1)))
    torch.testing.assert_close(found.gradient, true["gradient"], rtol=1e-6, atol=1e-13)
    clear = true["curvature"].abs() > 1e-9
    torch.testing.assert_close(found.decrement[clear], true["decrement"][clear], rtol=1e-4, atol=1e-12)
    for i, status in enumerate(found.status):
        good = status == "converged" and true["curvature"][i] > 0 and true["decrement"][i] <= 1e-6 * 1.001
        assert found.certified[i] == good
        assert status in ("converged", "flat", "limit", "stuck")


def test_the_decrement_is_what_a_newton_step_gains():
    case = problem("tied", d=2, n=200, replicates=3)
    rough = fit(case.student, case.data, near(case), passes=2)
    fine = fit(case.student, case.data, near(case), tolerance=1e-12)
    variance = 2 * rough.cost / (200 * 2)
    gain = (rough.cost - fine.cost) / variance
    assert not rough.certified.any() and fine.certified.all()
    assert (rough.decrement > 1e-6).all()
    torch.testing.assert_close(rough.decrement, gain, rtol=0.3, atol=0)
    assert (fine.decrement <= 1e-12).all()


@pytest.mark.parametrize("family", NAMES)
def test_a_fit_that_is_stopped_early_is_not_certified(family):
    case = problem(family, extra=1, d=2, n=80, replicates=3, hidden=1)
    found = fit(case.student, case.data, near(case), passes=2)
    assert set(found.status) == {"limit"} and not found.certified.any()
    assert (found.decrement > 1e-6).all()
    assert found.passes.tolist() == [3, 3, 3]  # two steps, and the one over the data at the start


def together(case: Problem, mass: torch.Tensor, blocks: dict) -> torch.Tensor:
    """Two copies of one atom, with half of its mass each."""
    two = {k: b[:, [0, 0]] for k, b in blocks.items()}
    return case.student.pack(Atoms((mass - math.log(2))[:, [0, 0]], two))


@pytest.mark.parametrize("family", NAMES)
def test_from_two_equal_atoms_a_fit_moves_off_or_says_that_it_is_no_minimum(family):
    """By symmetry the gradient cannot take equal atoms apart; the truth has two different ones, so that the best
    common place is a saddle."""
    case = problem(family, d=2, n=100, replicates=2, hidden=1)
    single = regression.model(family, case.truth.known, 1)
    atoms = single.atoms(regression.teacher(single, 3))
    start = together(case, atoms.log_mass, atoms.blocks).expand(2, -1)
    found = fit(case.student, case.data, start)
    best = fit(case.student, case.data, near(case))
    assert best.certified.all()
    own = [k for k in case.student.prompts.shapes if k not in case.student.prompts.shared]
    for i in range(2):
        blocks = case.student.atoms(found.theta[i : i + 1]).blocks
        apart = max(float((blocks[k][0, 0] - blocks[k][0, 1]).abs().max()) for k in own)
        if apart < 1e-3:
            assert not found.certified[i] and found.cost[i] > 2 * best.cost[i]
            assert found.curvature[i] < 0 or found.status[i] == "limit"
        if found.certified[i]:
            assert apart > 0.1 and found.cost[i] < 1.5 * best.cost[i]
    if family == "untied":  # here the symmetry survives rounding
        assert not found.certified.any() and (found.curvature < -1e-2).all()
        assert torch.isinf(found.decrement).all() and "converged" not in found.status


@pytest.mark.parametrize("family", NAMES)
def test_the_best_common_place_of_two_atoms_is_a_saddle_and_is_seen_as_one(family):
    """The fit of one atom, doubled: all gradients vanish, the Hessian has a negative eigenvalue."""
    case = problem(family, d=2, n=100, replicates=1, hidden=1)
    single = regression.model(family, case.truth.known, 1)
    theta = regression.teacher(single, 3)
    one = fit(single, case.data, theta, tolerance=1e-12, passes=120)
    atoms = single.atoms(one.theta)
    saddle = together(case, atoms.log_mass, atoms.blocks)
    if one.status[0] != "converged" or (saddle[:, :2] < BOX.least_mass).any():
        pytest.fail("the fit of one atom did not end well: choose another start")
    found = fit(case.student, case.data, saddle, passes=0)
    assert found.cost[0].item() == pytest.approx(one.cost[0].item(), rel=1e-12)
    assert found.gradient[0] < 1e-5 and found.curvature[0] < 0
    assert not found.certified[0] and torch.isinf(found.decrement[0])


@pytest.mark.parametrize("step", [0.0, 0.3])
@pytest.mark.parametrize("family", ["untied", "norga"])
def test_a_flat_valley_is_not_certified(family, step):
    """Halves of an atom with values v ± δ are the truth, whatever δ is (T9): a minimum, and not a strict one."""
    case = problem(family, extra=1, d=2, n=100, replicates=2, noise=0.0)
    atoms, place = case.truth.atoms(case.theta), [0, 0, 1]
    blocks = {k: b[:, place].clone() for k, b in atoms.blocks.items()}
    blocks["value"][0, 0] += step
    blocks["value"][0, 1] -= step
    mass = atoms.log_mass[:, place] - math.log(2) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    start = case.student.pack(Atoms(mass, blocks)).expand(2, -1)
    found = fit(case.student, case.data, start)
    assert (found.cost < 1e-25).all() and not found.certified.any()
    assert "converged" not in found.status and (found.curvature.abs() < 1e-12).all()
    noise = 0.02 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not fit(case.student, case.data, start + noise).certified.any()


def test_a_converged_fit_with_no_positive_curvature_is_not_certified():
    case = problem("tied", d=2, n=60, replicates=2)
    found = fit(case.student, case.data, near(case))
    assert found.certified.tolist() == [True, True]
    planted = dataclasses.replace(found, curvature=torch.tensor([0.0, 1e-9], dtype=torch.float64))
    assert planted.certified.tolist() == [False, True]
    planted = dataclasses.replace(found, status=("flat", "stuck"))
    assert planted.certified.tolist() == [False, False]
