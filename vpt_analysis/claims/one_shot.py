"""The claim that VPT fails at one image a class for want of expressiveness: C7. Every static arm against VAPT.

What the rule leaves open was decided before any result of the full tier was seen:

- A case is a task. The judged arms are VPT-Deep from its standard start, from a start 0.01 times as large and from
  prototypes, and the linear probe: none of them reads the image to make its prompts. VPT-Shallow, whose prompts do
  depend on the image from the second layer on, and the released VAPT are reported.
- An arm "comes within 5 points" where the interval of its paired difference to VAPT lies above −5 points, and "stays
  more than 20 points below" where it lies below −20. One arm within 5 points refutes; support takes all four, and an
  arm that was not run cannot be known to stay below.
- Points are absolute, as the rule was written beside 60 % for VAPT. Where VAPT has less than 20 %, no arm can stay so
  far below it, and where it is near chance all arms are near it: the rule is applied all the same, and the case says
  so.
- The judged learning rates are those that a run may choose without more labels than it has (see the notes). What the
  rates that the test images prefer would give is printed beside, labelled as such, and judges nothing.
- Four arms may refute, each with its own chance to do so wrongly: Holm's p-values that a difference is −5 points, over
  all arms and tasks, are printed beside the intervals.
"""

from __future__ import annotations

from ..stats import Interval
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, exact, number
from .compared import PREFERRED, Compared, Setting, compared, corrected, joined

WITHIN, BELOW = -5.0, -20.0  # points of arm − VAPT
ADAPTIVE = "vapt"
STATIC = ("linear", "vpt-deep", "vpt-deep-small", "vpt-deep-prototypes")
SUBSET = {"per_class": 1}


def expressiveness(results: Results) -> list[Case]:
    """C7: static arms minus VAPT, one image a class; all arms beside."""
    found = compared(results)
    found.need(ADAPTIVE)
    static = found.there(STATIC)
    if not static:
        found.need(*STATIC)
    settings = [at for at in found.settings if at.subset == SUBSET]
    if not settings:
        raise ValueError(f"study {results.study} has no training subset with one image a class, of which the rule is")
    p = corrected({(at.name, arm): found.apart(at, arm, ADAPTIVE) for at in settings for arm in static}, WITHIN)
    return [_case(found, at, static, p) for at in settings]


def _case(found: Compared, at: Setting, static: list[str], p: dict[tuple[str, str], Figure]) -> Case:
    gaps = {arm: found.gain(at, arm, ADAPTIVE) for arm in static}
    figures = [number(f"{arm} − {ADAPTIVE}", gap) for arm, gap in gaps.items()]
    figures += [p[at.name, arm] for arm in static if p]
    figures += [found.difference(at, arm, ADAPTIVE) for arm in found.plan.names if arm not in (*static, ADAPTIVE)]
    figures += [found.accuracy(at, arm) for arm in found.plan.names]
    figures += [found.preferred_by_test(at, arm) for arm in found.plan.names]
    figures += [found.rate(at, arm) for arm in found.plan.names]
    chance = 100 * found.runs.chance(at.task, ADAPTIVE, at.subset)
    figures.append(exact("chance, %", chance, judged=False))
    near = [arm for arm, gap in gaps.items() if gap.low > WITHIN]
    words = f"within 5 points of VAPT: {', '.join(near)}" if near else "no static arm known to be within 5 points"
    absent = [arm for arm in STATIC if arm not in static]
    missing = f"not run: {', '.join(absent)}" if absent else ""
    return Case(
        at.name,
        ruling(gaps),
        tuple(figures),
        joined(words, reach(found.points(at, ADAPTIVE).mean(), chance), missing, found.edges(at, found.plan.names)),
    )


def reach(adaptive: float, chance: float) -> str:
    """Where VAPT's own accuracy leaves the rule's points no room, in words.

    >>> reach(60.0, 1.0), reach(19.0, 1.0), reach(4.0, 1.0)
    ('', 'VAPT has 19.0 %, so none can be 20 points below', 'VAPT itself is within 5 points of chance')
    """
    if adaptive + WITHIN < chance:
        return "VAPT itself is within 5 points of chance"
    return f"VAPT has {adaptive:.1f} %, so none can be 20 points below" if adaptive + BELOW < 0 else ""


def ruling(gaps: dict[str, Interval]) -> str:
    if any(gap.low > WITHIN for gap in gaps.values()):
        return REFUTED
    below = all(arm in gaps and gaps[arm].high < BELOW for arm in STATIC)
    return SUPPORTED if below else INCONCLUSIVE


CLAIMS = (
    Claim(
        id="C7",
        statement="VPT fails at about one image a class because static prompts lack expressiveness.",
        source="Le et al., VAPT, arXiv 2501.18936: 3.6 % for VPT and 60.1 % for VAPT at 1 % of Stanford Dogs; read off "
        "a figure, and second-hand",
        rule="One image a class, equal steps, a wide grid of learning rates: test accuracy of the linear probe and of "
        "VPT-Deep (standard start, start × 0.01, start at prototypes) minus that of VAPT. Expressiveness is refuted "
        "where any of these comes within 5 points of VAPT (interval above −5), supported where all stay more than 20 "
        "points below (intervals below −20).",
        study="one_shot",
        cases=expressiveness,
        notes=(
            "With one image a class no validation part can be carved. An arm's learning rate for a task is the one "
            "that is best on unused training images of the other tasks, so a run uses no label beyond its own.",
            "Four arms may refute each task; p-values are those of paired t-tests that a difference is −5 points, "
            "corrected for all arms and tasks (Holm), and judge nothing.",
            "Where VAPT itself has little more than 20 %, no gap of the published size can show: then the verdict says "
            "that static arms do not fail where VAPT does not, and nothing of stronger backbones.",
            PREFERRED,
        ),
    ),
)
