"""Cache keys: what a result depends on, as a digest. Equal key, equal result.

The arrays of one part depend on the part's dict, the sources of the package (not those that only show things), the
figure module's computation (its choices come in through the part), the bytes of weights and data, and the versions of
the libraries that compute. A picture depends on its arrays, on the whole figure module and on the drawing code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType

import vpt_analysis
from vpt_analysis.storage import digest_file

HERE = Path(__file__).parent
SHOWS_ONLY = {"cli.py", "report.py", "plotting.py", "progress.py", "provenance.py", "__main__.py"}
NOT_COMPUTING = {"draw", "caption", "config", "parts", "inputs"}
COMPUTES_WITH = ("torch", "numpy", "scikit-learn", "pillow")


def digest(value: object) -> str:
    """sha256 of a JSON-able value, whatever the order of its keys.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


@functools.cache
def package_code() -> str:
    root = Path(vpt_analysis.__file__).parent
    files = {str(f.relative_to(root)): f for f in sorted(root.rglob("*.py"))}
    return digest({name: digest_file(f) for name, f in files.items() if name not in SHOWS_ONLY})


def drawing_code() -> str:
    plotting = Path(vpt_analysis.__file__).parent / "plotting.py"
    return digest([digest_file(plotting), metadata.version("matplotlib")])


def figure_code(module: ModuleType, drawing: bool) -> str:
    """Digest of a figure module; without ``drawing``, of ``compute`` and what it may use: comments, titles, drawing
    (helpers named ``draw_…`` too) and the functions whose results enter the key by themselves are left out.
    """
    text = Path(module.__file__).read_text(encoding="utf-8")
    if drawing:
        return digest(text)
    tree = ast.parse(text)
    kept = [node for node in tree.body if not _computes_nothing(node) and not _is_text(node)]
    return digest([ast.dump(node) for node in kept])


def _computes_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and (node.name in NOT_COMPUTING or node.name.startswith("draw_"))


def _is_text(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    title = isinstance(node, ast.Assign) and [getattr(t, "id", None) for t in node.targets] == ["TITLE"]
    return docstring or title


def input_digests(inputs: Mapping[str, Path]) -> dict[str, str]:
    return {name: digest_file(path) for name, path in sorted(inputs.items())}


def part_key(module: ModuleType, part: dict, inputs: Mapping[str, str]) -> str:
    versions = {name: metadata.version(name) for name in COMPUTES_WITH}
    code = [package_code(), figure_code(module, False), frame_code("_inputs.py", "_compute.py")]
    return digest([module.__name__, part, dict(inputs), code, versions])


def picture_key(module: ModuleType, arrays_key: object) -> str:
    """``arrays_key``: whatever names the arrays, such as the list of their parts' keys."""
    return digest([arrays_key, figure_code(module, True), drawing_code(), frame_code("_picture.py")])


def frame_code(*names: str) -> list[str]:
    """Digests of files beside this one that a result passes through."""
    return [digest_file(HERE / name) for name in names]
