r"""How much a prompt can store: the largest number of images whose random labels, or targets, it is trained to give.

Images are given, or pure noise; labels are uniform over C classes, targets standard normal in E outputs, so that they
can only be learned by heart. A **head** that is drawn and never trained reads the pooled feature: a trained one of
width d would store about d labels by itself. The prompt alone is trained, from several starts.

n is found by sections of a geometric grid (``sections.py``) with all sizes and starts of a pass in one bank
(``train_many``); the images of a smaller n are the first of a larger, so what fits the larger fits the smaller. A size
counts as fitted where **one** start reaches the share ``enough``: accuracy, or 1 − Σ‖s − t‖² / Σ‖t‖². That training
does not reach it proves nothing: the found n is a **lower bound** on what the mechanism can represent, and grows with
the steps that training is given. Every step sees ``batch`` images, whatever n is; smaller sets are repeated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from .. import prompts
from ..errors import unknown
from ..members import share
from ..prompts import Prompt
from ..readouts import features
from ..training import Training, train_many
from ..vit import VisionTransformer, parameter_count
from .sections import Largest, largest

KINDS = ("labels", "targets")
REFERENCE = 256  # images that the head's centre and scale come from


@dataclass(frozen=True)
class Memorisation:
    """What ``memorisation`` finds for ``length`` prompts of a mechanism with so many trained ``parameters``.

    ``fitted``: the largest n that was fitted, 0 where none was. ``failed``: the smallest larger n that was tried and
    not fitted, 0 where the largest of all sizes was fitted: then the answer is ``censored``, known to be at least that.
    ``sizes`` (T,) tried, ascending, and ``shares`` (T, R) that each start reached. ``outputs``: C or E.
    """

    mechanism: str
    length: int
    kind: str
    outputs: int
    parameters: int
    enough: float
    fitted: int
    failed: int
    sizes: np.ndarray
    shares: np.ndarray

    @property
    def censored(self) -> bool:
        return self.fitted > 0 and self.failed == 0

    @property
    def bits(self) -> float:
        """``stored_bits`` at the largest n."""
        return stored_bits(self.fitted, self.kind, self.outputs, self.enough)


def memorisation(
    vit: VisionTransformer,
    mechanism: str,
    length: int,
    sizes: Sequence[int],
    training: Training,
    *,
    kind: str = "labels",
    outputs: int = 16,
    restarts: int = 2,
    at_once: int = 3,
    images: Tensor | None = None,
    options: Mapping | None = None,
    head: nn.Linear | None = None,
    seed: int = 0,
) -> Memorisation:
    """The largest of ``sizes`` (ascending) whose random labels or targets ``length`` prompts of a mechanism fit.

    ``training``: steps, rate and batch of every run, ``enough`` the share that counts as fitted and ``evaluate_every``
    how often it is looked at; its seed is not used. ``kind`` "labels" of ``outputs`` classes or "targets" in as many
    numbers; ``restarts`` starts each; ``at_once`` sizes a pass. ``images`` (at least the largest size, C, h, w) of the
    backbone's dtype; standard normal pixels of its configured size where None. ``options`` are the mechanism's.
    ``head`` in place of the drawn one. ``seed`` draws images, labels, head, starts and orders.

    Length 0 is measured and not trained. Raises ``ValueError`` on unknown kinds, mechanisms and options, on dropout
    (the masks of a bank are drawn together, so the answer would depend on the grouping), on fewer images than the
    largest size, on patience, where all images have one feature, and what ``train_many`` raises for mechanisms that no
    bank can hold.
    """
    sizes, options = list(sizes), dict(options or {})
    check(kind, outputs, restarts, training, options)
    generator = torch.Generator().manual_seed(seed)
    images = noise(vit, max(sizes), generator) if images is None else images
    if len(images) < max(sizes):
        raise ValueError(f"{len(images)} images for sizes up to {max(sizes)}; give as many, or smaller sizes")
    answers = random_answers(vit, max(sizes), kind, outputs, generator)
    head = random_head(vit, images, outputs, generator) if head is None else head
    starts = torch.randint(2**31, (restarts,), generator=generator).tolist()
    found: dict[int, list[float]] = {}

    def passes(some: list[int]) -> list[bool]:
        made = [prompts.create(mechanism, vit.config, length, s, **options) for _ in some for s in starts]
        made = [prompt.to(vit.patch.weight) for prompt in made]
        data = [(images[:n], answers[:n]) for n in some for _ in starts]
        shares = np.reshape(trained_shares(vit, made, data, head, training, starts * len(some)), (len(some), restarts))
        found.update(zip(some, shares.tolist(), strict=True))
        return (shares.max(1) >= training.enough).tolist()

    answer: Largest = largest(passes, sizes, at_once)
    count = parameter_count(prompts.create(mechanism, vit.config, length, **options))
    shares = np.array([found[int(n)] for n in answer.tried])
    return Memorisation(
        mechanism, length, kind, outputs, count, training.enough, answer.passed, answer.failed, answer.tried, shares
    )


def check(kind: str, outputs: int, restarts: int, training: Training, options: Mapping) -> None:
    if kind not in KINDS:
        raise unknown("kind of what is memorised", kind, KINDS)
    least = {"labels": 2, "targets": 1}[kind]
    for what, value, bound in (("outputs", outputs, least), ("restarts", restarts, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise ValueError(f"{what} is {value!r}; expected an integer, at least {bound}")
    if not training.enough:
        raise ValueError("the training's enough is 0, which everything fits; set it to the share that counts as fitted")
    if training.patience or training.accumulate > 1:
        raise ValueError("memorisation takes no patience, for nothing is held out, and one batch a step")
    if options.get("dropout"):
        raise ValueError(
            f"dropout is {options['dropout']}; masks would tie the runs of a bank together, so that the answer depends "
            f"on which are trained at once: memorise without"
        )


def noise(vit: VisionTransformer, n: int, generator: torch.Generator) -> Tensor:
    """Standard normal pixels, (n, C, h, w): images in general position."""
    c = vit.config
    return torch.randn(n, c.channels, c.image_size, c.image_size, generator=generator).to(vit.patch.weight)


def random_answers(vit: VisionTransformer, n: int, kind: str, outputs: int, generator: torch.Generator) -> Tensor:
    """Labels (n,), uniform, or targets (n, E), standard normal."""
    if kind == "labels":
        return torch.randint(outputs, (n,), generator=generator).to(vit.patch.weight.device)
    return torch.randn(n, outputs, generator=generator).to(vit.patch.weight)


@torch.no_grad()
def random_head(vit: VisionTransformer, images: Tensor, outputs: int, generator: torch.Generator) -> nn.Linear:
    r"""Scores :math:`W(f - \bar f)/s` of the pooled feature f: rows of W (E, F) of norm 1, orthogonal where E ≤ F.

    Mean :math:`\bar f` and root mean square s of the components of :math:`f - \bar f` are those of the first images
    without a prompt: no score leads before training, and scores are as far apart as targets are.
    """
    pooled = vit.pool(vit(images[:REFERENCE]))
    spread = (pooled - pooled.mean(0)).square().mean().sqrt()
    if not spread > 1e-6 * pooled.abs().max():
        raise ValueError(
            "the backbone gives all images one feature, so no scale can be drawn for the head; give other images, or a "
            "head of your own"
        )
    rows = torch.randn(outputs, features(vit), generator=generator).double()
    rows = torch.linalg.qr(rows.T).Q.T if outputs <= features(vit) else rows / rows.norm(dim=1, keepdim=True)
    rows = rows.to(pooled) / spread
    head = nn.utils.skip_init(nn.Linear, features(vit), outputs).to(pooled)
    head.weight.copy_(rows)
    head.bias.copy_(-rows @ pooled.mean(0))
    return head


def trained_shares(
    vit: VisionTransformer,
    made: list[Prompt],
    data: list[tuple[Tensor, Tensor]],
    head: nn.Linear,
    training: Training,
    seeds: list[int],
) -> list[float]:
    """The largest share that each prompt reaches on its own images and answers, all trained in one pass."""
    if not made[0].length:
        return [share(vit, prompt, head, *pair) for prompt, pair in zip(made, data, strict=True)]
    repeated = [tuple(repeat(t, training.batch) for t in pair) for pair in data]
    runs = [replace(training, seed=seed) for seed in seeds]
    classes = None if data[0][1].is_floating_point() else head.out_features
    found = train_many(
        vit, made, *map(list, zip(*repeated, strict=True)), runs, classes=classes, head=head, label="memorise"
    )
    return [float(t.fitted.max()) for t in found]


def repeat(rows: Tensor, batch: int) -> Tensor:
    """All rows so often, each as often, that there are at least ``batch``."""
    times = math.ceil(batch / len(rows))
    return rows if times == 1 else rows.repeat(times, *[1] * (rows.ndim - 1))


def stored_bits(n: int, kind: str, outputs: int, enough: float) -> float:
    r"""Bits that n answers take to store to the share ``enough``, on average over random ones.

    Labels, of which k = ⌊(1 − enough) n⌋ may be wrong: :math:`n\log_2 C - \log_2\sum_{j\le k}\binom nj (C-1)^j`, from
    how many of the C^n strings one is near enough to. Targets: :math:`nE\,\tfrac12\log_2(1/(1 - enough))`, the rate of
    a Gaussian source at that relative squared error (Shannon, 1959, as we understand it), reached for many.

    >>> stored_bits(50, "labels", 16, 0.99), round(stored_bits(200, "labels", 16, 0.99), 1)
    (200.0, 777.9)
    >>> round(stored_bits(10, "targets", 4, 0.99), 1)
    132.9
    """
    if kind == "targets":
        return n * outputs * 0.5 * math.log2(1 / (1 - enough)) if enough < 1 else math.inf
    wrong = math.floor((1 - enough) * n + 1e-9)
    near = sum(math.comb(n, j) * (outputs - 1) ** j for j in range(wrong + 1))
    return n * math.log2(outputs) - math.log2(near)
