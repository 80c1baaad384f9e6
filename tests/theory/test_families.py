"""Families of prompt experts: their derivatives against autograd, the symbolic ones, and the layout of parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.theory.mixtures import KINDS, SIGMA, problem
from vpt_analysis.theory import symbolic
from vpt_analysis.theory.atoms import Atoms
from vpt_analysis.theory.families import ACTIVATIONS, FAMILIES, family
from vpt_analysis.theory.frozen import frozen, normal_draws

ALL = pytest.mark.parametrize("kind", KINDS)
SIZES = pytest.mark.parametrize(("count", "d", "outputs"), [(1, 2, 1), (2, 3, 2), (3, 2, 4)])


def at_one_sample(kind: str, count: int, d: int, outputs: int):
    """The prompts, predictors q (C,) and o (O, E) of one sample, and its input x (1, d, 1)."""
    case = problem(kind, count=count, d=d, outputs=outputs, n=1)
    x = case.data.x[:1]
    q, o = case.truth.prompts.predictors(case.elsewhere(0.8, 1), x)
    return case.truth.prompts, q[0, :, 0], o[0], x


def by_autograd(prompts, x, q, o):
    """First and second derivatives of scores (L,) and experts (L, E) with respect to q and o."""

    def scores(q, o):
        return prompts.experts(q[None, :, None], o[None], x)[0][0, :, 0]

    def experts(q, o):
        return prompts.experts(q[None, :, None], o[None], x)[1][0, :, :, 0]

    def second(of, a, b):
        return torch.func.jacfwd(torch.func.jacrev(of, a), b)(q, o)

    first = [torch.func.jacrev(of, (0, 1))(q, o) for of in (scores, experts)]
    orders = [(of, a, b) for of in (scores, experts) for a, b in ((0, 0), (0, 1), (1, 1))]
    return first, {(of.__name__, a, b): second(of, a, b) for of, a, b in orders}


def number(value: torch.Tensor) -> float:
    assert value.shape[0] == 1 and value.shape[-1] == 1
    return float(value.flatten()[0])


@ALL
@SIZES
def test_first_derivatives_are_those_of_autograd_and_the_rest_is_zero(kind, count, d, outputs):
    prompts, q, o, x = at_one_sample(kind, count, d, outputs)
    found = prompts.derivatives(q[None, :, None], o[None], x)
    (score_q, score_o), (expert_q, expert_o) = by_autograd(prompts, x, q, o)[0]
    score, expert, value = torch.zeros_like(score_q), torch.zeros_like(expert_q), torch.zeros_like(expert_o)
    for (c, j), slope in found.score.items():
        score[j, c] = number(slope)
    for (c, j), slope in found.expert.items():
        assert slope.shape[1:] == (outputs, 1)
        expert[j, :, c] = slope[0, :, 0]
    for (k, j), slope in found.value.items():
        value[j, :, k, :] = number(slope) * torch.eye(outputs, dtype=torch.float64)
    for mine, true in ((score, score_q), (expert, expert_q), (value, expert_o)):
        torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-14)
    assert not score_o.any()  # scores do not depend on value predictors


@ALL
@SIZES
def test_second_derivatives_are_those_of_autograd_and_the_rest_is_zero(kind, count, d, outputs):
    prompts, q, o, x = at_one_sample(kind, count, d, outputs)
    found = prompts.derivatives(q[None, :, None], o[None], x)
    true = by_autograd(prompts, x, q, o)[1]
    score, expert = torch.zeros_like(true["scores", 0, 0]), torch.zeros_like(true["experts", 0, 0])
    mixed = torch.zeros_like(true["experts", 0, 1])
    for (c, e, j), bend in found.score_bends.items():
        assert c <= e
        score[j, c, e] = score[j, e, c] = number(bend)
    for (c, e, j), bend in found.expert_bends.items():
        assert c <= e
        expert[j, :, c, e] = expert[j, :, e, c] = bend[0, :, 0]
    for (c, k, j), bend in found.mixed_bends.items():
        mixed[j, :, c, k, :] = number(bend) * torch.eye(outputs, dtype=torch.float64)
    for mine, of in ((score, ("scores", 0, 0)), (expert, ("experts", 0, 0)), (mixed, ("experts", 0, 1))):
        torch.testing.assert_close(mine, true[of], rtol=1e-11, atol=1e-14)
    for nothing in (("scores", 0, 1), ("scores", 1, 1), ("experts", 1, 1)):
        assert not true[nothing].any()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_what_they_are_called_with_two_derivatives(name):
    z = torch.tensor([-30.0, -2.5, -0.3, 1e-9, 0.4, 1.7, 30.0], dtype=torch.float64, requires_grad=True)
    value, slope, bend = ACTIVATIONS[name](z)
    plain = torch.tensor([SIGMA[name](one) for one in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(value, plain, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(slope, torch.autograd.grad(value.sum(), z, create_graph=True)[0], rtol=1e-12, atol=1e-15)
    true = torch.autograd.grad(slope.sum(), z)[0] if name != "relu" else torch.zeros_like(z)
    torch.testing.assert_close(bend, true, rtol=1e-11, atol=1e-15)


# --- against the derivations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "proof"), [("linear", "linear_expert"), ("nonlinear", "nonlinear_expert")])
def test_adaptive_experts_and_their_jacobians_are_the_symbolic_ones(kind, proof):
    case = problem(kind, count=2, d=3, outputs=2, n=1)
    prompts, theta, x = case.truth.prompts, case.elsewhere(0.8, 1), case.data.x[:1]
    blocks = {k: block[0] for k, block in case.truth.atoms(theta).blocks.items()}

    def experts(x):
        return prompts.experts(*prompts.predictors(theta, x), x)[1][0, :, :, 0]

    jacobian = torch.func.jacrev(experts)(x)[:, :, 0, :, 0]  # (L, E, d)
    of = symbolic.prove(proof).function
    functions = {"sigma": np.tanh, "sigma_prime": lambda z: 1 - np.tanh(z) ** 2} if kind == "nonlinear" else {}
    expert, slope = of("e", **functions), of("J", **functions)
    for atom in range(2):
        out = blocks["out"][atom] if kind == "nonlinear" else prompts.known.out
        given = {"V": prompts.known.value.numpy(), "U": out.numpy(), "W": blocks["weight"][atom].numpy(), "d": 3,
                 "r": 2, "x": x[0, :, 0].numpy()}  # fmt: skip
        for c in range(2):
            assert float(experts(x)[atom, c]) == pytest.approx(expert(**given, c=c + 1), rel=1e-12)
            for m in range(3):
                assert float(jacobian[atom, c, m]) == pytest.approx(slope(**given, c=c + 1, m=m + 1), rel=1e-12)


@pytest.mark.parametrize("kind", ["tied", "untied", "norga"])
def test_T4_static_experts_do_not_move_with_the_input_and_scores_do(kind):
    case = problem(kind, count=2, n=1)
    prompts, theta, x = case.truth.prompts, case.elsewhere(0.8, 1), case.data.x[:1]
    expert = torch.func.jacrev(lambda x: prompts.experts(*prompts.predictors(theta, x), x)[1])(x)
    score = torch.func.jacrev(lambda x: prompts.experts(*prompts.predictors(theta, x), x)[0])(x)
    assert not expert.any() and score.abs().min() > 1e-6


# --- parameters -------------------------------------------------------------------------------------------------------


@ALL
@SIZES
def test_predictors_are_one_linear_image_of_the_parameters(kind, count, d, outputs):
    case = problem(kind, count=count, d=d, outputs=outputs, n=4)
    prompts, theta = case.truth.prompts, case.elsewhere(1.0)
    keys, values = prompts.linear(prompts.blocks(theta))
    image = theta @ prompts.pullback().T
    torch.testing.assert_close(torch.cat([keys.flatten(1), values.flatten(1)], 1), image, rtol=1e-13, atol=1e-14)
    features = torch.cat([case.data.x, torch.ones_like(case.data.x[:, :1])], 1)
    q, o = prompts.predictors(theta, case.data.x)
    torch.testing.assert_close(q, keys @ features, rtol=1e-12, atol=1e-13)
    assert torch.equal(o, values)


@ALL
def test_atoms_packed_and_unpacked_are_the_same(kind):
    case = problem(kind, count=3)
    theta = case.elsewhere(1.0)
    atoms = case.truth.atoms(theta)
    assert atoms.count == 3 and torch.equal(atoms.log_mass, theta[:, :3])
    assert {k: tuple(b.shape[2:]) for k, b in atoms.blocks.items()} == case.truth.prompts.shapes
    assert torch.equal(case.truth.pack(atoms), theta)
    assert torch.equal(case.truth.pack(case.truth.atoms(case.theta)), case.theta)


def test_numbers_of_parameters_are_those_of_the_table():
    known = frozen(d=5, outputs=3, hidden=2)
    sizes = {name: family(name, known, 4).size for name in FAMILIES}
    assert sizes == {
        "tied": 4 * (1 + 5), "untied": 4 * (1 + 5 + 3), "norga": 4 * (1 + 5 + 3), "linear": 4 * (1 + 2 * 5),
        "nonlinear": 4 * (1 + 2 * 5) + 5 * 2,
    }  # fmt: skip


def test_tied_prompts_are_untied_ones_with_projected_keys_and_values():
    known = frozen(3, 2)
    tied, untied = family("tied", known, 2), family("untied", known, 2)
    normal = normal_draws(0)
    mass, prompt, x = normal(1, 2), normal(1, 2, 3), normal(1, 3, 6)
    projected = Atoms(mass, {"key": prompt @ known.key.T, "value": prompt @ known.value.T})
    theta = untied.pack(projected)
    one = tied.experts(*tied.predictors(tied.pack(Atoms(mass, {"prompt": prompt})), x), x)
    two = untied.experts(*untied.predictors(theta, x), x)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-14)


def test_norga_without_its_residual_is_untied_and_with_it_has_the_published_gate():
    """Eq. 12 of arXiv 2405.14124: t + α tanh(τ t)."""
    plain, residual = problem("untied"), problem("norga-other")
    theta, x = plain.elsewhere(1.0), plain.data.x
    without = family("norga", plain.truth.known, 2, alpha=0.0)
    torch.testing.assert_close(
        without.experts(*without.predictors(theta, x), x)[0],
        plain.truth.prompts.experts(*plain.truth.prompts.predictors(theta, x), x)[0],
        rtol=1e-13,
        atol=1e-14,
    )
    prompts = residual.truth.prompts
    score = prompts.experts(*prompts.predictors(theta, x), x)[0][0, 1, 3].item()
    t = float(theta[0, 5:8] @ x[0, :, 3])  # theta: 2 log-masses, 2 keys of 3, 2 values of 2
    assert score == pytest.approx(t + 0.7 * math.tanh(1.6 * t) + float(theta[0, 1]), rel=1e-12)


def test_atoms_of_another_family_or_number_are_refused():
    known = frozen(3, 2)
    tied, untied = family("tied", known, 2), family("untied", known, 2)
    atoms = tied.unpack(torch.zeros(1, tied.size, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"the untied family with 2 atoms has \(R, 2\) and \{'key': \(3,\), 'value'"):
        untied.pack(atoms)
    with pytest.raises(ValueError, match=r"the tied family with 3 atoms has \(R, 3\)"):
        family("tied", known, 3).pack(atoms)
    with pytest.raises(ValueError, match=r"log-masses of shape \(2,\)"):
        tied.pack(Atoms(torch.zeros(2), {"prompt": torch.zeros(2, 3)}))
    with pytest.raises(ValueError, match="unknown family of prompt experts 'norgah'; did you mean 'norga'"):
        family("norgah", known, 1)
    with pytest.raises(ValueError, match="-1 prompt experts asked for"):
        family("linear", known, -1)
