"""Theorems T1-T8 and T10-T12: they must hold, in float64, on random and on real weights, for every layer and head."""

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
    random_images,
    random_prompt,
    random_vit,
)  # fmt: skip
from vpt_analysis import moe
from vpt_analysis.attention import Separate, attend, groups, scores, split

both_weights = pytest.mark.parametrize("weights", ["random", "real"])
both_paths = pytest.mark.parametrize("path", ["fused", "naive"])
every_mechanism = pytest.mark.parametrize("name", MECHANISMS)


def per_head(error: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Relative error ‖Δ‖/‖y‖ of each head of (B, H, N, e)."""
    return error.pow(2).sum((0, 2, 3)).sqrt() / y.pow(2).sum((0, 2, 3)).sqrt()


@both_weights
@every_mechanism
@both_paths
@pytest.mark.parametrize("length", [0, 1, 10, 200])
def test_T1_the_terms_add_up_to_plain_attention(weights, name, path, length):
    vit = backbone(weights)
    images, prompt = random_images(vit, 2), random_prompt(vit, name, length)
    splits = va.decompose(vit, images, prompt, path=path, keep=("terms",), check="full")
    assert len(splits) == vit.config.depth
    for call, s in zip(captured(vit, images, prompt), splits, strict=True):
        plain = call[-1][:, :, : vit.config.tokens]
        error = per_head(s.content_term + s.prompt_term - plain, plain)
        assert error.max() <= 1e-12
        assert s.residual <= 1e-12


@both_weights
@every_mechanism
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("length", [1, 10, 200])
def test_T1_in_lower_precision(weights, name, dtype, bound, length):
    vit = backbone(weights, dtype)
    images, prompt = random_images(vit, 2), random_prompt(vit, name, length)
    for path in ("fused", "naive"):
        assert va.decompose(vit, images, prompt, path=path, check="full").residual <= bound


@both_weights
@every_mechanism
@both_paths
def test_T2_the_content_pattern_is_unchanged_but_for_its_factor(weights, name, path):
    """The gates are those of one softmax over all keys; its content part, renormalised, is the prompt-free pattern."""
    vit = backbone(weights)
    n, images, prompt = vit.config.tokens, random_images(vit, 2), random_prompt(vit, name, 7)
    splits = va.decompose(vit, images, prompt, path=path, keep=("gates", "mass"))
    for (query, key, value, extra, _), s in zip(captured(vit, images, prompt), splits, strict=True):
        content, _, group = groups(key, value, n, extra)
        s_content, s_prompt = (scores(query[:, :, :n], k) for k in (content, group.key))
        joint = torch.softmax(torch.cat([s_content, s_prompt], dim=-1), dim=-1)
        assert (s.gates - joint).abs().max() <= 1e-12
        factor = joint[..., :n].sum(-1)
        assert (factor - (1 - s.mass)).abs().max() <= 1e-12
        assert (joint[..., :n] / factor[..., None] - torch.softmax(s_content, dim=-1)).abs().max() <= 1e-12


@both_weights
@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("length", [1, 3, 5])
def test_T3_static_prompts_span_at_most_P_directions(weights, name, length):
    vit = backbone(weights)
    images, prompt = random_images(vit, 12), random_prompt(vit, name, length)
    for layer in range(vit.config.depth):
        values = moe.prompt_singular_values(vit, images, prompt, layer)
        assert (values[:, length] <= 1e-10 * values[:, 0]).all()
        assert (moe.numerical_rank(values, 1e-10) == length).all()


def test_T3_does_not_bind_adaptive_prompts():
    vit = random_vit()
    values = moe.prompt_singular_values(vit, random_images(vit, 12), random_prompt(vit, "vapt-released", 3), layer=1)
    assert (moe.numerical_rank(values, 1e-6) > 3).all()


@both_weights
def test_T4_static_experts_have_no_jacobian_and_adaptive_ones_have(weights):
    vit = backbone(weights)
    images = random_images(vit, 1).requires_grad_()
    for name in MECHANISMS:
        prompt = random_prompt(vit, name, 3)
        for s in va.decompose(vit, images, prompt, path="naive", keep=("prompt",)):
            (jacobian,) = torch.autograd.grad(
                s.prompt_experts[..., 0].sum(), images, allow_unused=True, retain_graph=True, materialize_grads=True
            )
            static = name in STATIC or s.layer == 0
            assert (jacobian == 0).all() if static else jacobian.abs().max() > 1e-6, (name, s.layer)


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


@both_weights
def test_T7_one_static_prompt_moves_each_head_along_one_direction(weights):
    vit = backbone(weights)
    images, prompt = random_images(vit, 8), random_prompt(vit, "vpt-deep", 1)
    for layer, spectrum in enumerate(moe.adaptivity_spectrum(vit, images, prompt, resamples=10)):
        values = moe.prompt_singular_values(vit, images, prompt, layer)
        share = values[:, 0] ** 2 / (values**2).sum(-1)
        assert (share - 1).abs().max() <= 1e-12
        assert abs(spectrum.direction - 1).max() <= 1e-12
        assert spectrum.shares[2] == 0


@both_weights
@every_mechanism
@pytest.mark.parametrize("queries", ["cls", "all"])
def test_T8_shares_sum_to_one_and_static_experts_have_none(weights, name, queries):
    vit = backbone(weights)
    images, prompt = random_images(vit, 8), random_prompt(vit, name, 5)
    for s in moe.adaptivity_spectrum(vit, images, prompt, queries=queries, resamples=10):
        assert abs(s.shares.sum() - 1) <= 1e-12
        assert abs(s.per_head.sum(-1) - 1).max() <= 1e-12
        if name in STATIC:
            assert abs(s.shares[2:]).max() <= 1e-12
        elif s.layer > 0:
            assert s.shares[2] > 1e-4


@both_weights
@both_paths
def test_T10_inputs_with_a_common_query_token_share_the_prompt_output(weights, path):
    vit = backbone(weights)
    prompt = random_prompt(vit, "vpt-deep", 5)
    tokens = torch.randn(2, 9, vit.config.width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens[1, 0] = tokens[0, 0]
    for layer, block in enumerate(vit.blocks):
        with torch.no_grad():
            _, extra = prompt(layer, block, tokens, None)
            part = split(*block.attention.project(block.ln1(tokens)), 9, extra, path)
        output = part.prompt_term[:, :, 0] / part.prompt_weight[:, :, 0, None]
        assert (output[0] - output[1]).norm() / output[0].norm() <= 1e-12
        assert (part.prompt_weight[0, :, 0] - part.prompt_weight[1, :, 0]).abs().min() > 1e-9


@both_weights
@every_mechanism
@both_paths
def test_T11_gates_are_a_distribution_over_all_experts_whose_mixture_is_the_output(weights, name, path):
    vit = backbone(weights)
    images, prompt = random_images(vit, 2), random_prompt(vit, name, 10)
    for s in va.decompose(vit, images, prompt, path=path, keep=("gates", "output")):
        gates, experts = s.gates, s.experts
        assert gates.shape[-1] == vit.config.tokens + 10 == experts.shape[2]
        assert gates.min() >= 0
        assert (gates.sum(-1) - 1).abs().max() <= 1e-12
        assert (gates @ experts - s.output).norm() / s.output.norm() <= 1e-12


@both_weights
@every_mechanism
def test_T12_no_prompts_reproduce_the_plain_model(weights, name):
    vit = backbone(weights)
    images = random_images(vit, 2)
    assert torch.equal(vit(images, random_prompt(vit, name, 0)), vit(images))


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
