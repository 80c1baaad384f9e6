"""The pooled feature without the tokens that nobody reads: the same feature and gradients, whatever the method."""

from __future__ import annotations

import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, random_images, random_prompt, random_vit, scatter
from vpt_analysis.bank import Bank
from vpt_analysis.members import pooled
from vpt_analysis.vit import POOLS


def made(vit, name):
    if name == "bank":
        return Bank([random_prompt(vit, "norga", 3, seed=k) for k in range(2)])
    if name in MECHANISMS:
        return random_prompt(vit, name, 3)
    return scatter(va.baselines.create(name, vit), 1)


@pytest.fixture
def last_mlp():
    """A function that gives the number of tokens that the last block's MLP saw in a call."""

    def count(vit, call):
        seen = []
        hook = vit.blocks[-1].ln2.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
        call()
        hook.remove()
        return seen

    return count


@pytest.mark.parametrize("name", [*MECHANISMS, *va.baselines.names(), "bank"])
def test_equals_pooling_all_tokens(name):
    vit = random_vit(registers=2, layer_scale=True)
    images, method = random_images(vit, 4), made(vit, name)
    features, wanted = pooled(vit, method, images), vit.pool(method.encode(vit, images))
    assert (features - wanted).abs().max() <= 1e-12
    parameters = [*method.parameters()]
    if parameters:
        mine, its = (torch.autograd.grad(f.square().sum(), parameters) for f in (features, wanted))
        assert all((a - b).abs().max() <= 1e-10 * max(1.0, b.abs().max()) for a, b in zip(mine, its, strict=True))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", ["vpt-deep", "vpt-shallow"])
def test_only_what_is_pooled_is_computed(pool, name, last_mlp):
    vit = random_vit(pool=pool)
    images, prompt = random_images(vit, 2), random_prompt(vit, name, 3)
    every = vit.config.tokens + 3 * (name == "vpt-shallow")
    assert last_mlp(vit, lambda: pooled(vit, prompt, images)) == [1 if pool == "cls" else every]
    assert last_mlp(vit, lambda: vit(images, prompt)) == [every], "the model itself must stay as it was"
    assert (pooled(vit, None, images) - vit.pool(vit(images))).abs().max() <= 1e-12


class Averaged(va.prompts.registry.MECHANISMS["vpt-deep"]):
    """A user's method that reads other tokens after the backbone."""

    def encode(self, vit, images):
        tokens = vit(images, self)
        return tokens + tokens.mean(1, keepdim=True)


def test_a_method_that_reads_further_tokens_gets_them():
    vit = random_vit()
    images = random_images(vit, 2)
    method = Averaged(vit.config, 3).double()
    method.initialise(torch.Generator().manual_seed(0))  # a new prompt's parameters have no values yet
    tokens = vit(images, method)
    assert (pooled(vit, method, images) - (tokens[:, 0] + tokens.mean(1))).abs().max() <= 1e-12


def test_a_model_for_pooling_shares_all_modules():
    vit = random_vit()
    short = vit.for_pooling()
    assert [id(p) for p in short.parameters()] == [id(p) for p in vit.parameters()]
    assert short(random_images(vit, 2)).shape == (2, 1, 24) and vit(random_images(vit, 2)).shape == (2, 17, 24)
    assert vit.for_pooling().for_pooling().gives == 1 and random_vit(pool="mean").for_pooling().gives is None
