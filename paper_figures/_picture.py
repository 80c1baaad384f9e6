"""From arrays to files: the stamp on the figure, PDF and PNG, and the record beside them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np

from vpt_analysis.storage import digest_file

FORMATS = ("pdf", "png")


def stamp(tier: str, config: dict, weights: str | None) -> str:
    """The small line on each figure: tier, sample size, seeds, backbone with the head of its digest.

    >>> stamp("quick", {"images": 64, "seeds": [0], "backbone": "vit-micro"}, "0123456789abcdef")
    'quick tier · n = 64 images · 1 seed · vit-micro 01234567'
    """
    words = [f"{tier} tier" if tier != "committed" else "committed results of the full tier"]
    if "images" in config:
        words.append(f"n = {config['images']} images")
    elif "test" in config:
        words.append(f"at most {config['test']:,} test images a task")
    if "seeds" in config:
        n = len(config["seeds"])
        words.append(f"{n} seed{'' if n == 1 else 's'}")
    if "backbone" in config:
        words.append(f"{config['backbone']} {(weights or '')[:8]}".rstrip())
    return " · ".join(words)


def draw(module: ModuleType, arrays: dict[str, np.ndarray], config: dict, mark: str, folder: Path, name: str) -> dict:
    """Draw, stamp and write one figure. Returns the digests of its files, by name."""
    from vpt_analysis import plotting

    with plotting.style():
        figure = module.draw(arrays, config)
        # Below the layout's area, so that the stamp overlaps nothing whatever the figure is.
        height = figure.get_size_inches()[1]
        strip = 0.13 / height
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.set(rect=(0, strip, 1, 1 - strip))
        figure.text(0.995, 0.02 / height, mark, ha="right", va="bottom", fontsize=4.5, color=plotting.QUIET)
        files = [folder / f"{name}.{kind}" for kind in FORMATS]
        for path in files:
            plotting.save(figure, path)
    return {path.name: digest_file(path) for path in files}


def read_record(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def up_to_date(folder: Path, name: str, key: str) -> bool:
    """Whether the record carries this key and the files are the ones it was written for."""
    record = read_record(folder / f"{name}.json")
    if not record or record.get("key") != key:
        return False
    files = record.get("files", {})
    try:
        return bool(files) and all(digest_file(folder / f) == digest for f, digest in files.items())
    except OSError:
        return False
