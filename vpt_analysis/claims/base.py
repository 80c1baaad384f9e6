"""What a claim is, what is said of it, and how the verdicts of layers and tasks become one.

A rule compares an interval with a number. It is applied to every **case**: one task, and within it one kind of query or
one mechanism where the claim keeps those apart. Where a rule speaks of layers it is applied to each of them, and a case
has a verdict only where all its layers agree. The verdict of a claim is the one that all its cases have in common, or
as many of them as its rule asks for (``half``, ``most``); otherwise, and wherever an interval reaches across the
number, it is inconclusive. A theorem (its id begins with T) must hold in every case: one that contradicts it refutes
it. A rule that asks for a number alone gives no verdict: its cases, and the claim, are *reported*.

Some rules name one side only ("supported where the interval lies above 0"). The other side is then read as its mirror
image at the same number ("refuted where it lies below"): nothing is chosen that the rule does not hold already. All
this was fixed before any result was there.

Intervals are 95 % percentile bootstraps over seeds with 10,000 resamples, of paired differences where two runs share a
seed, unless the rule names another. One seed has no interval, so every rule is inconclusive there. Numbers that are not
sampled, such as printed ones, have none and need none.

A study that claims draw on has two functions more than ``vpt_analysis.study`` asks for; what they say is no part of its
results:

- ``scope(config, weights) -> str``: what a verdict holds for; ``weights`` is the digest of the backbone's file, if any;
- ``notes(config, cases) -> list[str]``: what a reader has to know of all its verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..stats import Interval

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
REPORTED = "reported"  # by a rule that asks for a number and judges nothing


@dataclass(frozen=True)
class Results:
    """Arrays of a study, named ``<part>/<array>``, with the config they were made with."""

    arrays: Mapping[str, np.ndarray]
    config: dict
    study: str

    def get(self, *names: str) -> list[np.ndarray]:
        """Arrays by name, as float64. Raises ``ValueError`` where some are missing."""
        missing = [name for name in names if name not in self.arrays]
        if missing:
            raise ValueError(
                f"the results lack {', '.join(missing)}; they were made by another version of the study: compute them "
                f"again with `vpt-analysis study {self.study} --tier full --commit`"
            )
        return [np.asarray(self.arrays[name], dtype=np.float64) for name in names]

    def finite(self, *names: str) -> list[np.ndarray]:
        """``get``, for rules that no interval checks. Raises ``ValueError`` where a value is not finite too."""
        found = self.get(*names)
        wrong = [name for name, values in zip(names, found, strict=True) if not np.isfinite(values).all()]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: some values are not finite, so that no rule can be applied")
        return found

    def over_seeds(self, task: str, arm: str, name: str) -> np.ndarray:
        """One array of every seed, stacked: (S, ...), of a study with parts ``<task>:<arm>:<seed>``."""
        return np.stack(self.get(*(f"{task}:{arm}:{seed}/{name}" for seed in self.config["seeds"])))

    @property
    def tasks(self) -> list[str]:
        return self.config["tasks"]


@dataclass(frozen=True)
class Figure:
    """One number with its interval over ``n`` seeds or replicates; ``judged`` by the rule, or reported beside.

    ``n`` is 0 where nothing was sampled and there is no interval; ``digits``: how many significant ones are shown.
    """

    what: str
    estimate: float
    low: float
    high: float
    n: int
    judged: bool = True
    digits: int = 3


@dataclass(frozen=True)
class Case:
    """One setting in which the rule was applied; ``tally``: what the verdict comes from, such as how many layers say
    what."""

    name: str
    verdict: str
    figures: tuple[Figure, ...]
    tally: str = ""


@dataclass(frozen=True)
class Claim:
    """A published statement with the rule that settles it, and the study it is measured in; ``cases`` applies the rule.

    ``notes`` say what a reader has to know, whatever the outcome; ``joins`` makes one verdict of those of the cases
    where the rule says how many are enough.
    """

    id: str
    statement: str
    source: str
    rule: str
    study: str
    cases: Callable[[Results], list[Case]]
    notes: tuple[str, ...] = ()
    joins: Callable[[list[str]], str] | None = None

    def joined(self, verdicts: list[str]) -> str:
        """The verdict that those of the cases add up to."""
        if self.joins:
            return self.joins(verdicts)
        return every(verdicts) if self.id.startswith("T") else common(verdicts)


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


def every(verdicts: list[str]) -> str:
    """The verdict on what must hold everywhere: one case refutes it.

    >>> every(["supported", "refuted"]), every(["supported", "inconclusive"]), every(["supported"]), every([])
    ('refuted', 'inconclusive', 'supported', 'inconclusive')
    """
    return REFUTED if REFUTED in verdicts else common(verdicts)


def half(verdicts: list[str]) -> str:
    """The verdict that at least half have; none where half contradict the other half.

    >>> half(["supported", "inconclusive"]), half(["refuted", "refuted", "supported"]), half(["supported", "refuted"])
    ('supported', 'refuted', 'inconclusive')
    >>> half(["supported", "inconclusive", "inconclusive"])
    'inconclusive'
    """
    found = [verdict for verdict in (SUPPORTED, REFUTED) if verdicts and 2 * verdicts.count(verdict) >= len(verdicts)]
    return found[0] if len(found) == 1 else INCONCLUSIVE


def most(verdicts: list[str]) -> str:
    """The verdict that more than half have.

    >>> most(["supported", "inconclusive"]), most(["refuted", "refuted", "supported"])
    ('inconclusive', 'refuted')
    """
    found = [verdict for verdict in (SUPPORTED, REFUTED) if 2 * verdicts.count(verdict) > len(verdicts)]
    return found[0] if found else INCONCLUSIVE


def agreed(supports: np.ndarray, refutes: np.ndarray) -> str:
    """The verdict of conditions that hold at every layer (or at the one number there is)."""
    return SUPPORTED if np.all(supports) else REFUTED if np.all(refutes) else INCONCLUSIVE


def number(what: str, found: Interval, judged: bool = True) -> Figure:
    return Figure(what, float(found.estimate), float(found.low), float(found.high), found.n, judged)


def exact(what: str, value: float, judged: bool = True, digits: int = 3) -> Figure:
    """A number that nothing was sampled for."""
    return Figure(what, float(value), math.nan, math.nan, 0, judged, digits)


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
