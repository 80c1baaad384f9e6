"""Training: it learns, moves nothing frozen, repeats, resumes, and equals a loop written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, random_prompt, random_vit
from vpt_analysis import members, training
from vpt_analysis.members import Order
from vpt_analysis.readouts import features
from vpt_analysis.training import Training, accuracy, train, train_many


def task(vit, n=48, seed=0):
    """Two classes that differ in the sign of a pattern."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pattern = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    images = torch.randn(n, 3, 32, 32, generator=generator) + pattern * (2 * labels - 1).view(-1, 1, 1, 1)
    return images.to(vit.patch.weight.dtype), labels


@pytest.mark.parametrize("name", MECHANISMS)
def test_it_learns(name):
    vit = random_vit(torch.float32)
    prompt = va.prompts.create(name, vit.config, 4)
    start = {k: v.clone() for k, v in prompt.state_dict().items()}
    trained = train(vit, prompt, *task(vit), Training(steps=60, batch=16, lr=2e-2))
    assert trained.losses.shape == (60,) and trained.losses[-10:].mean() < 0.7 * trained.losses[0]
    assert accuracy(vit, prompt, trained.head, *task(vit, seed=1)) > 0.75
    assert any(not torch.equal(start[k], v) for k, v in prompt.state_dict().items())
    assert not prompt.training and trained.kept == 60


@pytest.mark.parametrize("name", [*MECHANISMS, *va.baselines.names(), "bank"])
def test_nothing_frozen_moves(name):
    vit = random_vit(torch.float32)
    vit.norm.bias.requires_grad_(False)
    before = {k: v.clone() for k, v in vit.state_dict().items()}
    objects = {k: id(v) for k, v in vit.named_parameters()}
    if name == "bank":
        methods = [va.prompts.create("vpt-deep", vit.config, 2, seed=k) for k in range(2)]
    elif name in MECHANISMS:
        methods = [va.prompts.create(name, vit.config, 2)]
    else:
        methods = [va.baselines.create(name, vit)]
    start = [p.detach().clone() for m in methods for p in m.parameters()]
    train_many(vit, methods, *task(vit, 8), Training(steps=2, batch=8, lr=0.1, weight_decay=0.1))
    assert all(torch.equal(before[k], v) for k, v in vit.state_dict().items())
    assert objects == {k: id(v) for k, v in vit.named_parameters()}
    assert [k for k, p in vit.named_parameters() if not p.requires_grad] == ["norm.bias"]
    assert all(p.grad is None for m in (vit, *methods) for p in m.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(start, (p for m in methods for p in m.parameters()), strict=True)]
    assert any(moved) or not start, "nothing was trained"


def plain_loop(vit, method, images, labels, plan, optimiser):
    """The same run, written out: losses and classifier weights."""
    generator = torch.Generator().manual_seed(plan.seed)
    weight = (torch.randn(2, features(vit), generator=generator) * 0.01).to(images).requires_grad_()
    bias, left, losses = torch.zeros(2).to(images).requires_grad_(), [], []
    step_with = optimiser([*method.parameters(), weight, bias])
    for step in range(plan.steps):
        if len(left) < plan.batch:
            left = torch.randperm(len(images), generator=generator).tolist()
        index, left = left[: plan.batch], left[plan.batch :]
        scores = vit.pool(method.encode(vit, images[index])) @ weight.T + bias
        loss = -torch.log_softmax(scores, -1)[range(plan.batch), labels[index]]
        step_with.zero_grad()
        loss.mean().backward()
        warmup = plan.steps // 5
        share = (
            (step + 1) / warmup if step < warmup else (1 + np.cos(np.pi * (step - warmup) / (plan.steps - warmup))) / 2
        )
        for group in step_with.param_groups:
            group["lr"] = plan.lr * share
        step_with.step()
        losses.append(loss.mean().item())
    return np.array(losses), weight


@pytest.mark.parametrize(
    "name, optimiser",
    [
        ("adamw", lambda p: torch.optim.AdamW(p, weight_decay=0.02)),
        ("sgd", lambda p: torch.optim.SGD(p, lr=1.0, momentum=0.7, weight_decay=0.02)),
    ],
)
def test_equals_the_loop_written_out(name, optimiser):
    vit = random_vit()
    plan = Training(steps=20, lr=0.03, weight_decay=0.02, batch=5, optimiser=name, momentum=0.7, warmup=0.2, seed=3)
    prompt, twin = (random_prompt(vit, "vpt-deep", 3) for _ in range(2))
    losses, weight = plain_loop(vit, twin, *task(vit, 17), plan, optimiser)
    trained = train(vit, prompt, *task(vit, 17), plan)
    assert np.abs(trained.losses - losses).max() < 1e-12
    assert (trained.head.weight - weight).abs().max() < 1e-12
    assert (prompt.tokens - twin.tokens).abs().max() < 1e-12


@pytest.mark.parametrize("n", [24, 19])
def test_accumulated_batches_equal_one(n):
    """With 19 images the last of the three batches holds three: a mean over images, not over batches."""
    vit = random_vit()
    runs = []
    for batch, accumulate in ((24, 1), (8, 3)):
        prompt = random_prompt(vit, "vapt", 3)
        plan = Training(steps=6, batch=batch, accumulate=accumulate)
        runs.append((train(vit, prompt, *task(vit, n), plan), torch.cat([p.flatten() for p in prompt.parameters()])))
    (one, its), (three, theirs) = runs
    assert np.abs(one.losses - three.losses).max() < 1e-12 and (its - theirs).abs().max() < 1e-9


@pytest.mark.parametrize("name", MECHANISMS)
def test_bfloat16_is_near(name):
    vit = random_vit(torch.float32)
    losses = {}
    for precision in ("model", "bfloat16"):
        prompts = [va.prompts.create(name, vit.config, 3, seed=k) for k in range(2)]
        plan = Training(steps=3, batch=8, precision=precision)
        trained = train_many(vit, prompts, *task(vit, 16), plan)
        losses[precision] = np.array([t.losses for t in trained])
        assert all(p.dtype == torch.float32 for m in (*prompts, trained[0].head) for p in m.parameters())
    difference = np.abs(losses["bfloat16"] - losses["model"]).max()
    assert 0 < difference < 0.02


def alone_or_bank(vit, count, dropout=0.3):
    return [va.prompts.create("vpt-deep", vit.config, 3, seed=k, dropout=dropout) for k in range(count)]


def state_of(methods, trained):
    tensors = [*(p for m in methods for p in m.parameters()), *(p for t in trained for p in t.head.parameters())]
    arrays = [a for t in trained for a in (t.losses, t.evaluated, t.validation, t.kept)]
    return [*(t.detach().numpy() for t in tensors), *map(np.asarray, arrays)]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_resuming_ends_in_the_same_bits(count, optimiser, tmp_path, monkeypatch):
    """Dropout, an optimiser with a memory, and interruptions in the middle of a permutation of 19 images."""
    vit = random_vit(torch.float32)
    plan = Training(steps=12, batch=5, optimiser=optimiser, evaluate_every=3, patience=2)
    plans = [replace(plan, seed=k) for k in range(count)]
    arguments = (vit, *task(vit, 19), plans)

    def run(**more):
        methods = alone_or_bank(vit, count)
        return methods, train_many(vit, methods, *arguments[1:], validation=task(vit, 9, seed=1), **more)

    whole = state_of(*run())
    path = tmp_path / "run.pt"
    step = training.backward
    for stop in (5, 6):  # steps taken by each call before it is cut off; the second begins after step 4
        calls = iter(range(stop))

        def backward(*a, calls=calls):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            return step(*a)

        monkeypatch.setattr(training, "backward", backward)
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint=path, checkpoint_every=4)
        assert all(p.requires_grad for p in vit.parameters())
        torch.rand(7)  # the caller's random numbers are no business of the run
    assert torch.load(path, weights_only=True)["done"] == 8
    monkeypatch.setattr(training, "backward", step)
    resumed = state_of(*run(checkpoint=path, checkpoint_every=4))
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))
    monkeypatch.delattr(training, "backward")  # a finished run takes no step
    again = state_of(*run(checkpoint=path))
    assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True))
    assert [f.name for f in tmp_path.iterdir()] == ["run.pt"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    vit, path = random_vit(torch.float32), tmp_path / "run.pt"
    x, y = task(vit, 8)
    ours = {"vit": vit, "method": {"seed": 0}, "images": x, "labels": y, "training": Training(steps=1, batch=4)}

    def run(checkpoint=path, **change):
        given = ours | change
        method = va.prompts.create(**{"name": "vpt-deep", "config": vit.config, "length": 2} | given.pop("method"))
        return train(given.pop("vit"), method, *given.values(), checkpoint=checkpoint)

    run()
    for change, part in (
        ({"vit": random_vit(torch.float32, seed=5)}, "backbone"),
        ({"method": {"seed": 1}}, "start of the method"),
        ({"method": {"length": 3}}, "method, another length, another start of the method"),
        ({"method": {"dropout": 0.1}}, "method"),
        ({"method": {"name": "prefix-scaled"}}, "method, another start of the method"),
        ({"images": x + 1}, "set of images and labels"),
        ({"labels": 1 - y}, "set of images and labels"),
        ({"training": Training(steps=1, batch=4, lr=1.0)}, "training"),
    ):
        with pytest.raises(ValueError, match=f"belongs to a run with another {part}; a run resumes"):
            run(**change)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="run.pt is no checkpoint of a training run"):
        run()
    torch.save({"weights": x}, path)
    with pytest.raises(ValueError, match="run.pt is no checkpoint of a training run"):
        run()
    with pytest.raises(ValueError, match="checkpoint_every is 0"):
        train(vit, va.prompts.create("vpt-deep", vit.config, 2), x, y, Training(1), checkpoint=path, checkpoint_every=0)


@pytest.mark.parametrize("count", [1, 2])
def test_early_stopping_keeps_the_best(count, monkeypatch):
    """The accuracies of both members are given; the second has its best later, and the first waits for it."""
    vit = random_vit(torch.float32)
    given = [iter([0.1, 0.5, 0.4, 0.5, 0.9]), iter([0.1, 0.2, 0.3, 0.3, 0.1])][:count]
    seen = [[] for _ in given]
    prompts = alone_or_bank(vit, count, dropout=0)

    def measured(vit, method, head, images, labels):
        k = next(k for k, p in enumerate(prompts) if p is method)
        seen[k].append(method.tokens.detach().clone())
        return next(given[k])

    monkeypatch.setattr(members, "accuracy", measured)
    plan = Training(steps=30, batch=4, evaluate_every=2, patience=2)
    trained = train_many(vit, prompts, *task(vit, 8), plan, validation=task(vit, 4))
    assert trained[0].evaluated.tolist() == [2, 4, 6, 8] and trained[0].validation.tolist() == [0.1, 0.5, 0.4, 0.5]
    assert trained[0].kept == 4 and trained[0].losses.shape == (8,)
    assert torch.equal(prompts[0].tokens, seen[0][1]) and not torch.equal(seen[0][1], seen[0][2])
    if count == 2:
        assert trained[1].evaluated.tolist() == [2, 4, 6, 8, 10] and trained[1].kept == 6
        assert torch.equal(prompts[1].tokens, seen[1][2])


def test_validation_is_measured_and_by_default_stops_nothing():
    vit = random_vit(torch.float32)
    held_out, runs = task(vit, 16, seed=1), []
    for plan in (Training(steps=10, batch=8), Training(steps=10, batch=8, evaluate_every=4)):
        prompt = alone_or_bank(vit, 1)[0]
        runs.append((train(vit, prompt, *task(vit), plan, validation=held_out), prompt))
    (end, _), (often, prompt) = runs
    assert end.evaluated.tolist() == [10] and often.evaluated.tolist() == [4, 8, 10] and often.kept == 10
    assert np.array_equal(end.losses, often.losses), "evaluating must not disturb the run, its dropout included"
    assert often.validation[-1] == accuracy(vit, prompt, often.head, *held_out)


def test_accuracy_is_counted_without_dropout_in_whatever_mode():
    vit = random_vit(torch.float32)
    x, y = task(vit, 300)
    prompt = random_prompt(vit, "vpt-deep", 3, dropout=0.9).train()
    head = torch.nn.Linear(24, 2)
    top1 = accuracy(vit, prompt, head, x, y)
    assert prompt.training and top1 == accuracy(vit, prompt, head, x, y)
    with torch.no_grad():
        assert top1 == (head(vit(x, prompt.eval())[:, 0]).argmax(-1) == y).sum().item() / 300


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
        ({"steps": 0}, "steps is 0; expected an integer, at least 1"),
        ({"batch": 0}, "batch is 0; expected an integer, at least 1"),
        ({"accumulate": 1.5}, "accumulate is 1.5; expected an integer, at least 1"),
        ({"seed": True}, "seed is True; expected an integer"),
        ({"lr": -1.0}, "lr is -1.0; expected a number from 0"),
        ({"lr": float("nan")}, "lr is nan; expected a number"),
        ({"warmup": 1.1}, "warmup is 1.1; expected a number from 0 to 1"),
        ({"optimiser": "adam"}, "unknown optimiser 'adam'; did you mean 'adamw'"),
        ({"precision": "half"}, "unknown precision 'half'"),
        ({"patience": 2}, "patience is 2 and nothing is evaluated on the way; set evaluate_every"),
    ],
)
def test_refused_trainings(change, message):
    with pytest.raises(ValueError, match=message):
        Training(**{"steps": 1} | change)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": torch.zeros(0, 3, 32, 32)}, "0 images and 4 labels given"),
        ({"labels": torch.tensor([0, 1, 2, 3]), "classes": 3}, r"labels lie in \[0, 3\]; expected \[0, 2\]"),
        ({"labels": torch.tensor([0, -1, 0, 1])}, r"labels lie in \[-1, 1\]; expected \[0, 1\]"),
        ({"labels": torch.zeros(4)}, "labels are torch.float32; expected a tensor of torch.int64"),
        ({"labels": [0, 1, 0, 1]}, "labels are list; expected a tensor"),
        ({"images": torch.zeros(4, 3, 30, 32)}, "sides must be positive multiples of the patch size"),
        ({"images": torch.zeros(4, 3, 32, 32).double()}, "images are torch.float64, the model is torch.float32"),
        ({"training": Training(1, evaluate_every=1)}, "evaluate_every is 1 and no validation images are given"),
        ({"validation": (torch.zeros(1, 3, 32, 32), torch.tensor([2]))}, r"labels lie in \[2, 2\]; expected \[0, 1\]"),
        ({"method": torch.nn.Linear(2, 2)}, "the method is Linear; expected a prompt or a baseline"),
    ],
)
def test_refused(change, message):
    vit = random_vit(torch.float32)
    arguments = {
        "method": va.prompts.create("vpt-deep", vit.config, 2), "images": torch.zeros(4, 3, 32, 32),
        "labels": torch.tensor([0, 1, 0, 1]), "training": Training(steps=1),
    }  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=message):
        train(vit, **arguments | change)
