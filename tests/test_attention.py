"""The split of one attention call: naive against fused, over shapes, dtypes, scales and combine rules."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt_analysis import attention
from vpt_analysis.attention import KeyGroup, Separate, additive, attend, joint, split

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2e-2}


def problem(batch, heads, queries, content, prompts, width, scale, dtype, seed, shared=True):
    """Queries, keys and values, scaled so that the largest score of content and prompts is ±``scale``."""
    generator = torch.Generator().manual_seed(seed)

    def draw(b, n):
        return torch.randn(b, heads, n, width, generator=generator, dtype=torch.float64)

    q, k, v = draw(batch, queries), draw(batch, content), draw(batch, content)
    kp, vp = draw(1 if shared else batch, prompts), draw(1 if shared else batch, prompts)
    largest = max((attention.scores(q, x).abs().max().item() for x in (k, kp) if x.shape[2]), default=1.0)
    q *= scale / max(largest, 1e-9)
    return [x.to(dtype) for x in (q, k, v, kp, vp)]


def relative(x, y):
    return ((x.double() - y.double()).norm() / y.double().norm().clamp_min(1e-300)).item()


@settings(max_examples=120)
@given(
    st.integers(1, 3), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 5, 17, 33]),
    st.sampled_from([1, 2, 7, 31, 65]),
    st.sampled_from([0, 1, 2, 9, 50, 200]), st.sampled_from([1, 3, 8, 16, 33]),
    st.sampled_from([1e-3, 1.0, 10.0, 80.0]),
    st.sampled_from(list(BOUNDS)), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_fused_agrees_with_naive_and_with_attention_over_all_keys(
    batch, heads, queries, content, prompts, width, scale, dtype, shared, seed
):
    q, k, v, kp, vp = problem(batch, heads, queries, content, prompts, width, scale, dtype, seed, shared)
    group = KeyGroup(kp, vp)
    with torch.no_grad():
        fast, slow = split(q, k, v, content, group, "fused"), split(q, k, v, content, group, "naive")
    exact = attend(*(x.double() for x in (q, k, v)), KeyGroup(kp.double(), vp.double()))
    bound = BOUNDS[dtype]
    for part in (fast, slow):
        assert relative(part.output, exact) <= bound
        assert part.prompt_weight.min() >= 0 and part.prompt_weight.max() <= 1
        assert ((part.content_weight + part.prompt_weight).double() - 1).abs().max() <= bound
    assert (fast.prompt_weight.double() - slow.prompt_weight.double()).abs().max() <= bound * max(1.0, scale / 10)


@pytest.mark.parametrize("rule", [joint, additive, Separate(torch.tensor(0.4, dtype=torch.float64))])
def test_plain_attention_equals_the_split_for_every_combine_rule(rule):
    q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float64, 0)
    group = KeyGroup(kp, vp, combine=rule)
    for path in ("fused", "naive"):
        assert relative(split(q, k, v, 7, group, path).output, attend(q, k, v, group)) <= 1e-13


def test_combine_rules_by_their_definitions():
    q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float64, 0)
    s, sp = attention.scores(q, k), attention.scores(q, kp)
    content, prompt = torch.softmax(s, -1) @ v, torch.softmax(sp, -1) @ vp
    alpha = torch.tensor(0.7, dtype=torch.float64)
    assert relative(attend(q, k, v, KeyGroup(kp, vp, combine=additive)), content + prompt) <= 1e-14
    separate = attend(q, k, v, KeyGroup(kp, vp, combine=Separate(alpha)))
    assert relative(separate, content + alpha.tanh() * prompt) <= 1e-14
    together = torch.softmax(torch.cat([s, sp], -1), -1) @ torch.cat([v, vp.expand(2, -1, -1, -1)], 2)
    assert relative(attend(q, k, v, KeyGroup(kp, vp)), together) <= 1e-14


def test_a_score_function_acts_on_the_prompt_scores_alone():
    q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float64, 0)
    group = KeyGroup(kp, vp, score=lambda s: s + torch.tanh(s))
    sp = attention.scores(q, kp)
    gates = torch.softmax(torch.cat([attention.scores(q, k), sp + sp.tanh()], -1), -1)
    expected = gates[..., :7] @ v + gates[..., 7:] @ vp
    assert relative(attend(q, k, v, group), expected) <= 1e-14
    assert relative(split(q, k, v, 7, group, "fused").output, expected) <= 1e-14


def test_prompts_in_the_sequence_and_extra_prompts_are_one_group():
    q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float64, 0)
    riding = split(q, torch.cat([k, kp.expand(2, -1, -1, -1)], 2), torch.cat([v, vp.expand(2, -1, -1, -1)], 2), 7)
    extra = split(q, k, v, 7, KeyGroup(kp, vp))
    mixed = split(
        q, torch.cat([k, kp[:, :, :1].expand(2, -1, -1, -1)], 2), torch.cat([v, vp[:, :, :1].expand(2, -1, -1, -1)], 2),
        7, KeyGroup(kp[:, :, 1:], vp[:, :, 1:]),
    )  # fmt: skip
    for part in (extra, mixed):
        assert relative(part.prompt_term, riding.prompt_term) <= 1e-14
        assert relative(part.content_term, riding.content_term) <= 1e-14


def test_riding_prompts_cannot_use_another_rule_than_the_extra_ones():
    q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float64, 0)
    with pytest.raises(ValueError, match="cannot be mixed"):
        split(q, k, v, 5, KeyGroup(kp, vp, combine=additive))


def test_gradients_of_the_naive_split():
    q, k, v, kp, vp = (x.requires_grad_() for x in problem(1, 2, 3, 4, 2, 3, 2.0, torch.float64, 0))

    def terms(*args):
        part = split(*args[:3], 4, KeyGroup(*args[3:]), "naive")
        return part.content_term, part.prompt_term

    assert torch.autograd.gradcheck(terms, (q, k, v, kp, vp))


def test_a_mass_near_one_keeps_the_content_term_exact():
    q, k, v, kp, vp = problem(1, 1, 3, 5, 2, 4, 1.0, torch.float64, 0)
    group = KeyGroup(kp + 900 * q.mean(2, keepdim=True) / q.norm(), vp)
    part = split(q, k, v, 5, group)
    log_weight = part.content_lse - torch.logaddexp(part.content_lse, part.prompt_lse)
    assert part.prompt_weight.max() > 1 - 1e-9
    assert (part.content_weight.log() - log_weight).abs().max() <= 1e-12


def test_the_fused_kernel_is_checked_once_and_replaced_when_it_is_wrong(monkeypatch):
    attention.fused_is_sound.cache_clear()
    kernel, calls = attention._kernel, []

    def off_by_log_two(query, key, value):
        calls.append(1)
        out, lse = kernel(query, key, value)
        return out, lse + 0.6931

    monkeypatch.setattr(attention, "_kernel", off_by_log_two)
    try:
        q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float32, 0)
        for _ in range(2):
            out, lse = attention.fused(q, k, v)
            assert torch.allclose(lse, attention.naive(q, k, v)[1], atol=1e-5)
        assert len(calls) == 1
    finally:
        attention.fused_is_sound.cache_clear()


def test_unknown_path():
    q, k, v, *_ = problem(1, 1, 1, 1, 1, 1, 1.0, torch.float64, 0)
    with pytest.raises(ValueError, match="'fused' or 'naive'"):
        split(q, k, v, 1, None, "fast")


def test_autocast_leaves_the_scores_their_digits():
    """Rules and gates that are written out keep float32 scores inside a bfloat16 forward pass, as the kernels do."""
    q, k, v, kp, vp = problem(2, 3, 5, 7, 4, 8, 3.0, torch.float32, 0)
    with torch.autocast("cpu", torch.bfloat16):
        halves = [x.bfloat16() for x in (q, k, v, kp, vp)]
        s = attention.scores(halves[0], halves[1])
        out, lse = attention.naive(*halves[:3])
    assert s.dtype == lse.dtype == torch.float32 and out.dtype == torch.bfloat16
    exact = [x.bfloat16().double() for x in (q, k)]
    assert (s - attention.scores(*exact)).abs().max() <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("queries", [1, 31, 197, 1024])
def test_the_log_sum_exp_of_the_accelerator(dtype, queries):
    q, k, v, kp, vp = (x.cuda() for x in problem(2, 4, queries, queries, 50, 64, 10.0, dtype, 0))
    assert attention.fused_is_sound("cuda", dtype)
    for key, value in ((k, v), (kp, vp)):
        _, lse = attention.fused(q, key, value)
        assert lse.shape == q.shape[:3]
        assert torch.allclose(lse.float(), attention.naive(q, key, value)[1].float(), atol=1e-3)
