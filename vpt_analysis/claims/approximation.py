"""The claim that adaptive prompts need fewer samples: C19. Floors, apart from what samples buy.

What the rule leaves open was decided before any result of the full tier was seen:

- Risks are means over all replicates, certified fits or not: a fit caught in a poor minimum is part of the risk.
- The floor of a student on a teacher is that of ``power_laws.power_law``. Floors differ by the bootstrap: replicates of
  the two students are drawn independently of each other, at each size, and both laws are fitted to every resample.
- A floor that is not identified (``floor_identified``) means nothing, as the slope of a bent curve does: no verdict
  rests on one. How well a law fits is printed beside it and not judged.
- The judged static student is the one with as many parameters as the adaptive one; that with twice as many is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..stats.intervals import Interval, interval, paired
from ..stats.power_laws import PowerLaw, power_law, resampled_floors
from ..stats.slopes import statistics
from ..studies.estimation import CERTIFIED, FLAT
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, exact, number

RESAMPLES, LEVEL = 10_000, 0.95  # of what is judged; laws beside have the resamples of ``power_law``
PAIR = ("static", "adaptive")  # students, and teachers: each student holds the function of the teacher of its name


@dataclass(frozen=True)
class Floor:
    """The law of one student on one teacher, and the floors of resamples, (resamples,)."""

    law: PowerLaw
    drawn: np.ndarray

    @property
    def identified(self) -> bool:
        return bool(self.law.floor_identified)


def risks(results: Results, teacher: str, student: str) -> np.ndarray:
    """(S, R)."""
    return np.stack(results.finite(*(f"{teacher}:{student}:{n}/risk" for n in results.config["sizes"])))


def fitted_law(results: Results, teacher: str, student: str) -> PowerLaw:
    return power_law(results.config["sizes"], risks(results, teacher, student), level=LEVEL)


def floor(results: Results, teacher: str, student: str) -> Floor:
    """A difference between floors needs the resamples themselves, of which ``power_law`` returns bounds only."""
    seed = list(results.config["students"]).index(student)  # so that students are resampled independently
    values, sizes = risks(results, teacher, student), results.config["sizes"]
    drawn = resampled_floors(sizes, values, resamples=RESAMPLES, level=LEVEL, seed=seed)
    return Floor(fitted_law(results, teacher, student), drawn)


def excess(first: Floor, second: Floor) -> Interval:
    """Floor of the first student less that of the second."""
    estimate = np.asarray(first.law.floor.estimate - second.law.floor.estimate)
    return interval(estimate, first.drawn - second.drawn, LEVEL, first.law.floor.n)


def sample_efficiency(results: Results) -> list[Case]:
    """C19: static less adaptive floor on both teachers, as one case; laws, crossovers and certificates beside."""
    teachers, students = results.config["teachers"], results.config["students"]
    found = {(t, s): floor(results, t, s) for t in teachers for s in students}
    gaps = {t: excess(found[t, "static"], found[t, "adaptive"]) for t in PAIR}
    known = {t: all(found[t, s].identified for s in PAIR) for t in PAIR}
    verdict = INCONCLUSIVE
    if all(known[t] and gaps[t].low > 0 for t in PAIR):
        verdict = SUPPORTED
    elif known["static"] and gaps["static"].high < 0:
        verdict = REFUTED
    figures = [number(f"{t} teacher: floors, static − adaptive", gaps[t]) for t in PAIR]
    for student in (s for s in students if s not in PAIR):
        figures += [
            number(f"{t} teacher: floors, {student} − adaptive", excess(found[t, student], found[t, "adaptive"]), False)
            for t in PAIR
        ]
    for (teacher, student), fitted in found.items():
        figures += law_figures(results, teacher, student, fitted.law)
    figures += [figure for teacher in PAIR for figure in needed_figures(results, teacher)]
    return [Case("static and adaptive students", verdict, tuple(figures), words(results, gaps, known))]


def words(results: Results, gaps: dict[str, Interval], known: dict[str, bool]) -> str:
    """Floors and crossovers, teacher by teacher."""
    said = []
    for teacher in PAIR:
        gap = gaps[teacher]
        higher = "static" if gap.low > 0 else "adaptive" if gap.high < 0 else "neither"
        floors = f"{higher} student's floor higher" if higher != "neither" else "floors not told apart"
        floors = floors if known[teacher] else "floors not identified"
        said.append(f"{teacher} teacher: {floors}, {crossover(results, teacher)}")
    return "; ".join(said)


def crossover(results: Results, teacher: str) -> str:
    """At which sizes which of the two students has the lower risk, by intervals of paired differences."""
    first, second = teacher, next(s for s in PAIR if s != teacher)
    pairs = [risks(results, teacher, s) for s in (first, second)]
    gaps = [paired(a, b, resamples=RESAMPLES, level=LEVEL) for a, b in zip(*pairs, strict=True)]
    lower = {first: [g.high < 0 for g in gaps], second: [g.low > 0 for g in gaps]}
    said = [f"{s} student's risk lower {where(results.config['sizes'], at)}" for s, at in lower.items() if any(at)]
    return ", ".join(said) or "risks not told apart"


def where(sizes: list[int], at: list[bool]) -> str:
    """
    >>> where([1, 2, 3], [False, True, True]), where([1, 2], [True, True])
    ('from n = 2 on', 'at every n')
    >>> where([1000, 2000, 3000], [True, False, True])
    'at n = 1,000, 3,000'
    """
    picked = [n for n, yes in zip(sizes, at, strict=True) if yes]
    if len(picked) == len(sizes):
        return "at every n"
    if len(picked) > 1 and picked == list(sizes[-len(picked) :]):
        return f"from n = {picked[0]:,} on"
    return f"at n = {', '.join(f'{n:,}' for n in picked)}"


def law_figures(results: Results, teacher: str, student: str, law: PowerLaw) -> list[Figure]:
    head, last = f"{teacher} by {student}", results.config["sizes"][-1]
    found = []
    for name, fitted, known in (("floor", law.floor, law.floor_identified), ("exponent", law.exponent, law.identified)):
        found.append(number(f"{head}: {name}" + ("" if known else " (unidentified)"), fitted, judged=False))
    found.append(exact(f"{head}: P(worse fit)", law.goodness, judged=False))
    found.append(exact(f"{head}: mean risk at n = {last}", risks(results, teacher, student)[-1].mean(), judged=False))
    for what, array in ((CERTIFIED, "converged"), (FLAT, "flat")):
        stored = results.get(*(f"{teacher}:{student}:{n}/{array}" for n in results.config["sizes"]))
        found.append(exact(f"{head}: {what}", 100 * np.mean(stored), judged=False))
    return found


def needed_figures(results: Results, teacher: str) -> list[Figure]:
    """At how many samples the teacher's own student has the risk that the other one has at the largest size."""
    sizes, other = results.config["sizes"], next(s for s in PAIR if s != teacher)
    own, others = (
        statistics(risks(results, teacher, s), np.mean, RESAMPLES, LEVEL, i) for i, s in enumerate((teacher, other))
    )
    estimate = reached(sizes, own[0], others[0][-1])
    if not np.isfinite(estimate):
        return []
    drawn = np.minimum(reached(sizes, own[1].T, others[1][:, -1]), sizes[-1])
    replicates = risks(results, teacher, teacher).shape[1]
    return [number(f"{teacher} teacher: n for the other's last risk",
                   interval(estimate, drawn, LEVEL, replicates), judged=False)]  # fmt: skip


def reached(sizes: list[int], curve: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """n at which ``curve`` (S, ...) first reaches ``level`` (...), interpolated between logarithms; the smallest size
    where it is there already, infinity where it never is.

    >>> reached([100, 10_000], np.array([1.0, 0.01]), 0.1).round(6).item()
    1000.0
    >>> reached([100, 10_000], np.array([1.0, 0.01]), 2.0).round(6).item()
    100.0
    >>> reached([1, 2], np.array([1.0, 0.5]), 0.1).item()
    inf
    """
    x, y, level = np.log(sizes), np.log(curve), np.log(level)
    first = np.argmax(y <= level, axis=0)
    before = np.maximum(first - 1, 0)
    high, low = (np.take_along_axis(y, i[None], axis=0)[0] for i in (before, first))
    part = np.where(first > 0, (high - level) / np.where(high > low, high - low, 1.0), 0.0)
    return np.where((y <= level).any(axis=0), np.exp(x[before] + part * (x[first] - x[before])), np.inf)


CLAIMS = (
    Claim(
        id="C19",
        statement="Adaptive prompts (VAPT) are more sample-efficient than static ones (VPT).",
        source="Le et al., VAPT, arXiv 2501.18936, as we understand it",
        rule="Risk against n of static and adaptive students of nearly equally many parameters, on static and "
        "adaptive teachers, as floor + c · n^−b. Supported where the static student's floor exceeds the adaptive one's "
        "on both teachers, the static one included (interval of the difference above 0); refuted where on the static "
        "teacher that interval lies below 0. Floors that are not identified decide nothing.",
        study="approximation",
        cases=sample_efficiency,
        notes=(
            "A higher floor on the teacher of the other kind is approximation: no number of samples mends it, and it "
            "says nothing of estimation. Only an advantage on a static teacher too would be one of samples.",
            "“Adaptive by static” is the static student on the adaptive teacher. “n for the other's last risk”: at how "
            "many samples the teacher's own kind of student has the mean risk that the other kind has at the largest "
            "n (interpolated between sizes, from the smallest to the largest). P(worse fit): small where floor + "
            "c · n^−b does not hold.",
        ),
    ),
)
