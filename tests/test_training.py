"""Training a prompt: it learns, moves nothing frozen, and repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, random_vit
from vpt_analysis.members import Order
from vpt_analysis.training import Training, accuracy, train


def task(vit, n=48, seed=0):
    """Two classes that differ in the sign of a pattern."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pattern = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    images = torch.randn(n, 3, 32, 32, generator=generator) + pattern * (2 * labels - 1).view(-1, 1, 1, 1)
    return images.to(vit.patch.weight.dtype), labels


@pytest.mark.parametrize("name", MECHANISMS)
def test_it_learns_and_nothing_frozen_moves(name):
    vit = random_vit(torch.float32)
    before = {k: v.clone() for k, v in vit.state_dict().items()}
    prompt = va.prompts.create(name, vit.config, 4)
    start = {k: v.clone() for k, v in prompt.state_dict().items()}
    trained = train(vit, prompt, *task(vit), Training(steps=60, batch=16, lr=2e-2))
    assert trained.losses.shape == (60,) and trained.losses[-10:].mean() < 0.7 * trained.losses[0]
    assert accuracy(vit, prompt, trained.head, *task(vit, seed=1)) > 0.75
    assert all(torch.equal(before[k], v) for k, v in vit.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in vit.parameters())
    assert any(not torch.equal(start[k], v) for k, v in prompt.state_dict().items())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_same_seed_same_bits(dropout):
    vit = random_vit(torch.float32)
    runs = []
    for seed in (0, 0, 1):
        prompt = va.prompts.create("vpt-deep", vit.config, 4, dropout=dropout)
        losses = train(vit, prompt, *task(vit), Training(steps=10, seed=seed)).losses
        runs.append((losses, prompt.tokens.detach()))
    assert np.array_equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not np.array_equal(runs[0][0], runs[2][0])


def test_batches_visit_every_image_equally_often():
    generator = torch.Generator().manual_seed(0)
    order = Order(12, 4, generator)
    assert torch.equal(torch.cat([order.next() for _ in range(9)]).bincount(), torch.full((12,), 3))
    order = Order(3, 8, generator)
    assert [len(order.next()) for _ in range(2)] == [3, 3]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": torch.zeros(0, 3, 32, 32)}, "0 images and 4 labels given"),
        ({"labels": torch.tensor([0, 1, 2, 3]), "classes": 3}, r"labels lie in \[0, 3\]; expected \[0, 2\]"),
        ({"labels": torch.tensor([0, -1, 0, 1])}, r"labels lie in \[-1, 1\]; expected \[0, 1\]"),
        ({"labels": torch.zeros(4)}, "labels are torch.float32; expected a tensor of torch.int64"),
        ({"labels": [0, 1, 0, 1]}, "labels are list; expected a tensor"),
    ],
)
def test_refused(change, message):
    vit = random_vit(torch.float32)
    arguments = {"images": torch.zeros(4, 3, 32, 32), "labels": torch.tensor([0, 1, 0, 1])} | change
    with pytest.raises((ValueError, TypeError), match=message):
        train(vit, va.prompts.create("vpt-deep", vit.config, 2), training=Training(steps=1), **arguments)
