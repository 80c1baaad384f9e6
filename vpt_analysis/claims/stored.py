"""Verdicts on the committed results, kept beside them as ``claims.json`` with what they were reached with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .. import study as machinery
from ..provenance import provenance
from ..storage import digest_file
from . import CLAIMS, judge
from .base import Verdict


def store(plan: machinery.Computed, arrays: Mapping[str, np.ndarray]) -> None:
    """Store the results of a full run of a study, and the verdicts that they give."""
    plan.store(arrays)
    store_verdicts(machinery.name(plan.module))


def store_verdicts(study: str, folder: Path | None = None) -> bool:
    """Judge a study's committed results and write the verdicts into ``claims.json``, beside those of other studies.
    False where no claim draws on the study."""
    folder = folder or machinery.COMMITTED
    claims = [claim for claim in CLAIMS.values() if claim.study == study]
    if not claims:
        return False
    arrays, made = machinery.committed(study, folder)
    verdicts = {c.id: record(judge(c, arrays, made["config"], made["inputs"].get("weights"))) for c in claims}
    files = {name: digest_file(folder / name) for name in (f"{study}.npz", f"{study}.json")}
    new = {"collected_with": made["collected_with"], "files": files, "judged_with": provenance(), "verdicts": verdicts}
    machinery.write_json(folder / "claims.json", read(folder) | {study: new})
    return True


def read(folder: Path | None = None) -> dict:
    """What ``claims.json`` holds, by study; nothing where there is none."""
    try:
        return json.loads(((folder or machinery.COMMITTED) / "claims.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def record(verdict: Verdict) -> dict:
    """A verdict as plain JSON values; bounds that do not exist are null, infinite ones "inf"."""

    def plain(x: float) -> float | str | None:
        return None if math.isnan(x) else str(x) if math.isinf(x) else x

    return {
        "statement": verdict.claim.statement,
        "rule": verdict.claim.rule,
        "verdict": verdict.verdict,
        "scope": verdict.scope,
        "notes": list(verdict.notes),
        "cases": [
            {
                "name": case.name,
                "verdict": case.verdict,
                "tally": case.tally,
                "figures": [
                    {"what": f.what, "estimate": plain(f.estimate), "low": plain(f.low), "high": plain(f.high),
                     "n": f.n, "judged": f.judged}
                    for f in case.figures
                ],
            }
            for case in verdict.cases
        ],
    }  # fmt: skip
