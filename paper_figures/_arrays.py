"""Arrays on disk: the cache of computed parts, and the committed results of the full tier."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

COMMITTED = Path(__file__).parent / "committed"


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays whole or not at all; numbers and text only, so that reading them back executes nothing."""
    from vpt_analysis.storage import atomic

    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"array {name!r} holds Python objects; figures keep numbers and text only")
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


def committed(name: str, folder: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Committed arrays of a figure and the record of the run that made them."""
    try:
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return read(folder / f"{name}.npz"), record
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no committed results for {name} in {folder}; make them with "
            f"`vpt-analysis figures {name} --tier full --commit`"
        ) from error
