"""Claims about what a mechanism is worth in test accuracy: C11, C15, C23. Each function applies one rule."""

from __future__ import annotations

import numpy as np

from ..stats import Interval, bootstrap, paired
from .base import Case, Figure, Results, agreed, number

POINT = 1.0  # of accuracy, C11
ADAPTIVE = ("vapt", "vapt-released")
# What the gate is put on: with it, its control, and the mechanism without both.
GATES = {"VPT": ("norga", "norga-control", "vpt-deep"), "prefix": ("prefix-norga", "prefix-norga-control", "prefix")}
COMBINES = ("zero-init", "cross")


def gain(results: Results, task: str, arm: str, other: str) -> Interval:
    """Points of test accuracy of one arm minus another, paired by seed."""
    return paired(*(100 * results.over_seeds(task, a, "top1") for a in (arm, other)))


def input_use(results: Results) -> list[Case]:
    """C11: accuracy with the image's own prompts minus that with another image's."""
    cases = []
    for task in results.tasks:
        for arm in ADAPTIVE:
            hits = 100 * results.over_seeds(task, arm, "swap")  # (S, 2)
            drop = paired(hits[:, 0], hits[:, 1])
            read = 100 * results.over_seeds(task, arm, "class_information")  # (S, L)
            figures = (
                number("drop in points when swapped", drop),
                number("accuracy with its own prompts, %", bootstrap(hits[:, 0]), judged=False),
                number("class read off P(X), first layer, %", bootstrap(read[:, 0]), judged=False),
                number("class read off P(X), last layer, %", bootstrap(read[:, -1]), judged=False),
            )
            cases.append(Case(f"{task}, {arm}", agreed(drop.low > POINT, drop.high < POINT), figures))
    return cases


def residual_gate(results: Results) -> list[Case]:
    """C15: the gate minus its control without the non-linearity, on tokens and on prefixes."""
    cases = []
    for task in results.tasks:
        for base, (gated, control, plain) in GATES.items():
            over_control = gain(results, task, gated, control)
            figures = (
                number("gain in points over the control", over_control),
                number(f"gain in points over {plain}", gain(results, task, gated, plain), judged=False),
                accuracy(results, task, gated),
            )
            cases.append(Case(f"{task}, {base}", agreed(over_control.low > 0, over_control.high < 0), figures))
    return cases


def shrinkage(results: Results) -> list[Case]:
    """C23: the other combine rules minus the joint softmax."""
    cases = []
    for task in results.tasks:
        for arm in COMBINES:
            found = gain(results, task, arm, "vpt-deep")
            figures = (number("gain in points over vpt-deep", found), accuracy(results, task, arm))
            cases.append(Case(f"{task}, {arm}", agreed(found.low > 0, found.high < 0), figures))
    return cases


def accuracy(results: Results, task: str, arm: str) -> Figure:
    values: np.ndarray = 100 * results.over_seeds(task, arm, "top1")
    return number(f"accuracy of {arm}, %", bootstrap(values), judged=False)
