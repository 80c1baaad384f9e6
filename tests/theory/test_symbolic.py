"""Theorem T13: no derivation leaves a residual, wrong ones are refused, and the expressions equal the torch code."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
import torch

from vpt_analysis import attention
from vpt_analysis.theory import symbolic
from vpt_analysis.theory.derivation import Derivation
from vpt_analysis.theory.sums import normal_form

SIZES = pytest.mark.parametrize("tokens, prompts, width", [(1, 1, 1), (5, 3, 4), (7, 2, 3)])
BOUND = 1e-12
N, P = sp.symbols("N P", integer=True, positive=True)
i, j = sp.symbols("i j", integer=True, positive=True)
f, g = sp.IndexedBase("f"), sp.IndexedBase("g")


def close(value, reference) -> bool:
    return abs(float(value) - float(reference)) <= BOUND * max(1.0, abs(float(reference)))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("name", symbolic.names())
def test_T13_no_claim_leaves_a_residual(name):
    proved = symbolic.prove(name)
    claims = [step for step in proved.steps if step.residual is not None]
    assert claims and proved.residual == 0 and all(step.residual == 0 for step in claims)


def test_the_theorems_are_all_there_and_read_as_text():
    assert symbolic.names()[:2] == ("split", "content_pattern") and len(symbolic.names()) == 11
    text = symbolic.prove("split")._repr_markdown_()
    assert (
        text.startswith("**split.**")
        and r"\lambda" in text
        and text.count("$$") == 2 * len(symbolic.prove("split").steps)
    )
    assert r"\begin{aligned}" in symbolic.prove("split").latex()
    with pytest.raises(ValueError, match="did you mean 'split'"):
        symbolic.prove("spilt")


# What must not be provable. Each is a small change of a claim that is proved.


def test_a_wrong_split_is_refused():
    draft = symbolic.prove("split")
    y, co, o, mass = sp.Symbol("y"), sp.Symbol("c"), sp.Symbol("o"), symbolic.LAMBDA
    with pytest.raises(ValueError, match="differ by"):
        draft.claim("content and prompts exchanged", y, mass * co + (1 - mass) * o)
    with pytest.raises(ValueError, match="differ by"):
        draft.claim("no shrinkage", y, co + mass * o)


def test_a_wrong_jacobian_and_a_wrong_order_are_refused():
    draft = symbolic.prove("gate")
    by_score = next(step for step in draft.steps if step.words == "the mixture and a score")
    with pytest.raises(ValueError, match="differ by"):
        draft.claim("sign", by_score.left, -by_score.right)
    draft = symbolic.prove("tied_split")
    second = next(step for step in draft.steps if step.words == "order 2")
    with pytest.raises(ValueError, match="differ by"):
        draft.claim("a factor of 2", second.left, 2 * second.right)
    with pytest.raises(ValueError, match="no claim"):
        _ = Derivation("empty", "nothing").residual


def test_normal_form_keeps_different_sums_apart():
    over_f, over_g = sp.Sum(f[i], (i, 1, N)), sp.Sum(g[i], (i, 1, N))
    assert normal_form(sp.Sum(2 * f[i] + g[i], (i, 1, N)) - 2 * sp.Sum(f[j], (j, 1, N)) - over_g) == 0
    assert normal_form(over_f * over_g - sp.Sum(f[i] * g[i], (i, 1, N))) != 0
    assert normal_form(over_f - sp.Sum(f[i], (i, 1, P))) != 0
    assert normal_form(sp.Sum(1, (i, 1, N)) - N) == 0
    assert normal_form(sp.Sum(f[i], (i, 1, N + P)) - over_f, cut=(N, P)) == normal_form(sp.Sum(f[i], (i, N + 1, N + P)))


def test_the_cut_of_a_range_is_one_that_sympy_knows():
    parts = sp.Sum(f[i], (i, 1, N)) + sp.Sum(f[i], (i, N + 1, N + P))
    assert sp.simplify(parts - sp.Sum(f[i], (i, 1, N + P))) == 0


# Expressions against the torch code.


def head(tokens: int, prompts: int, width: int) -> dict:
    q, k, v = normal(width), normal(tokens + prompts, width), normal(tokens + prompts, width + 1)
    return {"q": q, "k": k, "v": v[:, :width], "N": tokens, "P": prompts, "e": width}


@SIZES
def test_T13_the_split_equals_the_torch_code(tokens, prompts, width):
    given = head(tokens, prompts, width)
    q, k, v = (given[n].reshape(1, 1, -1, width) for n in "qkv")
    split = attention.split(q, k, v, tokens, path="naive")
    plain, _ = attention.naive(q, k, v)
    arrays = {n: x.numpy() if torch.is_tensor(x) else x for n, x in given.items()}
    of = symbolic.prove("split").function
    assert close(of("lambda")(**arrays), split.prompt_weight)
    assert close(of("lse_c")(**arrays), split.content_lse)
    assert close(of("lse_p")(**arrays), split.prompt_lse)
    mass = split.prompt_weight.item()
    for c in range(width):
        at = arrays | {"b": c + 1}
        assert close(of("y")(**at), plain[..., c])
        assert close((1 - mass) * of("c")(**at), split.content_term[..., c])
        assert close(mass * of("o")(**at), split.prompt_term[..., c])


@SIZES
def test_T13_the_content_pattern_equals_the_torch_code(tokens, prompts, width):
    given = head(tokens, prompts, width)
    scores = attention.scores(given["q"][None], given["k"])[0]
    with_prompts, alone = torch.softmax(scores, 0), torch.softmax(scores[:tokens], 0)
    arrays = {n: x.numpy() if torch.is_tensor(x) else x for n, x in given.items()}
    proved = symbolic.prove("content_pattern")
    renormalised = proved.function(proved.steps[-1].left)
    for token in range(tokens):
        assert close(proved.function("w")(**arrays, j=token + 1), with_prompts[token])
        assert close(renormalised(**arrays, j=token + 1), alone[token])


@pytest.mark.parametrize("counts", [(1,), (2, 5), (3, 1, 4, 2)])
def test_T13_the_merge_equals_attention_over_all_keys(counts):
    longest, groups = max(counts), len(counts)
    s, v = normal(groups, longest), normal(longest, groups).T.contiguous()
    flat = [torch.cat([t[k, :n] for k, n in enumerate(counts)]) for t in (s, v)]
    given = {"s": s.numpy(), "n": np.array(counts), "G": groups}
    of = symbolic.prove("merge").function
    assert close(of("h_all")(**given), torch.logsumexp(flat[0], 0))
    assert close(of("y_all")(**given, v=v.numpy()), torch.softmax(flat[0], 0) @ flat[1])
    query = torch.ones(1, 1, 1, 1, dtype=torch.float64)  # a head of width 1, so that scores are the keys
    out, lse = attention.naive(query, flat[0].reshape(1, 1, -1, 1), flat[1].reshape(1, 1, -1, 1))
    assert close(of("h_all")(**given), lse) and close(of("y_all")(**given, v=v.numpy()), out)


def test_T4_jacobians_of_experts_equal_autograd():
    d, r, outputs = 4, 3, 2
    V, U, W, x = normal(outputs, d), normal(d, r), normal(r, d), normal(d)
    arrays = {"V": V.numpy(), "U": U.numpy(), "W": W.numpy(), "d": d, "r": r}
    linear = torch.autograd.functional.jacobian(lambda x: V @ (U @ (W @ x)), x)
    curved = torch.autograd.functional.jacobian(lambda x: V @ (U @ torch.tanh(W @ x)), x)
    activation = {"sigma": np.tanh, "sigma_prime": lambda z: 1 - np.tanh(z) ** 2}
    of_linear = symbolic.prove("linear_expert").function("J")
    of_curved = symbolic.prove("nonlinear_expert").function("J", **activation)
    expert = symbolic.prove("nonlinear_expert").function("e", **activation)
    for c in range(outputs):
        assert close(expert(**arrays, x=x.numpy(), c=c + 1), (V @ (U @ torch.tanh(W @ x)))[c])
        for m in range(d):
            assert close(of_linear(**arrays, c=c + 1, m=m + 1), linear[c, m])
            assert close(of_curved(**arrays, x=x.numpy(), c=c + 1, m=m + 1), curved[c, m])
    assert linear.abs().min() > 1e-6 and curved.abs().min() > 1e-6


def test_T4_a_static_expert_has_no_jacobian_and_its_score_has_one():
    d, prompts = 3, 2
    K, p, x = normal(d, d), normal(prompts, d), normal(d)
    proved = symbolic.prove("static_expert")
    score = torch.autograd.functional.jacobian(lambda x: p @ K.T @ x, x)
    assert proved.steps[2].right == 0
    for prompt in range(prompts):
        for m in range(d):
            given = {"K": K.numpy(), "p": p.numpy(), "d": d, "l": prompt + 1}
            assert close(proved.function(proved.steps[-1].right)(**given, m=m + 1), score[prompt, m])
        assert close(proved.function("s")(**given, x=x.numpy()), p[prompt] @ K.T @ x)


@pytest.mark.parametrize("atoms, outputs", [(1, 1), (4, 3)])
def test_the_gates_jacobians_equal_autograd(atoms, outputs):
    s, b, e = normal(atoms), normal(atoms) / 2, normal(atoms, outputs)
    jacobian = torch.autograd.functional.jacobian

    def mixture(s, e):
        return torch.softmax(s + b, 0) @ e

    gates = jacobian(lambda s: torch.softmax(s + b, 0), s)
    by_score, by_expert = jacobian(mixture, (s, e))
    proved = symbolic.prove("gate")
    _, gate_score, score, _, expert = [
        proved.function(step.right) for step in proved.steps if step.residual is not None
    ]
    weights = {"s": s.numpy(), "b": b.numpy(), "L": atoms}
    for m in range(atoms):
        for other in range(atoms):
            assert close(gate_score(**weights, l=other + 1, m=m + 1), gates[other, m])
        for c in range(outputs):
            assert close(score(**weights, e=e.numpy(), c=c + 1, m=m + 1), by_score[c, m])
            for a in range(outputs):
                assert close(expert(**weights, c=c + 1, m=m + 1, a=a + 1), by_expert[c, m, a])


# T9: splits, against a mixture written out in torch.


def mixture(s, e, masses) -> torch.Tensor:
    return torch.softmax(s + masses.log(), 0) @ e


def others(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(count), normal(count + 1)[:count]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("delta", [0.1, 1.0, 10.0])
def test_T9_halves_and_pieces_equal_the_mixture_in_torch(alpha, delta):
    s, f = others()
    t, m, v = 0.7, 0.6, 1.3
    gate = t + alpha * np.tanh(2.0 * t)
    score = torch.cat([s, torch.full((2,), gate, dtype=torch.float64)])
    expert = torch.cat([f, torch.tensor([v + delta, v - delta], dtype=torch.float64)])
    masses = torch.tensor([1.0] * len(s) + [m / 2] * 2, dtype=torch.float64)
    other = {"s": s.numpy(), "f": f.numpy(), "L": len(s), "t": t, "alpha": alpha, "tau": 2.0}
    proved = symbolic.prove("halves")
    two = proved.function("f_after")(**other, m=m, v=v, delta=delta)
    assert close(two, mixture(score, expert, masses))
    assert close(two, proved.function("f_before")(**other, m=m, v=v))
    pieces = symbolic.prove("same_gate").function("f_before")
    assert close(two, pieces(**other, mu=np.array([m / 2, m / 2]), e=np.array([v + delta, v - delta]), M=2))


def test_T9_the_second_order_of_a_tied_split_equals_autograd():
    d = 3
    K, V, p, u, x = normal(d, d), normal(2 * d)[:d], normal(d), normal(d + 1)[1:], normal(d + 2)[2:]
    s, f = others()
    m = 0.8

    def function(delta):
        prompts = torch.stack([p + delta * u, p - delta * u])
        masses = torch.tensor([1.0] * len(s) + [m / 2] * 2, dtype=torch.float64)
        return mixture(torch.cat([s, prompts @ K.T @ x]), torch.cat([f, prompts @ V]), masses)

    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(function(zero), zero, create_graph=True)
    (second,) = torch.autograd.grad(first, zero)
    given = {"s": s.numpy(), "f": f.numpy(), "L": len(s), "m": m, "s_0": float(K @ p @ x), "s_1": float(K @ u @ x)}
    value = symbolic.prove("tied_split").function("c_VPT")(**given, e_0=float(V @ p), e_1=float(V @ u))
    assert abs(first) <= 1e-14 and abs(second) > 1e-3
    assert close(value, second / 2)


def test_the_tangent_equals_autograd():
    """One parameter of a VPT atom in one dimension: c = 1 for its first derivative, so that f moves by df/dp."""
    kappa, v, x, B, h, m = 0.7, 1.3, -0.4, 1.1, 0.6, 0.5
    p = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    H = torch.exp(kappa * p * x)
    F = H * v * p
    derivatives = [
        torch.autograd.grad(value, p, retain_graph=True)[0] for value in (F, H, (B * h + m * F) / (B + m * H))
    ]
    proved = symbolic.prove("tangent")
    given = {"B": B, "h": h, "H": H.item(), "e": v * p.item(), "m": m, "L": 1, "c": np.array([m])}
    moved = proved.function(proved.steps[-1].left)
    value = moved(**given, F_alpha=derivatives[0][None].numpy(), H_alpha=derivatives[1][None].numpy())
    assert close(value, derivatives[2])


def test_function_names_what_is_missing():
    with pytest.raises(TypeError, match=r"missing \['q'\]; expected N, P, e, k, q"):
        symbolic.prove("split").function("lambda")(N=1, P=1, e=1, k=np.ones((2, 1)))
    with pytest.raises(ValueError, match="unknown quantity 'lamda'"):
        symbolic.prove("split").function("lamda")
