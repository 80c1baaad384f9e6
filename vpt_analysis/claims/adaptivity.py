"""Claims about where the gain of adaptive prompts comes from: C9, equal parameters, and C10, reading the input.

What the rules leave open was decided before any result of the full tier was seen:

- A case of C9 is a task. It is for the claim where VAPT beats VPT-Deep with as many trained parameters (as near as
  whole prompts allow) *and* the released VAPT beats static prompts with its extras (a LayerNorm a layer and a residual
  projector): both intervals above 0. It is against where one of the two lies below 0. "On most tasks" is more than half
  of them, the same tasks for both; the mirror image as well.
- A case of C10 is a task and one form of VAPT. The share of the gain that is lost is (VAPT − VAPT fed with means) /
  (VAPT − VPT-Deep), of means over seeds. A share of nothing means nothing, so it is judged only where the interval of
  the gain lies above 0; elsewhere there is no gain to explain and the case is inconclusive. Resamples without a gain
  count as the worst on either side of the interval.
- Refuted where the interval of the share ends at or below 25 %, supported where it begins at or above 75 %. The
  options of the released code, each taken away on its own, are reported.
"""

from __future__ import annotations

import numpy as np

from ..stats import Interval
from ..stats.intervals import resampled
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, most, number
from .compared import PREFERRED, RESAMPLES, Compared, Setting, compared, corrected, joined

PAIRS = (("vapt", "vpt-deep-matched"), ("vapt-released", "vpt-projected"))  # adaptive, and static with its parameters
MEANS = {"vapt": "vapt-mean", "vapt-released": "vapt-released-mean"}
STATIC, RELEASED = "vpt-deep", "vapt-released"
WITHOUT = f"{RELEASED}-no-"
LITTLE, MOST = 25.0, 75.0  # per cent of the gain
LEVEL = 0.95


def equal_parameters(results: Results) -> list[Case]:
    """C9: adaptive minus static prompts, at equal parameters and against the control with the same extras."""
    found = compared(results)
    pairs = [pair for pair in PAIRS if len(found.there(pair)) == 2]
    if not pairs:
        found.need(*(arm for pair in PAIRS for arm in pair))
    p = corrected({(at.name, a): found.apart(at, a, b) for at in found.settings for a, b in pairs}, 0.0)
    return [_equal(found, at, pairs, p) for at in found.settings]


def _equal(found: Compared, at: Setting, pairs: list, p: dict[tuple[str, str], Figure]) -> Case:
    gains = [found.gain(at, *pair) for pair in pairs]
    verdict = SUPPORTED if len(pairs) == len(PAIRS) and all(g.low > 0 for g in gains) else INCONCLUSIVE
    if any(gain.high < 0 for gain in gains):
        verdict = REFUTED
    arms = [arm for pair in pairs for arm in pair]
    figures = [number(f"{a} − {b}", gain) for (a, b), gain in zip(pairs, gains, strict=True)]
    figures += [p[at.name, adaptive] for adaptive, _ in pairs if p]
    figures += [make(at, arm) for make in (found.accuracy, found.preferred_by_test, found.parameters) for arm in arms]
    absent = [f"{a} and {b}" for a, b in PAIRS if (a, b) not in pairs]
    missing = f"not both run: {', '.join(absent)}" if absent else ""
    return Case(at.name, verdict, tuple(figures), joined(missing, found.edges(at, arms)))


def reading(results: Results) -> list[Case]:
    """C10: the share of the gain over VPT-Deep that VAPT fed with means loses; the released code's options beside."""
    found = compared(results)
    forms = {form: mean for form, mean in MEANS.items() if len(found.there((form, mean))) == 2}
    if not forms or not found.there([STATIC]):
        found.need(STATIC, *MEANS, *MEANS.values())
    return [_reading(found, at, form, mean) for at in found.settings for form, mean in forms.items()]


def _reading(found: Compared, at: Setting, form: str, mean: str) -> Case:
    gain, verdict, words = found.gain(at, form, STATIC), INCONCLUSIVE, "no gain to explain"
    figures = [number(f"{form} − {STATIC}", gain)]
    if gain.low > 0:
        share = lost(found.apart(at, form, mean), found.apart(at, form, STATIC))
        verdict = REFUTED if share.high <= LITTLE else SUPPORTED if share.low >= MOST else INCONCLUSIVE
        figures.append(number("share of it that means lose, %", share))
        words = ""
    arms = [STATIC, form, mean]
    figures += [found.difference(at, form, mean), found.difference(at, mean, STATIC)]
    figures += [make(at, arm) for make in (found.accuracy, found.preferred_by_test) for arm in arms]
    if form == RELEASED:
        without = [arm for arm in found.plan.names if arm.startswith(WITHOUT)]
        figures += [
            number(f"without {arm.removeprefix(WITHOUT)} − {RELEASED}", found.gain(at, arm, RELEASED), judged=False)
            for arm in without
        ]
        arms += without
    return Case(f"{at.name}, {form}", verdict, tuple(figures), joined(words, found.edges(at, arms)))


def lost(part: np.ndarray, whole: np.ndarray) -> Interval:
    """Mean of ``part`` over mean of ``whole`` (S,), in per cent, by a bootstrap over seeds of both together.

    >>> lost(np.array([1.0, 1.0, 1.0]), np.array([4.0, 4.0, 4.0]))
    Interval(estimate=25.0, low=25.0, high=25.0, n=3)
    """
    values = np.stack([part, whole], axis=1)  # (S, 2)
    drawn = resampled(values, np.mean, RESAMPLES, np.random.default_rng(0))
    there = drawn[:, 1] > 0
    ratio = 100 * drawn[:, 0] / np.where(there, drawn[:, 1], 1.0)
    low = np.quantile(np.where(there, ratio, -np.inf), (1 - LEVEL) / 2, method="lower")
    high = np.quantile(np.where(there, ratio, np.inf), (1 + LEVEL) / 2, method="higher")
    return Interval(float(100 * part.mean() / whole.mean()), float(low), float(high), len(values))


CLAIMS = (
    Claim(
        id="C9",
        statement="At equally many trained parameters adaptive prompts (VAPT) are better than static ones (VPT).",
        source="Le et al., VAPT, arXiv 2501.18936, ICLR 2026; that parameters were unequal is a criticism of its "
        "reviewers, second-hand",
        rule="Test accuracy of VAPT minus that of VPT-Deep with as many parameters, and of the released VAPT minus "
        "that of static prompts with its LayerNorms and projector. Supported where the intervals of both paired "
        "differences lie above 0 on most tasks, refuted where one of the two lies below 0 on most tasks.",
        study="ablations",
        cases=equal_parameters,
        joins=most,
        notes=(
            "Counts are without the head, which all arms have alike. They match as near as whole prompts allow; the "
            "printed ones say how near.",
            "p-values are those of paired t-tests that a difference is 0, corrected for all tasks and both pairs "
            "(Holm), and judge nothing.",
            PREFERRED,
        ),
    ),
    Claim(
        id="C10",
        statement="The gain of adaptive prompts (VAPT) comes from reading the input.",
        source="a question to Le et al., VAPT, arXiv 2501.18936, ICLR 2026",
        rule="VAPT with its generator fed the data set's mean tokens, which keeps the parametrisation and takes the "
        "input away: share of VAPT's gain over VPT-Deep that is lost. Refuted where the share's interval ends at or "
        "below 25 %, supported where it begins at or above 75 %; where the gain's own interval does not lie above 0 "
        "there is none to explain, and nothing is decided.",
        study="ablations",
        cases=reading,
        notes=(
            "A negative share says that the mean-fed arm is better than VAPT itself.",
            "“Without …”: the released code with one of its options taken away, minus the whole; reported.",
            PREFERRED,
        ),
    ),
)
