"""Class folders: which files are images, which class each belongs to, and what is wrong with the arrangement.

A folder on disk and a tar share these rules: ``<split>/<class>/<file>`` or ``<class>/<file>``, labels by sorted class
name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .. import errors
from .decoding import SUFFIXES

SPLITS = ("train", "test", "val", "valid", "validation")


def ignored(name: str) -> bool:
    """Files that desktop systems leave behind; nobody means them as images."""
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def check_image_name(where: str, name: str) -> None:
    if not name.lower().endswith(SUFFIXES):
        raise ValueError(
            f"{where}: {name!r} has no image suffix; expected one of {', '.join(SUFFIXES)}. "
            f"Move it out of the class folder"
        )


def check_split(where: str, split: str, present: Iterable[str]) -> None:
    """``split`` must be one of those ``present``."""
    if split not in (known := sorted(present)):
        raise ValueError(f"{where}: {errors.unknown('split', split, known) if known else f'no split {split!r}'}")


def check_classes(where: str, counts: Mapping[str, int], class_names: Sequence[str], source: str) -> None:
    """Classes with images must be exactly ``class_names``, which ``source`` names; labels would have gaps otherwise.

    ``counts`` maps classes to their images here: 0 for a folder without any, no entry where there is no folder.
    """
    if not class_names:
        raise ValueError(f"{where}: no classes; expected <class>/<image> inside")
    if missing := [c for c in class_names if c not in counts]:
        raise ValueError(
            f"{where}: no images of {_few(missing)}, known from {source}; expected every class in every split, as "
            f"labels would have gaps. Add images, or remove the class everywhere"
        )
    if surplus := sorted(set(counts) - set(class_names)):
        raise ValueError(f"{where}: has {_few(surplus)}, not among the {len(class_names)} classes of {source}")
    if empty := [c for c in class_names if not counts[c]]:
        raise ValueError(f"{where}: {_few(empty)} without images; add images, or remove the class folder")


def label(found: Mapping[str, Iterable[str]], class_names: Sequence[str]) -> tuple[list[tuple[str, str]], list[int]]:
    """(class, file) pairs by class, then file name, and their labels."""
    pairs = [(c, f) for c in class_names for f in sorted(found[c])]
    index = {c: i for i, c in enumerate(class_names)}
    return pairs, [index[c] for c, _ in pairs]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{more}"
