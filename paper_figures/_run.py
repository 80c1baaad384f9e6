"""Draw figures: up-to-date ones are skipped, computed parts are reused, one that fails does not stop the rest."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from vpt_analysis import study as machinery
from vpt_analysis.claims import stored
from vpt_analysis.errors import unknown
from vpt_analysis.provenance import provenance

from . import _keys, _page, _picture, _registry

COMMITTED = Path(__file__).parent / "committed"


def run(
    names: Sequence[str] = (),
    tier: str = "quick",
    out: str | Path = machinery.OUT,
    commit: bool = False,
    committed: Path = COMMITTED,
    jobs: int = 1,
    show_traceback: bool = False,
) -> int:
    """Bring figures (all, or those named) up to date in ``out``; 0 if all are, 1 if any failed.

    ``jobs``: how many parts of a study are computed at a time, each on one thread. ``commit`` stores the arrays too,
    where the committed tier finds them: those of a shared study, and its verdicts, with the studies, of other figures
    in ``committed``. Raises ``ValueError`` for an unknown name or tier, ``OSError`` where ``out`` cannot be written,
    before anything is computed.
    """
    machinery.check(tier, commit, jobs)
    known = _registry.names()
    for name in names:
        if name not in known:
            raise unknown("figure", name, known)
    out = Path(out)
    machinery.check_writable(out)
    failed = []
    for name in dict.fromkeys(names or known):  # each once, in the order given
        started = time.monotonic()
        try:
            news = one(name, tier, out, commit, committed, jobs)
        except Exception as error:  # one broken figure must not cost the others
            failed.append(name)
            if show_traceback:
                traceback.print_exc()
            say(f"{name}: FAILED: {type(error).__name__}: {error}", sys.stderr)
        else:
            say(f"{name}: {news} ({tier} tier, {time.monotonic() - started:.1f} s)")
    _page.write(out)
    say(f"figures: {out / 'index.html'}")
    if failed:
        say(f"{len(failed)} of {len(names or known)} figures failed: {', '.join(failed)}", sys.stderr)
    return 1 if failed else 0


def one(name: str, tier: str, out: Path, commit: bool, committed: Path, jobs: int) -> str:
    """Bring one figure up to date; says what was done."""
    module = _registry.load(name)
    study = _registry.study(module)
    folder = committed if study is module else machinery.COMMITTED
    plan = results(study, tier, out, folder, f"vpt-analysis figures {name} --tier full --commit")
    key = _keys.picture_key(module, [tier, plan.key])
    fresh = _picture.up_to_date(out, name, key)
    if fresh and not commit:
        return "up to date"
    arrays = plan.arrays(jobs)
    if commit:
        plan.store(arrays, folder) if study is module else stored.store(plan, arrays)
    if fresh:
        return "up to date, results stored for the committed tier"
    mark = _picture.stamp(tier, plan.config, plan.inputs.get("weights"))
    files = _picture.draw(module, arrays, plan.config, mark, out, name)
    record = {
        "name": name,
        "title": module.TITLE,
        "caption": module.caption(arrays, plan.config),
        "tier": tier,
        "config": plan.config,
        "seeds": plan.config.get("seeds", []),
        "inputs": plan.inputs,
        "collected_with": plan.provenance,
        "drawn_with": provenance(),
        "key": key,
        "files": files,
    }
    machinery.write_json(out / f"{name}.json", record)
    return "drawn"


def results(
    study: ModuleType, tier: str, out: Path, folder: Path, again: str
) -> machinery.Computed | machinery.Committed:
    if tier == "committed":
        return machinery.Committed(machinery.name(study), folder, again)
    return machinery.Computed(study, tier, out / "cache")


def say(line: str, stream=None) -> None:
    print(line, file=stream or sys.stdout, flush=True)
