"""``vpt-analysis claims``: verdicts as plain text of at most 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from .. import study as machinery
from . import chosen, judge, stored
from .base import Claim, Figure, Verdict

WIDTH = 100
INDENT = 12
AGAIN = """* judged by the rule; intervals: 95 %, over n seeds or replicates, where anything was sampled.
A claim (C) has the verdict that all its cases share, or as many as its rule asks for; a theorem (T)
is refuted by a single one. “Reported”: the rule asks for a number and judges nothing.
Compute again: vpt-analysis claims {ids} --tier full   (resumes; data in VPT_ANALYSIS_DATA)"""
BEFORE = {  # what a study builds on, by study
    "family": "Learning rates: vpt-analysis study rates --tier full --commit   (before it, to choose anew)"
}


def run(ids: Sequence[str], tier: str, out: Path, commit: bool, jobs: int) -> int:
    """Print the verdicts on claims; ``commit`` stores results and verdicts. 0, whatever the verdicts are.

    Raises ``ValueError`` for unknown ids and tiers, and where small results are to be stored; ``OSError`` where ``out``
    cannot be written or results are missing.
    """
    claims = chosen(ids)
    machinery.check(tier, commit and tier != "committed", jobs)  # committed results: their verdicts alone are stored
    studies = dict.fromkeys(claim.study for claim in claims)
    for i, study in enumerate(studies):
        print(end="\n" if i else "")
        arrays, config, inputs, origin = results(study, tier, out, commit, jobs)
        for claim in claims:
            if claim.study == study:
                print(shown(judge(claim, arrays, config, inputs.get("weights"))), end="\n\n")
        print(textwrap.fill(origin, WIDTH, break_on_hyphens=False))
        if commit:
            print(f"Stored in {machinery.COMMITTED}")
    print("\n".join([again(claims if ids else ()), *(BEFORE[study] for study in studies if study in BEFORE)]))
    return 0


def again(claims: Sequence[Claim]) -> str:
    """What the marks mean, and the command that computes these claims again, by name where a line has room for all."""
    said = AGAIN.format(ids=" ".join(claim.id for claim in claims))
    fits = claims and max(map(len, said.splitlines())) <= WIDTH
    return said if fits else AGAIN.format(ids="[ID…]")


def results(study: str, tier: str, out: Path, commit: bool, jobs: int):
    """Arrays, config, input digests and one line on what made them."""
    if tier == "committed":
        plan = machinery.Committed(study)
        arrays = plan.arrays()
        if commit:
            stored.store_verdicts(study)
    else:
        machinery.check_writable(out)
        plan = machinery.Computed(machinery.study(study), tier, out / "cache")
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
    width = max(len(claim.study) for claim in claims) + 2
    return "\n".join(f"{claim.id:<5}{claim.study:<{width}}{claim.statement}" for claim in claims)


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
    estimate, low, high = (short(x, figure.digits) for x in (figure.estimate, figure.low, figure.high))
    said = f"{'':<{INDENT}}{'*' if figure.judged else ' '} {figure.what:<50} {estimate:>8}"
    if not figure.n:
        return said
    interval = "no interval" if math.isnan(figure.low) else f"[{low}, {high}]"
    return f"{said} {interval:<18} n = {figure.n}"


def short(value: float, digits: int = 3) -> str:
    """Three significant digits, or as many as are asked for; never with an exponent, and at most seven decimals.

    >>> short(0.01234), short(12.34), short(8.0), short(-3e-17), short(69.43, 4)
    ('0.0123', '12.3', '8.00', '0.00', '69.43')
    """
    if not math.isfinite(value):
        return str(value)
    if round(value, 7) == 0:
        return "0.00"
    decimals = min(7, max(0, digits - 1 - math.floor(math.log10(abs(value)))))
    return f"{value:.{decimals}f}"
