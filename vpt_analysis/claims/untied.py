"""The claim that untied prefixes lose for want of tied keys and values: C14. Two repairs that leave them untied.

What the rule leaves open was decided before any result of the full tier was seen:

- A case is a task. Tied is VPT-Deep; untied are prefixes whose keys and values are scaled to those of the content, and
  prefixes that start at the keys and values of VPT-Deep prompts trained for the first half of the steps.
- An untied arm "comes within 1 point of tied" where the interval of its paired difference to tied lies above −1 point.
  One of the two is enough. The mirror image, supported: both intervals lie below −1; an arm that was not run cannot be
  known to.
- Plain prefixes are reported. Where they are within 1 point themselves there is no loss to explain, which is said.
"""

from __future__ import annotations

from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, number
from .compared import PREFERRED, Compared, Setting, compared, corrected, joined

TIED, PLAIN, REPAIRED = "vpt-deep", "prefix", ("prefix-scaled", "prefix-warm")
WITHIN = -1.0  # points of untied − tied


def tying(results: Results) -> list[Case]:
    """C14: repaired untied prefixes minus tied prompts; plain prefixes beside."""
    found = compared(results)
    found.need(TIED)
    repaired = found.there(REPAIRED)
    if not repaired:
        found.need(*REPAIRED)
    p = corrected({(at.name, arm): found.apart(at, arm, TIED) for at in found.settings for arm in repaired}, WITHIN)
    return [_case(found, at, repaired, p) for at in found.settings]


def _case(found: Compared, at: Setting, repaired: list[str], p: dict[tuple[str, str], Figure]) -> Case:
    gaps = {arm: found.gain(at, arm, TIED) for arm in repaired}
    verdict = INCONCLUSIVE
    if any(gap.low > WITHIN for gap in gaps.values()):
        verdict = REFUTED
    elif len(gaps) == len(REPAIRED) and all(gap.high < WITHIN for gap in gaps.values()):
        verdict = SUPPORTED
    plain = found.there([PLAIN])
    arms = [TIED, *plain, *repaired]
    figures = [number(f"{arm} − {TIED}", gap) for arm, gap in gaps.items()]
    figures += [p[at.name, arm] for arm in repaired if p]
    figures += [found.difference(at, arm, TIED) for arm in plain]
    told = (found.accuracy, found.preferred_by_test, found.parameters, found.rate)
    figures += [make(at, arm) for make in told for arm in arms]
    return Case(at.name, verdict, tuple(figures), joined(*words(found, at, plain, repaired), found.edges(at, arms)))


def words(found: Compared, at: Setting, plain: list[str], repaired: list[str]) -> list[str]:
    absent = [arm for arm in REPAIRED if arm not in repaired]
    no_loss = any(found.gain(at, arm, TIED).low > WITHIN for arm in plain)
    return [
        "plain prefixes are within 1 point too: no loss to explain" if no_loss else "",
        f"not run: {', '.join(absent)}" if absent else "",
    ]


CLAIMS = (
    Claim(
        id="C14",
        statement="Unshared prefixes lose because their keys and values are not tied.",
        source="Le et al., arXiv 2410.02200, ICLR 2025, as we understand it",
        rule="Test accuracy of untied prefixes with keys and values scaled to those of the content, and of untied "
        "prefixes that start at trained tied ones, minus that of tied prompts (VPT-Deep): refuted where one of the two "
        "comes within 1 point of tied (interval above −1), supported where both stay below (intervals below −1).",
        study="ablations",
        cases=tying,
        notes=(
            "Untied prefixes train twice as many parameters as tied ones of the same length, and their grids of "
            "learning rates may differ, since raw keys and values have neither LayerNorm nor projection before them.",
            "The warm start has the steps of all others: the first half of them train the tied prompts.",
            "p-values are those of paired t-tests that a difference is −1 point, corrected for both arms and all tasks "
            "(Holm), and judge nothing.",
            PREFERRED,
        ),
    ),
)
