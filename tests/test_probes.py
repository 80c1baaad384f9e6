"""Probes on cases whose answer is known: patterns, mass, states, swapped prompts."""

from __future__ import annotations

import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, FixedKeys, random_images, random_prompt, random_vit
from vpt_analysis import moe
from vpt_analysis.attention import KeyGroup
from vpt_analysis.probes import mass, patterns, states, swap
from vpt_analysis.prompts import Prompt
from vpt_analysis.prompts.registry import MECHANISMS as CLASSES

TRAVELLING = tuple(name for name in MECHANISMS if CLASSES[name].experts.startswith("propagated"))


class Told(Prompt):
    """Prompts whose value says how bright the image is; the key is that of no token, so CLS always looks."""

    name, experts = "told", "adaptive"

    def forward(self, layer, block, x, before):
        c = self.config
        value = x[:, :1].reshape(len(x), c.heads, 1, c.head_width)
        return None, KeyGroup(torch.zeros_like(value), value)


def test_patterns_of_the_first_layer_agree_and_later_ones_differ():
    vit = random_vit()
    images = random_images(vit, 5)
    found = patterns.content_divergence(vit, images, random_prompt(vit, "vpt-deep", 4), batch=2)
    assert found.shape == (5, vit.config.depth)
    assert abs(found[:, 0]).max() <= 1e-12  # same inputs: theorem T2
    assert (found[:, 1:] > 1e-6).all()


def test_divergence_against_its_definition():
    vit = random_vit()
    images, prompt = random_images(vit, 2), random_prompt(vit, "vpt-deep", 4)
    rows = [va.decompose(vit, images, p, keep=("gates",))[-1].content_gates for p in (prompt, None)]
    a, b = (r / r.sum(-1, keepdim=True) for r in rows)
    want = torch.nn.functional.kl_div(b.log(), a, reduction="none").sum(-1).mean((1, 2))
    found = patterns.content_divergence(vit, images, prompt)[:, -1]
    assert abs(want.detach().numpy() - found).max() <= 1e-12


def test_mass_of_equal_scores_is_the_share_of_the_keys():
    vit = random_vit()
    c = vit.config
    with torch.no_grad():
        for block in vit.blocks:
            block.attention.qkv.weight[: 2 * c.width] = 0  # no query, no key: all scores are those of the biases
            block.attention.qkv.bias[: 2 * c.width] = 0
    zeros = torch.zeros(1, c.heads, 5, c.head_width, dtype=torch.float64)
    found = mass.cls_mass(vit, random_images(vit, 3), FixedKeys(c, zeros, zeros), batch=2)
    assert found.shape == (3, c.depth, c.heads)
    assert abs(found - 5 / (5 + c.tokens)).max() <= 1e-12


def test_norm_matched_tokens_keep_norms_and_nothing_else():
    prompt = random_prompt(random_vit(), "vpt-deep", 4)
    before = prompt.tokens.detach().clone()
    other, again, third = (mass.norm_matched(prompt, seed) for seed in (0, 0, 1))
    assert (other.tokens.norm(dim=-1) - before.norm(dim=-1)).abs().max() <= 1e-12
    assert torch.equal(other.tokens, again.tokens) and not torch.equal(other.tokens, third.tokens)
    assert torch.cosine_similarity(other.tokens, before, dim=-1).abs().max() < 0.9
    assert torch.equal(prompt.tokens, before)
    with pytest.raises(ValueError, match="vapt prompts are not learnable tokens"):
        mass.norm_matched(random_prompt(random_vit(), "vapt", 4))


@pytest.mark.parametrize("name", MECHANISMS)
def test_states_vary_with_the_image_where_prompts_travel_and_from_the_second_layer_on(name):
    vit = random_vit()
    found = states.state_variance(vit, random_images(vit, 6), random_prompt(vit, name, 4), resamples=50)
    assert found.shape == (vit.config.depth, 3)
    assert abs(found[0]).max() <= 1e-12
    if name in TRAVELLING:
        assert (found[1:, 1] > 0.001).all() and (found[1:, 0] < 1).all()
    else:
        assert (found == 0).all()


def test_the_share_of_planted_states(monkeypatch):
    """States a_b + m_j with independent parts: the share is var(a) / (var(a) + var(m))."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(7, 1, 1, 3, generator=generator, dtype=torch.float64)
    m = torch.randn(1, 1, 4, 3, generator=generator, dtype=torch.float64)
    monkeypatch.setattr(states, "prompt_states", lambda *_: a + m)
    between, among = (x.var(d, unbiased=False).sum() for x, d in ((a, 0), (m, 2)))
    found = states.state_variance(None, None, None, resamples=10)
    assert abs(found[0, 0] - float(between / (between + among))) <= 1e-12


def test_recorded_prompts_replayed_on_their_own_image_change_nothing():
    vit = random_vit()
    images, prompt = random_images(vit, 5), random_prompt(vit, "vapt", 4)
    groups = swap.recorded(vit, images, prompt, batch=2)
    assert len(groups) == vit.config.depth and groups[0].key.shape[0] == 5
    with torch.no_grad():
        assert (vit(images, swap.Replayed(prompt, groups)) - vit(images, prompt)).abs().max() <= 1e-12


def test_swapping_static_prompts_changes_nothing_and_told_ones_everything():
    """Images of one brightness a class; the head reads CLS, to which only the prompts tell the image's own token."""
    vit = random_vit()
    labels = torch.arange(12) % 3
    images = random_images(vit, 12)
    head = torch.nn.Linear(vit.config.width, 3).double()
    for name in ("vpt-deep", "norga", "zero-init"):
        hits = swap.swapped_hits(vit, random_prompt(vit, name, 4), head, images, labels)
        assert hits.shape == (12, 2) and (hits[:, 0] == hits[:, 1]).all()
    prompt = random_prompt(vit, "vapt", 4)
    with torch.no_grad():
        groups, partner = swap.recorded(vit, images, prompt), swap.partners(labels)
        moved = [swap.picked(g, partner) for g in groups]
        want = head(vit.pool(vit(images, swap.Replayed(prompt, moved)))).argmax(-1) == labels
    assert (swap.swapped_hits(vit, prompt, head, images, labels)[:, 1] == want.numpy()).all()


@pytest.mark.parametrize("counts", [(3, 3, 3), (4, 2, 2), (5, 5), (1, 1, 1)])
def test_partners_are_a_permutation_into_other_classes(counts):
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
    partner = swap.partners(labels, seed=3)
    assert torch.equal(partner.sort().values, torch.arange(len(labels)))
    assert (labels[partner] != labels).all()


def test_partners_and_travelling_prompts_refused():
    with pytest.raises(ValueError, match="one class has 3 of 5 images"):
        swap.partners(torch.tensor([0, 0, 0, 1, 2]))
    vit = random_vit()
    with pytest.raises(ValueError, match="vpt-shallow prompts travel with their image"):
        swap.recorded(vit, random_images(vit, 2), random_prompt(vit, "vpt-shallow", 3))


def test_class_information_is_all_or_nothing_on_planted_prompts():
    vit = random_vit()
    labels = torch.arange(24) % 2
    images = 0.1 * random_images(vit, 24) + (2.0 * labels - 1).view(-1, 1, 1, 1)
    told = swap.class_information(vit, Told(vit.config, 1), (images[:12], labels[:12]), (images[12:], labels[12:]))
    assert told.shape == (vit.config.depth,) and (told[1:] == 1).all()  # CLS has seen the image after one layer
    static = random_prompt(vit, "vpt-deep", 3)
    none = swap.class_information(vit, static, (images[:12], labels[:12]), (images[12:], labels[12:]))
    assert (none == 0.5).all()


def test_vapt_as_written_spans_no_more_than_its_bottleneck_and_one():
    """LN of vectors in an r-dimensional space, and then an affine map: r + 1 directions, however many prompts."""
    vit = random_vit(width=48, heads=2)
    images = random_images(vit, 12)
    for rank in (2, 5):
        prompt = random_prompt(vit, "vapt", 12, rank=rank)
        for layer in range(vit.config.depth):
            found = moe.numerical_rank(moe.prompt_singular_values(vit, images, prompt, layer), 1e-9)
            assert (found == rank + 1).all()
    free = random_prompt(vit, "vapt-released", 12, rank=2)
    assert (moe.numerical_rank(moe.prompt_singular_values(vit, images, free, 1), 1e-9) > 12).all()
