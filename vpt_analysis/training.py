"""Train prompts and other methods, each with a linear head, on a frozen backbone: one, or many in one pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints import Checkpoint, describe
from .constants import features_for_images, is_constant
from .members import Member, Order, accuracy, pairs, validation_pairs
from .passes import backward, check_together, folded
from .progress import progress
from .readouts import count_outputs, given_heads, new_head
from .settings import Training, common
from .vit import VisionTransformer

__all__ = ["Trained", "Training", "accuracy", "frozen", "learning_rate", "train", "train_many"]


@dataclass(frozen=True)
class Trained:
    """What a run gives, beside the method it trained in place.

    ``head``: on the pooled feature; a copy of the given one where it was given. ``losses`` (steps taken,):
    cross-entropy in nats, or squared error, mean over the images of each step. After ``evaluated`` steps,
    ``validation``: shares of the validation images that were met (accuracies, of labels), empty without such images;
    ``fitted``: those of the training images, empty unless ``Training.enough`` asks for them. ``kept``: after how many
    steps method and head were as they are now.
    """

    head: nn.Linear
    losses: np.ndarray
    evaluated: np.ndarray
    validation: np.ndarray
    kept: int
    fitted: np.ndarray


def train(
    vit: VisionTransformer,
    method: nn.Module,
    images: Tensor,
    labels: Tensor,
    training: Training,
    *,
    classes: int | None = None,
    head: nn.Linear | None = None,
    train_head: bool = False,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    label: str = "train",
) -> Trained:
    """Train ``method``, a prompt or a baseline, in place, with a new linear head on ``vit.pool``; the backbone stays.

    ``images`` (n, C, h, w) normalised, ``labels`` int64 (n,) in [0, classes); ``validation`` a pair of such. Targets
    (n, E) of the backbone's dtype in place of labels are fitted by least squares. A ``head`` that is given is used as
    it is, so that the method alone is trained; with ``train_head`` it is where the run's own head starts. Batches are
    drawn epoch by epoch without replacement. Same seed, same bits on one CPU and thread count. A ``checkpoint`` is
    written every so many steps and at the end; a call with the same arguments, the method created anew, resumes from it
    and ends in the bits of an uninterrupted run. Raises ``ValueError`` or ``TypeError`` on input it cannot take, and
    where the checkpoint is another run's.
    """
    return train_many(
        vit, [method], images, labels, training, classes=classes, head=head, train_head=train_head,
        validation=validation, checkpoint=checkpoint, checkpoint_every=checkpoint_every, label=label,
    )[0]  # fmt: skip


def train_many(
    vit: VisionTransformer,
    methods: Sequence[nn.Module],
    images: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[Tensor],
    trainings: Training | Sequence[Training],
    *,
    classes: int | None = None,
    head: nn.Linear | Sequence[nn.Linear] | None = None,
    train_head: bool = False,
    validation: tuple[Tensor, Tensor] | Sequence[tuple[Tensor, Tensor]] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    label: str = "train",
) -> list[Trained]:
    """K runs of ``train`` in one pass: prompts of one mechanism, length and options, folded into a batch (``Bank``), on
    a CPU into several (``passes.FOLD``); or methods without parameters, whose heads all read features computed once.

    ``images``, ``labels``, ``head`` and ``validation`` are shared, or lists of K; sets of images may differ in size
    where each has enough for a step. ``trainings`` may differ in seed, lr and weight decay. The runs equal K separate
    ones up to the rounding of their sums, but for dropout, which draws the masks of all from the first's seed. A run
    that stops early leaves the passes to the others. Raises as ``train`` does, and ``ValueError`` or ``TypeError``
    where the methods or trainings cannot run together.
    """
    k = len(methods)
    trainings = [trainings] * k if isinstance(trainings, Training) else list(trainings)
    plan = common(trainings, k)
    check_together(vit, methods)
    data = pairs(vit, images, labels, k, "images")
    held_out = [None] * k if validation is None else validation_pairs(vit, validation, k)
    if validation is None and plan.evaluate_every and not plan.enough:
        raise ValueError(f"evaluate_every is {plan.evaluate_every} and no validation images are given")
    heads = given_heads(vit, head, k, train_head)
    outputs = count_outputs(data, held_out, classes, heads)
    members = [start(vit, *parts, outputs) for parts in zip(methods, data, held_out, trainings, heads, strict=True)]
    sizes = {m.order.size for m in members}
    if len(sizes) > 1:
        raise ValueError(
            f"the runs' steps see {sorted(sizes)} images, for some have fewer than a step asks for; runs that train "
            f"together take as many each: batch · accumulate of at most {min(sizes)}"
        )
    file = None
    if checkpoint is not None:
        file = Checkpoint(Path(checkpoint), checkpoint_every, describe(vit, members, trainings, outputs))
    if all(map(is_constant, methods)):
        features_for_images(vit, members, plan.precision)
    losses = fit(vit, members, trainings, file, label)
    return [finish(m, own) for m, own in zip(members, losses.T, strict=True)]


def start(
    vit: VisionTransformer,
    method: nn.Module,
    data,
    validation,
    training: Training,
    given: nn.Linear | None,
    outputs: int,
) -> Member:
    """A run before its first step; a head of its own and the order of images are drawn from its seed, in this order."""
    if given is not None and not given.weight.requires_grad and not any(p.numel() for p in method.parameters()):
        raise ValueError(f"the head is given and {method.name} has no parameters, so there is nothing to train")
    generator = torch.Generator().manual_seed(training.seed)
    head = new_head(vit, outputs, generator) if given is None else given
    order = Order(len(data[0]), training.batch * training.accumulate, generator)
    return Member(method, *data, validation, head, order, trains_head=head.weight.requires_grad)


def fit(
    vit: VisionTransformer,
    members: list[Member],
    trainings: list[Training],
    checkpoint: Checkpoint | None,
    label: str,
) -> Tensor:
    """The loop: losses (steps, K)."""
    plan, device = trainings[0], vit.patch.weight.device
    optimiser = make_optimiser(members, trainings)
    losses = torch.zeros(plan.steps, len(members), dtype=torch.float64, device=device)
    warmup = int(plan.steps * plan.warmup + 1e-9)
    methods = nn.ModuleList([m.method for m in members])
    with training_mode(methods), frozen(vit), torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Dropout draws from the global generators; a run on the CPU leaves those of accelerators alone.
        (torch.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed)(plan.seed)
        done = 0 if checkpoint is None else checkpoint.restore(members, optimiser, losses)
        running, passes = None, []
        for step in progress(range(done, plan.steps), label, plan.steps, done=done):
            going = [k for k, m in enumerate(members) if not m.stopped]
            if not going:
                break
            if going != running:
                running, passes = going, folded(vit, [members[k] for k in going], plan.batch)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, plan.steps, warmup, group["peak"])
            optimiser.zero_grad()
            found = [backward(vit, some, part, plan) for some, part in passes]
            losses[step, running] = torch.cat(found).to(losses)
            optimiser.step()
            last = step + 1 == plan.steps
            if last or (plan.evaluate_every and (step + 1) % plan.evaluate_every == 0):
                for m in members:
                    m.evaluate(vit, step + 1, plan.patience, plan.enough)
            if checkpoint is not None and (last or checkpoint.due(step + 1) or all(m.stopped for m in members)):
                checkpoint.save(step + 1, members, optimiser, losses)
    optimiser.zero_grad()
    return losses


def make_optimiser(members: list[Member], trainings: list[Training]) -> torch.optim.Optimizer:
    """One parameter group for all runs of the same rate and decay; ``peak`` is the rate that the schedule scales."""
    groups: dict[tuple[float, float], list] = {}
    for m, t in zip(members, trainings, strict=True):
        groups.setdefault((t.lr, t.weight_decay), []).extend(m.trained())
    made = [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    if trainings[0].optimiser == "sgd":
        return torch.optim.SGD(made, momentum=trainings[0].momentum)
    return torch.optim.AdamW(made, fused=True)  # one call for all the small tensors of all runs


def finish(member: Member, losses: Tensor) -> Trained:
    """The result of one run, its best state put back where one was kept."""
    taken = member.stopped or len(losses)
    kept = member.keep_best() or taken
    evaluated, accuracies = np.array(member.evaluated, dtype=np.int64), np.array(member.accuracies, dtype=np.float64)
    fitted = np.array(member.fitted, dtype=np.float64)
    return Trained(member.head, losses[:taken].cpu().numpy(), evaluated, accuracies, kept, fitted)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@contextlib.contextmanager
def frozen(vit: VisionTransformer) -> Iterator[None]:
    """No parameter of ``vit`` takes a gradient inside the block; what did so before does so again after it."""
    trainable = [p for p in vit.parameters() if p.requires_grad]
    vit.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextlib.contextmanager
def training_mode(method: nn.Module) -> Iterator[None]:
    """``method`` is in training mode inside the block, and in evaluation mode after it."""
    method.train()
    try:
        yield
    finally:
        method.eval()
