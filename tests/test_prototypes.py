"""Prompts that start at prototypes: cluster centres of the content tokens they stand beside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

import vpt_analysis as va
from tests.reference import MECHANISMS, entering, random_images, random_vit
from vpt_analysis.prompts import content, from_prototypes

VIT = random_vit(image_size=16, width=16, heads=2, depth=2)  # 5 tokens an image
IMAGES = random_images(VIT, 8)
TOKENS = ("vpt-deep", "vfpt", "e2vpt", "zero-init", "cross", "norga")  # tokens for every layer
TRAVEL = ("vpt-shallow", "gated")  # tokens for the first layer
UNTIED = ("prefix", "prefix-scaled", "prefix-shared")
REFUSED = ("vapt", "vapt-released", "vpt-projected")


def test_every_mechanism_is_sorted():
    assert sorted(TOKENS + TRAVEL + UNTIED + REFUSED) == list(MECHANISMS)


@pytest.fixture(scope="module")
def centres() -> list[torch.Tensor]:
    """What k-means finds for each layer, from the tokens in the order that seed 3 gives."""
    rng = np.random.default_rng(3)
    found = []
    for x in entering(VIT, IMAGES, None):
        tokens = x.flatten(0, 1).numpy()
        tokens = tokens[rng.permutation(len(tokens))]
        found.append(torch.from_numpy(KMeans(4, n_init=1, random_state=3).fit(tokens).cluster_centers_))
    return found


def test_centres_are_means_of_the_tokens_nearest_to_them(centres):
    for x, c in zip(entering(VIT, IMAGES, None), centres, strict=True):
        tokens = x.flatten(0, 1)
        nearest = torch.cdist(tokens, c).argmin(1)
        assert set(nearest.tolist()) == {0, 1, 2, 3}
        for j in range(4):
            assert (tokens[nearest == j].mean(0) - c[j]).abs().max() <= 1e-10


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_of_every_layer_are_the_centres(name, centres):
    prompt = from_prototypes(name, VIT, IMAGES, 4, seed=3)
    tokens = (prompt.below if name == "norga" else prompt).tokens
    assert tokens.shape == (2, 4, 16) and tokens.dtype == torch.float64 and tokens.requires_grad
    for layer in range(2):
        assert (tokens[layer] - centres[layer]).abs().max() <= 1e-10


@pytest.mark.parametrize("name", TRAVEL)
def test_prompts_that_travel_start_at_the_centres_of_the_first_layer(name, centres):
    prompt = from_prototypes(name, VIT, IMAGES, 4, seed=3)
    assert prompt.tokens.shape == (1, 4, 16)
    assert (prompt.tokens[0] - centres[0]).abs().max() <= 1e-10


@pytest.mark.parametrize("name", UNTIED)
def test_untied_prompts_start_as_tied_ones_at_the_same_centres(name):
    tied, untied = (from_prototypes(n, VIT, IMAGES, 4, seed=3) for n in ("vpt-deep", name))
    assert (VIT(IMAGES, untied) - VIT(IMAGES, tied)).abs().max() <= 1e-12


def test_norga_on_prefixes_starts_at_the_centres():
    plain = from_prototypes("prefix", VIT, IMAGES, 4, seed=3)
    prompt = from_prototypes("norga", VIT, IMAGES, 4, seed=3, on="prefix")
    assert torch.equal(prompt.below.key, plain.key) and torch.equal(prompt.below.value, plain.value)


@pytest.mark.parametrize("name", REFUSED)
def test_prompts_that_are_no_tokens_of_the_sequence_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} prompts are not tokens of a layer's sequence"):
        from_prototypes(name, VIT, IMAGES, 4)


def test_what_is_not_placed_starts_as_created():
    placed = from_prototypes("e2vpt", VIT, IMAGES, 4, seed=3)
    created = va.prompts.create("e2vpt", VIT.config, 4, seed=3)
    assert torch.equal(placed.key_values, created.key_values.to(VIT.patch.weight))


def test_same_seed_same_start():
    a, b, c = (from_prototypes("vpt-deep", VIT, IMAGES, 4, seed=seed).tokens for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("sample", [20_000, 7])
def test_batches_do_not_matter_and_only_a_sample_is_held(sample, monkeypatch):
    monkeypatch.setattr(content, "SAMPLE", sample)
    whole, parts = (content.entering(VIT, IMAGES, np.random.default_rng(0), batch=batch) for batch in (64, 3))
    everything = [x.flatten(0, 1) for x in entering(VIT, IMAGES, None)]
    rng = np.random.default_rng(0)
    for a, b, tokens in zip(whole, parts, everything, strict=True):
        assert a.shape == (min(sample, 8 * 5), 16) and (a - b).abs().max() <= 1e-12
        assert (a - tokens[rng.permutation(8 * 5)[:sample]]).abs().max() <= 1e-12


def test_the_backbone_keeps_no_hook_and_its_dtype_is_that_of_the_prompt():
    vit = random_vit(torch.float32, image_size=16, width=16, heads=2, depth=2)
    assert from_prototypes("vpt-deep", vit, random_images(vit, 2), 4).tokens.dtype == torch.float32
    assert not any(block._forward_pre_hooks for block in vit.blocks)


def test_length_zero_is_no_prompt():
    assert torch.equal(VIT(IMAGES, from_prototypes("vpt-deep", VIT, IMAGES, 0)), VIT(IMAGES))


@pytest.mark.parametrize("make, message", [
    (lambda: from_prototypes("vpt-deep", VIT, IMAGES[:1], 6), "5 content tokens for 6 prototypes; give more images"),
    (lambda: from_prototypes("vpt-deep", VIT, IMAGES[:0], 2), "no images given"),
    (lambda: from_prototypes("vpt-deap", VIT, IMAGES, 2), "did you mean 'vpt-deep'"),
    (lambda: from_prototypes("vpt-deep", VIT, IMAGES, 2, dropuot=0.1), "did you mean 'dropout'"),
])  # fmt: skip
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
