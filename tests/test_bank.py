"""Banks: many prompts through one backbone equal as many runs by themselves, whatever the mechanism."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vpt_analysis as va
from tests.reference import MECHANISMS, FixedKeys, random_images, random_prompt, random_vit, scatter
from tests.test_training import task
from vpt_analysis.attention import Combine, KeyGroup, Separate
from vpt_analysis.bank import Bank, fold
from vpt_analysis.prompts import Prompt
from vpt_analysis.training import Training, train, train_many

BOUND = {torch.float32: 1e-5, torch.float64: 1e-10}


def begun(vit, name, seed):
    """A prompt a little away from its start, so that no gradient is zero.

    At the zero start of ``vapt-released`` some gradients are zero in exact arithmetic: rounding alone, of which Adam
    makes full steps, so that in float32 not even two orders of summation agree (in float64 they do, to 1e-11).
    """
    return scatter(va.prompts.create(name, vit.config, 3, seed=seed), seed, 0.05).to(vit.patch.weight.dtype)


@pytest.mark.parametrize("name", MECHANISMS)
def test_equals_runs_by_themselves(name, dtype):
    vit = random_vit(dtype)
    x, y = task(vit, 24)
    plans = [Training(50, lr=5e-3 * (k + 1), weight_decay=1e-3 * k, batch=8, seed=k) for k in range(2)]
    prompts, twins = ([begun(vit, name, k) for k in range(2)] for _ in range(2))
    together = train_many(vit, prompts, x, y, plans)
    for prompt, twin, plan, trained in zip(prompts, twins, plans, together, strict=True):
        alone = train(vit, twin, x, y, plan)
        assert np.abs(trained.losses - alone.losses).max() <= BOUND[dtype]
        if dtype == torch.float64:
            for mine, its in zip([*twin.parameters()], [*prompt.parameters()], strict=True):
                assert torch.allclose(mine, its, rtol=0, atol=1e-7)
            assert torch.allclose(alone.head.weight, trained.head.weight, rtol=0, atol=1e-7)
    assert not np.allclose(together[0].losses, together[1].losses, atol=1e-3), "the members are one and the same"


@pytest.mark.parametrize("images", [8, 16])
def test_banks_in_several_passes_equal_one(images, monkeypatch):
    vit = random_vit()
    data, plan, each = task(vit, 24), Training(6, batch=8), vit.config.tokens * vit.config.width
    runs = []
    for most in (1000, images):
        monkeypatch.setattr("vpt_analysis.passes.FOLD", most * each)
        prompts = [random_prompt(vit, "norga", 3, seed=k) for k in range(3)]
        runs.append(([t.losses for t in train_many(vit, prompts, *data, plan)], [p.alpha.detach() for p in prompts]))
    (losses, alphas), (others, theirs) = runs
    assert np.abs(np.subtract(losses, others)).max() <= 1e-12
    assert all((a - b).abs().max() <= 1e-9 for a, b in zip(alphas, theirs, strict=True))


def test_images_and_labels_of_their_own():
    vit = random_vit()
    data = [task(vit, n, seed) for n, seed in ((20, 0), (30, 1))]
    plan = Training(12, batch=8, accumulate=2, optimiser="sgd")
    prompts, twins = ([random_prompt(vit, "vpt-deep", 3, seed=k) for k in range(2)] for _ in range(2))
    together = train_many(vit, prompts, *map(list, zip(*data, strict=True)), plan, validation=data)
    for twin, own, trained in zip(twins, data, together, strict=True):
        alone = train(vit, twin, *own, plan, validation=own)
        assert np.abs(trained.losses - alone.losses).max() <= 1e-12
        assert np.array_equal(trained.validation, alone.validation) and trained.evaluated.tolist() == [12]


@dataclass(frozen=True)
class Shifted:
    """A score of a score: s + shift, then the inner one."""

    inner: Separate
    shift: Tensor

    def __call__(self, s: Tensor) -> Tensor:
        return (s + self.shift) * torch.tanh(self.inner.alpha)


class Everything(Prompt):
    """Keys of every image, a nested score, a rule and a temperature that depend on the image, and a buffer."""

    name = "everything"
    experts = "adaptive"

    def __init__(self, config, length):
        super().__init__(config, length)
        self.tokens = nn.Parameter(torch.randn(length, config.width))
        self.alpha = nn.Parameter(torch.randn(config.heads, 1))
        self.register_buffer("offset", torch.randn(()))

    def forward(self, layer, block, x, before):
        mean = x.mean(1)  # (B, d)
        key, value = block.keys_values(self.tokens + mean[:, None])
        score = Shifted(Separate(self.alpha[:, None]), self.offset + mean[:, :1, None, None])
        rule = Separate(self.alpha * mean[:, :1, None])  # (B, H, Q = 1)
        return None, KeyGroup(key, value, score, rule, 1.5 + torch.tanh(mean[:, :1, None, None]))


class Mixed(Prompt):
    """Riders and further keys in the same layer, where one softmax joins all."""

    name = "mixed"
    experts = "propagated"

    def __init__(self, config, length):
        super().__init__(config, length)
        self.tokens = nn.Parameter(torch.randn(2, length, config.width))

    def forward(self, layer, block, x, before):
        riders = self.tokens[0].expand(len(x), -1, -1) if before is None else before.left - 0.3 * before.entered
        return riders, KeyGroup(*block.keys_values(self.tokens[1:]), temperature=torch.tensor(1.3).to(x))


@pytest.mark.parametrize("mechanism", [Everything, Mixed])
@pytest.mark.parametrize("each", [1, 3])
def test_any_answer_is_folded(mechanism, each, dtype):
    vit = random_vit(dtype)
    prompts = [mechanism(vit.config, 2).to(dtype) for _ in range(3)]
    images = random_images(vit, 3 * each)
    together = vit(images, Bank(prompts))
    alone = torch.cat([vit(x, p) for x, p in zip(images.split(each), prompts, strict=True)])
    assert (together - alone).abs().max() <= 20 * torch.finfo(dtype).eps * alone.abs().max()
    assert (vit(images, prompts[0]) - alone)[each:].abs().max() > 1e-2, "the members are one and the same"
    gradients = [
        torch.autograd.grad(out.square().sum(), [q for p in prompts for q in p.parameters()])
        for out in (together, alone)
    ]
    for mine, its in zip(*gradients, strict=True):
        assert (mine - its).abs().max() <= 1e3 * torch.finfo(dtype).eps * its.abs().max()


def test_what_is_stacked_does_not_outlive_a_pass():
    vit = random_vit()
    prompts = [random_prompt(vit, "vpt-deep", 2, seed=k) for k in range(2)]
    bank, images = Bank(prompts), random_images(vit, 4)
    vit.encode(vit.embed(images), bank, stop=1)  # leaves in the middle of a pass
    with torch.no_grad():
        prompts[1].tokens.mul_(-1)
    alone = torch.cat([vit(x, p) for x, p in zip(images.split(2), prompts, strict=True)])
    assert torch.allclose(vit(images, bank), alone, atol=1e-12) and bank.stacked is None


def test_dropout_draws_for_every_member_and_image():
    vit = random_vit()
    prompts = [va.prompts.create("vpt-deep", vit.config, 3, dropout=0.5).double() for _ in range(2)]
    same = random_images(vit, 1).expand(4, -1, -1, -1)
    bank = Bank(prompts)
    tokens = vit(same, bank.train())
    assert len({tuple(t.flatten().tolist()) for t in tokens}) == 4
    assert torch.allclose(*vit(same, bank.eval()).split(2), atol=1e-12)


def test_no_prompts_is_the_plain_model():
    vit = random_vit()
    images = random_images(vit, 4)
    bank = Bank([va.prompts.create("vpt-deep", vit.config, 0).double() for _ in range(2)])
    assert torch.equal(vit(images, bank), vit(images))


def deep(vit, **changes):
    return va.prompts.create(**{"name": "vpt-deep", "config": vit.config, "length": 2} | changes)


class Branching(FixedKeys):
    name = "branching"

    def forward(self, layer, block, x, before):
        return super().forward(layer, block, x, before) if x.sum() > 0 else (None, None)


def fixed(vit, kind, **group):
    c = vit.config
    return kind(c, *(torch.randn(1, c.heads, 2, c.head_width) for _ in range(2)), **group)


class Stateful(Combine):
    def __init__(self):
        self.factor = torch.ones(())


@pytest.mark.parametrize(
    "made, message",
    [
        (lambda vit: [], "a bank of no prompts"),
        (lambda vit: [deep(vit), nn.Linear(2, 2)], "Linear is no prompt mechanism.*train it by itself"),
        (lambda vit: [deep(vit)] * 2, "one prompt stands twice"),
        (lambda vit: [deep(vit), deep(vit, length=3)], "number 1 has length 3, number 0 has 2"),
        (lambda vit: [deep(vit), deep(vit, name="prefix")], "number 1 has mechanism prefix, number 0 has vpt-deep"),
        (lambda vit: [deep(vit), deep(vit, dropout=0.1)], "number 1 has options"),
        (lambda vit: [deep(vit), deep(vit).double()], "number 1 has dtypes"),
        (
            lambda vit: [fixed(vit, Branching) for _ in range(2)],
            "torch.vmap cannot batch branching prompts: (?s:.)*one",
        ),
        (
            lambda vit: [fixed(vit, FixedKeys, score=nn.Tanh()) for _ in range(2)],
            "score of fixed-keys is a Tanh that may",
        ),
        (
            lambda vit: [fixed(vit, FixedKeys, combine=Stateful()) for _ in range(2)],
            "combine of fixed-keys is a Stateful",
        ),
    ],
)
def test_refused(made, message):
    vit = random_vit(torch.float32)
    with pytest.raises((ValueError, TypeError), match=message):
        vit(random_images(vit, 2), Bank(made(vit)))


def test_refused_shapes():
    vit = random_vit(torch.float32)
    bank = Bank([deep(vit, seed=k) for k in range(2)])
    with pytest.raises(ValueError, match="3 images for a bank of 2 prompts"):
        vit(random_images(vit, 3), bank)
    with pytest.raises(ValueError, match="made for a backbone of width 24, this one has 48"):
        other = random_vit(torch.float32, width=48)
        other(random_images(other, 2), bank)
    with pytest.raises(
        ValueError, match=r"key has shape \(2, 1, 1, 1\); expected at most 4 dimensions, the first 1 or 3"
    ):
        fold(torch.zeros(5, 2, 1, 1, 1), 4, 3, "key")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"trainings": [Training(2), Training(3)]},
            "run 1 has steps 3, run 0 has 2; .* differ in seed, lr, weight_decay",
        ),
        ({"trainings": [Training(2)] * 3}, "3 trainings for 2 methods"),
        ({"images": [torch.zeros(6, 3, 32, 32)]}, "1 tensors of images and 2 of labels for 2 methods"),
        (
            {"images": [torch.zeros(n, 3, 32, 32) for n in (6, 8)], "labels": [torch.arange(n) % 2 for n in (6, 8)]},
            r"steps see \[6, 8\] images.*of at most 6",
        ),
        ({"labels": [torch.arange(6) % 2, torch.arange(6) % 3]}, r"the runs' labels make \[2, 3\] classes"),
    ],
)
def test_train_many_refuses(change, message):
    vit = random_vit(torch.float32)
    arguments = {"images": torch.zeros(6, 3, 32, 32), "labels": torch.arange(6) % 2, "trainings": Training(2)}
    with pytest.raises(ValueError, match=message):
        train_many(vit, [deep(vit, seed=k) for k in range(2)], **arguments | change)


def test_baselines_train_one_by_one():
    vit = random_vit(torch.float32)
    lora = [va.baselines.create("lora", vit, seed=k) for k in range(2)]
    with pytest.raises(
        TypeError, match="lora is no prompt mechanism, and only prompts fold into one batch; train it by"
    ):
        train_many(vit, lora, *task(vit, 8), Training(1))
