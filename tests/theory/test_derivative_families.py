"""Derivative families: equal to autograd, verdicts proved and found again by Gram ranks, splits that are invisible."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import sympy as sp
import torch
import torch.nn.functional as F

from vpt_analysis.theory.derivative_families import DELTA, FAMILIES, Family, Piece
from vpt_analysis.theory.gram import gram_rank, point
from vpt_analysis.theory.identifiability import coefficients
from vpt_analysis.theory.identifiability import identify as identify_anew

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "gelu": F.gelu}
X = torch.linspace(-1.4, 1.6, 11, dtype=torch.float64)
PLANE = (X.repeat_interleave(11), X.repeat(11))
EXPECTED = {  # family: atoms independent at order 1 and 2, pairs at order 1 and 2, split
    "tied": (True, True, True, True, "order 2"),
    "tied_2d": (True, True, True, True, "order 2"),
    "untied": (False, False, True, False, "invisible"),
    "norga": (False, False, True, False, "invisible"),
    "linear": (False, False, True, False, "invisible"),
    "quadratic": (False, False, True, False, "invisible"),
    "linear_tied": (True, True, True, True, "order 2"),
    "linear_tied_2d": (True, False, True, False, "invisible"),
    "relu": (False, False, True, False, "invisible"),
    "tanh": (True, False, True, False, "order 2"),
    "gelu": (True, False, True, False, "order 2"),
    "tanh_no_bias": (True, True, True, True, "order 2"),
    "relu_tied": (False, False, False, False, "invisible"),
    "tanh_tied": (True, True, True, True, "order 2"),
    "gelu_tied": (True, True, True, True, "order 2"),
    "tanh_tied_2d": (True, False, True, False, "order 2"),
}
identify = functools.cache(identify_anew)  # a verdict is the same for every test
every = pytest.mark.parametrize("name", FAMILIES)


def score_and_expert(name: str, x, theta, known):
    """The families once more, in torch and by hand: inputs, parameters and constants as the family lists them."""
    base, _, kind = name.partition("_")
    if name in ("tied", "linear_tied"):
        (p,), (kappa, v) = theta, known
        prompt = p if name == "tied" else p * x[0]
        return kappa * x[0] * prompt, v * prompt
    if name.endswith("_2d"):
        rows = theta if name == "tied_2d" else [theta[i] * x[0] + theta[i + 1] * x[1] for i in (0, 2)]
        rows = [torch.tanh(r) for r in rows] if base == "tanh" else rows
        K = known[:4] if name == "tied_2d" else (1, 0, 0, 1)
        v = {"tied_2d": known[4:], "linear_tied_2d": (1, 0), "tanh_tied_2d": known}[name]
        score = x[0] * (K[0] * rows[0] + K[1] * rows[1]) + x[1] * (K[2] * rows[0] + K[3] * rows[1])
        return score, v[0] * rows[0] + v[1] * rows[1]
    if kind == "tied":
        (u, w), (kappa, v) = theta, known
        prompt = u * ACTIVATIONS[base](w * x[0])
        return kappa * x[0] * prompt, v * prompt
    s = theta[0] * x[0]
    if name == "norga":
        s = s + known[0] * torch.tanh(known[1] * s)
    if name in ("untied", "norga"):
        return s, theta[1] + 0 * x[0]
    z = theta[1] * x[0] + (0 if kind else theta[2])
    return s, {"linear": z, "quadratic": z**2}[name] if base not in ACTIVATIONS else ACTIVATIONS[base](z)


def inputs(family: Family) -> tuple[torch.Tensor, ...]:
    return (X,) if len(family.inputs) == 1 else PLANE


def numbers(family: Family, symbols) -> list[torch.Tensor]:
    at = point(family)
    return [torch.tensor(float(at[s]), dtype=torch.float64) for s in symbols]


@every
def test_derivatives_equal_autograd(name):
    """Every member up to order 2, of F and of H; relative to the largest value on the grid."""
    family = FAMILIES[name]
    x, known = inputs(family), numbers(family, family.known)
    theta = [t.expand(x[0].shape).clone().requires_grad_() for t in numbers(family, family.parameters)]
    score, expert = score_and_expert(name, x, theta, known)
    for of, value in (("F", score.exp() * expert), ("H", score.exp())):
        for member in family.members(2):
            derivative = value
            for parameter in [t for t, n in zip(theta, member, strict=True) for _ in range(n)]:
                if derivative.requires_grad:
                    (derivative,) = torch.autograd.grad(
                        derivative.sum(), parameter, create_graph=True, allow_unused=True
                    )
                derivative = torch.zeros_like(x[0]) if derivative is None else derivative
            if any(member) and not derivative.requires_grad:
                derivative = torch.zeros_like(x[0])
            arguments = [t.detach().numpy() for t in (*x, *theta, *known)]
            ours = family.function(member, of)(*arguments)
            theirs = derivative.detach().numpy()
            assert np.abs(ours - theirs).max() <= 1e-12 * max(np.abs(theirs).max(), 1e-3), (of, member)


@every
def test_the_symbolic_verdicts(name):
    verdict = identify(name)
    independent = [found[order].independent for found in (verdict.atoms, verdict.pairs) for order in (1, 2)]
    assert (*independent, verdict.split) == EXPECTED[name]
    assert verdict.method == "symbolic"
    for found in (*verdict.atoms.values(), *verdict.pairs.values()):
        assert found.rank + len(found.relations) == len(found.members)
        assert bool(found.relations) != found.independent


@every
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", ["atoms", "pairs"])
def test_gram_ranks_find_the_proved_ranks(name, kind, order):
    found = getattr(identify(name), kind)[order]
    numerical = gram_rank(FAMILIES[name], order, kind)
    assert numerical.rank == found.rank and numerical.members == len(found.members) - len(found.zero)
    assert numerical.kept > 1e-10 > 1e-25 > numerical.dropped


@every
def test_pairs_are_what_the_regression_function_sees(name):
    """The functions dF - f dH, f the mixture beside a frozen expert, have the rank of the pairs, not of the atoms."""
    verdict = identify(name)
    assert gram_rank(FAMILIES[name], 2, "tangent").rank == verdict.pairs[2].rank
    assert gram_rank(FAMILIES[name], 1, "tangent").rank == verdict.pairs[1].rank


@every
def test_relations_vanish_at_numbers_too(name):
    verdict = identify(name)
    family, at = verdict.family, point(verdict.family, seed=3)
    symbols = (*family.parameters, *family.known)
    arguments = [t.numpy() for t in inputs(family)] + [float(at[s]) for s in symbols]
    for kind, parts in ((verdict.atoms, "F"), (verdict.pairs, "FH")):
        for relation in kind[2].relations:
            for of in parts:
                values = {m: float(sp.sympify(c).subs(at)) for m, c in relation.items()}
                terms = [c * family.function(m, of)(*arguments) for m, c in values.items()]
                assert np.abs(sum(terms)).max() <= 1e-12 * max(np.abs(terms).max(), 1.0)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.path])
@pytest.mark.parametrize("delta", [0.05, 0.5])
def test_invisible_splits_leave_the_mixture_alone(name, delta):
    """Two halves along the path beside a frozen expert, in torch."""
    family = FAMILIES[name]
    x, at = inputs(family), point(family)
    known = numbers(family, family.known)
    frozen_score, frozen = x[0] ** 2 / 3 + 0.2, 1 - 2 * x[0]

    def mixture(thetas):
        atoms = [score_and_expert(name, x, theta, known) for theta in thetas]
        weights = [frozen_score.exp()] + [s.exp() / len(thetas) for s, _ in atoms]
        values = [frozen] + [e for _, e in atoms]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    def theta(step):
        return [torch.tensor(float(sp.sympify(p).subs(DELTA, step).subs(at)), dtype=torch.float64) for p in family.path]

    one = mixture([theta(0)])
    assert (mixture([theta(delta), theta(-delta)]) - one).abs().max() <= 1e-12
    moved = [score_and_expert(name, x, theta(d), known) for d in (0, delta)]
    changed = max((a - b).abs().max() for a, b in zip(*moved, strict=True))
    assert changed > 1e-3 or name == "relu_tied"  # there the whole path is one atom


def test_linear_prompts_of_rank_two_can_be_split_in_any_dimension():
    """Δ = R (K U)' with R antisymmetric: the score does not see it, the expert is linear in W. With tanh it is seen."""
    d, r, outputs = 5, 3, 4
    draw = torch.Generator().manual_seed(0)
    K, V, U, W, x = (
        torch.randn(*shape, generator=draw, dtype=torch.float64) / 2
        for shape in ((d, d), (outputs, d), (d, r), (r, d), (64, d))
    )
    R = torch.randn(r, r, generator=draw, dtype=torch.float64)
    step = (R - R.T) @ (K @ U).T

    def function(weights, activation):
        prompts = [activation(x @ w.T) @ U.T for w in weights]
        scores = torch.stack([(x**2).sum(1) / 9] + [((p @ K.T) * x).sum(1) - np.log(len(weights)) for p in prompts])
        values = torch.stack([x[:, :outputs]] + [p @ V.T for p in prompts])
        return (torch.softmax(scores, 0)[..., None] * values).sum(0)

    for activation, seen in ((lambda z: z, False), (torch.tanh, True)):
        change = function([W + step, W - step], activation) - function([W], activation)
        assert (change.abs().max() > 1e-2) if seen else (change.abs().max() <= 1e-12)


def test_conditions_are_those_under_which_the_rank_is_full():
    assert [str(c) for c in identify("tied").pairs[2].conditions] == ["kappa"]
    assert {str(c) for c in identify("tied").atoms[2].conditions} == {"kappa", "p", "v"}
    assert [str(c) for c in identify("tied_2d").pairs[2].conditions] == ["K11*K22 - K12*K21"]
    p, kappa, v = sp.symbols("p kappa v", real=True)
    special = {p: sp.Integer(0), kappa: sp.Integer(1), v: sp.Integer(2)}  # p = 0: F vanishes, the pair does not
    assert coefficients(FAMILIES["tied"], 2, "atoms").subs(special).rank() == 2
    assert coefficients(FAMILIES["tied"], 2, "pairs").subs(special).rank() == 3
    blind = special | {kappa: sp.Integer(0)}  # a key that the input does not see
    assert coefficients(FAMILIES["tied"], 2, "pairs").subs(blind).rank() < 3


def test_the_relation_of_every_expert_with_a_bias():
    for name in ("linear", "quadratic", "relu", "tanh", "gelu"):
        assert r"\partial_{a} F = \partial_{k}\partial_{c} F" in identify(name).equations()
    assert identify("untied").equations("atoms", 1) == (r"F = v\,\partial_{v} F",)
    assert identify("untied").pairs[2].zero == ((0, 2),)


def own(path=None) -> Family:
    """A family that is not in the list: a softplus expert with its own key."""
    x, k, a = sp.symbols("x k a", real=True)
    piece = Piece(k * x, sp.log(1 + sp.exp(a * x)))
    return Family("softplus", "exp(k x) softplus(a x)", (k, a), (), (piece,), "", path=path)


def test_a_family_of_ones_own_is_decided_by_its_gram_matrix_and_says_so():
    verdict = identify_anew(own(), method="multi-precision")
    assert verdict.method == "multi-precision" and verdict.split == "order 2"
    assert verdict.pairs[2].independent and verdict.pairs[2].relations == ()
    relu = identify_anew(dataclasses.replace(FAMILIES["relu"], path=None), method="multi-precision")
    assert relu.pairs[2].rank == 6 and relu.split == "undecided"
    assert relu.pairs[2].zero == identify("relu").pairs[2].zero


def test_what_cannot_be_decided_is_refused():
    k, a = sp.symbols("k a", real=True)
    with pytest.raises(ValueError, match="along its path"):
        identify_anew(own(path=(k, a + DELTA)), method="multi-precision")
    with pytest.raises(ValueError, match="did you mean 'untied'"):
        identify("untide")
    with pytest.raises(ValueError, match="method is 'guess'"):
        identify_anew("tied", method="guess")
    with pytest.raises(ValueError, match="kind is 'all'"):
        gram_rank(FAMILIES["tied"], 1, "all")
    with pytest.raises(ValueError, match="multi-precision"):
        identify_anew(own())
