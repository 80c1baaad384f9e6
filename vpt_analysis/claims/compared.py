"""What the claims of sample efficiency read off a comparison (``efficiency``): points of accuracy, learning rates.

Differences are paired: both arms of a seed are trained on the same images, in the same order. The arms, tasks and sizes
are those of the config that the results were made with; a rule that needs an arm which is not among them is an error,
and one that needs several of a kind cannot be supported by fewer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..stats import Interval, bootstrap, holm, t_test
from .base import Figure, Results, exact, number

if TYPE_CHECKING:  # which imports torch, and other claims do without
    from ..efficiency.plan import Choice, Plan
    from ..efficiency.results import Results as Runs

RESAMPLES = 10_000
PREFERRED = (
    "“Preferred by test”: the best accuracy on the test images over all rates of the trials, which are those of the "
    "first seed unless each seed has its own. It is no result; it bounds what a better choice of the rate could have "
    "given."
)
BOUNDS = {"": "", ">": " (at least)", "<": " (at most)", "?": " (unknown)"}  # of ``stats.Bounded``


@dataclass(frozen=True)
class Setting:
    """A task with one training subset: where arms are compared."""

    task: str
    subset: dict
    name: str


@dataclass(frozen=True)
class Compared:
    """The runs of a comparison, accuracies in per cent."""

    runs: Runs
    study: str

    @property
    def plan(self) -> Plan:
        return self.runs.plan

    @cached_property
    def on_test(self) -> dict[str, tuple[float, float]]:
        """Of every trial by name, test accuracy at the chosen rate and at the one that is best on test, in per cent."""
        return {name: (100 * a, 100 * b) for name, (a, b) in self.runs.test_selection().items()}

    @property
    def settings(self) -> list[Setting]:
        """Every task and subset; named by the task alone where that has a single subset."""
        found = []
        for task in self.plan.tasks:
            for subset in self.plan.of(task):
                ((kind, value),) = subset.items()
                many = f"{value:g} image{'' if value == 1 else 's'} a class"
                size = many if kind == "per_class" else f"{100 * value:g} % of the images"
                found.append(Setting(task, subset, f"{task}, {size}" if len(self.plan.of(task)) > 1 else task))
        return found

    def there(self, arms: Sequence[str]) -> list[str]:
        """Those of ``arms`` that were compared."""
        return [arm for arm in arms if arm in self.plan.names]

    def need(self, *arms: str) -> None:
        """Raise ``ValueError`` where an arm was not compared."""
        absent = [arm for arm in arms if arm not in self.plan.names]
        if absent:
            raise ValueError(
                f"the rule compares {', '.join(arms)}, and the results have no {', '.join(absent)} but only "
                f"{', '.join(self.plan.names)}: add the missing arms to the config of study {self.study} and compute "
                f"it again with `vpt-analysis study {self.study} --tier full --commit`"
            )

    def points(self, at: Setting, arm: str) -> np.ndarray:
        """Test accuracy of every seed at the chosen learning rate, in per cent: (S,)."""
        return 100 * self.runs.accuracy(at.task, arm, at.subset)

    def apart(self, at: Setting, arm: str, other: str) -> np.ndarray:
        """Points of ``arm`` less those of ``other``, seed by seed: (S,)."""
        return self.points(at, arm) - self.points(at, other)

    def gain(self, at: Setting, arm: str, other: str) -> Interval:
        return bootstrap(self.apart(at, arm, other), resamples=RESAMPLES)

    def difference(self, at: Setting, arm: str, other: str, judged: bool = False) -> Figure:
        return number(f"{arm} − {other}", self.gain(at, arm, other), judged)

    def accuracy(self, at: Setting, arm: str) -> Figure:
        return number(f"{arm}, %", bootstrap(self.points(at, arm), resamples=RESAMPLES), judged=False)

    def parameters(self, at: Setting, arm: str) -> Figure:
        counted = self.runs.parameters(at.task, arm)
        return exact(f"{arm}, trained without the head", counted, judged=False, digits=len(str(counted)))

    def chosen(self, at: Setting, arm: str) -> list[Choice]:
        """The choices of a learning rate: one for all seeds, or one a seed."""
        from ..efficiency.plan import key

        name, made = key(at.task, arm, at.subset), self.runs.choices
        return [made[name]] if self.plan.choose == "once" else [made[f"{name}:{seed}"] for seed in self.plan.seeds]

    def rate(self, at: Setting, arm: str) -> Figure:
        """The chosen learning rate, and whether it is an end of the arm's grid."""
        found = self.chosen(at, arm)
        what = "rate chosen" if len(found) == 1 else "median of the rates chosen"
        return exact(f"{arm}, {what}{self.end(at, arm)}", np.median([c.rate for c in found]), judged=False)

    def preferred_by_test(self, at: Setting, arm: str) -> Figure:
        """Accuracy at the rate that the test images prefer, of the trials: those of the first seed, or of all. No
        result; what a luckier choice of the rate could have given."""
        from ..efficiency.plan import key

        head = f"{key(at.task, arm, at.subset)}:trial:"
        best = np.array([best for name, (_, best) in self.on_test.items() if name.startswith(head)])
        if not len(best):
            return exact(f"{arm}, no other rate tried, %", self.points(at, arm).mean(), judged=False)
        return number(f"{arm}, rate preferred by test, %", bootstrap(best, resamples=RESAMPLES), judged=False)

    def end(self, at: Setting, arm: str) -> str:
        """Which end of the grid was chosen, by any seed, in brackets; nothing where none was."""
        rates, chosen = self.plan.rates_of(self.runs.arm(arm)), {c.rate for c in self.chosen(at, arm) if c.edge}
        ends = [word for word, rate in (("smallest", min(rates)), ("largest", max(rates))) if rate in chosen]
        return f" ({' and '.join(ends)} tried)" if ends else ""

    def edges(self, at: Setting, arms: Sequence[str]) -> str:
        """The arms whose learning rate is an end of their grid, in words; nothing where there is none."""
        found = [f"{arm}{self.end(at, arm)}" for arm in arms if self.end(at, arm)]
        return f"learning rate at an end of the grid: {', '.join(found)}" if found else ""


def compared(results: Results) -> Compared:
    """The comparison that the arrays of a study hold. Raises ``ValueError`` where runs of its plan are missing."""
    from ..efficiency import plan as plans
    from ..efficiency import results as runs

    found = runs.of(results.config, results.arrays)
    results.get(*(f"{name}/test" for name in plans.trials(found.plan)))
    results.get(*(f"{name}/test" for name in plans.finals(found.plan, found.found)))
    return Compared(found, results.study)


def corrected(differences: Mapping[tuple[str, str], np.ndarray], margin: float) -> dict[tuple[str, str], Figure]:
    """Holm's p-values of the paired t-tests that a mean difference is ``margin`` points, all of them one family.

    ``differences`` are (S,) by case and arm. They stand beside what is judged and judge nothing; there are none for a
    single seed.
    """
    values = np.stack(list(differences.values()), axis=1)  # (S, tests)
    if len(values) < 2:
        return {}
    p, said = holm(t_test(values - margin)), f"{margin:+g} points" if margin else "0"
    return {
        (case, arm): exact(f"{arm}: p against {said.replace('-', '−')}, Holm", value, judged=False, digits=2)
        for (case, arm), value in zip(differences, p, strict=True)
    }


def joined(*words: str) -> str:
    """What there is of several remarks.

    >>> joined("a", "", "b")
    'a; b'
    """
    return "; ".join(word for word in words if word)
