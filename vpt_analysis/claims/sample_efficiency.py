"""Claims read off learning curves: C8, how much data adaptive prompts save, and C24, where fine-tuning overtakes.

What the rules leave open was decided before any result of the full tier was seen:

- A case is a task. "100 %" is the largest training subset of the study, some 1,000 images, not all that a data set has.
- C8: the multiplier is ``stats.data_multiplier``: at how many times more images VPT-Deep makes as few errors as VAPT
  does, at the errors that VPT-Deep makes with all its images. Its interval may be open: data may only bound it.
- C8: a task is for the claim where the whole interval lies above 2, and against it where the interval holds 1 or lies
  below, however wide it is: the rule asks the claim to exclude 1. An interval from 0 to infinity is none, and decides
  nothing.
- C8: half of the tasks are enough on either side; where half are for and half against, there is no verdict.
- C24 asks for a number and gives no verdict: ``stats.crossover``.
"""

from __future__ import annotations

import numpy as np

from ..stats import Crossover, Interval, bootstrap, crossover, data_multiplier
from .base import INCONCLUSIVE, REFUTED, REPORTED, SUPPORTED, Case, Claim, Figure, Results, exact, half, number
from .compared import BOUNDS, RESAMPLES, Compared, compared, joined

CLEAR, NONE = 2.0, 1.0  # multipliers
PART = 0.3  # of the data, as claimed
STATIC, ADAPTIVE, TUNED = "vpt-deep", "vapt", "full"


def saved(results: Results) -> list[Case]:
    """C8: the data multiplier of VAPT over VPT-Deep; VAPT with part of the data against VPT-Deep with all beside."""
    found = compared(results)
    found.need(STATIC, ADAPTIVE)
    return [_saved(found, task) for task in found.plan.tasks]


def _saved(found: Compared, task: str) -> Case:
    sizes, static = found.runs.curve(task, STATIC)
    others, adaptive = found.runs.curve(task, ADAPTIVE)
    times = data_multiplier(sizes, static, adaptive, sizes_second=others, resamples=RESAMPLES)
    figures = [number(f"data multiplier{BOUNDS[times.bound]}", times)]
    figures.append(exact("error of VPT-Deep at which, %", 100 * times.error, judged=False))
    part = nearest(others / others[-1], PART)
    share = f"VAPT at {100 * others[part] / others[-1]:.0f} % − VPT-Deep at 100 %"
    figures.append(number(share, points_apart(adaptive[part], static[-1]), judged=False))
    figures += by_size(found, task, ADAPTIVE)
    seen = f"{100 * times.censored:.0f} % of the resamples only bound it"
    return Case(task, ruling(times), tuple(figures), joined(seen, edges(found, task, (STATIC, ADAPTIVE))))


def ruling(times: Interval) -> str:
    if np.isnan(times.low) or (times.low == 0 and np.isinf(times.high)):
        return INCONCLUSIVE
    return SUPPORTED if times.low > CLEAR else REFUTED if times.low <= NONE else INCONCLUSIVE


def nearest(shares: np.ndarray, wanted: float) -> int:
    """Place of the share that is nearest in ratio; the last one, all data, is left out.

    >>> nearest(np.array([0.1, 0.3, 1.0]), 0.3), nearest(np.array([0.04, 0.2, 1.0]), 0.3)
    (1, 1)
    """
    return int(np.argmin(np.abs(np.log(shares[:-1] / wanted))))


def points_apart(errors: np.ndarray, others: np.ndarray) -> Interval:
    """Points of accuracy by which the first errors (S,) are better, paired by seed."""
    return bootstrap(100 * (others - errors), resamples=RESAMPLES)


def by_size(found: Compared, task: str, arm: str) -> list[Figure]:
    """Points of accuracy of ``arm`` less those of VPT-Deep at every size that both have, and at the last both apart."""
    (sizes, static), (others, errors) = (found.runs.curve(task, a) for a in (STATIC, arm))
    pairs = [(n, static[i], errors[j]) for i, n in enumerate(sizes) for j, m in enumerate(others) if n == m]
    figures = [number(f"{arm} − {STATIC}, {n:,} images", points_apart(e, s), judged=False) for n, s, e in pairs]
    for name, n, values in ((STATIC, sizes[-1], static[-1]), (arm, others[-1], errors[-1])):
        reached = bootstrap(100 * (1 - values), resamples=RESAMPLES)
        figures.append(number(f"{name}, %, {n:,} images", reached, judged=False))
    return figures


def edges(found: Compared, task: str, arms: tuple[str, ...]) -> str:
    """At which sizes an arm's learning rate is an end of its grid, in words; nothing where it never is."""
    said = []
    for arm in arms:
        ends = [at for at in found.settings if at.task == task and found.end(at, arm)]
        sizes = sorted(found.runs.images(task, arm, at.subset) for at in ends)
        if sizes:
            said.append(f"{arm} at {', '.join(f'{n:,}' for n in sizes)} images")
    return f"learning rate at an end of the grid: {'; '.join(said)}" if said else ""


def overtaken(results: Results) -> list[Case]:
    """C24: the number of images from which on full fine-tuning makes fewer errors than VPT-Deep."""
    found = compared(results)
    found.need(STATIC, TUNED)
    cases = []
    for task in found.plan.tasks:
        sizes, static = found.runs.curve(task, STATIC)
        others, tuned = found.runs.curve(task, TUNED)
        where = crossover(sizes, static, tuned, sizes_second=others, resamples=RESAMPLES)
        figures = [number(f"images at the crossover{BOUNDS[where.bound]}", where, judged=False)]
        figures += by_size(found, task, TUNED)
        words = joined(crossing(where), edges(found, task, (STATIC, TUNED)))
        cases.append(Case(task, REPORTED, tuple(figures), words))
    return cases


def crossing(where: Crossover) -> str:
    """Where the data put the crossover, and where resamples do."""
    said = {"before": "ahead at every size", "inside": "overtakes", "never": "not ahead at the largest size"}
    shares = ", ".join(
        f"{100 * share:.0f} % {name}"
        for name, share in (("before all sizes", where.before), ("inside", where.inside), ("not at all", where.never))
    )
    return f"full fine-tuning {said[where.status]}; in the resamples {shares}"


CURVES = (
    "Curves are the falling ones nearest to the means, and nothing is continued beyond the sizes that were run: where "
    "data only bound a number, “at least” or “at most” stands beside it, and an interval may end at 0 or infinity."
)
CLAIMS = (
    Claim(
        id="C8",
        statement="Adaptive prompts (VAPT) at 30 % of the data match static ones (VPT) at 100 %.",
        source="Le et al., VAPT, arXiv 2501.18936, its figure of Stanford Dogs as we read it",
        rule="How many times more training images VPT-Deep needs than VAPT for the same accuracy, that of VPT-Deep "
        "with all images. Supported where the multiplier's interval lies above 2 on at least half of the tasks; "
        "refuted where it includes 1, or lies below, on at least half.",
        study="learning_curves",
        cases=saved,
        joins=half,
        notes=(
            CURVES,
            "An interval that is wide enough to include 1 counts against the claim, whatever its estimate.",
            "All data are the largest training subset of this study, and steps are equal at every size.",
        ),
    ),
    Claim(
        id="C24",
        statement="Full fine-tuning overtakes VPT as the data grow.",
        source="after Han et al., ICLR 2024 (“Facing the Elephant in the Room”), as we understand it",
        rule="The number of training images from which on full fine-tuning makes fewer errors than VPT-Deep, by task "
        "with its interval: reported, not judged.",
        study="learning_curves",
        cases=overtaken,
        notes=(CURVES, "Steps are equal and few, which may hold back the method with the most to train."),
    ),
)
