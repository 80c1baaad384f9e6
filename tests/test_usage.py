"""Entropy and usage of gates, on gates whose answer is known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.planted import blind, planted
from tests.reference import MECHANISMS, random_images, random_prompt, random_vit
from vpt_analysis.attention import Separate
from vpt_analysis.probes import over_images, usage

FIELDS = ("mass", "entropy", "content_entropy", "total_entropy", "shares", "effective", "routing", "dead")


@pytest.mark.parametrize("queries", ["cls", "all"])
def test_even_gates(queries):
    """Scores of 0 everywhere: log P given that a prompt is attended, log(N + P) over all, no routing."""
    vit = blind()
    n = vit.config.tokens
    for found in usage.gate_usage(vit, random_images(vit, 3), planted(vit, [0.0] * 5), queries, resamples=9):
        for name, want in {
            "mass": 5 / (n + 5), "entropy": math.log(5), "content_entropy": math.log(n),
            "total_entropy": math.log(n + 5), "shares": 0.2, "effective": 5, "routing": 0, "dead": 0,
        }.items():  # fmt: skip
            got = getattr(found, name)
            assert abs(got.estimate - want).max() <= 1e-12 and abs(got.high - got.low).max() <= 1e-12, name


def test_one_prompt_takes_all():
    vit = blind()
    (found, *_) = usage.gate_usage(vit, random_images(vit, 3), planted(vit, [0.0, 40.0, -800.0]), resamples=9)
    assert abs(found.entropy.estimate).max() <= 1e-12 and abs(found.effective.estimate - 1).max() <= 1e-12
    assert abs(found.shares.estimate - [0, 1, 0]).max() <= 1e-12
    assert (found.dead.estimate == 2).all() and abs(found.routing.estimate).max() <= 1e-12


def test_unequal_planted_gates_and_the_threshold_of_the_dead():
    vit = blind()
    weights = np.array([0.5, 0.25, 0.2495, 0.0005])
    prompt = planted(vit, list(np.log(weights)))
    for threshold, dead in ((0.01, 1), (0.001, 0)):
        (found,) = usage.gate_usage(vit, random_images(vit, 2), prompt, layers=[1], dead=threshold, resamples=9)
        assert abs(found.shares.estimate - weights).max() <= 1e-12 and (found.dead.estimate == dead).all()
    assert abs(found.entropy.estimate + (weights * np.log(weights)).sum()).max() <= 1e-12
    assert abs(found.mass.estimate - 1 / (vit.config.tokens + 1)).max() <= 1e-12


def test_two_queries_that_use_one_prompt_each_are_all_routing():
    prompts = torch.tensor([[[[0.5, 0.0], [0.0, 0.5]]]], dtype=torch.float64)  # (1, 1, 2, 2)
    content = torch.full((1, 1, 2, 1), 0.5, dtype=torch.float64)
    moments = usage.gate_moments(content, prompts).numpy().repeat(2, axis=0)
    found = usage._usage(0, moments, 0.01, resamples=5)
    assert abs(found.routing.estimate - math.log(2)) <= 1e-12 and abs(found.entropy.estimate) <= 1e-12
    assert abs(found.total_entropy.estimate - math.log(2)) <= 1e-12


@pytest.mark.parametrize("alpha", [0.7, -0.7])
def test_the_shares_of_two_softmaxes(alpha):
    """Weights 1 and tanh α, of either sign: mass tanh|α| / (1 + tanh|α|), and the entropy stays that of the prompts."""
    vit = blind()
    prompt = planted(vit, [0.0, 0.0], combine=Separate(torch.tensor(alpha, dtype=torch.float64)))
    (found, *_) = usage.gate_usage(vit, random_images(vit, 2), prompt, resamples=9)
    assert abs(found.mass.estimate - math.tanh(0.7) / (1 + math.tanh(0.7))).max() <= 1e-12
    assert abs(found.entropy.estimate - math.log(2)).max() <= 1e-12


def test_prompts_without_mass_have_no_entropy():
    vit = blind()
    prompt = planted(vit, [0.0, 0.0], combine=Separate(torch.tensor(0.0, dtype=torch.float64)))
    (found, *_) = usage.gate_usage(vit, random_images(vit, 2), prompt, resamples=9)
    assert (found.mass.estimate == 0).all()
    assert all(np.isnan(getattr(found, name).estimate).all() for name in ("entropy", "shares", "routing", "dead"))
    assert abs(found.content_entropy.estimate - math.log(vit.config.tokens)).max() <= 1e-12


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_mechanism_by_the_definition_and_the_chain_rule(name):
    vit = random_vit()
    images, prompt = random_images(vit, 5), random_prompt(vit, name, 4)
    splits = va.decompose(vit, images, prompt, keep=("gates",))
    for queries in ("cls", "all"):
        for split, found in zip(splits, usage.gate_usage(vit, images, prompt, queries, resamples=9), strict=True):
            shares = split.gates.abs() / split.gates.abs().sum(-1, keepdim=True)
            shares = shares[:, :, :1] if queries == "cls" else shares
            prompts = shares[..., vit.config.tokens :]
            mass = prompts.sum(-1)
            entropy = torch.distributions.Categorical(prompts / mass[..., None]).entropy()  # (B, H, Q)
            assert found.mass.estimate == pytest.approx(mass.mean((0, 2)).numpy(), rel=1e-10)
            want = (mass * entropy).sum((0, 2)) / mass.sum((0, 2))
            assert found.entropy.estimate == pytest.approx(want.numpy(), rel=1e-10)
            split_off = torch.distributions.Bernoulli(mass).entropy().mean((0, 2)).numpy()
            m, inside, outside = found.mass.estimate, found.entropy.estimate, found.content_entropy.estimate
            assert found.total_entropy.estimate == pytest.approx(split_off + m * inside + (1 - m) * outside, rel=1e-10)
            assert (found.routing.estimate >= -1e-12).all()
            assert (found.effective.estimate <= prompt.keys + 1e-9).all()


@pytest.mark.parametrize("name", ["vpt-deep", "vpt-shallow", "vapt"])
def test_streamed_equals_at_once_and_relabelled_prompts(name):
    vit = random_vit()
    images, prompt = random_images(vit, 7), random_prompt(vit, name, 4)
    once, streamed = (usage.gate_usage(vit, images, prompt, batch=b, resamples=20) for b in (64, 2))
    for a, b in zip(once, streamed, strict=True):
        for field in FIELDS:
            for side in ("estimate", "low", "high"):
                assert abs(getattr(getattr(a, field), side) - getattr(getattr(b, field), side)).max() <= 1e-11
    if name == "vapt":
        return
    with torch.no_grad():
        prompt.tokens.copy_(prompt.tokens[:, [2, 0, 3, 1]])
    for a, b in zip(once, usage.gate_usage(vit, images, prompt, resamples=20), strict=True):
        assert abs(a.shares.estimate[:, [2, 0, 3, 1]] - b.shares.estimate).max() <= 1e-12
        assert abs(a.entropy.low - b.entropy.low).max() <= 1e-12 and (a.dead.estimate == b.dead.estimate).all()


def test_the_bootstrap_of_means_is_the_package_s_own():
    moments = np.random.default_rng(1).normal(1, 0.1, (9, 3))
    want = va.stats.bootstrap(moments, lambda x, axis: (m := x.mean(axis))[..., 0] / m[..., 1], resamples=300, seed=5)
    got = over_images.bootstrap_means(moments, lambda m: m[:, 0] / m[:, 1], resamples=300, seed=5)
    assert [got.estimate, got.low, got.high] == pytest.approx([want.estimate, want.low, want.high], rel=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"queries": "patches"}, "unknown queries 'patches'"),
        ({"n": 1}, "1 images given; intervals over images need at least 2"),
        ({"batch": 1}, "batch is 1; shared and per-image experts"),
        ({"length": 0}, "a prompt of length 0 has no experts and no gates"),
        ({"dead": 0.0}, "dead is 0.0; expected a share"),
        ({"layers": [7]}, r"layers \[7\] asked for"),
    ],
)
def test_refused(arguments, message):
    vit = random_vit()
    prompt = random_prompt(vit, "vpt-deep", arguments.pop("length", 3))
    with pytest.raises(ValueError, match=message):
        usage.gate_usage(vit, random_images(vit, arguments.pop("n", 3)), prompt, **arguments)
