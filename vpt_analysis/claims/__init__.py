"""Published claims about visual prompts, each with the rule that settles it, fixed before any result was seen.

``judge`` applies a rule to the arrays of a study; ``registry`` holds the claims, study by study; ``base`` says how the
verdicts of layers and tasks become one, and what a study needs that claims draw on; ``text`` prints verdicts,
``stored`` keeps those of the committed results beside these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import study as machinery
from ..errors import unknown
from .base import INCONCLUSIVE, Case, Claim, Results, Verdict
from .registry import CLAIMS

__all__ = ["CLAIMS", "Case", "Claim", "Verdict", "chosen", "judge"]


def chosen(ids: Sequence[str] = ()) -> list[Claim]:
    """Claims by id, whatever its case, each once and in the order given; all of them if none is named. Raises
    ``ValueError`` for an unknown id."""
    found = {}
    for name in ids or CLAIMS:
        if name.upper() not in CLAIMS:
            raise unknown("claim", name, CLAIMS)
        found[name.upper()] = CLAIMS[name.upper()]
    return list(found.values())


def judge(which: str | Claim, arrays: Mapping[str, np.ndarray], config: dict, weights: str | None = None) -> Verdict:
    """The verdict on a claim by its rule, from arrays of its study and their config.

    ``weights``: the digest of the backbone's file, for the scope. Raises ``ValueError`` for an unknown id, and where
    arrays that the rule needs are missing or not finite.
    """
    claim = which if isinstance(which, Claim) else chosen([which])[0]
    cases = tuple(claim.cases(Results(arrays, config, claim.study)))
    verdict = claim.joined([c.verdict for c in cases])
    scope = machinery.study(claim.study).scope(config, weights)
    return Verdict(claim, verdict, cases, scope, notes(claim, config, cases, verdict))


def notes(claim: Claim, config: dict, cases: tuple[Case, ...], verdict: str) -> tuple[str, ...]:
    """What the reader has to know: of the claim, of its study, and of cases that disagree."""
    found = [*claim.notes, *machinery.study(claim.study).notes(config, cases)]
    if verdict == INCONCLUSIVE and len({c.verdict for c in cases} - {INCONCLUSIVE}) > 1:
        found.append("The cases contradict each other, so there is no verdict in common.")
    return tuple(found)
