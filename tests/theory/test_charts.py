"""Coordinates of two atoms that share one place: what they mean, and their derivatives against autograd."""

from __future__ import annotations

import pytest
import torch

from tests.theory.mixtures import KINDS, problem
from vpt_analysis.theory.charts import Merged, nearest, places

ALL = pytest.mark.parametrize("kind", KINDS)
DTYPE = torch.float64


def chart(kind: str, count: int = 3, problems: int = 3) -> tuple[Merged, torch.Tensor, object]:
    """Of problems whose nearest atoms differ, none of them held."""
    case = problem(kind, count=count, n=1)
    theta = case.elsewhere(0.7, problems)
    return Merged(case.student.prompts, theta, torch.zeros_like(theta, dtype=bool)), theta, case.student


def by_hand(model, theta: torch.Tensor) -> tuple[int, int]:
    """The two nearest atoms of one problem: all pairs, over what belongs to one atom alone."""
    prompts, atoms = model.prompts, model.atoms(theta[None])
    own = [b[0].flatten(1) for k, b in atoms.blocks.items() if k not in prompts.shared]
    flat = torch.cat(own, 1)
    pairs = [(i, j) for i in range(len(flat)) for j in range(i + 1, len(flat))]
    return min(pairs, key=lambda p: float((flat[p[0]] - flat[p[1]]).norm()))


@ALL
def test_places_are_where_the_parameters_are_packed(kind):
    case = problem(kind, count=3, n=1)
    prompts, theta = case.student.prompts, case.elsewhere(1.0, 1)
    masses, own = places(prompts)
    atoms = case.student.atoms(theta)
    assert torch.equal(theta[0, masses], atoms.log_mass[0])
    blocks = [b[0].flatten(1) for k, b in atoms.blocks.items() if k not in prompts.shared]
    assert torch.equal(theta[0, own], torch.cat(blocks, 1))
    rest = prompts.size - masses.numel() - own.numel()
    assert rest == sum(theta.new_zeros(prompts.shapes[k]).numel() for k in prompts.shared)


def test_the_nearest_atoms_are_found_and_equal_ones_are_at_distance_zero():
    atoms = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [0.5, 0.0]], [[1.0, 1.0], [9.0, 9.0], [9.0, 9.0]]], dtype=DTYPE)
    assert [set(pair) for pair in zip(*(t.tolist() for t in nearest(atoms)), strict=True)] == [{0, 2}, {1, 2}]


@ALL
def test_coordinates_are_total_mass_and_mean_of_the_two_nearest_atoms(kind):
    merged, theta, model = chart(kind, problems=5)
    masses, own = places(model.prompts)
    for one, eta, first, second in zip(theta, merged.eta, merged.mass_1.tolist(), merged.mass_2.tolist(), strict=True):
        assert {first, second} == set(by_hand(model, one))
        b_1, b_2 = one[masses[first]], one[masses[second]]
        x_1, x_2 = one[own[first]], one[own[second]]
        total = b_1.exp() + b_2.exp()
        expected = one.clone()
        expected[masses[first]], expected[masses[second]] = total.log(), b_1 - b_2
        expected[own[first]] = (b_1.exp() * x_1 + b_2.exp() * x_2) / total
        expected[own[second]] = x_1 - x_2
        torch.testing.assert_close(eta, expected, rtol=1e-13, atol=1e-14)
    assert len({frozenset(p) for p in zip(merged.mass_1.tolist(), merged.mass_2.tolist(), strict=True)}) > 1


@ALL
def test_no_step_is_no_move_and_a_step_is_undone_by_the_coordinates_of_where_it_leads(kind):
    merged, theta, model = chart(kind)
    torch.testing.assert_close(merged.moved(torch.zeros_like(theta)), theta, rtol=1e-13, atol=1e-14)
    step = 1e-3 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(1), dtype=DTYPE)
    there = merged.moved(step)
    assert (there - theta).abs().max() > 1e-4
    again = Merged(model.prompts, there, torch.zeros_like(theta, dtype=bool))
    assert torch.equal(again.mass_1, merged.mass_1)  # a short step: the same two atoms
    torch.testing.assert_close(again.eta, merged.eta + step, rtol=1e-12, atol=1e-13)


@ALL
def test_jacobian_and_bend_are_those_of_autograd(kind):
    merged, theta, _ = chart(kind)
    zero = torch.zeros_like(theta)
    jacobian = torch.func.jacrev(lambda step: merged.moved(step).sum(0))(zero)  # problems do not meet: (p, P, p)
    torch.testing.assert_close(merged.jacobian(), jacobian.transpose(0, 1), rtol=1e-12, atol=1e-14)
    gradient = torch.randn(theta.shape, generator=torch.Generator().manual_seed(2), dtype=DTYPE)
    hessian = torch.func.hessian(lambda step: (gradient * merged.moved(step)).sum())(zero)
    for i, bend in enumerate(merged.bend(gradient)):
        torch.testing.assert_close(bend, hessian[i, :, i], rtol=1e-11, atol=1e-14)
        assert bend.abs().max() > 1e-3
    assert (hessian[0, :, 1] == 0).all()


@ALL
def test_a_move_apart_keeps_the_mean_and_a_change_of_shares_keeps_the_total(kind):
    """What the valley keeps: along Δ and u, mass and mean of the two atoms stay to rounding."""
    merged, theta, model = chart(kind, problems=1)
    masses, own = places(model.prompts)
    first, second = merged.mass_1.item(), merged.mass_2.item()
    step = torch.zeros_like(theta)
    step[0, own[second]] = 0.3  # Δ
    step[0, masses[second]] = -0.8  # u
    there = merged.moved(step)[0]

    def moments(t):
        weights = t[masses].exp()
        total = weights[first] + weights[second]
        return total, (weights[first] * t[own[first]] + weights[second] * t[own[second]]) / total

    for before, after in zip(moments(theta[0]), moments(there), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-13, atol=1e-14)
    assert (there[own[first]] - theta[0, own[first]]).abs().max() > 0.05


@ALL
def test_held_coordinates_and_single_atoms_keep_their_own_coordinates(kind):
    case = problem(kind, count=3, n=1)
    theta = case.elsewhere(0.7, 4)
    free = Merged(case.student.prompts, theta, torch.zeros_like(theta, dtype=bool))
    masses, own = places(case.student.prompts)
    held = torch.zeros_like(theta, dtype=bool)
    held[0, masses[free.mass_1[0]]] = True  # one of the two, its mass
    held[1, own[free.mass_2[1], 0]] = True  # one of the two, a coordinate
    third = 3 - free.mass_1[2] - free.mass_2[2]
    held[2, own[third]] = True  # the third atom: the two are free
    merged = Merged(case.student.prompts, theta, held)
    assert merged.plain.tolist() == [True, True, False, False]
    assert torch.equal(merged.eta[:2], theta[:2]) and torch.equal(merged.eta[2:], free.eta[2:])
    step = 0.1 * torch.ones_like(theta)
    assert torch.equal(merged.moved(step)[:2], theta[:2] + step[:2])
    eye = torch.eye(theta.shape[1], dtype=DTYPE)
    assert torch.equal(merged.jacobian()[0], eye) and not torch.equal(merged.jacobian()[2], eye)
    bend = merged.bend(torch.ones_like(theta))
    assert not bend[:2].any() and bend[2].any()
    alone = problem(kind, count=1, n=1)
    theta = alone.elsewhere(0.7, 2)
    single = Merged(alone.student.prompts, theta, torch.zeros_like(theta, dtype=bool))
    step = torch.full_like(theta, 0.1)
    assert single.plain.all() and torch.equal(single.eta, theta) and torch.equal(single.moved(step), theta + step)
    assert torch.equal(single.jacobian()[0], torch.eye(theta.shape[1], dtype=DTYPE))
    assert not single.bend(torch.ones_like(theta)).any()


@ALL
def test_which_atom_is_named_first_does_not_matter_to_a_step(kind):
    """With the two atoms exchanged, the same step (b and the mean as before, u and Δ with their signs changed) leads
    to the same measure."""
    merged, theta, model = chart(kind, problems=1)
    masses, own = places(model.prompts)
    first, second = merged.mass_1.item(), merged.mass_2.item()
    order = torch.arange(model.prompts.count)
    order[first], order[second] = second, first
    exchanged = theta.clone()
    exchanged[:, masses], exchanged[:, own] = theta[:, masses[order]], theta[:, own[order]]
    other = Merged(model.prompts, exchanged, torch.zeros_like(theta, dtype=bool))
    same_order = other.mass_1.item() == first
    step = 0.2 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(3), dtype=DTYPE)
    turned = step.clone()
    if same_order:  # the first is now the other atom
        turned[0, masses[second]], turned[0, own[second]] = -step[0, masses[second]], -step[0, own[second]]
    there, elsewhere = merged.moved(step), other.moved(turned)
    back = elsewhere.clone()
    back[:, masses], back[:, own] = elsewhere[:, masses[order]], elsewhere[:, own[order]]
    torch.testing.assert_close(back, there, rtol=1e-12, atol=1e-13)


def test_far_apart_masses_do_not_overflow():
    """An atom of mass e⁻⁴⁰ beside one of e⁴⁰: the total is the large one, and both come back."""
    case = problem("untied", count=2, n=1)
    theta = case.elsewhere(0.5, 1)
    theta[0, :2] = torch.tensor([40.0, -40.0], dtype=DTYPE)
    merged = Merged(case.student.prompts, theta, torch.zeros_like(theta, dtype=bool))
    torch.testing.assert_close(merged.moved(torch.zeros_like(theta)), theta, rtol=1e-13, atol=1e-13)
    assert torch.isfinite(merged.jacobian()).all() and torch.isfinite(merged.bend(torch.ones_like(theta))).all()
