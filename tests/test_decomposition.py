"""``decompose``: what it keeps, what it checks, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, FixedKeys, backbone, captured, random_images, random_prompt, random_vit
from vpt_analysis import attention, decomposition

EVERYTHING = ("mass", "energy", "terms", "output", "gates", "prompt")


@pytest.mark.parametrize("weights", ["random", "real"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_fused_and_naive_agree_in_every_field(weights, name, dtype):
    vit = random_vit(dtype, registers=2) if weights == "random" else backbone("real", dtype)
    images, prompt = random_images(vit), random_prompt(vit, name, 7)
    bound = 1e-11 if dtype == torch.float64 else 2e-4
    with torch.no_grad():
        fused, naive = (va.decompose(vit, images, prompt, path=p, keep=EVERYTHING) for p in ("fused", "naive"))
    for a, b in zip(fused, naive, strict=True):
        assert a.kept.keys() == b.kept.keys()
        for field in a.kept:
            x, y = a.kept[field], b.kept[field]
            pairs = [(x, y)] if isinstance(x, torch.Tensor) else zip(vars(x).values(), vars(y).values(), strict=True)
            assert all((p - q).abs().max() <= bound * q.abs().max().clamp_min(1) for p, q in pairs), field


def test_shapes_and_defaults():
    vit = random_vit(registers=1)
    images, prompt = random_images(vit, 2), random_prompt(vit, "vpt-deep", 5)
    n, h, e = vit.config.tokens, 3, 8
    split = va.decompose(vit, images, prompt, keep=EVERYTHING)
    assert split.mass.shape == (3, 2, h, n)
    s = split[1]
    assert s.content_term.shape == s.prompt_term.shape == s.output.shape == (2, h, n, e)
    assert s.content_gates.shape == (2, h, n, n) and s.prompt_gates.shape == (2, h, n, 5)
    assert s.content_experts.shape == (2, h, n, e) and s.prompt_experts.shape == (1, h, 5, e)
    largest = max(t.numel() for s in va.decompose(vit, images, prompt) for t in tensors(s))
    assert largest <= 2 * h * n  # the default keeps nothing larger than (B, H, N) a layer


def tensors(s: va.LayerSplit):
    for value in s.kept.values():
        yield from [value] if isinstance(value, torch.Tensor) else vars(value).values()


@pytest.mark.parametrize("name", MECHANISMS)
def test_energy_shares_are_those_of_the_terms(name):
    vit = random_vit()
    for s in va.decompose(vit, random_images(vit), random_prompt(vit, name, 5), keep=("energy", "terms", "output")):
        total = s.output.square().sum(-1)
        assert (s.energy.content - s.content_term.square().sum(-1) / total).abs().max() <= 1e-10
        assert (s.energy.prompt - s.prompt_term.square().sum(-1) / total).abs().max() <= 1e-10
        assert (s.energy.inner - 2 * (s.content_term * s.prompt_term).sum(-1) / total).abs().max() <= 1e-10
        assert (s.energy.content + s.energy.prompt + s.energy.inner - 1).abs().max() <= 1e-12


def test_energy_of_nothing_is_zero():
    zero = torch.zeros(1, 1, 2, 3)
    assert all((share == 0).all() for share in vars(decomposition.energy(zero, zero)).values())


@pytest.mark.parametrize("changes", [{}, {"layer_scale": True}])
def test_contributions_to_the_residual_stream_are_what_the_block_adds(changes):
    vit = random_vit(**changes)
    images, prompt = random_images(vit), random_prompt(vit, "vpt-deep", 5)
    block = vit.blocks[1]
    (s,) = va.decompose(vit, images, prompt, layers=[1], keep=("terms",))
    *_, plain = captured(vit, images, prompt)[1]
    added = block.attention.merge(plain)
    added = added if block.scale1 is None else added * block.scale1
    bias = block.attention.out.bias * (1 if block.scale1 is None else block.scale1)
    total = s.residual_stream("content") + s.residual_stream("prompt") + bias
    assert (total - added).abs().max() <= 1e-12
    heads = s.residual_stream("prompt", per_head=True)
    assert heads.shape == (3, 3, vit.config.tokens, 24)
    assert (heads.sum(1) - s.residual_stream("prompt")).abs().max() <= 1e-12


def test_selected_layers_are_those_of_the_whole():
    vit = random_vit()
    images, prompt = random_images(vit), random_prompt(vit, "vpt-shallow", 5)
    whole, part = va.decompose(vit, images, prompt), va.decompose(vit, images, prompt, layers=[2, 0])
    assert [s.layer for s in part] == [0, 2]
    assert torch.allclose(part[0].mass, whole[0].mass) and torch.allclose(part[1].mass, whole[2].mass)


def test_without_a_prompt_all_is_content():
    vit = random_vit()
    for s in va.decompose(vit, random_images(vit), keep=EVERYTHING):
        assert s.mass.abs().max() == 0 and s.prompt_term.abs().max() == 0 and s.prompt_gates.shape[-1] == 0
        assert (s.energy.content - 1).abs().max() <= 1e-12 and torch.equal(s.content_term, s.output)


def test_kept_terms_survive_the_forward_pass():
    """The fused path reuses memory; nothing that was kept may change afterwards."""
    vit = random_vit()
    images, prompt = random_images(vit), random_prompt(vit, "vpt-deep", 5)
    both = va.decompose(vit, images, prompt, keep=("terms", "output"))
    for s in both:
        assert torch.allclose(s.content_term + s.prompt_term, s.output, atol=1e-14)
    for s, only in zip(both, va.decompose(vit, images, prompt, keep=("output",)), strict=True):
        assert torch.allclose(s.output, only.output, atol=1e-13)


def test_the_naive_path_has_gradients_and_the_fused_has_none():
    vit = random_vit()
    images, prompt = random_images(vit), random_prompt(vit, "vpt-deep", 5)
    va.decompose(vit, images, prompt, path="naive", keep=("mass",)).mass.sum().backward()
    assert prompt.tokens.grad.abs().max() > 0
    assert not va.decompose(vit, images, prompt).mass.requires_grad


def test_a_closed_separate_gate_has_finite_gradients():
    """α = 0 is where zero-initialised attention starts."""
    vit = random_vit()
    alpha = torch.zeros((), dtype=torch.float64, requires_grad=True)
    key, value = torch.randn(2, 1, 3, 4, 8, dtype=torch.float64).unbind(0)
    prompt = FixedKeys(vit.config, key, value, combine=attention.Separate(alpha))
    s = va.decompose(vit, random_images(vit), prompt, layers=[1], path="naive", keep=("prompt",))[0]
    s.prompt_gates.sum().backward()
    assert torch.isfinite(alpha.grad) and alpha.grad != 0


def test_what_the_fused_path_keeps_needs_no_gradient():
    vit = random_vit()
    s = va.decompose(vit, random_images(vit), random_prompt(vit, "vpt-deep", 5), keep=EVERYTHING)[0]
    assert not s.residual_stream("prompt").requires_grad and not any(t.requires_grad for t in tensors(s))


def test_a_prompt_that_drops_out_is_refused():
    vit = random_vit()
    prompt = random_prompt(vit, "vpt-deep", 2, dropout=0.5)
    va.decompose(vit, random_images(vit), prompt)
    with pytest.raises(ValueError, match="in training mode with dropout.*prompt.eval"):
        va.decompose(vit, random_images(vit), prompt.train())


@pytest.mark.parametrize("prompt", ["vpt-deep", torch.zeros(3)])
def test_things_that_are_no_prompt_or_no_backbone(prompt):
    vit = random_vit()
    with pytest.raises(TypeError, match="prompt is .*; expected a prompt: prompts.create"):
        va.decompose(vit, random_images(vit), prompt)
    with pytest.raises(TypeError, match="vit is Linear; expected a VisionTransformer: load it with load_backbone"):
        va.decompose(torch.nn.Linear(2, 2), random_images(vit))


def test_a_combine_rule_is_known_by_its_kind():
    vit = random_vit()
    key, value = torch.randn(2, 1, 3, 4, 8, dtype=torch.float64).unbind(0)
    a, b = (FixedKeys(vit.config, key, value, combine=c) for c in (attention.joint, attention.Joint()))
    assert torch.equal(vit(random_images(vit), a), vit(random_images(vit), b))


@pytest.mark.parametrize("check", ["sample", "full"])
@pytest.mark.parametrize("path", ["fused", "naive"])
def test_a_wrong_log_sum_exp_is_noticed(check, path, monkeypatch):
    vit = random_vit(torch.float32)
    original = getattr(attention, path)

    def off(query, key, value, *args, **kwargs):
        out, lse = original(query, key, value, *args, **kwargs)
        return out, lse + 1e-3 * key.shape[2]

    monkeypatch.setattr(attention, path, off)
    with pytest.raises(va.SplitError, match="layer 0: terms and plain attention differ by .* more than 1e-05"):
        va.decompose(vit, random_images(vit), random_prompt(vit, "vpt-deep", 5), path=path, check=check)


def test_the_full_check_sees_every_query(monkeypatch):
    """A fault in one query that the sample does not visit."""
    vit = random_vit(torch.float32)
    original = decomposition.split

    def off(*args):
        part = original(*args)
        part.content_term[0, 0, 7] += 1
        return part

    monkeypatch.setattr(decomposition, "split", off)
    images, prompt = random_images(vit), random_prompt(vit, "vpt-deep", 5)
    va.decompose(vit, images, prompt, layers=[1])
    with pytest.raises(va.SplitError):
        va.decompose(vit, images, prompt, layers=[1], check="full")


def test_weights_that_are_not_finite_are_noticed():
    vit = random_vit(torch.float32)
    vit.blocks[1].attention.qkv.weight.data[0, 0] = float("nan")
    with pytest.raises(va.SplitError, match="layer 1: .*nan relative.*not finite"):
        va.decompose(vit, random_images(vit), random_prompt(vit, "vpt-deep", 5))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_large_logits_stay_within_the_bound(scale, dtype):
    vit = random_vit(dtype)
    for block in vit.blocks:
        block.attention.qkv.weight.data[:48] *= scale**0.5
    images, prompt = random_images(vit), random_prompt(vit, "vpt-deep", 20)
    largest = max(attention.scores(q, k).abs().max().item() for q, k, *_ in captured(vit, images, prompt))
    assert largest > 40 if scale > 1 else largest > 1
    assert va.decompose(vit, images, prompt, check="full").residual <= decomposition.BOUND[dtype]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"keep": ("mas",)}, "unknown entry of keep 'mas'; did you mean 'mass'"),
        ({"path": "fast"}, "unknown path 'fast'"),
        ({"check": "none"}, "unknown check 'none'"),
        ({"layers": [3]}, r"layers \[3\] asked for; this backbone has layers 0 to 2"),
        ({"layers": []}, r"layers \(\) asked for"),
        ({"layers": [-1]}, r"layers \[-1\] asked for"),
    ],
)
def test_refused_arguments(arguments, message):
    vit = random_vit()
    with pytest.raises(ValueError, match=message):
        va.decompose(vit, random_images(vit), random_prompt(vit, "vpt-deep", 2), **arguments)


def test_fields_that_were_not_kept_say_how_to_keep_them():
    vit = random_vit()
    s = va.decompose(vit, random_images(vit), random_prompt(vit, "vpt-deep", 2))[0]
    with pytest.raises(
        AttributeError, match=r"'prompt_term' of layer 0 was not kept; decompose\(..., keep=\('terms',\)\)"
    ):
        _ = s.prompt_term
    with pytest.raises(AttributeError, match=r"'gates' of layer 0 was not kept; .*keep=.'gates'"):
        _ = s.gates
    with pytest.raises(AttributeError, match="no attribute 'masss'"):
        _ = s.masss
    with pytest.raises(ValueError, match="unknown term 'prompts'; did you mean 'prompt'"):
        s.residual_stream("prompts")
    assert dataclasses.is_dataclass(s)
