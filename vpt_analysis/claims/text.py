"""``vpt-analysis claims``: verdicts as plain text of at most 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from .. import sweep
from . import chosen, judge, stored
from .base import Claim, Figure, Verdict

WIDTH = 100
INDENT = 12
AGAIN = """* judged by the rule. A claim has the verdict that all its cases share; intervals: 95 %, over seeds.
Compute again: vpt-analysis claims {ids} --tier full   (resumes; data in VPT_ANALYSIS_DATA)
Learning rates: vpt-analysis study rates --tier full --commit   (before it, to choose anew)"""


def run(ids: Sequence[str], tier: str, out: Path, commit: bool, jobs: int) -> int:
    """Print the verdicts on claims; ``commit`` stores results and verdicts. 0, whatever the verdicts are.

    Raises ``ValueError`` for unknown ids and tiers, and where small results are to be stored; ``OSError`` where ``out``
    cannot be written or results are missing.
    """
    claims = chosen(ids)
    sweep.check(tier, commit and tier != "committed", jobs)  # committed results: their verdicts alone are stored
    for study in dict.fromkeys(claim.study for claim in claims):
        arrays, config, inputs, origin = results(study, tier, out, commit, jobs)
        for claim in claims:
            if claim.study == study:
                print(shown(judge(claim, arrays, config, inputs.get("weights"))), end="\n\n")
        print(origin)
        if commit:
            print(f"Stored in {sweep.COMMITTED}")
    print(AGAIN.format(ids=" ".join(c.id for c in claims) if ids else "[ID…]"))
    return 0


def results(study: str, tier: str, out: Path, commit: bool, jobs: int):
    """Arrays, config, input digests and one line on what made them."""
    if tier == "committed":
        plan = sweep.Committed(study, again="vpt-analysis claims --tier full --commit")
        arrays = plan.arrays()
        if commit:
            stored.store_verdicts(study)
    else:
        sweep.check_writable(out)
        plan = sweep.Computed(sweep.study(study), tier, out / "cache")
        arrays = plan.arrays(jobs)
        if commit:
            stored.store(plan, arrays)
    made, versions = plan.provenance, plan.provenance["versions"]
    changes = " with local changes" if made["dirty"] else ""
    size = "committed results of the full tier" if tier == "committed" else f"{tier} tier"
    origin = f"Study {study}, {size}: torch {versions['torch']}, numpy {versions['numpy']}, commit "
    return arrays, plan.config, plan.inputs, f"{origin}{(made['commit'] or 'unknown')[:12]}{changes}"


def listing(claims: Sequence[Claim]) -> str:
    """One line a claim: id, study, statement."""
    return "\n".join(f"{claim.id:<5}{claim.study:<10}{claim.statement}" for claim in claims)


def shown(verdict: Verdict) -> str:
    """Statement, source, rule, every case with its numbers, scope, notes and the verdict.

    ``*`` marks the numbers that the rule was applied to; the others are reported beside them.
    """
    claim = verdict.claim
    lines = [*field(f"{claim.id}", claim.statement), *field("source", claim.source), *field("rule", claim.rule)]
    for i, case in enumerate(verdict.cases):
        said = f"{case.name}: {case.verdict}" + (f" ({case.tally})" if case.tally else "")
        lines += field("measured" if i == 0 else "", said)
        lines += [row(figure) for figure in case.figures]
    lines += field("scope", verdict.scope)
    for note in verdict.notes:
        lines += field("note", note)
    return "\n".join([*lines, *field("verdict", verdict.verdict.upper())])


def field(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{name:<{INDENT}}", subsequent_indent=" " * INDENT, break_on_hyphens=False
    )


def row(figure: Figure) -> str:
    """
    >>> row(Figure("gain in points", 1.234, -0.5, 2.0, 3)).split()
    ['*', 'gain', 'in', 'points', '1.23', '[-0.500,', '2.00]', 'n', '=', '3']
    """
    interval = "no interval" if math.isnan(figure.low) else f"[{short(figure.low)}, {short(figure.high)}]"
    mark = "*" if figure.judged else " "
    return f"{'':<{INDENT}}{mark} {figure.what:<50} {short(figure.estimate):>8} {interval:<18} n = {figure.n}"


def short(value: float) -> str:
    """Three significant digits, never with an exponent.

    >>> short(0.01234), short(12.34), short(8.0), short(-0.0)
    ('0.0123', '12.3', '8.00', '0.00')
    """
    if value == 0 or not math.isfinite(value):
        return "0.00" if value == 0 else str(value)
    decimals = min(7, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}"
