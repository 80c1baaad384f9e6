"""The Wang pair: what is proved, and what is fitted, agree from both sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vpt_analysis.probes import wang
from vpt_analysis.probes.one_layer import OneLayer
from vpt_analysis.probes.restarts import minimise
from vpt_analysis.probes.wang import pair, proved, tied_floor, wang_pair
from vpt_analysis.probes.wang_fits import created, fit, grown


def test_restarts_solve_a_linear_problem():
    """‖A θ − b‖ with more equations than unknowns: the distance of b from the range, from every start."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((6, 3), (6,)))
    starts = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    found = minimise(lambda theta: a @ theta - b, starts)
    want = torch.linalg.lstsq(a, b[:, None]).solution[:, 0]
    assert (found.theta - want).abs().max() <= 1e-4 and found.reached(1e-6) == 4
    assert (found.norm - (a @ want - b).norm()).abs().max() <= 1e-8


def test_starts_of_different_problems_are_minimised_each_for_itself():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((4, 6, 3), (4, 6)))
    found = minimise(lambda theta, known: known["a"] @ theta - known["b"], torch.zeros(4, 3, dtype=torch.float64),
                     data={"a": a, "b": b})  # fmt: skip
    want = torch.linalg.lstsq(a, b[..., None]).solution
    assert (found.theta - want[..., 0]).abs().max() <= 1e-4


def test_restarts_tell_local_minima_from_the_best():
    """(θ² − 1)² + small slope: two minima, one a little lower."""
    starts = torch.tensor([[2.0], [1.5], [-2.0]], dtype=torch.float64)
    found = minimise(lambda theta: torch.cat([theta**2 - 1, 0.1 * (theta + 2)]), starts)
    assert found.reached() == 1 and found.theta[2, 0] < 0 < found.theta[0, 0]
    with pytest.raises(ValueError, match="expected float64"):
        minimise(lambda theta: theta, torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="1 of 2 starts"):
        minimise(lambda theta: theta, torch.tensor([[1.0], [float("nan")]], dtype=torch.float64))


@pytest.mark.parametrize("norm, mlp", [(True, 0.0), (False, 0.5)])
def test_the_pair_is_what_it_says(norm, mlp):
    made = pair(norm=norm, mlp=mlp, seed=1)
    a = made.assumptions
    assert all(a[f"rank_{w}"] > 1e-4 for w in "QKVO")
    assert a["query_gap"] == 0 and a["preimages"] == 2 and a["spare"] == 4 and a["target_gap"] > 0.1
    assert abs(a["mlp_slope"] - mlp) <= 1e-9
    assert torch.equal(made.tokens[0, 0], made.tokens[1, 0]) and not torch.equal(made.tokens[0, 1], made.tokens[1, 1])
    again = pair(norm=norm, mlp=mlp, seed=1)
    assert torch.equal(made.targets, again.targets) and not torch.equal(made.targets, pair(norm=norm, mlp=mlp).targets)


def best(arms) -> np.ndarray:
    return np.array([a.best for a in arms])


@pytest.mark.parametrize("norm", [True, False])
def test_static_prompts_meet_the_proved_floor_from_above(norm):
    made = pair(norm=norm)
    found = wang_pair(made, ("prefix", "vpt-deep"), (1, 2), restarts=8, steps=60)
    for name, static in found.static.items():
        assert static.verdict == "unreachable" and 0.05 < static.bound <= found.plain
        assert (best(a for a in found.arms if a.method == name) >= static.bound).all()
    free = found.static["prefix"]
    assert free.bound <= free.error <= 1.0011 * free.bound  # the prompt built attains what is proved
    assert (best(a for a in found.arms if a.method == "prefix") <= 1.005 * free.bound).all()  # and the optimiser too
    if norm:
        assert found.static["vpt-deep"].bound >= 0.998 * free.bound


def test_the_floor_of_a_layer_with_an_mlp_is_below_the_best_fit():
    made = pair(norm=False, mlp=0.5, kind="free")
    found = wang_pair(made, ("prefix",), (1, 3), restarts=2, steps=40)
    assert found.static["prefix"].verdict == "unreachable"
    assert all(a.best >= found.static["prefix"].bound > 0 for a in found.arms)
    assert found.arms[-1].best <= 1.05 * found.static["prefix"].error


@pytest.mark.parametrize(
    "method, norm", [("prefix", True), ("prefix", False), ("vpt-deep", False)], ids=["prefix-LN", "prefix", "vpt-deep"]
)
def test_errors_fall_with_the_length_where_prompts_can_be_switched_off(method, norm):
    """Also where nothing is optimised, and fresh starts of more prompts are worse."""
    pairs = [pair(norm=norm, seed=s) for s in (1, 2, 3)]
    lengths = (1, 5, 50)
    at_start = np.array([best(a) for a in fit(pairs, method, lengths, restarts=1, steps=0)])
    alone = np.stack([[best(a)[0] for a in fit(pairs, method, (n,), restarts=1, steps=0)] for n in lengths], axis=1)
    assert (np.diff(at_start, axis=1) <= 1e-12).all() and (np.diff(alone, axis=1) > 1e-3).any()
    well = np.array([best(a) for a in fit(pairs, method, lengths, restarts=1, steps=8)])
    assert (np.diff(well, axis=1) <= 1e-12).all() and (well[:, -1] < at_start[:, -1]).all()


@pytest.mark.parametrize("method, norm, heads", [("prefix", True, 2), ("prefix", False, 1), ("vpt-deep", False, 1)])
def test_a_grown_prompt_does_what_the_short_one_did(method, norm, heads):
    made = pair(norm=norm, heads=heads, seed=2)
    short, long = (created(made.vit, method, n, 3, {}) for n in (3, 8))
    with torch.no_grad():
        for p in short.parameters():
            p.mul_(5)
    x = made.tokens
    one, two, none = (made.vit.encode(x, m)[:, 0] for m in (short, grown(short, long, made), None))
    assert (one - two).abs().max() <= 1e-13 < 1e-3 < (one - none).abs().max()


def test_tied_prompts_behind_a_layer_norm_cannot_be_switched_off():
    """The proved least mass, against prompts of the least score, random ones, and what was fitted."""
    made = pair(seed=1001)
    layer = OneLayer(made.vit.blocks[0], made.tokens, (0,))
    short, long = (created(made.vit, "vpt-deep", n, 0, {}) for n in (1, 41))

    def mass(prompt) -> torch.Tensor:
        key, _ = layer.block.keys_values(prompt.prompt_tokens(0, made.tokens))
        log_mass = (key[0, 0] @ layer.query[0, 0]).logsumexp(0)
        return torch.sigmoid(log_mass - layer.lse[:, 0])

    for length, like in ((1, short), (41, long)):
        with torch.no_grad():
            light = grown(created(made.vit, "vpt-deep", 1, 0, {}), long, made).tokens[0, -1:] * 1e3
            like.tokens.copy_(light.expand_as(like.tokens))
        least = tied_floor(made, length)[1]
        assert (least <= mass(like)).all() and (mass(like) <= (1 + 1e-6) * least).all()  # attained
        for seed in range(20):
            other = created(made.vit, "vpt-deep", length, seed, {})
            assert (mass(other) > least).all()
    least = [tied_floor(made, n)[1] for n in (1, 2, 200, 10**9)]
    assert all((a < b).all() for a, b in zip(least, least[1:], strict=False)) and (least[-1] > 1 - 1e-4).all()


def test_longer_tied_prompts_may_do_worse_and_that_is_proved():
    made = pair(seed=1001)
    lengths = (1, 10, 200)
    floors = [tied_floor(made, n)[0] for n in lengths]
    (arms,) = fit([made], "vpt-deep", lengths, restarts=[2, 1, 1], steps=30)
    errors = best(arms)
    assert (errors >= floors).all()
    assert floors[2] > 1.2 * errors[0] > errors[0] > 0.05  # 200 prompts are proved to do worse than one does
    assert proved(made, "vpt-deep").bound <= floors[0] + 1e-9
    # Untied ones are held by the smaller bound of any length.
    assert best(fit([made], "prefix", (1,), restarts=4, steps=60)[0])[0] < floors[0]


@pytest.mark.parametrize("scale", [1e-2, 30.0])
def test_rescaled_prompts_behind_a_layer_norm_change_nothing(scale):
    """T6, up to the LayerNorm's ε: what is reached is so, whatever the norm of the tokens."""
    made = pair(seed=4)
    made.vit.blocks[0].ln1.eps = 1e-12
    prompt = created(made.vit, "vpt-deep", 3, 0, {})
    before = made.vit.encode(made.tokens, prompt)[:, 0]
    with torch.no_grad():
        prompt.tokens.mul_(scale)
    assert (made.vit.encode(made.tokens, prompt)[:, 0] - before).abs().max() <= 1e-6


def test_adaptive_prompts_and_lora_of_rank_one_reach_the_pair():
    made = pair(shift=0.3)
    for method, lengths in (("vapt", (2,)), ("lora", (0,))):
        (arm,) = fit([made], method, lengths, restarts=3, steps=60)[0]
        assert arm.best <= 1e-6 and arm.reached >= 1 and (np.diff(arm.errors) >= 0).all()
    assert arm.parameters == 4 * 8  # rank 1 on W_Q and W_V
    assert fit([made], "lora", restarts=2, steps=60, targets="v")[0][0].best <= 1e-6


def test_a_gate_that_is_a_function_of_the_score_is_bound_too():
    """NoRGa's prompts are static and its gate is the same for a common query."""
    made = pair(seed=3)
    static = proved(made, "norga")
    assert static.verdict == "unreachable" and abs(static.bound - proved(made, "prefix").bound) <= 1e-9
    assert (best(fit([made], "norga", (1, 3), restarts=2, steps=15)[0]) >= static.bound).all()
    with pytest.raises(ValueError, match="do not get the same prompt output"):
        proved(made, "vapt")


def test_targets_of_a_static_prompt_are_reached():
    made = pair(kind="static")
    found = wang_pair(made, ("prefix",), (1,), restarts=4, steps=100)
    assert found.static["prefix"].verdict == "reachable" and found.static["prefix"].error <= 1e-9
    assert found.arms[0].best <= 1e-6


def test_same_arguments_same_values():
    made = pair(kind="swap")
    one, two, other = (fit([made], "prefix", (2,), restarts=3, steps=5, seed=s)[0][0].errors for s in (4, 4, 5))
    assert (one == two).all() and (one != other).any()


@pytest.mark.parametrize("method, lengths", [("prefix", (1, 2)), ("vapt", (2,)), ("lora", (0,))])
def test_pairs_fitted_together_are_fitted_as_alone(method, lengths):
    pairs = [pair(mlp=0.5, norm=False, seed=s) for s in (0, 1)]
    both = fit(pairs, method, lengths, restarts=2, steps=4)
    alone = [fit([made], method, lengths, restarts=2, steps=4)[0] for made in pairs]
    for mine, other in zip(both, alone, strict=True):
        assert all(np.allclose(a.errors, b.errors, rtol=1e-9, atol=0) for a, b in zip(mine, other, strict=True))


def test_a_registered_mechanism_of_any_kind_can_be_fitted():
    made = pair()
    for method in ("vpt-shallow", "norga", "zero-init", "vapt-released"):
        (arm,) = fit([made], method, (2,), restarts=4, steps=5)[0]
        assert np.isfinite(arm.errors).all() and arm.best < 1.5


def test_refusals():
    with pytest.raises(ValueError, match="unknown kind of targets"):
        pair(kind="lines")
    with pytest.raises(ValueError, match="expected a bound on its slope"):
        pair(mlp=1.0)
    with pytest.raises(ValueError, match="built for one head"):
        pair(heads=2, kind="static")
    with pytest.raises(ValueError, match="unknown prompt mechanism"):
        wang_pair(pair(), ("vpt",), (1,))
    with pytest.raises(ValueError, match="expected ascending lengths"):
        fit([pair()], "prefix", (2, 1))
    with pytest.raises(ValueError, match="differ in shape or in their LayerNorms"):
        fit([pair(), pair(norm=False)], "prefix", (1,))
    with pytest.raises(ValueError, match="a prompt's score has no bound"):
        tied_floor(pair(norm=False), 1)
    assert wang.LENGTHS == (1, 2, 5, 10, 50, 200)
