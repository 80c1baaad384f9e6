"""What a claim is, what is said of it, and how the verdicts of layers and tasks become one.

A rule compares an interval with a number. It is applied to every **case**: one task, and within it one kind of query or
one mechanism where the claim keeps those apart. Where a rule speaks of layers it is applied to each of them, and a case
has a verdict only where all its layers agree. The verdict of a claim is the one that all its cases have in common;
otherwise, and wherever an interval reaches across the number, it is inconclusive.

Some rules name one side only ("supported where the interval lies above 0"). The other side is then read as its mirror
image at the same number ("refuted where it lies below"): nothing is chosen that the rule does not hold already. All
this was fixed before any result was there.

Intervals are 95 % percentile bootstraps over seeds with 10,000 resamples, of paired differences where two runs share a
seed. One seed has no interval, so every rule is inconclusive there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..stats import Interval

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"


@dataclass(frozen=True)
class Results:
    """Arrays of the ``family`` study, named ``<task>:<arm>:<seed>/<array>``, with the config they were made with."""

    arrays: Mapping[str, np.ndarray]
    config: dict

    def over_seeds(self, task: str, arm: str, name: str) -> np.ndarray:
        """One array of every seed, stacked: (S, ...). Raises ``ValueError`` where it is missing."""
        names = [f"{task}:{arm}:{seed}/{name}" for seed in self.config["seeds"]]
        missing = [n for n in names if n not in self.arrays]
        if missing:
            raise ValueError(
                f"the results lack {', '.join(missing)}; they were made by another version of the study: compute them "
                f"again with `vpt-analysis claims --tier full --commit`"
            )
        return np.stack([self.arrays[n] for n in names]).astype(np.float64)

    @property
    def tasks(self) -> list[str]:
        return self.config["tasks"]


@dataclass(frozen=True)
class Figure:
    """One number with its interval over ``n`` seeds; ``judged`` by the rule, or reported beside."""

    what: str
    estimate: float
    low: float
    high: float
    n: int
    judged: bool = True


@dataclass(frozen=True)
class Case:
    """One setting in which the rule was applied; ``tally``: where it was applied to layers, how many say what."""

    name: str
    verdict: str
    figures: tuple[Figure, ...]
    tally: str = ""


@dataclass(frozen=True)
class Claim:
    """A published statement with the rule that settles it, and the study it is measured in; ``cases`` applies the rule.

    ``notes`` say what a reader has to know, whatever the outcome.
    """

    id: str
    statement: str
    source: str
    rule: str
    study: str
    cases: Callable[[Results], list[Case]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What the rule says of a claim, in which scope, with all the numbers behind it."""

    claim: Claim
    verdict: str
    cases: tuple[Case, ...]
    scope: str
    notes: tuple[str, ...]

    @property
    def figures(self) -> list[tuple[str, float, float, float, int]]:
        """All numbers: what, estimate, low, high, n."""
        return [(f"{c.name}: {f.what}", f.estimate, f.low, f.high, f.n) for c in self.cases for f in c.figures]


def common(verdicts: list[str]) -> str:
    """The verdict that all have, or inconclusive.

    >>> common(["refuted", "refuted"]), common(["refuted", "supported"]), common([])
    ('refuted', 'inconclusive', 'inconclusive')
    """
    return verdicts[0] if len(set(verdicts)) == 1 else INCONCLUSIVE


def agreed(supports: np.ndarray, refutes: np.ndarray) -> str:
    """The verdict of conditions that hold at every layer (or at the one number there is)."""
    return SUPPORTED if np.all(supports) else REFUTED if np.all(refutes) else INCONCLUSIVE


def number(what: str, found: Interval, judged: bool = True) -> Figure:
    return Figure(what, float(found.estimate), float(found.low), float(found.high), found.n, judged)


def extremes(what: str, found: Interval, layers: np.ndarray, judged: bool = True) -> tuple[Figure, ...]:
    """The layers with the smallest and the largest estimate of an interval (L,), as figures; layers count from 1."""
    picked = {"smallest": int(np.argmin(found.estimate)), "largest": int(np.argmax(found.estimate))}
    if len(layers) == 1:
        picked = {"only layer": 0}
    return tuple(
        Figure(f"{what}, layer {layers[i]} ({which})", *(float(x[i]) for x in (found.estimate, found.low, found.high)),
               found.n, judged)
        for which, i in picked.items()
    )  # fmt: skip


def tally(supports: np.ndarray, refutes: np.ndarray) -> str:
    """
    >>> tally(np.array([True, False, False]), np.array([False, True, False]))
    '3 layers: 1 for, 1 against'
    """
    return f"{len(supports)} layers: {int(supports.sum())} for, {int(refutes.sum())} against"
