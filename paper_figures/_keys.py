"""When a picture is up to date: it depends on its arrays, on the whole figure module and on the drawing code.

Figures that draw on a study of the package name its arms and mechanisms, so theirs depend on the package's sources too.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import ModuleType

import vpt_analysis
from vpt_analysis.sources import digest, package_code
from vpt_analysis.storage import digest_file
from vpt_analysis.studies import tables

HERE = Path(__file__).parent


def claims() -> list[str]:
    """Digests of the code that judges: figures show slopes and ranks by the rules of the claims."""
    folder = Path(vpt_analysis.__file__).parent / "claims"
    return [digest_file(path) for path in sorted(folder.glob("*.py"))]


def picture_key(module: ModuleType, arrays_key: object) -> str:
    """``arrays_key``: whatever names the arrays, such as the list of their parts' keys."""
    plotting = Path(vpt_analysis.__file__).parent / "plotting.py"
    beside = [tables.path(name) for name in getattr(module, "PUBLISHED", ())]
    drawing = (Path(module.__file__), plotting, HERE / "_picture.py", HERE / "_efficiency.py", *beside)
    files = [digest_file(path) for path in drawing]
    shared = [package_code(), *claims()] if hasattr(module, "STUDY") else None
    return digest([arrays_key, files, metadata.version("matplotlib"), shared])
