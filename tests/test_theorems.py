"""Theorems T1-T8 and T10-T12 (T9: test_identifiability.py): they must hold, in float64, on random and on real
weights, for every layer and head."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import vpt_analysis as va
from tests.reference import (
    MECHANISMS,
    STATIC,
    FixedKeys,
    TokenForm,
    backbone,
    captured,
    entering,
    moves,
    random_images,
    random_prompt,
)  # fmt: skip
from vpt_analysis import moe
from vpt_analysis.attention import Additive, Joint, Separate, attend, groups, joint, scores, split

CONFIG = backbone("random").config
ONE_KEY = tuple(name for name in STATIC if va.prompts.create(name, CONFIG, 1).keys == 1)
both_weights = pytest.mark.parametrize("weights", ["random", "real"])
both_paths = pytest.mark.parametrize("path", ["fused", "naive"])
every_mechanism = pytest.mark.parametrize("name", MECHANISMS)
every_static = pytest.mark.parametrize("name", STATIC)


def per_head(error: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Relative error ‖Δ‖/‖y‖ of each head of (B, H, N, e)."""
    return error.pow(2).sum((0, 2, 3)).sqrt() / y.pow(2).sum((0, 2, 3)).sqrt()


def some_layers(vit: va.VisionTransformer) -> list[int]:
    """All layers of the small random model, the first, a middle and the last one of the real one."""
    last = vit.config.depth - 1
    return [0, last // 2, last]


@both_weights
@every_mechanism
def test_T1_the_terms_add_up_to_plain_attention(weights, name):
    vit = backbone(weights)
    for length in (0, 1, 10, 200):
        images, prompt = random_images(vit, 1 if length > 10 else 2), random_prompt(vit, name, length)
        calls = captured(vit, images, prompt)
        for path in ("fused", "naive"):
            splits = va.decompose(vit, images, prompt, path=path, keep=("terms",), check="full")
            assert len(splits) == vit.config.depth
            for call, s in zip(calls, splits, strict=True):
                plain = call[-1][:, :, : vit.config.tokens]
                error = per_head(s.content_term.detach() + s.prompt_term.detach() - plain, plain)
                assert error.max() <= 1e-12
                assert s.residual <= 1e-12


@both_weights
@every_mechanism
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@torch.no_grad()
def test_T1_in_lower_precision(weights, name, dtype, bound):
    vit = backbone(weights, dtype)
    for length in (1, 10, 200):
        images, prompt = random_images(vit, 1), random_prompt(vit, name, length)
        for path in ("fused", "naive"):
            assert va.decompose(vit, images, prompt, path=path, check="full").residual <= bound


@both_weights
@every_mechanism
@both_paths
@torch.no_grad()
def test_T2_the_content_pattern_is_unchanged_but_for_its_factor(weights, name, path):
    """The pattern is that of the same tokens without prompts; its factor is 1 - λ under one softmax, 1 otherwise.

    A temperature of all scores is the exception: the pattern is then that of the rescaled scores, and no other.
    """
    vit = backbone(weights)
    n, images, prompt = vit.config.tokens, random_images(vit, 2), random_prompt(vit, name, 7)
    splits = va.decompose(vit, images, prompt, path=path, keep=("gates", "mass"))
    layers = zip(vit.blocks, entering(vit, images, prompt), captured(vit, images, prompt), splits, strict=True)
    for block, sequence, (_, key, value, extra, _), s in layers:
        query, content, _ = block.attention.project(block.ln1(sequence[:, :n]))
        temperature = 1.0 if extra is None or extra.temperature is None else extra.temperature
        s_content = scores(query, content) / temperature
        under_one_softmax = extra is None or isinstance(extra.combine, Joint)
        factor = 1 - s.mass if under_one_softmax else torch.ones_like(s.mass)
        pattern = s.content_gates / factor[..., None]
        assert (pattern - torch.softmax(s_content, dim=-1)).abs().max() <= 1e-12
        if temperature != 1:
            assert (pattern - torch.softmax(scores(query, content), dim=-1)).abs().max() > 1e-3
        if under_one_softmax:
            group = groups(key, value, n, extra)[2]
            s_prompt = scores(query / temperature, group.key, group.score)
            assert (s.gates - torch.softmax(torch.cat([s_content, s_prompt], dim=-1), dim=-1)).abs().max() <= 1e-12


@both_weights
@torch.no_grad()
def test_T2_holds_for_gated_prompts_at_a_temperature_of_one(weights):
    vit = backbone(weights)
    images, prompt = random_images(vit, 2), random_prompt(vit, "gated", 7)
    prompt.temperature.fill_(1.0)
    splits = va.decompose(vit, images, prompt, keep=("gates", "mass"))
    for block, sequence, s in zip(vit.blocks, entering(vit, images, prompt), splits, strict=True):
        query, content, _ = block.attention.project(block.ln1(sequence[:, : vit.config.tokens]))
        pattern = s.content_gates / (1 - s.mass)[..., None]
        assert (pattern - torch.softmax(scores(query, content), dim=-1)).abs().max() <= 1e-12


@both_weights
@every_static
@torch.no_grad()
def test_T3_static_prompts_span_at_most_as_many_directions_as_there_are_keys(weights, name):
    """At most min(keys, e), and generic weights reach the bound."""
    vit = backbone(weights)
    images = random_images(vit, 8 if weights == "random" else 3)
    for length in (1, 3, 5):
        prompt = random_prompt(vit, name, length)
        bound = min(prompt.keys, vit.config.head_width)
        for layer in some_layers(vit):
            values = moe.prompt_singular_values(vit, images, prompt, layer)
            assert (values[:, bound:] <= 1e-10 * values[:, :1]).all()
            assert (moe.numerical_rank(values, 1e-10) == bound).all()


@pytest.mark.parametrize("name", sorted(set(MECHANISMS) - set(STATIC)))
@torch.no_grad()
def test_T3_does_not_bind_prompts_that_move(name):
    vit = backbone("random")
    values = moe.prompt_singular_values(vit, random_images(vit, 12), random_prompt(vit, name, 3), layer=1)
    assert (moe.numerical_rank(values, 1e-6) > 3).all()


@both_weights
@every_mechanism
def test_T4_static_experts_have_no_jacobian_and_those_that_move_have(weights, name):
    vit = backbone(weights).requires_grad_(False)
    images = random_images(vit, 1).requires_grad_()
    prompt = random_prompt(vit, name, 3).requires_grad_(False)
    for s in va.decompose(vit, images, prompt, path="naive", keep=("prompt",)):
        experts = s.prompt_experts[..., 0].sum()
        assert experts.requires_grad or not moves(prompt, s.layer)
        if experts.requires_grad:  # else nothing leads from the image to them
            (jacobian,) = torch.autograd.grad(experts, images, retain_graph=True)
            assert jacobian.abs().max() > 1e-6 if moves(prompt, s.layer) else (jacobian == 0).all(), s.layer


@both_weights
@pytest.mark.parametrize("length", [1, 10, 50])
def test_T5_tokens_and_prefix_give_equal_outputs_and_gradients(weights, length):
    vit = backbone(weights)
    images, deep = random_images(vit, 2), random_prompt(vit, "vpt-deep", length)
    tokens = TokenForm(deep)
    out, reference = vit(images, deep), vit(images, tokens)
    assert (out - reference).norm() / reference.norm() <= 1e-12
    out.square().mean().backward()
    reference.square().mean().backward()
    assert (deep.tokens.grad - tokens.tokens.grad).norm() / tokens.tokens.grad.norm() <= 1e-10


@both_weights
def test_T6_rescaled_prompts_change_nothing_without_eps(weights):
    vit = with_eps(backbone(weights), 0.0)
    images, prompt = random_images(vit), random_prompt(vit, "vpt-deep", 5)
    before = vit(images, prompt)
    for factor in (1e-3, 7.0, 1e4):
        scaled = random_prompt(vit, "vpt-deep", 5)
        scaled.tokens.data *= factor
        assert (vit(images, scaled) - before).norm() / before.norm() <= 1e-12


@both_weights
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("factor", [0.01, 0.5, 10.0])
def test_T6_eps_scales_the_normalised_prompt_by_the_stated_factor(weights, eps, factor):
    vit = with_eps(backbone(weights), eps)
    for block, p in zip(vit.blocks, random_prompt(vit, "vpt-deep", 5).tokens, strict=True):
        variance = p.var(-1, unbiased=False, keepdim=True)
        ratio = ((variance + eps) / (variance + eps / factor**2)).sqrt()
        scaled, plain = block.ln1(factor * p) - block.ln1.bias, block.ln1(p) - block.ln1.bias
        assert (scaled - ratio * plain).norm() / plain.norm() <= 1e-12


def with_eps(vit: va.VisionTransformer, eps: float) -> va.VisionTransformer:
    """The same weights with another eps in every LayerNorm."""
    other = va.VisionTransformer(dataclasses.replace(vit.config, eps=eps)).double()
    other.load_state_dict(vit.state_dict())
    return other


def test_T7_speaks_of_all_static_mechanisms_that_can_have_one_key():
    """E²VPT has its key-value prompts beside the tokens: two keys at least."""
    assert set(STATIC) - set(ONE_KEY) == {"e2vpt"}


@both_weights
@pytest.mark.parametrize("name", ONE_KEY)
@torch.no_grad()
def test_T7_one_static_prompt_moves_each_head_along_one_direction(weights, name):
    vit = backbone(weights)
    images, prompt = random_images(vit, 4), random_prompt(vit, name, 1)
    for spectrum in moe.adaptivity_spectrum(vit, images, prompt, layers=some_layers(vit), resamples=10):
        values = moe.prompt_singular_values(vit, images, prompt, spectrum.layer)
        share = values[:, 0] ** 2 / (values**2).sum(-1)
        assert (share - 1).abs().max() <= 1e-12
        assert abs(spectrum.direction - 1).max() <= 1e-12
        assert spectrum.shares[2] == 0


@both_weights
@every_mechanism
@pytest.mark.parametrize("queries", ["cls", "all"])
@torch.no_grad()
def test_T8_shares_sum_to_one_and_static_experts_have_none(weights, name, queries):
    vit = backbone(weights)
    images, prompt = random_images(vit, 4), random_prompt(vit, name, 5)
    for s in moe.adaptivity_spectrum(vit, images, prompt, queries=queries, resamples=10):
        assert abs(s.shares.sum() - 1) <= 1e-12
        assert abs(s.per_head.sum(-1) - 1).max() <= 1e-12
        if moves(prompt, s.layer):
            assert s.shares[2] > 1e-4
        else:
            assert abs(s.shares[2:]).max() <= 1e-12


@both_weights
@every_static
@both_paths
@torch.no_grad()
def test_T10_inputs_with_a_common_query_token_share_the_prompt_output(weights, name, path):
    """Only its weight may differ: it does under one softmax, and does not where the rule knows no content."""
    vit = backbone(weights)
    prompt = random_prompt(vit, name, 5)
    tokens = torch.randn(2, 9, vit.config.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens[1, 0] = tokens[0, 0]
    for layer, block in enumerate(vit.blocks):
        _, extra = prompt(layer, block, tokens, None)
        part = split(*block.attention.project(block.ln1(tokens)), 9, extra, path)
        output = part.prompt_term[:, :, 0] / part.prompt_weight[:, :, 0, None]
        assert (output[0] - output[1]).norm() / output[0].norm() <= 1e-12
        difference = (part.prompt_weight[0, :, 0] - part.prompt_weight[1, :, 0]).abs()
        assert difference.min() > 1e-9 if isinstance(extra.combine, Joint) else difference.max() == 0


@both_weights
@every_mechanism
@both_paths
@torch.no_grad()
def test_T11_the_output_is_the_mixture_of_all_experts_by_their_gates(weights, name, path):
    """Under one softmax the gates are a distribution; other rules state what they sum to."""
    vit = backbone(weights)
    images, prompt = random_images(vit, 2), random_prompt(vit, name, 10)
    layers = zip(
        captured(vit, images, prompt),
        va.decompose(vit, images, prompt, path=path, keep=("gates", "output")),
        strict=True,
    )
    for (_, _, _, extra, _), s in layers:
        gates, experts = s.gates, s.experts
        assert gates.shape[-1] == vit.config.tokens + prompt.keys == experts.shape[2]
        assert (gates @ experts - s.output).norm() / s.output.norm() <= 1e-12
        total, sign = total_of_gates(joint if extra is None else extra.combine)
        assert (gates.sum(-1) - total).abs().max() <= 1e-12
        assert s.content_gates.min() >= 0 and (sign * s.prompt_gates).min() >= 0


def total_of_gates(rule):
    """What the gates of a query sum to, and the sign of the prompts'; each broadcasts over (B, H, Q, ...)."""
    if isinstance(rule, Separate):
        strength = torch.tanh(rule.alpha)  # (H, 1)
        return 1 + strength, strength.sign()[..., None]
    return (2, 1) if isinstance(rule, Additive) else (1, 1)


@both_weights
@every_mechanism
def test_T12_no_prompts_reproduce_the_plain_model(weights, name):
    vit = backbone(weights)
    images = random_images(vit, 2)
    assert torch.equal(vit(images, random_prompt(vit, name, 0)), vit(images))


@both_weights
def test_T12_zero_initialised_prompts_reproduce_the_plain_model_as_created(weights):
    vit = backbone(weights)
    images, prompt = random_images(vit, 2), va.prompts.create("zero-init", vit.config, 5).double()
    assert torch.equal(vit(images, prompt), vit(images))
    with torch.no_grad():
        prompt.alpha[-1, 0] = 0.1
    assert not torch.allclose(vit(images, prompt), vit(images))


@both_weights
def test_T12_a_closed_separate_gate_reproduces_the_plain_model(weights):
    vit = backbone(weights)
    c, images = vit.config, random_images(vit, 2)
    key, value = torch.randn(2, 1, c.heads, 6, c.head_width, dtype=torch.float64).unbind(0)
    closed = FixedKeys(c, key, value, combine=Separate(torch.zeros((), dtype=torch.float64)))
    opened = FixedKeys(c, key, value, combine=Separate(torch.ones((), dtype=torch.float64)))
    assert torch.equal(vit(images, closed), vit(images))
    assert not torch.allclose(vit(images, opened), vit(images))
    assert va.decompose(vit, images, closed).mass.abs().max() == 0
    query = torch.randn(2, c.heads, 4, c.head_width, dtype=torch.float64)
    assert torch.equal(attend(query, query, query, closed(0, None, query, None)[1]), attend(query, query, query))
