"""What choosing the learning rate on the test images gains: C22, reported.

What the rule leaves open was decided before any result of the full tier was seen:

- The gap of a trial is the best test accuracy over its grid less that at the rate that its validation part chose, of
  the same trained prompts. A trial is an arm on one training subset of a task.
- The gap cannot be negative, since the best of several is no less than any of them. An interval above 0 would prove
  nothing, so there is no verdict; what counts is how large it is, and whether arms differ in it.
- Trials of a task have their test images in common, and training subsets that lie inside each other, so they are not
  independent. The interval over **tasks**, each with the mean of its trials, is the one for a new task; with few tasks
  it is wide, and of two it is the two. The interval within a task draws trials: it says how the gap varies with arm and
  size on these images, and nothing of other images.
- Trials without a validation part of their own (one image a class) are apart: their rate was chosen on other tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..stats import bootstrap
from .base import REPORTED, Case, Claim, Figure, Results, exact, number
from .compared import RESAMPLES, Compared, compared

PAIR = ("vapt", "vpt-deep")  # whose difference is shown under both rules


@dataclass(frozen=True)
class Trial:
    """Test accuracy in per cent at the ``chosen`` rate and at the one that is ``best`` on test."""

    task: str
    arm: str
    cell: str
    chosen: float
    best: float

    @property
    def gap(self) -> float:
        return self.best - self.chosen


def trials(found: Compared, own: bool) -> list[Trial]:
    """Those whose rate was chosen on a validation part of their ``own``, or on other tasks."""
    from ..efficiency.plan import key, keys

    gaps, made = found.runs.test_selection(own=own), []
    for task, arm, subset in keys(found.plan):
        for seed in found.plan.seeds:
            name = f"{key(task, arm.name, subset)}:trial:{seed}"
            if name in gaps:
                chosen, best = (100 * value for value in gaps[name])
                made.append(Trial(task, arm.name, f"{key(task, '', subset)}:{seed}", chosen, best))
    return made


def inflation(results: Results) -> list[Case]:
    """C22: the gap over tasks, then task by task."""
    found = compared(results)
    own = trials(found, own=True)
    if not own:
        raise ValueError(
            f"no trial of study {results.study} chose its learning rate on a validation part of its own, so there is "
            f"no gap; expected two images a class or more, and several learning rates"
        )
    tasks = list(dict.fromkeys(t.task for t in own))
    cases = [_task(task, [t for t in own if t.task == task], found.plan.names) for task in tasks]
    return [_overall(own, tasks, trials(found, own=False)), *cases]


def _overall(own: list[Trial], tasks: list[str], others: list[Trial]) -> Case:
    means = np.array([np.mean([t.gap for t in own if t.task == task]) for task in tasks])
    figures = [
        number("gap in points, over tasks", bootstrap(means, resamples=RESAMPLES), judged=False),
        gap("gap in points, over trials", own),
        exact("trials where test prefers another rate, %", 100 * np.mean([t.gap > 0 for t in own]), judged=False),
        exact("largest gap of a trial", max(t.gap for t in own), judged=False),
        *pair_figures(own),
    ]
    if others:
        figures.append(gap("gap, rate chosen on other tasks", others))
    return Case("all tasks", REPORTED, tuple(figures), f"{len(own)} trials on {len(tasks)} tasks")


def _task(task: str, own: list[Trial], arms: tuple[str, ...]) -> Case:
    figures = [gap("gap in points", own)]
    figures += [gap(f"gap of {arm}", mine) for arm in arms if (mine := [t for t in own if t.arm == arm])]
    return Case(task, REPORTED, tuple(figures), f"{len(own)} trials")


def gap(what: str, some: list[Trial]) -> Figure:
    return number(what, bootstrap(np.array([t.gap for t in some]), resamples=RESAMPLES), judged=False)


def pair_figures(own: list[Trial]) -> list[Figure]:
    """The difference of two arms by both rules, over the trials that both have."""
    first, second = ({t.cell: t for t in own if t.arm == arm} for arm in PAIR)
    cells = [cell for cell in first if cell in second]
    if not cells:
        return []
    by_rule = {
        "chosen on validation": [first[c].chosen - second[c].chosen for c in cells],
        "chosen on test": [first[c].best - second[c].best for c in cells],
    }
    return [
        number(f"{PAIR[0]} − {PAIR[1]}, {rule}", bootstrap(np.array(values), resamples=RESAMPLES), judged=False)
        for rule, values in by_rule.items()
    ]


CLAIMS = (
    Claim(
        id="C22",
        statement="Choosing hyper-parameters on the test images inflates results.",
        source="after the released code of VAPT, arXiv 2501.18936, which keeps the rate with the best test accuracy "
        "where a test loader exists, as we read it; whether printed numbers were made so is not known",
        rule="Best test accuracy over the learning rates minus that at the rate chosen on a validation part of the "
        "training subset, the same trained prompts and grid: the gap with its interval, reported, not judged.",
        study="learning_curves",
        cases=inflation,
        notes=(
            "The gap cannot be negative, so that it is there proves nothing. It holds two things that these data do "
            "not tell apart: the luck of the best of several on a finite test set, and the rates that a small "
            "validation part chooses badly.",
            "Over tasks: each task counts once, with the mean of its trials, for trials of one task share images. Over "
            "trials: how the gap varies with arm and size on the same images.",
        ),
    ),
)
