"""Train prompts and other methods, each with a linear head, on a frozen backbone: one, or many in one pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .attention import wide
from .bank import Bank, gather
from .checkpoints import Checkpoint, describe
from .errors import unknown
from .fits import check_method
from .members import Member, Order, accuracy, pairs, validation_pairs
from .progress import progress
from .readouts import count_outputs, given_heads, mean_loss, new_head, read
from .vit import VisionTransformer

__all__ = ["Trained", "Training", "accuracy", "frozen", "learning_rate", "train", "train_many"]

OPTIMISERS, PRECISIONS = ("adamw", "sgd"), ("model", "bfloat16")
# Components of tokens that a bank takes through the backbone at a time on a CPU: 64 images of 65 tokens of width 128.
# More only leave its caches, fewer wait for Python.
FOLD = 64 * 65 * 128
OWN = ("seed", "lr", "weight_decay")  # what runs that train together may differ in


@dataclass(frozen=True)
class Training:
    """What a run does.

    ``optimiser`` "adamw" or "sgd" (with ``momentum``); ``lr`` is the peak, reached after the share ``warmup`` of the
    ``steps``, from where it falls to 0 by half a cosine. ``batch`` images are in memory at a time, ``accumulate`` such
    batches make a step. ``precision`` "model" is the backbone's dtype, "bfloat16" runs the forward pass in it
    (autocast) and leaves parameters as they are. Every ``evaluate_every`` steps (0: at the end only) the accuracy on
    the validation images is measured; with ``patience`` > 0 a run stops after so many evaluations without a better one
    and keeps the best state, otherwise it goes to the end and keeps that. With ``enough`` > 0 a run stops, too, when an
    evaluation finds that share of its own training images fitted: the accuracy, or 1 less the relative squared error.
    ``seed``: the start of a head that is trained, the order of images and dropout; the method brings its own start.
    """

    steps: int
    lr: float = 1e-2
    weight_decay: float = 1e-4
    batch: int = 64
    optimiser: str = "adamw"
    momentum: float = 0.9
    warmup: float = 0.1
    precision: str = "model"
    accumulate: int = 1
    evaluate_every: int = 0
    patience: int = 0
    seed: int = 0
    enough: float = 0.0

    def __post_init__(self):
        least = {"steps": 1, "batch": 1, "accumulate": 1, "evaluate_every": 0, "patience": 0, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < bound:
                raise ValueError(f"{name} is {value!r}; expected an integer, at least {bound}")
        for name, bound in {"lr": math.inf, "weight_decay": math.inf, "momentum": 1, "warmup": 1, "enough": 1}.items():
            value = getattr(self, name)
            if not 0 <= value < math.inf or value > bound:
                raise ValueError(f"{name} is {value!r}; expected a number from 0 to {bound}")
        for name, known in {"optimiser": OPTIMISERS, "precision": PRECISIONS}.items():
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        for name in ("patience", "enough"):
            if getattr(self, name) and not self.evaluate_every:
                raise ValueError(
                    f"{name} is {getattr(self, name)} and nothing is evaluated on the way; set evaluate_every too"
                )


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
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    label: str = "train",
) -> Trained:
    """Train ``method``, a prompt or a baseline, in place, with a new linear head on ``vit.pool``; the backbone stays.

    ``images`` (n, C, h, w) normalised, ``labels`` int64 (n,) in [0, classes); ``validation`` a pair of such. Targets
    (n, E) of the backbone's dtype in place of labels are fitted by least squares. A ``head`` that is given is used as
    it is: the method alone is trained. Batches are drawn epoch by epoch without replacement. Same seed, same bits on
    one CPU and thread count. A ``checkpoint`` is written every so many steps and at the end; a call with the same
    arguments, the method created anew, resumes from it and ends in the bits of an uninterrupted run. Raises
    ``ValueError`` or ``TypeError`` on input it cannot take, and where the checkpoint is another run's.
    """
    return train_many(
        vit, [method], images, labels, training, classes=classes, head=head, validation=validation,
        checkpoint=checkpoint, checkpoint_every=checkpoint_every, label=label,
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
    validation: tuple[Tensor, Tensor] | Sequence[tuple[Tensor, Tensor]] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 100,
    label: str = "train",
) -> list[Trained]:
    """K runs of ``train`` in one pass: prompts of one mechanism, length and options, folded into a batch (``Bank``), on
    a CPU into several (``FOLD``).

    ``images``, ``labels``, ``head`` and ``validation`` are shared, or lists of K; sets of images may differ in size
    where each has enough for a step. ``trainings`` may differ in seed, lr and weight decay. The runs equal K separate
    ones up to the rounding of their sums, but for dropout, which draws the masks of all from the first's seed. A run
    that stops early leaves the passes to the others. Raises as ``train`` does, and ``ValueError`` or ``TypeError``
    where the methods or trainings cannot run together.
    """
    k = len(methods)
    trainings = [trainings] * k if isinstance(trainings, Training) else list(trainings)
    plan = common(trainings, k)
    method = methods[0] if k == 1 else Bank(methods)
    check_method(method)
    method.check_fits(vit)
    data = pairs(vit, images, labels, k, "images")
    held_out = [None] * k if validation is None else validation_pairs(vit, validation, k)
    if validation is None and plan.evaluate_every and not plan.enough:
        raise ValueError(f"evaluate_every is {plan.evaluate_every} and no validation images are given")
    heads = given_heads(vit, head, k)
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
    losses = fit(vit, method, members, trainings, file, label)
    return [finish(m, own) for m, own in zip(members, losses.T, strict=True)]


def common(trainings: list[Training], k: int) -> Training:
    """The training that all runs share but for ``OWN``."""
    if len(trainings) != k or not k:
        raise ValueError(f"{len(trainings)} trainings for {k} methods; expected one for all, or one each")
    first = asdict(trainings[0])
    for number, other in enumerate(map(asdict, trainings)):
        for name in first:
            if name not in OWN and other[name] != first[name]:
                raise ValueError(
                    f"run {number} has {name} {other[name]!r}, run 0 has {first[name]!r}; runs that train together may "
                    f"differ in {', '.join(OWN)} only"
                )
    return trainings[0]


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
    if given is not None and not any(p.numel() for p in method.parameters()):
        raise ValueError(f"the head is given and {method.name} has no parameters, so there is nothing to train")
    generator = torch.Generator().manual_seed(training.seed)
    head = new_head(vit, outputs, generator) if given is None else given
    order = Order(len(data[0]), training.batch * training.accumulate, generator)
    return Member(method, *data, validation, head, order, trains_head=given is None)


def folded(vit: VisionTransformer, members: list[Member], batch: int) -> list[tuple[nn.Module, list[Member]]]:
    """The members that go through the backbone together, with the method that stands for them: one, or a bank."""
    most = len(members)
    if members and vit.patch.weight.device.type == "cpu":
        (h, w), p = members[0].images.shape[-2:], vit.config.patch_size
        tokens = vit.config.prefix + (h // p) * (w // p)
        most = max(1, FOLD // (batch * tokens * vit.config.width))
    parts = [members[i : i + most] for i in range(0, len(members), most)]
    return [(part[0].method if len(part) == 1 else Bank([m.method for m in part]), part) for part in parts]


def fit(
    vit: VisionTransformer,
    method: nn.Module,
    members: list[Member],
    trainings: list[Training],
    checkpoint: Checkpoint | None,
    label: str,
) -> Tensor:
    """The loop: train ``method``, which is the only member's or the bank of them all; losses (steps, K)."""
    plan, device = trainings[0], vit.patch.weight.device
    optimiser = make_optimiser(members, trainings)
    losses = torch.zeros(plan.steps, len(members), dtype=torch.float64, device=device)
    warmup = int(plan.steps * plan.warmup + 1e-9)
    with training_mode(method), frozen(vit), torch.random.fork_rng([device] if device.type == "cuda" else []):
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


def backward(vit: VisionTransformer, method: nn.Module, members: list[Member], plan: Training) -> Tensor:
    """Gradients of one step of the members that ``method`` stands for, summed over its batches; their losses (K,)."""
    orders = [m.order.next() for m in members]
    total = 0
    for indices in zip(*(order.split(plan.batch) for order in orders), strict=True):
        images, labels = (gather([getattr(m, what) for m in members], indices) for what in ("images", "labels"))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            pooled = vit.pool(method.encode(vit, images)).unflatten(0, (len(members), -1))  # (K, B, F)
            scores = read([m.head for m in members], pooled)
        loss = mean_loss(scores.to(wide(scores)), labels.unflatten(0, (len(members), -1)))
        loss = loss * (len(indices[0]) / len(orders[0]))
        loss.sum().backward()
        total = total + loss.detach()
    return total


def make_optimiser(members: list[Member], trainings: list[Training]) -> torch.optim.Optimizer:
    """One parameter group for all runs of the same rate and decay; ``peak`` is the rate that the schedule scales."""
    groups: dict[tuple[float, float], list] = {}
    for m, t in zip(members, trainings, strict=True):
        groups.setdefault((t.lr, t.weight_decay), []).extend(m.trained())
    made = [{"params": p, "lr": lr, "peak": lr, "weight_decay": decay} for (lr, decay), p in groups.items()]
    if trainings[0].optimiser == "sgd":
        return torch.optim.SGD(made, momentum=trainings[0].momentum)
    return torch.optim.AdamW(made)


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
