"""Tasks of the studies: where their data lies, and fair draws of training and test images."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "VPT_ANALYSIS_DATA"
BUNDLED = ("digits", "shapes-count", "shapes-position", "shapes-orientation", "shapes-colour")


def weights(name: str) -> Path:
    """The file of a bundled backbone."""
    path = Path(__file__).parent.parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"the bundled backbone {name!r} is not at {path}; install the package again")
    return path


def files(names: list[str]) -> dict[str, Path]:
    """The packed file of each task by name; none for those that need no file."""
    found = {}
    for name in names:
        if name in BUNDLED:
            continue
        folder = os.environ.get(VARIABLE)
        if not folder:
            raise FileNotFoundError(
                f"this tier needs {name}.tar: set {VARIABLE} to the folder it lies in, or use the stored results with "
                f"--tier committed"
            )
        path = Path(folder) / f"{name}.tar"
        if not path.is_file():
            raise FileNotFoundError(f"no {name}.tar in {folder} ({VARIABLE}); --tier committed needs no data")
        found[name] = path
    return found
