"""Which code a result was computed with, as a digest: equal digest, equal computation.

A module's result depends on its own source and on the sources that it imports, within the package and beside the
module, and those that they import. Imports are found in the text, also inside functions. What is imported by a computed
name is not seen, so a module that takes the whole package by name (``import vpt_analysis``) depends on all of it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .storage import digest_file

ROOT = Path(__file__).parent
# Show, judge or run what others compute.
SHOWS_ONLY = (
    "cli.py", "report.py", "plotting.py", "progress.py", "provenance.py", "__main__.py", "claims/", "probe_command.py",
    "probe_output.py", "probes/commands.py", "probes/tables.py", "sweep/", "sweep_command.py", "sources.py", "study.py",
)  # fmt: skip
NOT_COMPUTING = {"draw", "caption", "config", "parts", "inputs", "scope", "notes"}
COMPUTES_WITH = ("torch", "numpy", "scikit-learn", "pillow")


def digest(value: object) -> str:
    """sha256 of a JSON-able value, whatever the order of its keys.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the libraries that compute."""
    return {name: metadata.version(name) for name in COMPUTES_WITH}


@dataclass(frozen=True)
class Code:
    """The sources that a module computes with. ``study``: of the module, what computes alone counts."""

    module: str
    study: bool
    digest: str

    @classmethod
    def of(cls, module: str, file: str | Path | None = None, study: bool = False) -> Code:
        """Raises ``TypeError`` for a module without a source file."""
        file = Path(file or _file(module))
        found = {}
        for name, path in reachable(file, module).items():
            reduced = (study and path == file) or _is_study(path)
            found[name] = computing_code(path) if reduced else digest_file(path)
        return cls(module, study, digest(found))

    def check(self) -> None:
        """Raise ``RuntimeError`` where this process would compute with other sources than the one that asked."""
        here = _here(self.module, self.study)
        if here != self.digest:
            raise RuntimeError(
                f"this worker has other sources of {self.module} than the process that started the sweep: they were "
                "edited meanwhile, or another version is installed here. Start the sweep again, with workers that are "
                "new and have the same version"
            )


@functools.cache
def _here(module: str, study: bool) -> str:
    return Code.of(module, study=study).digest


def _file(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise TypeError(f"module {module} has no source file, so that nobody could tell whether it changed")
    return spec.origin


def _is_study(path: Path) -> bool:
    return path.parent == ROOT / "studies"


def reachable(file: Path, module: str) -> dict[str, Path]:
    """The module and the sources that it imports, one after another, by dotted name; ``file`` is the module's."""
    levels = module.count(".") + (file.name == "__init__.py")
    base = file.resolve().parents[levels]
    found, left = {}, [(module, file)]
    while left:
        name, path = left.pop()
        if name in found:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for wanted in _imports(path.read_text(encoding="utf-8"), package):
            left += [item for item in _files(wanted, base) if item[0] not in found and not _shows_only(item[1])]
    return found


@functools.cache
def _imports(text: str, package: str) -> tuple[str, ...]:
    """Dotted names that a source imports, or may: of ``from a import b`` both ``a`` and ``a.b``."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:  # the package's names are resolved when used: its own name gives them all
                whole = alias.name.partition(".")[0] == __package__ and (alias.name == __package__ or not alias.asname)
                found.append(f"{__package__}.*" if whole else alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            found += [start, *(f"{start}.{alias.name}" for alias in node.names)]
    return tuple(dict.fromkeys(found))


def _files(wanted: str, base: Path) -> Iterator[tuple[str, Path]]:
    """Files that are executed to import a name, of the package and below ``base``; none for other libraries."""
    from . import _NAMES

    top, _, rest = wanted.partition(".")
    if top == __package__ and rest == "*":
        for path in sorted(ROOT.rglob("*.py")):
            yield ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"), path
        return
    if top == __package__ and rest in _NAMES:  # resolved when first used
        wanted = f"{__package__}.{_NAMES[rest]}"
    folder = ROOT.parent if top == __package__ else base
    parts = wanted.split(".")
    for count in range(1, len(parts) + 1):
        path = folder.joinpath(*parts[:count])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                yield ".".join(parts[:count]), file
                break


def _shows_only(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix().startswith(SHOWS_ONLY)


@functools.cache
def package_code() -> str:
    """Digest of all sources of the package that compute; of studies what computes alone."""
    files = {f.relative_to(ROOT).as_posix(): f for f in sorted(ROOT.rglob("*.py"))}
    computing = {name: f for name, f in files.items() if not name.startswith(SHOWS_ONLY)}
    return digest({n: computing_code(f) if n.startswith("studies/") else digest_file(f) for n, f in computing.items()})


def computing_code(path: Path) -> str:
    """Digest of a module's ``compute`` and what it may use: comments, titles, drawing (helpers named ``draw_…`` too)
    and the functions whose results enter the key by themselves are left out.
    """
    return _computing(path.read_text(encoding="utf-8"))


@functools.cache
def _computing(text: str) -> str:
    body = ast.parse(text).body
    return digest([ast.dump(node) for node in body if not _computes_nothing(node) and not _is_text(node)])


def _computes_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and (node.name in NOT_COMPUTING or node.name.startswith("draw_"))


def _is_text(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    title = isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["TITLE"]
    return docstring or title
