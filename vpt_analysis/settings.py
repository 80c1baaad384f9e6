"""What a training run does: its settings, and what runs that train together have in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from .errors import unknown

OPTIMISERS, PRECISIONS = ("adamw", "sgd"), ("model", "bfloat16")
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
