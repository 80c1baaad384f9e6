"""What a comparison found: accuracies at the chosen rates, learning curves, and what choosing on test would gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..stats import Interval, interquartile_mean
from . import plan as plans
from .plan import Choice, Found, Plan, key


@dataclass(frozen=True)
class Results:
    """The runs of a plan, ``found`` by name."""

    plan: Plan
    found: Found

    @cached_property
    def choices(self) -> dict[str, Choice]:
        """The choice for each key, with one for each seed ``<key>:<seed>`` where every seed has its own."""
        if self.plan.choose == "once":
            return plans.choices(self.plan, self.found)
        return {f"{k}:{s}": c for s in self.plan.seeds for k, c in plans.choices(self.plan, self.found, s).items()}

    def run(self, task: str, arm: str, subset: Mapping, seed: int) -> tuple[Mapping[str, np.ndarray], int]:
        """The run that counts for a seed, and at which place its rate stands among the run's. Raises ``ValueError``
        where it is missing."""
        name = key(task, arm, subset)
        if self.plan.choose == "each seed":
            name, rates = f"{name}:trial:{seed}", self.plan.rates_of(self.arm(arm))
            place = rates.index(self.choices[f"{key(task, arm, subset)}:{seed}"].rate)
        else:
            name, place = f"{name}:{seed}", 0
        if name not in self.found:
            raise ValueError(f"no run {name} among the results; they are of another plan, or not finished")
        return self.found[name], place

    def arm(self, name: str) -> plans.Arm:
        return self.plan.arms[self.plan.names.index(name)]

    def accuracy(self, task: str, arm: str, subset: Mapping) -> np.ndarray:
        """Test accuracy of every seed at the chosen rate, a share in [0, 1]: (S,)."""
        runs = [self.run(task, arm, subset, seed) for seed in self.plan.seeds]
        return np.array([float(found["test"][place]) for found, place in runs])

    def chance(self, task: str, arm: str = "", subset: Mapping | None = None) -> float:
        """Accuracy of guessing among the classes, a share, as a run says how many there are: by default the first."""
        arm, subset = arm or self.plan.names[0], subset or self.plan.of(task)[0]
        return 1 / int(self.run(task, arm, subset, self.plan.seeds[0])[0]["classes"])

    def score(self, task: str, arm: str, subset: Mapping) -> np.ndarray:
        """How much of the way from chance to 1 every seed goes, (accuracy − 1/C) / (1 − 1/C) for C classes: (S,). It
        means the same whatever the number of classes, as summaries over tasks need it."""
        chance = self.chance(task, arm, subset)
        return (self.accuracy(task, arm, subset) - chance) / (1 - chance)

    def over_tasks(self, arm: str, subsets: Mapping[str, Mapping], resamples: int = 10_000) -> Interval:
        """Interquartile mean of an arm's scores over all seeds and tasks, in per cent; ``subsets`` by task."""
        scores = [self.score(task, arm, subset) for task, subset in subsets.items()]
        return interquartile_mean(100 * np.stack(scores, axis=1), resamples)

    def images(self, task: str, arm: str, subset: Mapping) -> int:
        """How many training images a subset has."""
        return int(self.run(task, arm, subset, self.plan.seeds[0])[0]["images"])

    def curve(self, task: str, arm: str) -> tuple[np.ndarray, np.ndarray]:
        """Sizes of the training subsets (K,), rising, and test errors 1 − accuracy (K, S)."""
        subsets = self.plan.of(task)
        sizes = np.array([self.images(task, arm, s) for s in subsets])
        order = np.argsort(sizes, kind="stable")
        return sizes[order], np.stack([1 - self.accuracy(task, arm, subsets[i]) for i in order])

    def parameters(self, task: str, arm: str) -> int:
        """Trained scalars without the head."""
        return int(self.run(task, arm, self.plan.of(task)[0], self.plan.seeds[0])[0]["parameters"])

    def test_selection(self, own: bool | None = None) -> dict[str, tuple[float, float]]:
        """Of every trial, test accuracy at the chosen rate and at the rate that the test images prefer; the difference
        is what choosing on test gains. Both are trained on the same images. ``own``: only choices on a validation part
        of one's own (True), or on other tasks (False)."""
        seeds, gaps = self.plan.seeds if self.plan.choose == "each seed" else self.plan.seeds[:1], {}
        for seed in seeds:
            made = plans.choices(self.plan, self.found, seed)
            for task, each, subset in plans.keys(self.plan):
                chosen = key(task, each.name, subset)
                name = f"{chosen}:trial:{seed}"
                if chosen not in made or name not in self.found:
                    continue
                if own is not None and bool(self.found[name]["own"]) != own:
                    continue
                test, rates = self.found[name]["test"], self.plan.rates_of(each)
                gaps[name] = float(test[rates.index(made[chosen].rate)]), float(np.max(test))
        return gaps


def of(config: Mapping, arrays: Mapping[str, np.ndarray]) -> Results:
    """The results of a study whose config is a plan, from arrays named ``<run>/<array>``."""
    from .study import by_run

    return Results(plans.from_plain(config), by_run(arrays))
