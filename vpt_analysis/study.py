"""Studies: cut into parts, computed several at a time, resumed where a run stopped, stored with the package.

A **study** is a module with

- ``config(tier) -> dict``: every choice of the "quick" or the "full" tier, as plain JSON values;
- ``inputs(config) -> dict[str, Path]``: the files that the result depends on, weights and data;
- ``parts(config) -> list[dict]``: the work, cut into pieces that are cached one by one, each with a ``name``;
- ``compute(part) -> dict[str, np.ndarray]``: one piece, from its own dict alone;
- where some pieces follow from the results of others, ``later(config, arrays) -> list[dict]``: a second round of parts,
  from the arrays of the first.

Those of ``vpt_analysis.studies`` are known by name, for the figures and claims that share one; a figure may be a study
of its own. ``Computed`` has the results of a study from its cache or from computing, ``Committed`` those of a full run
that were stored with the package. Arrays are named ``<part>/<array>``.

Parts are the runs of a ``sweep``. Equal key, equal result: the arrays of a part depend on the part's dict, the study's
own computation (its choices come in through the part), the sources that it imports (not those that only show things),
the bytes of weights and data, and the versions of the libraries that compute. Every part is computed on one thread, so
that the numbers do not depend on how many cores the machine has; parts run side by side instead.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from . import studies, sweep
from .errors import unknown
from .provenance import provenance
from .sources import Code, digest
from .storage import atomic, digest_file, write_text

ROOT = Path(__file__).parent
COMMITTED = ROOT / "studies" / "committed"
OUT = Path("paper_figures") / "out"
TIERS = ("quick", "full", "committed")
NEEDED = ("config", "inputs", "parts", "compute")


def names() -> list[str]:
    """The studies of the package, in alphabetical order; other modules there help them."""
    found = (importlib.import_module(f"{studies.__name__}.{m.name}") for m in pkgutil.iter_modules(studies.__path__))
    return sorted(name(module) for module in found if all(hasattr(module, part) for part in NEEDED))


def study(which: str) -> ModuleType:
    """The module of a study. Raises ``ValueError`` for an unknown name."""
    if which not in names():
        raise unknown("study", which, names())
    return importlib.import_module(f"{studies.__name__}.{which}")


def name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def check(tier: str, commit: bool, jobs: int) -> None:
    """Raise ``ValueError`` for a tier that is none, fewer jobs than one, or results of small sizes to be stored."""
    if tier not in TIERS:
        raise unknown("tier", tier, TIERS)
    if jobs < 1:
        raise ValueError(f"{jobs} jobs asked for; expected at least 1")
    if commit and tier != "full":
        raise ValueError(f"only results of the full tier are committed, not of {tier!r}; add --tier full")


def check_writable(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; --out names a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"cannot write into {out}: {error.strerror or error}; give another --out") from error


class Computed:
    """Results of the quick or the full tier, part by part, each from the cache where it is there.

    ``inputs`` holds digests, ``key`` names the arrays: equal key, equal arrays.
    """

    def __init__(self, module: ModuleType, tier: str, cache: Path):
        self.module, self.cache = module, cache
        self.config = module.config(tier)
        self.inputs = {name: digest_file(path) for name, path in sorted(module.inputs(self.config).items())}
        self.parts = module.parts(self.config)
        self.keys = part_keys(module, self.parts, self.inputs)
        self.key = sorted(self.keys.items())
        if hasattr(module, "later"):  # what the second round is, follows from the first and the config
            self.key.append(("later", digest(self.config)))
        self.provenance = provenance()

    def arrays(self, jobs: int) -> dict[str, np.ndarray]:
        found = collect(self.module, self.parts, self.cache, jobs, self.inputs)
        if hasattr(self.module, "later"):
            found |= collect(self.module, self.module.later(self.config, found), self.cache, jobs, self.inputs)
        return found

    def store(self, arrays: Mapping[str, np.ndarray], folder: Path | None = None) -> None:
        """Write arrays and record where ``Committed`` finds them."""
        folder = folder or COMMITTED
        write(folder / f"{name(self.module)}.npz", arrays)
        record = {"config": self.config, "inputs": self.inputs, "collected_with": self.provenance}
        write_json(folder / f"{name(self.module)}.json", record)


class Committed:
    """Stored results of a full run, with the record of what made them. ``again``: the command that makes them."""

    def __init__(self, which: str, folder: Path | None = None, again: str | None = None):
        folder = folder or COMMITTED
        self._arrays, record = committed(which, folder, again)
        self.config, self.inputs, self.provenance = record["config"], record["inputs"], record["collected_with"]
        self.key = [digest_file(folder / f"{which}{suffix}") for suffix in (".npz", ".json")]

    def arrays(self, jobs: int = 1) -> dict[str, np.ndarray]:
        return self._arrays


def committed(which: str, folder: Path | None = None, again: str | None = None) -> tuple[dict[str, np.ndarray], dict]:
    """Stored arrays of a study and the record of the run that made them: its ``config``, the digests of its ``inputs``,
    and what it was ``collected_with``. Raises ``FileNotFoundError`` with the command ``again`` where there are none.
    """
    folder = folder or COMMITTED
    try:
        record = json.loads((folder / f"{which}.json").read_text(encoding="utf-8"))
        return read(folder / f"{which}.npz"), record
    except FileNotFoundError as error:
        again = again or f"vpt-analysis study {which} --tier full --commit"
        raise FileNotFoundError(f"no committed results for {which} in {folder}; make them with `{again}`") from error


def collect(
    module: ModuleType, parts: list[dict], cache: Path, jobs: int, inputs: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Arrays of all parts, named ``<part>/<array>``: read from the store ``cache``, or computed into it.

    ``jobs`` parts at a time, in processes of their own where they are several. The first error ends all.
    """
    runs, code = _runs(module, parts), _code(module)
    found = sweep.run(compute, runs, cache, inputs=inputs, code=code, jobs=jobs, stop=True, label=name(module)).results
    return {f"{part['name']}/{k}": v for part, arrays in zip(parts, found, strict=True) for k, v in arrays.items()}


def compute(run: dict) -> dict[str, np.ndarray]:
    """One part of a study, named ``study`` and ``part``; what is sent to the workers."""
    arrays = importlib.import_module(run["study"]).compute(run["part"])
    return {name: np.asarray(array) for name, array in arrays.items()}


def _runs(module: ModuleType, parts: list[dict]) -> list[dict]:
    return [{"study": module.__name__, "part": part} for part in parts]


def _code(module: ModuleType) -> Code:
    return Code.of(module.__name__, module.__file__, study=True)


def part_keys(module: ModuleType, parts: list[dict], inputs: Mapping[str, str]) -> dict[str, str]:
    """The key of every part by its name; ``inputs`` are digests. Raises ``ValueError`` where two share a name."""
    keys = sweep.keys(compute, _runs(module, parts), inputs, _code(module))
    found = {part["name"]: key for part, key in zip(parts, keys, strict=True)}
    if len(found) < len(parts):
        raise ValueError(f"{module.__name__}: {len(parts)} parts have {len(found)} names; each needs one of its own")
    return found


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays whole or not at all; numbers and text only, so that reading them back executes nothing."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects; results keep numbers and text only")
    with atomic(path) as part:
        with open(part, "wb") as f:  # an open file: np.savez would add .npz to a name
            np.savez_compressed(f, **{name: np.asarray(array) for name, array in arrays.items()})


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def write_json(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
