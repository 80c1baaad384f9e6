"""Heads on features that nothing changes: computed once, read by many, the same results as pass by pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vpt_analysis as va
from tests.reference import random_images, random_vit
from tests.test_readouts import numbers
from tests.test_training import plain_loop, task
from vpt_analysis.constants import is_constant
from vpt_analysis.training import Training, accuracy, train, train_many

BOUND = {torch.float32: 1e-5, torch.float64: 1e-11}


def probe(vit):
    return va.baselines.create("linear", vit)


@pytest.fixture
def passes(monkeypatch):
    """The sizes of the batches that went through a backbone."""
    found, forward = [], va.VisionTransformer.forward

    def counted(self, images, prompt=None):
        found.append(len(images))
        return forward(self, images, prompt)

    monkeypatch.setattr(va.VisionTransformer, "forward", counted)
    return found


@pytest.mark.parametrize("pool", va.vit.POOLS)
def test_equals_the_loop_written_out(pool, dtype):
    """A loop that sends every batch through the backbone again; 17 images, so that batches are of all compositions."""
    vit = random_vit(dtype, pool=pool)
    plan = Training(steps=20, lr=0.03, weight_decay=0.02, batch=5, warmup=0.2, seed=3)
    trained = train(vit, probe(vit), *task(vit, 17), plan)
    optimiser = lambda p: torch.optim.AdamW(p, weight_decay=plan.weight_decay)  # noqa: E731
    losses, weight = plain_loop(vit, probe(vit), *task(vit, 17), plan, optimiser)
    assert np.abs(trained.losses - losses).max() < BOUND[dtype]
    assert (trained.head.weight - weight).abs().max() < 10 * BOUND[dtype]


def test_one_pass_of_the_backbone_serves_all_runs_and_steps(passes):
    vit = random_vit(torch.float32)
    plans = [Training(30, lr=lr, batch=8, evaluate_every=10, seed=k) for k, lr in enumerate((1e-3, 1e-2, 1e-1))]
    train_many(vit, [probe(vit) for _ in plans], *task(vit, 300), plans, validation=task(vit, 9, seed=1))
    assert passes == [256, 44, 9]


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_many_equal_as_many_by_themselves(kind, dtype):
    """Shared images and images of their own, rates and decays of their own, early stops at different steps."""
    vit = random_vit(dtype)
    data = [task(vit, n, n) if kind == "labels" else numbers(vit, n, 2, n) for n in (20, 31)]
    data, held_out = [data[0], data[0], data[1]], task(vit, 10, 5) if kind == "labels" else numbers(vit, 10, 2, 5)
    plans = [
        Training(40, lr=0.02 * 4**k, weight_decay=1e-3 * k, batch=6, accumulate=2, evaluate_every=4, patience=2, seed=k)
        for k in range(3)
    ]
    together = train_many(
        vit, [probe(vit) for _ in plans], *map(list, zip(*data, strict=True)), plans, validation=held_out
    )
    for own, plan, many in zip(data, plans, together, strict=True):
        alone = train(vit, probe(vit), *own, plan, validation=held_out)
        assert alone.kept == many.kept and np.array_equal(alone.evaluated, many.evaluated)
        assert np.abs(alone.losses - many.losses).max() < BOUND[dtype]
        assert np.abs(alone.validation - many.validation).max() < (1e-9 if dtype == torch.float64 else 1e-4)
        assert (alone.head.weight - many.head.weight).abs().max() < 10 * BOUND[dtype]
    assert not np.allclose(together[0].losses[:4], together[1].losses[:4], atol=1e-3), "the runs are one and the same"


def test_same_seed_same_bits_and_the_accuracy_of_the_images():
    vit = random_vit(torch.float32)
    held_out = task(vit, 300, seed=1)
    one, two = (train(vit, probe(vit), *task(vit), Training(9, batch=8), validation=held_out) for _ in range(2))
    assert np.array_equal(one.losses, two.losses) and torch.equal(one.head.weight, two.head.weight)
    assert one.validation[-1] == accuracy(vit, probe(vit), one.head, *held_out)
    with torch.no_grad():
        features = vit.pool(vit(held_out[0]))
    assert one.validation[-1] == accuracy(vit, probe(vit), one.head, features, held_out[1])


def test_resuming_ends_in_the_same_bits(tmp_path):
    """The second call begins after step 4 of 10; features in place of images leave a run's identity as it is."""
    vit = random_vit(torch.float32)
    plans = [Training(10, batch=8, evaluate_every=2, seed=k) for k in range(2)]

    def run(data, **more):
        return train_many(vit, [probe(vit) for _ in plans], *data, plans, validation=task(vit, 9, seed=1), **more)

    whole = run(task(vit, 20))
    path = tmp_path / "run.pt"
    save = va.checkpoints.Checkpoint.save

    def interrupted(self, done, *rest):
        save(self, done, *rest)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(va.checkpoints.Checkpoint, "save", interrupted)
        run(task(vit, 20), checkpoint=path, checkpoint_every=4)
    assert torch.load(path, weights_only=True)["done"] == 4
    for a, b in zip(whole, run(task(vit, 20), checkpoint=path), strict=True):
        assert np.array_equal(a.losses, b.losses) and torch.equal(a.head.weight, b.head.weight)
    with pytest.raises(ValueError, match="belongs to a run with another set of images and labels"):
        run(task(vit, 20, seed=7), checkpoint=path)


def test_bfloat16_is_near():
    vit = random_vit(torch.float32)
    losses = [
        train(vit, probe(vit), *task(vit, 16), Training(3, batch=8, precision=precision)).losses
        for precision in ("model", "bfloat16")
    ]
    assert 0 < np.abs(np.subtract(*losses)).max() < 0.02


class Shift(va.prompts.Prompt):
    """Keys that nobody trains, from an attribute: two objects need not be one function."""

    name = "shift"
    experts = "static"

    def __init__(self, config, token):
        super().__init__(config, 1)
        self.token, self.dropout = token, nn.Dropout(0.0)

    def forward(self, layer, block, x, before):
        tokens = self.dropout(self.token.expand(len(x), 1, -1))
        return None, va.attention.KeyGroup(*block.keys_values(tokens))


def test_methods_without_parameters_keep_what_they_are(passes):
    vit = random_vit()
    first, second = (Shift(vit.config, torch.randn(vit.config.width).double()) for _ in range(2))
    together = train_many(vit, [first, second, second], *task(vit, 12), Training(5, batch=4))
    assert passes == [12, 12]
    for method, many in zip((first, second), together, strict=False):
        data, head = task(vit, 12), many.head
        loss = nn.functional.cross_entropy(head(vit.pool(vit(data[0], method))), data[1])
        assert abs(train(vit, method, *data, Training(5, batch=4)).losses[-1] - many.losses[-1]) < 1e-12
        assert loss < many.losses[0]
    assert np.abs(together[0].losses - together[1].losses).max() > 1e-6
    assert np.array_equal(together[1].losses, together[2].losses)


def test_dropout_is_drawn_at_every_step(passes):
    vit = random_vit()
    method = Shift(vit.config, torch.randn(vit.config.width).double())
    method.dropout.p = 0.5
    train(vit, method, *task(vit, 12), Training(5, batch=4))
    assert passes == [4] * 5 and not is_constant(method)


def test_what_counts_as_constant():
    vit = random_vit(torch.float32)
    deep = va.prompts.create("vpt-deep", vit.config, 2)
    assert is_constant(probe(vit)) and is_constant(va.prompts.create("vpt-deep", vit.config, 0))
    assert not is_constant(deep) and not is_constant(va.baselines.create("bias", vit))
    assert is_constant(deep.requires_grad_(False))


def test_an_empty_prompt_is_a_linear_probe():
    vit, plan = random_vit(), Training(6, batch=4)
    empty = va.prompts.create("vpt-deep", vit.config, 0).double()
    a, b = (train(vit, m, *task(vit, 12), plan) for m in (empty, probe(vit)))
    assert np.array_equal(a.losses, b.losses)


def test_others_are_refused_beside_them():
    vit = random_vit(torch.float32)
    with pytest.raises(TypeError, match="linear is no prompt mechanism"):
        train_many(vit, [probe(vit), va.baselines.create("lora", vit)], *task(vit, 8), Training(1))
    with pytest.raises(ValueError, match="made for a backbone of width 24, this one has 48"):
        other = random_vit(torch.float32, width=48)
        train_many(other, [probe(vit)] * 2, random_images(other, 8), torch.arange(8) % 2, Training(1))
