"""Grids of pure functions of a frozen config: cut into parts, computed several at a time, resumed where a run stopped.

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

Equal key, equal result: the arrays of a part depend on the part's dict, the sources of the package (not those that only
show things), the study's own computation (its choices come in through the part), the bytes of weights and data, and the
versions of the libraries that compute. Every part is computed on one thread, so that the numbers do not depend on how
many cores the machine has; parts run side by side instead.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import json
import os
import pkgutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

from . import studies
from .errors import unknown
from .progress import progress
from .provenance import provenance
from .storage import atomic, digest_file, write_text

ROOT = Path(__file__).parent
COMMITTED = ROOT / "studies" / "committed"
OUT = Path("paper_figures") / "out"
TIERS = ("quick", "full", "committed")
NEEDED = ("config", "inputs", "parts", "compute")
SHOWS_ONLY = (
    "cli.py", "report.py", "plotting.py", "progress.py", "provenance.py", "__main__.py", "claims/", "probe_command.py",
    "probe_output.py", "probes/commands.py", "probes/tables.py",
)  # fmt: skip
NOT_COMPUTING = {"draw", "caption", "config", "parts", "inputs", "scope", "notes"}
COMPUTES_WITH = ("torch", "numpy", "scikit-learn", "pillow")


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
        found = self._collected(self.parts, self.keys, jobs)
        if hasattr(self.module, "later"):
            parts = self.module.later(self.config, found)
            found |= self._collected(parts, part_keys(self.module, parts, self.inputs), jobs)
        return found

    def _collected(self, parts: list[dict], keys: dict[str, str], jobs: int) -> dict[str, np.ndarray]:
        return collect(self.module, parts, {name: self.cache / f"{key}.npz" for name, key in keys.items()}, jobs)

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


def collect(module: ModuleType, parts: list[dict], paths: dict[str, Path], jobs: int) -> dict[str, np.ndarray]:
    """Arrays of all parts, named ``<part>/<array>``: read from ``paths`` (by part name), or computed into them.

    ``jobs`` parts at a time, in processes of their own where more than one is missing.
    """
    found = {part["name"]: readable(paths[part["name"]]) for part in parts}
    missing = [part for part in parts if found[part["name"]] is None]
    computed = _computed(module.__name__, missing, paths, min(jobs, len(missing)))
    for part_name in progress(computed, name(module), len(missing), every=5.0):
        found[part_name] = read(paths[part_name])
    return {f"{part['name']}/{k}": v for part in parts for k, v in found[part["name"]].items()}


def _computed(module: str, missing: list[dict], paths: dict[str, Path], jobs: int) -> Iterator[str]:
    """Names of parts, each when its file is written."""
    if jobs <= 1:
        yield from (compute(module, part, paths[part["name"]]) for part in missing)
        return
    from joblib import Parallel, delayed

    with Parallel(n_jobs=jobs, return_as="generator_unordered", inner_max_num_threads=1) as pool:
        yield from pool(delayed(compute)(module, part, paths[part["name"]], quiet=True) for part in missing)


def compute(module: str, part: dict, path: Path, quiet: bool = False) -> str:
    """Compute one part and write its file. ``quiet``: no progress of its own, for workers that share a terminal."""
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    with one_thread():
        arrays = importlib.import_module(module).compute(part)
    write(path, arrays)
    return part["name"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def part_keys(module: ModuleType, parts: list[dict], inputs: Mapping[str, str]) -> dict[str, str]:
    """The key of every part by its name; ``inputs`` are digests. Raises ``ValueError`` where two share a name."""
    versions = {name: metadata.version(name) for name in COMPUTES_WITH}
    common = [module.__name__, dict(inputs), package_code(), computing_code(Path(module.__file__)), versions]
    keys = {part["name"]: digest([*common, part]) for part in parts}
    if len(keys) < len(parts):
        raise ValueError(f"{module.__name__}: {len(parts)} parts have {len(keys)} names; each needs one of its own")
    return keys


def digest(value: object) -> str:
    """sha256 of a JSON-able value, whatever the order of its keys.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


@functools.cache
def package_code() -> str:
    """Digest of the sources that compute; of studies what computes alone, so that other choices keep what is there."""
    files = {f.relative_to(ROOT).as_posix(): f for f in sorted(ROOT.rglob("*.py"))}
    computing = {name: f for name, f in files.items() if not name.startswith(SHOWS_ONLY)}
    return digest({n: computing_code(f) if n.startswith("studies/") else digest_file(f) for n, f in computing.items()})


def computing_code(path: Path) -> str:
    """Digest of a module's ``compute`` and what it may use: comments, titles, drawing (helpers named ``draw_…`` too)
    and the functions whose results enter the key by themselves are left out.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return digest([ast.dump(node) for node in tree.body if not _computes_nothing(node) and not _is_text(node)])


def _computes_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and (node.name in NOT_COMPUTING or node.name.startswith("draw_"))


def _is_text(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    title = isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["TITLE"]
    return docstring or title


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


def readable(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file; None where there is none or it is damaged, so that it is computed again."""
    try:
        return read(path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def write_json(path: Path, value: dict) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
