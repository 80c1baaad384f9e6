r"""Skills: what a method teaches a frozen Transformer of sequences, in whole sequences answered right. (C17)

A prefix adds the same keys and values to every input, and in a one-layer model leaves the relative attention over the
content as it is (theorem T2); so it is said to elicit skills that pretraining left behind and to teach no new one.
Here a method of a given number of parameters is trained on one task, on fresh sequences, its learning rate chosen on
validation sequences; then it is measured on test sequences.

Source: Petrov, Torr and Bibi, When Do Prompting and Prefix-Tuning Work?, ICLR 2024, arXiv 2310.19698.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data import sequences
from ..errors import unknown
from ..vit import VisionTransformer
from .matched import maker, matched_methods
from .sequence_training import Hits, Plan, check_backbone, fit, measure

TRIAL_SEED = 1_000_000  # added to the first seed for the trials of rates, whose runs are none of those measured


@dataclass(frozen=True, eq=False)
class Skill:
    """One method on one task; S seeds, R rates.

    ``size``: prompt length, rank or width (0 where there is none); ``parameters`` trained. ``whole`` and ``tokens``
    (S,): shares of sequences, and of single answers, right on test sequences; ``loss`` (S,) there, in nats;
    ``curve`` (S, 20): training loss, means over twentieths of the steps. ``trials`` (R,) and ``trial_losses`` (R,):
    share of whole validation sequences right, and loss, by rate; ``rate``: the one chosen.
    """

    method: str
    task: str
    size: int
    parameters: int
    whole: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    curve: np.ndarray
    trials: np.ndarray
    trial_losses: np.ndarray
    rate: float


def skill(
    vit: VisionTransformer,
    method: str,
    task: str,
    parameters: int,
    plan: Plan,
    rates: Sequence[float] = (0.001, 0.004, 0.016, 0.064),
    seeds: Sequence[int] = (0, 1, 2),
    test: int = 2_000,
    validation: int = 1_000,
    options: dict | None = None,
) -> Skill:
    """Train a method (a prompt mechanism's or a baseline's name) on a task and measure what it has learned.

    ``vit``: a model of sequences with its readout (``sequence_training.check_backbone``), such as the bundled
    "toy-sort"; neither is trained. The method has the length, rank or width at which its count of trained scalars is
    nearest to ``parameters``; "full" and "bias", which have no such size, have the count they have, "linear" has
    nothing to train here. Each of ``rates`` is tried once, with half the steps of ``plan`` and a seed of its own; the
    one with the most validation sequences right is chosen, of equals that with the lowest loss. Then the method is
    trained from each of ``seeds`` (start and training sequences together). Validation and test sequences are those of
    fixed seeds, the same for all methods.

    Raises ``ValueError`` on unknown names, impossible sizes and counts that no size of the method comes within a tenth
    of, ``TypeError`` as the trainer does.
    """
    check_backbone(vit)
    if task not in sequences.TASKS:
        raise unknown("task on sequences", task, sequences.TASKS)
    if len(rates) == 0 or len(seeds) == 0:
        raise ValueError(f"{len(rates)} learning rates and {len(seeds)} seeds; expected at least one of each")
    size, count = sized(vit, method, parameters, options or {})
    held_out, tested = (_drawn(vit, n, seed) for n, seed in ((validation, 1), (test, 2)))

    def trained(plan: Plan, rates: Sequence[float], seeds: Sequence[int]):
        made = [maker(vit, method, seed, options or {})(size) for seed in seeds]
        return made, fit(vit, made, task, plan, rates, seeds)

    half = Plan(max(1, plan.steps // 2), plan.batch, plan.warmup)
    tried, _ = trained(half, rates, [TRIAL_SEED + seeds[0]] * len(rates))
    trials = [measure(vit, m, task, held_out) for m in tried]
    best = min(range(len(rates)), key=lambda i: (-trials[i].whole, trials[i].loss))
    made, losses = trained(plan, [rates[best]] * len(seeds), seeds)
    found = [measure(vit, m, task, tested) for m in made]
    return Skill(
        method, task, size, count,
        whole=np.array([hits.whole for hits in found]),
        tokens=np.array([hits.tokens for hits in found]),
        loss=np.array([hits.loss for hits in found]),
        curve=np.stack([part.mean(0) for part in np.array_split(losses, min(20, len(losses)))], axis=1),
        trials=np.array([hits.whole for hits in trials]),
        trial_losses=np.array([hits.loss for hits in trials]),
        rate=float(rates[best]),
    )  # fmt: skip


def sized(vit: VisionTransformer, method: str, parameters: int, options: dict) -> tuple[int, int]:
    """Size and count of trained scalars of a method with nearest to ``parameters`` of them; see ``skill``."""
    if method in ("full", "bias"):
        made = maker(vit, method, 0, options)(0)
        return 0, sum(p.numel() for p in made.parameters())
    if method == "linear":
        raise ValueError("'linear' trains a new classifier alone, and here the readout is not trained; choose another")
    found = matched_methods(vit, parameters, [method], options={method: options})
    if method in found.left_out:
        raise ValueError(f"{method}: {found.left_out[method]}; choose another count, or other options")
    return found.size[method], found.parameters[method]


def unadapted(vit: VisionTransformer, task: str, test: int = 2_000) -> Hits:
    """What the backbone answers right without any method, on the test sequences of ``skill``."""
    check_backbone(vit)
    return measure(vit, None, task, _drawn(vit, test, 2))


def _drawn(vit: VisionTransformer, n: int, purpose: int) -> torch.Tensor:
    """Validation (1) or test (2) sequences, from a seed that no training sequences have."""
    generator = torch.Generator().manual_seed(2**40 + purpose)
    return sequences.draw(n, vit.config.grid**2, vit.config.channels, generator)
