"""Draw figures: up-to-date ones are skipped, computed parts are reused, one that fails does not stop the rest."""

from __future__ import annotations

import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from vpt_analysis.provenance import provenance

from . import _arrays, _compute, _keys, _page, _picture, _registry

OUT = Path("paper_figures") / "out"


def run(
    names: Sequence[str] = (),
    tier: str = "quick",
    out: str | Path = OUT,
    commit: bool = False,
    committed: Path = _arrays.COMMITTED,
    jobs: int = 1,
    show_traceback: bool = False,
) -> int:
    """Bring figures (all, or those named) up to date in ``out``; 0 if all are, 1 if any failed.

    ``jobs``: how many parts of a figure are computed at a time, each on one thread. ``commit`` stores the arrays in
    ``committed`` too, where the tier of that name finds them. Raises ``ValueError`` for
    an unknown name or tier, ``OSError`` where ``out`` cannot be written, before anything is computed.
    """
    if tier not in _registry.TIERS:
        raise _registry.unknown("tier", tier, _registry.TIERS)
    if jobs < 1:
        raise ValueError(f"{jobs} jobs asked for; expected at least 1")
    if commit and tier != "full":
        raise ValueError(f"only results of the full tier are committed, not of {tier!r}; add --tier full")
    known = _registry.names()
    for name in names:
        if name not in known:
            raise _registry.unknown("figure", name, known)
    out = Path(out)
    check_writable(out)
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


def check_writable(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; --out names a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"cannot write into {out}: {error.strerror or error}; give another --out") from error


def one(name: str, tier: str, out: Path, commit: bool, committed: Path, jobs: int) -> str:
    """Bring one figure up to date; says what was done."""
    module = _registry.load(name)
    plan = Committed(module, name, committed) if tier == "committed" else Computed(module, tier, out / "cache")
    key = _keys.picture_key(module, [tier, plan.key])
    fresh = _picture.up_to_date(out, name, key)
    if fresh and not commit:
        return "up to date"
    arrays = plan.arrays(jobs)
    if commit:
        store(name, arrays, plan, committed)
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
    _picture.write_record(out / f"{name}.json", record)
    return "drawn"


class Computed:
    """Results of the quick or the full tier, part by part, each from the cache where it is there."""

    def __init__(self, module: ModuleType, tier: str, cache: Path):
        self.module, self.cache = module, cache
        self.config = module.config(tier)
        self.inputs = _keys.input_digests(module.inputs(self.config))
        self.parts = module.parts(self.config)
        self.keys = {part["name"]: _keys.part_key(module, part, self.inputs) for part in self.parts}
        self.key = sorted(self.keys.items())
        self.provenance = provenance()

    def arrays(self, jobs: int) -> dict[str, np.ndarray]:
        paths = {name: self.cache / f"{key}.npz" for name, key in self.keys.items()}
        return _compute.collect(self.module, self.parts, paths, jobs)


class Committed:
    """Stored results of a full run, with the record of what made them."""

    def __init__(self, module: ModuleType, name: str, folder: Path):
        self._arrays, record = _arrays.committed(name, folder)
        self.config, self.inputs, self.provenance = record["config"], record["inputs"], record["collected_with"]
        self.key = [_keys.digest_file(folder / f"{name}{suffix}") for suffix in (".npz", ".json")]

    def arrays(self, jobs: int) -> dict[str, np.ndarray]:
        return self._arrays


def store(name: str, arrays: dict[str, np.ndarray], plan: Computed, folder: Path) -> None:
    _arrays.write(folder / f"{name}.npz", arrays)
    record = {"config": plan.config, "inputs": plan.inputs, "collected_with": plan.provenance}
    _picture.write_record(folder / f"{name}.json", record)


def say(line: str, stream=None) -> None:
    print(line, file=stream or sys.stdout, flush=True)
