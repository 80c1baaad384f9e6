"""What static prompts of any length reach in a block: built and run, certified, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, STATIC, random_vit
from vpt_analysis.attention import KeyGroup, attend
from vpt_analysis.probes.one_layer import before_mlp, mlp_slope
from vpt_analysis.probes.reachable import family, reachable
from vpt_analysis.prompts.registry import MECHANISMS as CLASSES

JOINT = [name for name in STATIC if CLASSES[name].combine == "joint softmax"]


# ---- blocks --------------------------------------------------------------------------------------------------------


def frozen_block(heads: int = 1, width: int = 12, **changes):
    vit = random_vit(width=width, heads=heads, depth=1, **changes).requires_grad_(False)
    return vit, vit.blocks[0]


def shared_tokens(width: int = 12, n: int = 2, seed: int = 0) -> torch.Tensor:
    """(n, 5, d), all with the same token 0."""
    x = torch.randn(n, 5, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[:, 0] = x[0, 0]
    return x


@torch.no_grad()
def outputs(block, x: torch.Tensor, group: KeyGroup | None, at: str, queries=(0,)) -> torch.Tensor:
    """What the block makes of x with extra keys and values, at a level; by the block's own run."""
    seen = []

    def look(*call):
        seen.append(attend(*call))
        return seen[-1]

    y = block(x, group, look)
    if at == "heads":
        return seen[0][:, :, list(queries)]
    scale = 1.0 if block.scale1 is None else block.scale1
    y = x + scale * block.attention.merge(seen[0]) if at == "residual" else y
    return y[:, list(queries)]


@torch.no_grad()
def static_prompt(vit, name: str, length: int = 4, seed: int = 3) -> va.prompts.Prompt:
    prompt = va.prompts.create(name, vit.config, length).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for p in prompt.parameters():
        p.normal_(generator=generator)
    return prompt


@pytest.mark.parametrize("heads, at", [(1, "residual"), (3, "residual"), (3, "heads")])
def test_what_a_prefix_did_a_constructed_one_does_again(heads, at):
    vit, block = frozen_block(heads, layer_scale=heads == 3)
    x = shared_tokens(n=3)
    group = static_prompt(vit, "prefix")(0, block, x, None)[1]
    found = reachable(block, x, outputs(block, x, group, at), at=at)
    assert found.verdict == "reachable" and found.error <= 1e-9 and found.length == 1 and found.plain > 1e-2
    assert {p.items for p in found.proofs} == {(0, 1, 2)} and found.bound == 0


def test_two_queries_take_two_prompts():
    vit, block = frozen_block(3)
    x = shared_tokens(n=2)
    group = static_prompt(vit, "prefix", 7)(0, block, x, None)[1]
    targets = outputs(block, x, group, "residual", (0, 2))  # token 0 is shared, token 2 is not: 3 groups
    found = reachable(block, x, targets, queries=(0, 2))
    assert found.verdict == "reachable" and found.length == 3 and found.error <= 1e-9
    assert sorted(p.items for p in found.proofs if p.head == 0) == [(0, 2), (1,), (3,)]


def test_one_head_is_projected_and_the_prompt_built_attains_it():
    vit, block = frozen_block()
    x = shared_tokens()
    targets = torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = reachable(block, x, targets)
    assert found.verdict == "unreachable"
    assert found.bound <= found.error <= 1.002 * found.bound < found.plain
    for name in JOINT:  # T10: no static prompt that joins by one softmax comes below
        group = static_prompt(vit, name)(0, block, x, None)[1]
        assert (outputs(block, x, group, "residual") - targets).norm() / targets.norm() >= found.bound


def test_tokens_behind_a_norm_are_built_and_their_bound_is_the_larger():
    vit, block = frozen_block()
    x = shared_tokens()
    prompt = static_prompt(vit, "vpt-deep", 5)
    reached = reachable(block, x, outputs(block, x, prompt(0, block, x, None)[1], "residual"), "vpt-deep")
    assert reached.verdict == "reachable" and reached.error <= 1e-9 and reached.tokens.shape == (reached.length, 12)
    targets = torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    bound = reachable(block, x, targets, "vpt-deep").bound
    assert bound >= reachable(block, x, targets).bound * 0.998
    with torch.no_grad():
        for scale in (1e-6, 1e-3, 1.0, 1e6):  # LN1 forgets the size; whatever it is, the bound stands
            group = KeyGroup(*block.keys_values(scale * prompt.tokens[:1]))
            assert (outputs(block, x, group, "residual") - targets).norm() / targets.norm() >= bound


def test_a_norm_that_is_folded_into_the_projections_changes_no_verdict():
    vit, block = frozen_block()
    x = shared_tokens()
    targets = torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    before = {name: reachable(block, x, targets, name) for name in ("prefix", "vpt-deep")}
    block.ln1.weight.mul_(4.0)
    block.ln1.bias.mul_(4.0)
    block.attention.qkv.weight.div_(4.0)
    for name, found in before.items():
        after = reachable(block, x, targets, name)
        assert after.verdict == found.verdict and abs(after.bound - found.bound) <= 1e-8


def test_relabelled_prompts_do_the_same():
    _, block = frozen_block(3)
    x = shared_tokens(n=2)
    targets = torch.randn(2, 2, 12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    found = reachable(block, x, targets, queries=(0, 1))
    order = torch.arange(found.length).flip(0)
    other = KeyGroup(found.prompt.key[:, :, order], found.prompt.value[:, :, order])
    y, z = (outputs(block, x, g, "residual", (0, 1)) for g in (found.prompt, other))
    assert (y - z).abs().max() <= 1e-8 and found.length == 3
    assert abs(float((y - targets).norm() / targets.norm()) - found.error) <= 1e-8


def test_block_outputs_are_traced_back_where_the_mlp_is_gentle():
    vit, block = frozen_block()
    x = shared_tokens()
    group = static_prompt(vit, "prefix")(0, block, x, None)[1]
    targets = outputs(block, x, group, "block")
    with pytest.raises(ValueError, match="may have several preimages"):
        reachable(block, x, targets, at="block")
    block.ln2 = torch.nn.Identity()
    block.fc2.weight.mul_(0.5 / mlp_slope(block))
    r, slack, factor = before_mlp(block, outputs(block, x, group, "block")[:, 0])
    assert (r - outputs(block, x, group, "residual")[:, 0]).abs().max() <= 1e-12
    assert slack <= 1e-12 and abs(factor - 0.5) <= 1e-9
    found = reachable(block, x, outputs(block, x, group, "block"), at="block")
    assert found.verdict == "reachable" and found.error <= 1e-9


def test_an_mlp_is_no_steeper_than_its_bound():
    _, block = frozen_block()
    block.ln2 = torch.nn.Identity()
    a, b = torch.randn(2, 50, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = [block.fc2(torch.nn.functional.gelu(block.fc1(t))) for t in (a, b)]
    assert ((h[0] - h[1]).norm(dim=1) <= mlp_slope(block) * (a - b).norm(dim=1)).all()


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_has_a_family_or_is_refused(name):
    if name in STATIC:
        found = family(name)
        assert found.additive == (CLASSES[name].combine != "joint softmax")
        assert found.builds == (name in ("prefix", "vpt-deep"))
        assert found.ball == (name in ("vpt-deep", "vfpt", "vpt-projected"))  # tokens that the block's LN1 normalises
    else:
        with pytest.raises(ValueError, match="do not get the same prompt output"):
            family(name)


def test_what_cannot_be_decided_is_said_to_be():
    vit, block = frozen_block(3, 6)  # heads of 2 dimensions
    x = shared_tokens(6, n=3)
    x[:, 0] = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # three queries
    targets = torch.randn(3, 1, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = reachable(block, x, targets)
    assert found.verdict == "undecided" and "3 different queries of 2 dimensions" in found.reason
    assert np.isnan(found.error) and found.length == 0 and found.bound == 0
    found = reachable(block, x[:1], outputs(block, x[:1], None, "residual") + 1e-3, "vpt-deep")
    assert found.verdict == "undecided" and "here are 3 heads" in found.reason
    found = reachable(block, x[:1], targets[:1], "norga")
    assert found.verdict == "undecided" and "no prompts of norga are built" in found.reason
    assert reachable(block, x, outputs(block, x, None, "residual"), "norga").verdict == "reachable"  # without any


def test_bad_input_is_refused():
    _, block = frozen_block()
    x, targets = shared_tokens(), torch.ones(2, 1, 12, dtype=torch.float64)
    for wrong, match in (
        ({"tokens": x.float()}, "expected float64"),
        ({"targets": targets[:, 0]}, "targets are"),
        ({"targets": targets / 0}, "expected finite"),
        ({"targets": 0 * targets}, "all targets are zero"),
        ({"queries": (7,)}, "positions from 0 to 4"),
        ({"at": "output"}, "unknown level"),
        ({"mechanism": "vpt-deap"}, "did you mean 'vpt-deep'"),
        ({"mechanism": "vapt"}, "do not get the same"),
        ({"gap": 2.0}, "0 < gap < 1"),
    ):
        with pytest.raises(ValueError, match=match):
            reachable(**{"block": block, "tokens": x, "targets": targets} | wrong)
    block.attention.out.weight.zero_()
    with pytest.raises(ValueError, match="W_O .* is singular"):
        reachable(block, x, targets)
