"""Heads that are given, targets in place of labels, and runs that stop when they have fitted enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import vpt_analysis as va
from tests.reference import random_images, random_prompt, random_vit
from tests.test_training import task
from vpt_analysis import training
from vpt_analysis.members import explained, share
from vpt_analysis.training import Training, accuracy, train, train_many


def linear(vit, outputs: int, seed: int = 0, bias: bool = True) -> nn.Linear:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(vit.config.width, outputs, bias=bias).to(vit.patch.weight)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return head


def numbers(vit, n: int, outputs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with targets."""
    generator = torch.Generator().manual_seed(seed + 50)
    return random_images(vit, n, seed), torch.randn(n, outputs, generator=generator).to(vit.patch.weight)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_equals_the_loop_written_out(kind):
    """The method alone is stepped; order of images from the seed, no draw for a head before it."""
    vit, plan = random_vit(), Training(steps=8, lr=0.02, batch=5, warmup=0.0, weight_decay=0.0, seed=3)
    prompt, twin = (random_prompt(vit, "vapt", 3) for _ in range(2))
    head = linear(vit, 2)
    images, answers = task(vit, 12) if kind == "labels" else numbers(vit, 12, 2)
    trained = train(vit, prompt, images, answers, plan, head=head)
    generator, left = torch.Generator().manual_seed(3), []
    optimiser = torch.optim.AdamW(twin.parameters(), lr=plan.lr, weight_decay=0.0)
    for step in range(plan.steps):
        if len(left) < 5:
            left = torch.randperm(12, generator=generator).tolist()
        index, left = left[:5], left[5:]
        scores = vit(images[index], twin)[:, 0] @ head.weight.detach().T + head.bias.detach()
        if kind == "labels":
            loss = -torch.log_softmax(scores, -1)[range(5), answers[index]].mean()
        else:
            loss = ((scores - answers[index]) ** 2).mean()
        optimiser.param_groups[0]["lr"] = plan.lr * (1 + np.cos(np.pi * step / plan.steps)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert abs(trained.losses[step] - loss.item()) < 1e-11
    for mine, its in zip(prompt.parameters(), twin.parameters(), strict=True):
        assert (mine - its).abs().max() < 1e-9


@pytest.mark.parametrize("bias", [True, False])
def test_a_given_head_is_copied_and_left_alone(bias):
    vit = random_vit()
    head = linear(vit, 2, bias=bias)
    before = {name: p.detach().clone() for name, p in head.named_parameters()}
    prompts = [random_prompt(vit, "vpt-deep", 2, seed=k) for k in range(2)]
    for trained in train_many(vit, prompts, *task(vit, 8), Training(3, batch=4, weight_decay=0.5), head=head):
        assert torch.equal(trained.head.weight, head.weight) and trained.head is not head
        assert (trained.head.bias == (head.bias if bias else 0)).all()
        assert not any(p.requires_grad for p in trained.head.parameters())
    assert all(p.requires_grad and p.grad is None for p in head.parameters())
    assert all(torch.equal(before[name], p) for name, p in head.named_parameters())


def test_a_given_head_may_be_where_training_starts():
    vit = random_vit()
    data = task(vit, 8)
    first = train(vit, random_prompt(vit, "vpt-deep", 2), *data, Training(3, lr=0.1, batch=4))
    given = {"anew": {}, "left": {"head": first.head}, "on": {"head": first.head, "train_head": True}}
    runs = {
        name: train(vit, random_prompt(vit, "vpt-deep", 2), *data, Training(3, lr=0.1, batch=4), **more)
        for name, more in given.items()
    }
    assert runs["on"].losses[0] == runs["left"].losses[0] != runs["anew"].losses[0]
    assert torch.equal(runs["left"].head.weight, first.head.weight)
    assert not torch.equal(runs["on"].head.weight, first.head.weight) and runs["on"].head is not first.head


def test_a_linear_probe_may_go_on_from_a_head():
    vit = random_vit()
    data, head = task(vit, 8), linear(vit, 2)
    for own in (False, True):
        probe = va.baselines.create("linear", vit)
        if own:
            trained = train(vit, probe, *data, Training(3, batch=4), head=head, train_head=True)
            assert not torch.equal(trained.head.weight, head.weight)
        else:
            with pytest.raises(ValueError, match="the head is given and linear has no parameters"):
                train(vit, probe, *data, Training(3, batch=4), head=head)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_banks_equal_runs_by_themselves(kind):
    """Sets of different sizes, heads of their own, and members that stop at different steps."""
    vit = random_vit()
    data = [task(vit, n, n) if kind == "labels" else numbers(vit, n, 2, n) for n in (5, 17, 9)]
    heads = [linear(vit, 2, seed=k) for k in range(3)]
    plans = [Training(24, lr=0.3, batch=5, evaluate_every=2, enough=0.9 if kind == "labels" else 0.3, seed=k)
             for k in range(3)]  # fmt: skip
    prompts, twins = ([random_prompt(vit, "prefix", 4, seed=k) for k in range(3)] for _ in range(2))
    together = train_many(vit, prompts, *map(list, zip(*data, strict=True)), plans, head=heads)
    for twin, own, head, plan, trained in zip(twins, data, heads, plans, together, strict=True):
        alone = train(vit, twin, *own, plan, head=head)
        assert trained.losses.shape == alone.losses.shape and np.abs(trained.losses - alone.losses).max() <= 1e-10
        assert trained.kept == alone.kept == len(alone.losses)
        np.testing.assert_allclose(trained.fitted, alone.fitted, atol=1e-9)
    assert len({len(t.losses) for t in together}) > 1, "all stop at one step"


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_a_run_stops_when_it_has_fitted_enough_and_costs_nothing_more(kind, monkeypatch):
    vit = random_vit()
    images, answers = task(vit, 12) if kind == "labels" else numbers(vit, 12, 2)
    head, passed, step = linear(vit, 2), [], training.backward
    monkeypatch.setattr(training, "backward", lambda *a: passed.append(len(a[2])) or step(*a))
    prompts = [random_prompt(vit, "prefix", 6, seed=k) for k in range(3)]
    enough = 0.9 if kind == "labels" else 0.05
    plan = Training(60, lr=0.05, batch=12, evaluate_every=3, enough=enough)
    found = train_many(vit, prompts, images, answers, plan, head=head)
    for prompt, trained in zip(prompts, found, strict=True):
        assert trained.evaluated.tolist() == list(range(3, len(trained.losses) + 1, 3))
        assert (trained.fitted[:-1] < enough).all() and trained.validation.shape == (0,)
        assert trained.fitted[-1] == share(vit, prompt, trained.head, images, answers)  # its state is kept
        assert trained.fitted[-1] >= enough or len(trained.losses) == 60
    taken = [len(t.losses) for t in found]
    assert min(taken) < 60 and sum(passed) == sum(taken)
    assert passed[0] == 3 and passed[-1] < 3


def test_both_shares_may_be_asked_for():
    vit = random_vit()
    plan = Training(12, batch=6, evaluate_every=4, enough=1.0, patience=5)
    prompt = random_prompt(vit, "vpt-deep", 2)
    trained = train(vit, prompt, *numbers(vit, 12, 3), plan, validation=numbers(vit, 7, 3, 1))
    assert len(trained.evaluated) == len(trained.fitted) == len(trained.validation) == 3
    best = int(np.argmax(trained.validation))
    assert trained.kept == trained.evaluated[best]
    assert trained.validation[best] == explained(vit, prompt, trained.head, *numbers(vit, 7, 3, 1))


def test_explained_is_one_less_the_relative_squared_error():
    vit = random_vit()
    images, head = random_images(vit, 300), linear(vit, 3)
    scores = head(vit(images)[:, 0]).detach()
    assert explained(vit, None, head, images, scores) == 1
    assert explained(vit, None, head, images, scores / 2) == pytest.approx(0, abs=1e-12)
    noise = 0.1 * torch.randn_like(scores)
    wanted = 1 - float(noise.square().sum() / (scores + noise).square().sum())
    assert explained(vit, None, head, images, scores + noise) == pytest.approx(wanted, abs=1e-12)
    labels = scores.argmax(-1)
    assert share(vit, None, head, images, labels) == accuracy(vit, None, head, images, labels) == 1


def test_resuming_ends_in_the_same_bits(tmp_path, monkeypatch):
    """Cut off where one member has stopped and the other goes on."""
    vit, path, step = random_vit(torch.float32), tmp_path / "run.pt", training.backward
    data, head = numbers(vit, 10, 2), linear(vit, 2)
    plans = [Training(30, lr=lr, batch=4, evaluate_every=2, enough=0.01, seed=k) for k, lr in enumerate((0.3, 1e-6))]

    def run(**more):
        prompts = [va.prompts.create("prefix", vit.config, 8, seed=k) for k in range(2)]
        found = train_many(vit, prompts, *data, plans, head=head, **more)
        return [*(t.losses for t in found), *(t.fitted for t in found), *(p.value.detach().numpy() for p in prompts)]

    whole = run()
    assert len(whole[0]) < 20 and len(whole[1]) == 30
    steps = iter(range(25))

    def backward(*a):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(*a)

    monkeypatch.setattr(training, "backward", backward)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, checkpoint_every=20)
    monkeypatch.setattr(training, "backward", step)
    assert torch.load(path, weights_only=True)["done"] == 20
    for a, b in zip(whole, run(checkpoint=path), strict=True):
        np.testing.assert_array_equal(a, b)
    head = linear(vit, 2, seed=1)
    with pytest.raises(ValueError, match="belongs to a run with another head; a run resumes"):
        run(checkpoint=path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": nn.ReLU()}, "the head is ReLU; expected a torch.nn.Linear"),
        ({"head": nn.Linear(23, 2)}, "the head reads 23 components; the pooled feature has 24"),
        ({"head": nn.Linear(24, 2).double()}, "the head is torch.float64 on cpu, the backbone torch.float32"),
        ({"head": [nn.Linear(24, 2)] * 2}, "2 heads for 1 methods"),
        ({"head": nn.Linear(24, 2), "classes": 3}, r"heads and classes are \[2, 3\] classes"),
        ({"head": nn.Linear(24, 1)}, r"labels lie in \[0, 1\]; expected \[0, 0\]"),
        ({"labels": torch.ones(4, 3), "head": nn.Linear(24, 2)}, r"targets, heads and classes are of \[2, 3\] numbers"),
        ({"labels": torch.ones(4, 3), "classes": 2}, r"of \[2, 3\] numbers; expected one"),
        ({"labels": torch.ones(4, 3).double()}, "labels are torch.float64; .* or targets .* of torch.float32"),
        ({"labels": torch.zeros(4, 3)}, "the sum of squared targets is 0.0"),
        ({"labels": torch.full((4, 3), torch.nan)}, "the sum of squared targets is nan"),
        ({"labels": torch.ones(4, 3), "validation": (torch.zeros(4, 3, 32, 32), torch.zeros(4).long())},
         "some images have labels, others targets"),
        ({"training": Training(1, evaluate_every=1)}, "no validation images are given"),
    ],
)  # fmt: skip
def test_refused(change, message):
    vit = random_vit(torch.float32)
    given = {"images": torch.zeros(4, 3, 32, 32), "labels": torch.arange(4) % 2, "training": Training(1)} | change
    with pytest.raises((ValueError, TypeError), match=message):
        train(vit, va.prompts.create("vpt-deep", vit.config, 2), *(given.pop(n) for n in ("images", "labels",
              "training")), **given)  # fmt: skip


@pytest.mark.parametrize("made", [lambda vit: va.baselines.create("linear", vit),
                                  lambda vit: va.prompts.create("vpt-deep", vit.config, 0)])  # fmt: skip
def test_nothing_to_train_is_refused(made):
    vit = random_vit(torch.float32)
    with pytest.raises(ValueError, match="the head is given and .* has no parameters, so there is nothing to train"):
        train(vit, made(vit), *task(vit, 4), Training(1), head=linear(vit, 2))
    with pytest.raises(ValueError, match=r"enough is 0.5 and nothing is evaluated on the way; set evaluate_every"):
        Training(1, enough=0.5)
    with pytest.raises(ValueError, match="enough is 1.5; expected a number from 0 to 1"):
        Training(1, enough=1.5, evaluate_every=1)
