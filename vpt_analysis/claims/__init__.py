"""Published claims about visual prompts, each with the rule that settles it, fixed before any result was seen.

``judge`` applies a rule to the arrays of a study; ``base`` says how the verdicts of layers and tasks become one,
``text`` prints them, ``stored`` keeps those of the committed results beside these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .. import stats
from ..errors import unknown
from ..studies.rates import STANDARD
from .base import INCONCLUSIVE, Case, Claim, Results, Verdict, common
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
    cases = tuple(claim.cases(Results(arrays, config)))
    return Verdict(
        claim, common([c.verdict for c in cases]), cases, scope(config, weights), notes(claim, config, cases)
    )


def scope(config: dict, weights: str | None) -> str:
    """Backbone, tasks, sizes and seeds: what a verdict holds for."""
    seeds = len(config["seeds"])
    rates = "chosen on a part of the training images" if config.get("rates") else f"{STANDARD} for all"
    return (
        f"{config['backbone']} {(weights or '')[:8]}".rstrip()
        + f", frozen; {', '.join(config['tasks'])}; {config['train_images']:,} training and {config['test_images']:,} "
        f"test images a task, {config['images']} of them where attention is taken apart; {config['steps']} steps of "
        f"{config['batch']} images, learning rates {rates}; P = 10 unless said; {seeds} seed{'' if seeds == 1 else 's'}"
    )


def notes(claim: Claim, config: dict, cases: tuple[Case, ...]) -> tuple[str, ...]:
    """What the reader has to know of the claim, and of intervals over as few seeds as there are."""
    seeds, found = len(config["seeds"]), list(claim.notes)
    if seeds == 1:
        found.append("One seed has no interval, so nothing is decided.")
    elif seeds <= 5:
        share = f"{100 * stats.COVERAGE[seeds]:.0f} %" if seeds in stats.COVERAGE else "well below 95 %"
        asked = "" if seeds == 5 else " The standard set-up asks for 5 seeds."
        found.append(f"A bootstrap over {seeds} seeds holds the mean of normal values in {share} of the cases.{asked}")
    if config.get("rates"):
        found.append(
            "Learning rates were chosen once, on the first seed, three trials an arm: that choice is not in the "
            "intervals."
        )
    found.append(
        f"Training is short: {config['steps'] * config['batch'] / config['train_images']:.1f} passes over the training "
        f"images."
    )
    if len({c.verdict for c in cases} - {INCONCLUSIVE}) > 1:
        found.append("The cases contradict each other, so there is no verdict in common.")
    return tuple(found)
