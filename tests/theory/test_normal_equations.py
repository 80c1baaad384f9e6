"""Cost, gradient, JᵀJ and Hessian against autograd, whatever the chunks, with memory that does not grow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.measure import peak_memory
from tests.theory.mixtures import KINDS, pieces, plain_predict, problem
from vpt_analysis.theory import normal_equations, symbolic
from vpt_analysis.theory.normal_equations import Equations, Normal

ALL = pytest.mark.parametrize("kind", KINDS)
SIZES = pytest.mark.parametrize(("d", "outputs", "count"), [(1, 1, 1), (3, 2, 2), (2, 4, 3)])


def by_autograd(case, theta: torch.Tensor, owner: torch.Tensor) -> list[Normal]:
    """One problem after the other; ``Normal`` with JᵀJ and with the Hessian."""
    data = case.data
    found: dict[str, list] = {"cost": [], "gradient": [], "gauss": [], "hessian": []}
    for one, which in zip(theta, owner.tolist(), strict=True):
        x, y = data.x[which : which + 1], data.y[which]

        def residual(t, x=x, y=y):
            return (case.student.predict(t[None], x)[0] - y).flatten()

        def cost(t, residual=residual):
            return 0.5 * residual(t).square().sum()

        jacobian = torch.func.jacrev(residual)(one)
        found["cost"].append(cost(one))
        found["gradient"].append(torch.func.grad(cost)(one))
        found["gauss"].append(jacobian.T @ jacobian)
        found["hessian"].append(torch.func.hessian(cost)(one))
    stacked = {k: torch.stack(v) for k, v in found.items()}
    return [Normal(stacked["cost"], stacked["gradient"], stacked[matrix]) for matrix in ("gauss", "hessian")]


def close(mine: torch.Tensor, true: torch.Tensor, bound: float = 1e-11) -> None:
    """Within ``bound`` of the largest entry of each problem."""
    assert mine.shape == true.shape and mine.dtype == torch.float64
    mine, true = mine.reshape(len(true), -1), true.reshape(len(true), -1)
    assert ((mine - true).abs().amax(1) <= bound * true.abs().amax(1)).all()


@ALL
@SIZES
def test_cost_gradient_and_both_matrices_are_those_of_autograd(kind, d, outputs, count):
    case = problem(kind, count=count, d=d, outputs=outputs, n=13, replicates=2)
    theta, owner = case.elsewhere(0.6), torch.arange(2)
    gauss, hessian = by_autograd(case, theta, owner)
    equations = Equations(case.student, case.data)
    for exact, true in ((None, gauss), (torch.zeros(2, dtype=bool), gauss), (torch.ones(2, dtype=bool), hessian)):
        found = equations.at(theta, owner, exact)
        close(found.cost, true.cost)
        close(found.gradient, true.gradient)
        close(found.matrix, true.matrix)
        assert (found.matrix - found.matrix.mT).abs().max() <= 1e-12 * found.matrix.abs().max()
    assert (gauss.matrix - hessian.matrix).abs().max() > 1e-3 * gauss.matrix.abs().max()  # they are not one thing


@ALL
def test_problems_may_share_data_sets_and_each_has_its_own_matrix(kind):
    case = problem(kind, extra=1, n=11, replicates=3)
    owner = torch.tensor([2, 0, 2, 1, 2])
    theta, exact = case.elsewhere(0.6, 5), torch.tensor([True, False, False, True, True])
    gauss, hessian = by_autograd(case, theta, owner)
    found = Equations(case.student, case.data).at(theta, owner, exact)
    close(found.cost, gauss.cost)
    close(found.gradient, gauss.gradient)
    close(found.matrix, torch.where(exact[:, None, None], hessian.matrix, gauss.matrix))
    turned = Equations(case.student, case.data).at(theta[:3], torch.tensor([1, 2, 0]))  # all of them, in another order
    close(turned.cost, by_autograd(case, theta[:3], torch.tensor([1, 2, 0]))[0].cost)


@ALL
def test_the_cost_is_that_of_plain_loops(kind):
    case = problem(kind, n=6, replicates=1)
    theta = case.elsewhere(0.6)
    found = Equations(case.student, case.data).at(theta, torch.arange(1))
    error = plain_predict(case.student, theta[0], case.data.x[0]) - case.data.y[0]
    assert found.cost.item() == pytest.approx(0.5 * error.square().sum().item(), rel=1e-12)


@ALL
@pytest.mark.parametrize("chunk", [1, 6, 14, 1000])
def test_chunks_change_nothing_but_rounding(kind, chunk, monkeypatch):
    """23 samples: chunks of one, chunks with a rest, and all at once."""
    case = problem(kind, extra=1, n=23, replicates=2)
    owner, exact = torch.tensor([1, 0, 1]), torch.tensor([True, False, True])
    theta = case.elsewhere(0.6, 3)
    whole = Equations(case.student, case.data).at(theta, owner, exact)
    calls = []
    inner = Equations._chunk
    monkeypatch.setattr(Equations, "_chunk", lambda self, *given: calls.append(1) or inner(self, *given))
    monkeypatch.setattr(normal_equations, "CHUNK", chunk)
    cut = Equations(case.student, case.data).at(theta, owner, exact)
    assert len(calls) == {1: 23, 6: 12, 14: 6, 1000: 1}[chunk]  # a chunk is shared by three problems
    close(cut.cost, whole.cost, 1e-13)
    close(cut.gradient, whole.gradient, 1e-13)
    close(cut.matrix, whole.matrix, 1e-13)


@pytest.mark.parametrize("kind", ["tied", "nonlinear"])
@pytest.mark.parametrize("owner", [[0, 1, 2], [0, 0, 1, 1, 2, 2]])
def test_memory_above_the_inputs_does_not_grow_with_n(kind, owner, monkeypatch):
    monkeypatch.setattr(normal_equations, "CHUNK", 3000)
    owner, peaks = torch.tensor(owner), []
    for n in (2000, 8000):
        case = problem(kind, extra=1, n=n, replicates=3)
        theta, exact = case.elsewhere(0.6, len(owner)), torch.ones(len(owner), dtype=bool)
        equations = Equations(case.student, case.data)
        peaks.append(peak_memory(lambda e=equations, t=theta, x=exact: e.at(t, owner, x)))
    assert peaks[0] > 1e5 and abs(peaks[1] / peaks[0] - 1) < 0.01


def test_log_masses_and_values_move_the_function_as_the_derivation_says():
    """One sample, so that the gradient is (f − y) times the Jacobian: ∂f/∂s = g (e − f) and ∂f/∂e = g, from the proof
    of the gate's derivatives with all N₀ + L experts in it."""
    case = problem("untied", count=2, n=1, replicates=1, experts=3)
    theta = case.elsewhere(0.6)
    found = Equations(case.student, case.data).at(theta, torch.arange(1))
    proved = symbolic.prove("gate")
    _, _, by_score, by_mass, by_expert = [proved.function(s.right) for s in proved.steps if s.residual is not None]
    mixture = proved.function("f")
    scores, outputs = (np.array(piece) for piece in pieces(case.student, theta[0], case.data.x[0, :, 0].tolist()))
    masses = np.concatenate([np.zeros(3), theta[0, :2].numpy()])
    given = {"s": scores - masses, "b": masses, "e": outputs, "L": 5}
    y = case.data.y[0, :, 0].tolist()
    error = [mixture(**given, c=c + 1) - y[c] for c in range(2)]
    values = case.student.prompts.blocks(torch.arange(theta.shape[1])[None])["value"][0]  # where theta keeps them
    gauss = found.matrix[0]
    for atom in range(2):
        at = {**given, "m": 4 + atom}
        score = [by_score(**at, c=c + 1) for c in range(2)]
        assert score == pytest.approx([by_mass(**at, c=c + 1) for c in range(2)], rel=1e-12)
        assert found.gradient[0, atom].item() == pytest.approx(np.dot(error, score), rel=1e-12)
        assert gauss[atom, atom].item() == pytest.approx(np.dot(score, score), rel=1e-12)
        for a in range(2):
            gate = [by_expert(**at, c=c + 1, a=a + 1) for c in range(2)]
            assert found.gradient[0, values[atom, a]].item() == pytest.approx(np.dot(error, gate), rel=1e-12)
            assert gauss[atom, values[atom, a]].item() == pytest.approx(np.dot(score, gate), rel=1e-11)


def test_normals_are_chosen_and_replaced_by_index():
    case = problem("tied", n=9, replicates=3)
    theta = case.elsewhere(0.6)
    equations = Equations(case.student, case.data)
    every = equations.at(theta, torch.arange(3))
    index = torch.tensor([2, 0])
    two = every.of(index)
    close(two.matrix, equations.at(theta[index], index).matrix, 1e-13)
    moved = equations.at(theta[index] + 0.1, index)
    every.put(index, moved)
    for name in ("cost", "gradient", "matrix"):
        assert torch.equal(getattr(every, name)[index], getattr(moved, name))
    assert torch.equal(every.cost[1], equations.at(theta, torch.arange(3)).cost[1])
