"""Overlap of prompt values with the content's, effects of ablation, and their relation, on planted values."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

import vpt_analysis as va
from tests.planted import blind, half_spoken, planted
from tests.reference import MECHANISMS, FixedKeys, random_images, random_prompt, random_vit
from vpt_analysis.attention import additive
from vpt_analysis.probes import ablation, overlap, overlap_effect
from vpt_analysis.probes.overlap_effect import permutation_p, rank_correlation
from vpt_analysis.prompts import Prompt
from vpt_analysis.prompts.registry import MECHANISMS as CLASSES

RIDING = tuple(name for name in MECHANISMS if CLASSES[name].experts.startswith("propagated"))
ENTERING = tuple(name for name in MECHANISMS if name not in RIDING)


class Masked(Prompt):
    """A prompt one of whose scores, in one layer, is -∞ after its gate: the key is there and has no weight."""

    name, experts = "masked", "as of another"

    def __init__(self, prompt: Prompt, layer: int, j: int):
        super().__init__(prompt.config, prompt.length)
        self.prompt, self.layer, self.j = prompt, layer, j

    def forward(self, layer, block, x, before):
        riders, group = self.prompt(layer, block, x, before)
        if layer != self.layer:
            return riders, group

        def score(s):
            s = s if group.score is None else group.score(s)
            return s.index_fill(-1, torch.tensor([self.j]), -torch.inf)

        return riders, dataclasses.replace(group, score=score)


@dataclasses.dataclass(frozen=True)
class Shifted:
    """A gate with a number of its own for each prompt."""

    shift: torch.Tensor

    def __call__(self, s):
        return s + self.shift


def relative(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).norm(dim=-1) / b.norm(dim=-1)


@pytest.mark.parametrize("name", ENTERING)
@torch.no_grad()
def test_a_prompt_taken_out_is_one_without_weight(name):
    vit = random_vit()
    images, prompt = random_images(vit, 3), random_prompt(vit, name, 3)
    found = ablation(vit, images, prompt, batch=2, resamples=9)
    assert found.effects.shape == (3, vit.config.depth, prompt.keys)
    plain = vit(images, prompt)[:, 0]
    for layer in range(vit.config.depth):
        for j in range(prompt.keys):
            want = relative(vit(images, Masked(prompt, layer, j))[:, 0], plain)
            assert abs(found.effects[:, layer, j] - want.numpy()).max() <= 1e-12
    assert found.effects.max() > 1e-6
    assert found.mean.estimate == pytest.approx(found.effects.mean(0), abs=1e-15)


@pytest.mark.parametrize("name", RIDING)
def test_prompts_that_travel_are_refused_with_the_reason(name):
    vit = random_vit()
    images, prompt = random_images(vit, 3), random_prompt(vit, name, 3)
    for probe in (ablation, overlap_effect):
        with pytest.raises(ValueError, match=f"{name} prompts travel in the sequence"):
            probe(vit, images, prompt, resamples=9)
    assert len(overlap.value_overlap(vit, images, prompt, resamples=9)) == vit.config.depth  # which needs no ablation


@torch.no_grad()
def test_no_mass_no_effect_and_the_last_prompt_leaves_the_plain_layer():
    vit = blind(depth=1)
    images = random_images(vit, 3)
    found = ablation(vit, images, planted(vit, [0.0, -900.0, 0.5]), resamples=9)
    assert abs(found.effects[:, 0, 1]).max() <= 1e-12 and (found.effects[:, 0, [0, 2]] > 1e-6).all()
    for group in ({}, {"combine": additive}):
        one = planted(vit, [0.3], **group)
        want = relative(vit(images)[:, 0], vit(images, one)[:, 0])
        assert abs(ablation(vit, images, one, resamples=9).effects[:, 0, 0] - want.numpy()).max() <= 1e-12


@torch.no_grad()
def test_a_gate_s_own_numbers_go_with_their_prompt_and_hidden_ones_are_refused():
    vit = random_vit()
    images, key = random_images(vit, 3), torch.randn(2, 1, 3, 4, 8, dtype=torch.float64)
    shift = torch.tensor([0.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    prompt = FixedKeys(vit.config, key[0], key[1], score=Shifted(shift))
    found = ablation(vit, images, prompt, layers=[1], resamples=9)
    assert found.layers == (1,)
    want = [relative(vit(images, Masked(prompt, 1, j))[:, 0], vit(images, prompt)[:, 0]) for j in range(4)]
    assert abs(found.effects[:, 0] - torch.stack(want, 1).numpy()).max() <= 1e-12
    hidden = FixedKeys(vit.config, key[0], key[1], score=lambda s: s + shift)
    with pytest.raises(ValueError, match="the gate of fixed-keys prompts is a function that may hold tensors out of"):
        ablation(vit, images, hidden, resamples=9)


@torch.no_grad()
def test_scores_and_loss_by_hand():
    vit = random_vit()
    images, prompt, labels = random_images(vit, 4), random_prompt(vit, "vapt", 3), torch.tensor([0, 1, 2, 1])
    head = torch.nn.Linear(vit.config.width, 3).double()
    other, plain = (head(vit(images, p)[:, 0]) for p in (Masked(prompt, 1, 2), prompt))
    found = ablation(vit, images, prompt, head, labels, "loss", batch=3, resamples=9)
    want = F.cross_entropy(other, labels, reduction="none") - F.cross_entropy(plain, labels, reduction="none")
    assert abs(found.effects[:, 1, 2] - want.numpy()).max() <= 1e-12
    want = relative(*(s - s.mean(-1, keepdim=True) for s in (other, plain)))
    head.bias += 5.0  # a shift of all scores says nothing of the class
    found = ablation(vit, images, prompt, head, measure="scores", layers=[1], resamples=9)
    assert abs(found.effects[:, 0, 2] - want.numpy()).max() <= 1e-12


def test_values_inside_and_outside_of_what_the_content_says():
    vit = half_spoken()
    e, inside, outside = vit.config.head_width, torch.zeros(8).double(), torch.zeros(8).double()
    inside[:4], outside[4:] = torch.tensor([1.0, -2.0, 0.5, 1.0]), torch.tensor([2.0, 1.0, -0.5, 1.0])
    both = torch.stack([inside, outside, inside + outside])
    for found in overlap.value_overlap(vit, random_images(vit, 4), planted(vit, [0.0] * 3, both), 1.0, resamples=9):
        assert abs(found.shares.estimate - [1, 0, 0.5]).max() <= 1e-10
        assert (
            abs(found.pooled.low - [1, 0, 0.5]).max() <= 1e-10
            and abs(found.pooled.high - found.pooled.low).max() < 1e-10
        )
        assert (found.dimension == e // 2).all() and (found.chance == 0.5).all()
        assert all(a == pytest.approx([0, math.pi / 2], abs=1e-6) for a in found.angles)
    for value, angle in ((inside, 0), (outside, math.pi / 2)):
        (found, *_) = overlap.value_overlap(
            vit, random_images(vit, 4), planted(vit, [0.0], value[None]), 1.0, resamples=9
        )
        assert all(a == pytest.approx([angle], abs=1e-6) for a in found.angles)
    silent = planted(vit, [0.0, 0.0], torch.stack([inside, 0 * inside]))
    (found, *_) = overlap.value_overlap(vit, random_images(vit, 4), silent, resamples=9)
    assert np.isnan(found.shares.estimate[:, 1]).all() and np.isfinite(found.shares.estimate[:, 0]).all()


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_overlap_by_its_definition_streamed_or_at_once(name):
    vit = random_vit()
    images, prompt = random_images(vit, 5), random_prompt(vit, name, 4)
    splits = va.decompose(vit, images, prompt, keep=("gates",))
    once = overlap.value_overlap(vit, images, prompt, 0.8, resamples=9)
    streamed = overlap.value_overlap(vit, images, prompt, 0.8, batch=2, resamples=9)
    for split, found, again in zip(splits, once, streamed, strict=True):
        inside = whole = 0.0
        for head in range(vit.config.heads):
            stack = split.content_experts[:, head].flatten(0, 1)
            _, s, directions = torch.linalg.svd(stack, full_matrices=False)
            r = int((s.square().cumsum(0) < 0.8 * s.square().sum()).sum()) + 1
            v = split.prompt_experts.expand(5, -1, -1, -1)[:, head]  # (B, P, e)
            part, all_of_it = (v @ directions[:r].T).square().sum(-1).mean(0), v.square().sum(-1).mean(0)
            assert found.dimension[head] == r
            assert found.shares.estimate[head] == pytest.approx((part / all_of_it).detach().numpy(), abs=1e-10)
            inside, whole = inside + part, whole + all_of_it
        assert found.pooled.estimate == pytest.approx((inside / whole).detach().numpy(), abs=1e-10)
        for side in ("estimate", "low", "high"):
            assert abs(getattr(found.pooled, side) - getattr(again.pooled, side)).max() <= 1e-9


@pytest.mark.parametrize("name", ["vpt-deep", "vapt"])
def test_a_resample_is_the_overlap_of_the_repeated_images(name):
    vit = random_vit()
    images, prompt, rows = random_images(vit, 4), random_prompt(vit, name, 3), [0, 0, 2, 3]
    moments, prompts = (v[:, 1] for v in overlap.head_values(vit, images, prompt, [2], 2)[2])
    inside, whole = overlap.explained(moments, prompts, np.array([[2, 0, 1, 1]]) / 4, 3)
    moments, prompts = (v[:, 1] for v in overlap.head_values(vit, images[rows], prompt, [2], 4)[2])
    want = overlap.explained(moments, prompts, np.full((1, 4), 0.25), 3)
    assert inside == pytest.approx(want[0], rel=1e-9) and whole == pytest.approx(want[1], rel=1e-9)


def test_rank_correlation_is_scipy_s_and_permutations_know_chance():
    generator = np.random.default_rng(0)
    a, b = generator.integers(5, size=(2, 3, 9)).astype(float)
    want = [scipy.stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b) == pytest.approx(want, abs=1e-12)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    line = np.arange(5.0)[None]
    assert abs(permutation_p(line, -line, 0) - 2 / 120) < 0.01  # two orders of 120 are as extreme
    found = [permutation_p(*generator.normal(size=(2, 2, 6)), seed) for seed in range(20)]
    assert 0.3 < np.mean(found) < 0.7


def test_a_planted_relation_of_overlap_and_effect_is_found():
    """Equal gates; the more of a value lies outside the content's span, the longer it is, and the more it moves."""
    vit = half_spoken(depth=1)
    value = torch.zeros(5, 8, dtype=torch.float64)
    value[:, 0], value[:, 5] = 1.0, 10 * 2.0 ** torch.arange(5)
    images, order = random_images(vit, 6), torch.tensor([3, 0, 4, 1, 2])
    found = overlap_effect(vit, images, planted(vit, [-3.0] * 5, value), energy=1.0, resamples=50)
    assert found.correlation.estimate == pytest.approx(-1, abs=1e-12) and found.correlation.high < -0.5
    assert found.p_value < 0.05
    other = overlap_effect(vit, images, planted(vit, [-3.0] * 5, value[order]), energy=1.0, resamples=50)
    assert other.correlation.high == pytest.approx(found.correlation.high, abs=1e-9)
    same = overlap_effect(vit, images, planted(vit, [-3.0] * 5, value[:1].expand(5, -1)), resamples=9)
    assert np.isnan(same.correlation.estimate) and np.isnan(same.p_value)


@pytest.mark.parametrize("name", ["vpt-deep", "e2vpt", "vapt"])
def test_the_relation_is_that_of_its_parts(name):
    vit = random_vit()
    images, prompt = random_images(vit, 4), random_prompt(vit, name, 5)
    found = overlap_effect(vit, images, prompt, layers=[0, 2], resamples=20)
    want = [
        scipy.stats.spearmanr(o.pooled.estimate, m).statistic
        for o, m in zip(found.overlaps, found.ablation.mean.estimate, strict=True)
    ]
    assert found.by_layer.estimate == pytest.approx(want, abs=1e-12)
    assert found.correlation.estimate == pytest.approx(np.mean(want), abs=1e-12)
    assert found.correlation.low <= found.correlation.high and 0 < found.p_value <= 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"measure": "accuracy"}, "unknown measure 'accuracy'"),
        ({"measure": "scores"}, "measure 'scores' needs class scores"),
        ({"measure": "loss", "head": torch.nn.Linear(24, 2).double()}, "measure 'loss' needs labels"),
        ({"layers": [5]}, r"layers \[5\] asked for; this backbone has layers 0 to 2"),
        ({"layers": []}, r"layers \[\] asked for"),
        ({"energy": 0.0}, r"energy is 0.0; expected a share in \(0, 1\]"),
        ({"length": 2}, "2 prompt keys a layer; a rank correlation"),
        ({"n": 1}, "1 images given"),
    ],
)
def test_refused(arguments, message):
    vit = random_vit()
    images, prompt = (
        random_images(vit, arguments.pop("n", 3)),
        random_prompt(vit, "vpt-deep", arguments.pop("length", 3)),
    )
    with pytest.raises(ValueError, match=message):
        overlap_effect(vit, images, prompt, **arguments)
