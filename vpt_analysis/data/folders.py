"""Images as ordinary files: a folder of class folders, or pictures without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import layout
from .decoding import decode_all
from .image_set import ImageSet


def folder(path: str | Path, size: int | None = None, split: str | None = None) -> ImageSet:
    """A folder ``<class>/<image>``, or ``<split>/<class>/<image>`` with ``split`` given.

    Labels follow the sorted class names, over all splits. ``size``: shorter side resized to it, then the centre
    cropped; None keeps the files' size, which must then be one. Hidden files are ignored.

    Raises ``FileNotFoundError`` for a missing folder; ``ValueError`` naming the file or folder for classes that are
    empty or missing from a split, and for files that are no images.
    """
    path = Path(path)
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path}: {problem}; expected a folder of class folders")
    splits = [d.name for d in _folders(path) if d.name in layout.SPLITS or d.name == split]
    if split is None and splits and len(splits) == len(list(_folders(path))):
        raise ValueError(f"{path}: its folders are splits ({', '.join(splits)}); choose one with split=")
    if split is not None:
        layout.check_split(str(path), split, splits)
    roots = {s: _classes(path / s) for s in splits} if split is not None else {None: _classes(path)}
    found, names = roots[split], sorted(set().union(*roots.values()))
    where = path if split is None else path / split
    source = f"the splits {', '.join(splits)}" if split else str(path)
    layout.check_classes(str(where), {c: len(files) for c, files in found.items()}, names, source)
    pairs, labels = layout.label(found, names)
    prefix = "" if split is None else f"{split}/"
    files = [f"{prefix}{c}/{f}" for c, f in pairs]
    paths = [path / f for f in files]
    name = path.resolve().name + ("" if split is None else f"/{split}")
    return decode_all(name, files, [p.read_bytes for p in paths], labels, names, size, [str(p) for p in paths])


def pictures(paths: str | Path | Iterable[str | Path], size: int | None = None) -> ImageSet:
    """A user's own pictures, in the order given, without labels: all −1, and no class names.

    A folder among ``paths`` stands for the images directly inside it, by name. Raises ``FileNotFoundError`` for a
    missing file and ``ValueError`` naming the file for one that is no image.
    """
    given = [Path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    found: list[Path] = []
    for p in given:
        if p.is_dir():
            inside = sorted(f for f in p.iterdir() if f.is_file() and not layout.ignored(f.name))
            inside = [f for f in inside if f.name.lower().endswith(layout.SUFFIXES)]
            if not inside:
                raise ValueError(f"{p}: no images in this folder; expected files {', '.join(layout.SUFFIXES)}")
            found += inside
        elif p.is_file():
            found.append(p)
        else:
            raise FileNotFoundError(f"{p}: no such picture; expected an image file or a folder of images")
    if not found:
        raise ValueError("pictures: no paths given; expected at least one image file")
    return decode_all(
        "pictures",
        [p.name for p in found],
        [p.read_bytes for p in found],
        [-1] * len(found),
        (),
        size,
        [str(p) for p in found],
    )


def _folders(path: Path) -> list[Path]:
    return sorted(d for d in path.iterdir() if d.is_dir() and not d.name.startswith("."))


def _classes(path: Path) -> dict[str, list[str]]:
    """Class names and their image files. Loose images beside class folders, and folders inside them, are errors."""
    for entry in path.iterdir():
        if entry.is_file() and not layout.ignored(entry.name) and entry.name.lower().endswith(layout.SUFFIXES):
            raise ValueError(f"{entry}: an image outside the class folders; expected {path.name}/<class>/<image>")
    found: dict[str, list[str]] = {}
    for d in _folders(path):
        found[d.name] = []
        for entry in d.iterdir():
            if layout.ignored(entry.name):
                continue
            if not entry.is_file():
                raise ValueError(f"{entry}: not a file; expected images directly inside the class folder {d.name!r}")
            layout.check_image_name(str(d), entry.name)
            found[d.name].append(entry.name)
    return found
