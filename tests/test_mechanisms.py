"""Every mechanism against its equations, written out plainly; and the gradients of its parameters."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.reference import MECHANISMS, random_images, random_prompt, random_vit
from vpt_analysis import prompts
from vpt_analysis.prompts.vapt import ACTIVATIONS

P = 5
every_mechanism = pytest.mark.parametrize("name", MECHANISMS)


# The equations of a Vision Transformer with extra keys and values, head by head.


def layer_by_hand(block, x, key, value, join, gate=lambda s: s, temperature=1.0):
    """One block on (B, N, d) with extra keys and values (B or 1, P, d); ``join(s, v, s', v')`` is the output of a head.

    ``join`` also gets the head's number.
    """
    heads, q, k, v = block.attention.heads, *block.attention.qkv(block.ln1(x)).chunk(3, dim=-1)
    e, outputs = x.shape[-1] // heads, []
    for h in range(heads):
        cut = slice(h * e, (h + 1) * e)
        s = q[..., cut] @ k[..., cut].mT / math.sqrt(e) / temperature
        s_prompt = gate(q[..., cut] @ key[..., cut].mT / math.sqrt(e) / temperature)
        outputs.append(join(h, s, v[..., cut], s_prompt, value[..., cut]))
    x = x + block.attention.out(torch.cat(outputs, dim=-1))
    return x + block.fc2(F.gelu(block.fc1(block.ln2(x))))


def one_softmax(h, s, v, s_prompt, v_prompt):
    g = torch.cat([s, s_prompt], dim=-1).exp()
    g = g / g.sum(-1, keepdim=True)
    return g[..., : s.shape[-1]] @ v + g[..., s.shape[-1] :] @ v_prompt


def of_tokens(block, tokens):
    """Keys and values (P, d) that tokens (P, d) would have in the sequence."""
    return block.attention.qkv(block.ln1(tokens)).chunk(3, dim=-1)[1:]


def by_hand(vit, images, keys_values, join=lambda layer: one_softmax, gate=lambda layer: lambda s: s):
    x = vit.embed(images)
    for layer, block in enumerate(vit.blocks):
        x = layer_by_hand(block, x, *keys_values(layer, block), join(layer), gate(layer))
    return vit.norm(x)


def made(name, length=P, **options):
    vit = random_vit()
    return vit, random_images(vit, 2), random_prompt(vit, name, length, **options)


def assert_equal(vit, images, prompt, want):
    got = vit(images, prompt)
    assert (got - want).abs().max() <= 1e-12
    assert (got - vit(images)).abs().max() > 1e-3  # the prompt does something at all


def test_vpt_deep():
    vit, images, deep = made("vpt-deep")
    assert_equal(vit, images, deep, by_hand(vit, images, lambda layer, block: of_tokens(block, deep.tokens[layer])))


@pytest.mark.parametrize("activation, sigma", [
    ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("gelu", F.gelu), ("identity", lambda s: s),
])  # fmt: skip
@pytest.mark.parametrize("on", ["vpt-deep", "prefix"])
def test_norga(on, activation, sigma):
    vit, images, norga = made("norga", on=on, activation=activation)
    a, t, below = norga.alpha, norga.tau, norga.below

    def keys_values(layer, block):
        return (below.key[layer], below.value[layer]) if on == "prefix" else of_tokens(block, below.tokens[layer])

    gate = lambda layer: lambda s: s + a[layer] * sigma(t[layer] * s)  # noqa: E731
    assert_equal(vit, images, norga, by_hand(vit, images, keys_values, gate=gate))
    if activation == "identity":  # a temperature and nothing else
        gate = lambda layer: lambda s: (1 + a[layer] * t[layer]) * s  # noqa: E731
        assert_equal(vit, images, norga, by_hand(vit, images, keys_values, gate=gate))
    with torch.no_grad():
        norga.alpha.zero_()
    assert (vit(images, norga) - vit(images, below)).abs().max() <= 1e-12


def test_zero_init():
    vit, images, zero = made("zero-init")

    def join(layer):
        return lambda h, s, v, s_prompt, v_prompt: (
            s.softmax(-1) @ v + torch.tanh(zero.alpha[layer, h]) * (s_prompt.softmax(-1) @ v_prompt)
        )

    assert_equal(vit, images, zero, by_hand(vit, images, lambda i, block: of_tokens(block, zero.tokens[i]), join))


def test_cross():
    vit, images, cross = made("cross")

    def join(layer):
        return lambda h, s, v, s_prompt, v_prompt: s.softmax(-1) @ v + s_prompt.softmax(-1) @ v_prompt

    assert_equal(vit, images, cross, by_hand(vit, images, lambda i, block: of_tokens(block, cross.tokens[i]), join))


def dft(n):
    """The matrix of the discrete Fourier transform, e^{-2πi jk/n}."""
    jk = torch.outer(torch.arange(n), torch.arange(n)).double()
    return torch.polar(torch.ones_like(jk), -2 * math.pi * jk / n)


@pytest.mark.parametrize("share, fourier", [(0.0, 0), (0.5, 2), (1.0, 5)])
def test_vfpt(share, fourier):
    vit, images, vfpt = made("vfpt", share=share)

    def transformed(layer):
        p = vfpt.tokens[layer]
        return torch.cat([(dft(fourier) @ p[:fourier].to(torch.complex128) @ dft(24)).real, p[fourier:]])

    assert_equal(vit, images, vfpt, by_hand(vit, images, lambda i, block: of_tokens(block, transformed(i))))
    t = vfpt.prompt_tokens(1, images)[0, :fourier]
    mirrored = t[[-k % fourier for k in range(fourier)]][:, [-m % 24 for m in range(24)]]
    assert (t - mirrored).abs().max() <= 1e-12 if fourier else share == 0  # (k, l) and (-k, -l) are tied


def test_vfpt_without_fourier_prompts_is_vpt_deep_and_a_share_is_not_rounded_down_by_binary_fractions():
    vit, images, vfpt = made("vfpt", share=0.0)
    assert torch.equal(vit(images, vfpt), vit(images, random_prompt(vit, "vpt-deep", P)))
    assert prompts.create("vfpt", vit.config, 100, share=0.29).fourier == 29  # 0.29 · 100 < 29 in floating point


def gated_by_hand(vit, images, tokens, g, temperature):
    x, n = vit.embed(images), vit.config.tokens
    none = x.new_zeros(1, 0, x.shape[-1])
    entered = tokens.expand(len(x), -1, -1)
    for layer, block in enumerate(vit.blocks):
        out = layer_by_hand(block, torch.cat([x, entered], 1), none, none, one_softmax, temperature=temperature[layer])
        x, left = out[:, :n], out[:, n:]
        if layer + 1 < len(vit.blocks):
            entered = g[layer] * left + (1 - g[layer]) * entered
    return vit.norm(x)


def test_gated():
    vit, images, gated = made("gated")
    g = 1 / (1 + torch.exp(-gated.logit))
    assert g.min() > 0.1 and g.max() < 0.9 and (gated.temperature - 1).abs().min() > 0.04
    assert_equal(vit, images, gated, gated_by_hand(vit, images, gated.tokens[0], g, gated.temperature))


@torch.no_grad()
def test_gated_between_its_ends():
    """g = 1 is VPT-Shallow; g = 0 is VPT-Deep with the same tokens in every layer; temperature 1 in both."""
    vit, images, gated = made("gated")
    gated.temperature.fill_(1.0)
    shallow, deep = random_prompt(vit, "vpt-shallow", P), random_prompt(vit, "vpt-deep", P)
    shallow.tokens.copy_(gated.tokens)
    deep.tokens.copy_(gated.tokens.expand_as(deep.tokens))
    gated.logit.fill_(100.0)
    assert_equal(vit, images, gated, vit(images, shallow))
    gated.logit.fill_(-100.0)
    assert_equal(vit, images, gated, vit(images, deep))


@torch.no_grad()
@pytest.mark.parametrize("value, kept", [(-3.0, 0.01), (50.0, 10.0)])
def test_gated_keeps_its_temperature_within_bounds(value, kept):
    vit, _, gated = made("gated")
    gated.temperature.fill_(value)
    x = torch.zeros(1, 17, 24, dtype=torch.float64)
    assert gated(0, vit.blocks[0], x, None)[1].temperature == kept


def test_prefix():
    vit, images, prefix = made("prefix")
    assert_equal(vit, images, prefix, by_hand(vit, images, lambda i, _: (prefix.key[i], prefix.value[i])))


def test_prefix_shared():
    vit, images, shared = made("prefix-shared", rank=7)

    def keys_values(i, _):
        down, up = shared.down[i], shared.up[i]
        both = torch.tanh(shared.latent[i] @ down.weight.T + down.bias) @ up.weight.T + up.bias
        return both[:, :24], both[:, 24:]

    assert_equal(vit, images, shared, by_hand(vit, images, keys_values))


def test_prefix_scaled():
    vit, images, scaled = made("prefix-scaled")

    def keys_values(i, block):
        return of_tokens(block, scaled.key[i])[0], of_tokens(block, scaled.value[i])[1]

    assert_equal(vit, images, scaled, by_hand(vit, images, keys_values))


@torch.no_grad()
def test_prefix_scaled_with_one_token_for_both_is_vpt_deep():
    vit, images, scaled = made("prefix-scaled")
    deep = random_prompt(vit, "vpt-deep", P)
    for tokens in (scaled.key, scaled.value):
        tokens.copy_(deep.tokens)
    assert_equal(vit, images, scaled, vit(images, deep))


@pytest.mark.parametrize("share", [True, False])
def test_e2vpt(share):
    vit, images, e2vpt = made("e2vpt", key_values=3, share=share)
    own_key, own_value = e2vpt.key_values[0], e2vpt.key_values[0 if share else 1]
    assert len(e2vpt.key_values) == (1 if share else 2)

    def keys_values(i, block):
        key, value = of_tokens(block, e2vpt.tokens[i])
        return torch.cat([key, own_key[i]]), torch.cat([value, own_value[i]])

    assert_equal(vit, images, e2vpt, by_hand(vit, images, keys_values))


# VAPT: the image is convolved here, channel by channel; the mechanism never does.

FLAGS = [
    {}, {"static_first": True}, {"norm": True}, {"residual": True}, {"bias": True}, {"kernel": 3, "padding": True},
    {"kernel": 4, "padding": True}, {"kernel": 3}, {"kernel": 1}, {"rank": 3}, {"activation": "gelu"},
    {"activation": "tanh"}, {"static_first": True, "norm": True, "residual": True, "bias": True},
]  # fmt: skip


def vapt_by_hand(prompt, layer, x):
    """P_j = W₂ σ(W₁ Σ_k α_jk (F * x)_k), and what the flags add, for one image x (N, d)."""
    o, i = prompt.options, layer - prompt.options["static_first"]
    patches = x[1:]
    if o["norm"]:
        norm = prompt.norms[i]
        patches = F.layer_norm(patches, (24,), norm.weight, norm.bias, 1e-5)
    pad = (o["kernel"] - 1) // 2 if o["padding"] else 0
    channels = [F.conv2d(c.view(1, 1, 4, 4), prompt.kernels[i][None, None], padding=pad) for c in patches.T]
    g = torch.stack([prompt.projectors[i](c.flatten()) for c in channels], dim=-1)  # (P, d)
    p = prompt.up(ACTIVATIONS[o["activation"]](prompt.down(g)))
    return p + g if o["residual"] else p


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: "+".join(map(str, flags)) or "as-written")
def test_vapt(flags):
    vit, images, vapt = made("vapt", **flags)
    x = torch.randn(2, 17, 24, dtype=torch.float64)
    for layer in range(3):
        got = vapt.prompt_tokens(layer, x)
        if flags.get("static_first") and layer == 0:
            assert torch.equal(got, vapt.first[None])  # one set for all images
            continue
        want = torch.stack([vapt_by_hand(vapt, layer, image) for image in x])
        assert (got - want).abs().max() <= 1e-12 and got.std(0).max() > 1e-3
    assert len(vapt.kernels) == 3 - flags.get("static_first", 0)


def test_vapt_prompts_are_tokens_of_the_sequence():
    vit, images, vapt = made("vapt")
    x = vit.embed(images)
    for layer, block in enumerate(vit.blocks):
        p = torch.stack([vapt_by_hand(vapt, layer, image) for image in x])
        x = layer_by_hand(block, x, *of_tokens(block, p), one_softmax)
    assert_equal(vit, images, vapt, vit.norm(x))


def test_vapt_as_released_is_vapt_with_its_flags():
    vit, images, released = made("vapt-released")
    flags = {"static_first": True, "norm": True, "residual": True, "bias": True, "zero_init": True}
    vapt = random_prompt(vit, "vapt", P, **flags)
    assert {k: v for k, v in released.options.items() if v != prompts.create("vapt", vit.config, P).options[k]} == flags
    state = vapt.state_dict()
    assert state.keys() == released.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in released.state_dict().items())
    assert torch.equal(vit(images, vapt), vit(images, released))


@pytest.mark.parametrize("name", ["vapt", "vapt-released"])
def test_vapt_reads_the_patches_and_not_the_class_token_or_registers(name):
    vit = random_vit(registers=2)
    prompt = random_prompt(vit, name, P)
    x = torch.randn(1, 19, 24, dtype=torch.float64)
    other, patch = x.clone(), x.clone()
    other[:, :3].normal_()
    patch[:, 3].normal_()
    first, again, moved = (prompt.prompt_tokens(1, y) for y in (x, other, patch))
    assert torch.equal(first, again) and not torch.allclose(first, moved)


@every_mechanism
def test_gradients_of_the_parameters(name):
    """Reverse mode against finite differences in float64, at random values."""
    vit = random_vit(image_size=8, patch_size=4, width=8, depth=2, heads=2).requires_grad_(False)
    small = {"vapt": {"rank": 2}, "vapt-released": {"rank": 2}, "prefix-shared": {"rank": 2}}
    images, prompt = random_images(vit, 2), random_prompt(vit, name, 2, **small.get(name, {}))
    parameters = tuple(prompt.parameters())
    readout = torch.randn(5 * 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def output(*_):  # gradcheck moves the parameters where they lie
        return vit(images, prompt).flatten(1) @ readout

    assert torch.autograd.gradcheck(output, parameters, eps=1e-6, atol=1e-8, rtol=1e-5)
    gradients = torch.autograd.grad(output().square().sum(), parameters)
    unused = [key for (key, _), g in zip(prompt.named_parameters(), gradients, strict=True) if g.abs().max() == 0]
    assert not unused
