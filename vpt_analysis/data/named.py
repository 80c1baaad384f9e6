"""Data sets by name or by path."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from .. import errors
from . import layout
from .bundled import digits
from .folders import folder
from .huggingface_sets import PREFIX as HUGGING_FACE
from .huggingface_sets import huggingface_set
from .idx_files import find, idx, looks_like_idx
from .image_set import ImageSet
from .packs import packed
from .shapes import TASKS, shapes
from .tars import tar
from .torchvision_sets import PREFIX as TORCHVISION
from .torchvision_sets import torchvision_set

VARIABLE = "VPT_ANALYSIS_DATA"
FILES = {
    "cifar100": "cifar100.tar",
    "caltech101": "caltech101.tar",
    "grocery81": "grocery81.tar",
    "cub100": "cub100.tar",
    "flowers12": "flowers12.tar",
    "tinyimagenet32": "tinyimagenet32.npz",
}
SHAPES = {f"shapes-{task}": task for task in TASKS}
SHAPE_SPLITS = {"train": (3000, 0), "test": (2000, 1)}  # images and seed


def names() -> list[str]:
    """The names that ``load`` knows.

    >>> "digits" in names()
    True
    """
    return sorted(["digits", *FILES, *SHAPES])


def is_name(text: str) -> bool:
    """Whether ``load`` takes it for a name rather than for a path; what it names may still be missing.

    >>> is_name("digits"), is_name("torchvision:DTD"), is_name("photos/")
    (True, True, False)
    """
    return text in names() or text.startswith((TORCHVISION, HUGGING_FACE))


def load(name_or_path: str | Path, split: str = "train", size: int | None = 32) -> ImageSet:
    """Images by name, or from a path, decided by what lies there.

    "digits" and the "shapes-…" are always there; the other names are files in the folder that the environment variable
    ``VPT_ANALYSIS_DATA`` names. Of the shapes, "train" is 3,000 images of seed 0 and "test" 2,000 of seed 1. A path may
    be a ``.tar`` or ``.npz`` as ``tar`` and ``packed`` read them, an IDX file of images, a folder with the MNIST names,
    or a folder of class folders, with or without folders of splits; without splits, all of it is "train".
    "torchvision:DTD" and "huggingface:ethz/food101" are read with those libraries, and fetched where there is a
    network: see ``torchvision_set`` and ``huggingface_set``.

    Raises ``ValueError`` for an unknown name, ``FileNotFoundError`` where the variable is unset or a file is missing.

    >>> len(load("digits", "test"))
    450
    """
    name = os.fspath(name_or_path)
    if name == "digits":
        return digits(32 if size is None else size, split)
    if name in SHAPES:
        layout.check_split(name, split, SHAPE_SPLITS)
        n, seed = SHAPE_SPLITS[split]
        return replace(shapes(SHAPES[name], n, 32 if size is None else size, seed), name=f"{name}/{split}")
    if name in FILES:
        return _from_path(_root(name) / FILES[name], split, size)
    if name.startswith(TORCHVISION):
        return torchvision_set(name.removeprefix(TORCHVISION), split, size)
    if name.startswith(HUGGING_FACE):
        return huggingface_set(name.removeprefix(HUGGING_FACE), split, size)
    path = Path(name).expanduser()
    if not path.exists():
        if isinstance(name_or_path, Path) or path.suffix or path.name != name:
            raise FileNotFoundError(f"{path}: no such file or folder; expected one, or a name of {', '.join(names())}")
        raise errors.unknown("data set", name, names())
    return _from_path(path, split, size)


def _root(name: str) -> Path:
    folder_name = os.environ.get(VARIABLE, "")
    if not folder_name:
        raise FileNotFoundError(
            f"data set {name!r} needs the environment variable {VARIABLE}, which is not set; set it to the folder with "
            f"{FILES[name]}, as `export {VARIABLE}=/path/to/data`. 'digits' and 'shapes-count' work without"
        )
    root = Path(folder_name).expanduser()
    if not (root / FILES[name]).is_file():
        held = [f for f in FILES.values() if (root / f).is_file()]
        raise FileNotFoundError(
            f"{root / FILES[name]}: no such file; {VARIABLE} is {folder_name!r}, which holds "
            f"{', '.join(held) or 'none'} of the known files. Put {FILES[name]} there, or point {VARIABLE} elsewhere"
        )
    return root


def _from_path(path: Path, split: str, size: int | None) -> ImageSet:
    if path.is_dir():
        if images := find(path, split):
            return replace(idx(images, size=size), name=f"{path.resolve().name}/{split}")
        inside = {d.name for d in path.iterdir() if d.is_dir()}
        if any(d.is_dir() for d in (path / split).glob("*")) or (inside and inside <= set(layout.SPLITS)):
            return folder(path, size, split)
        _check_unsplit(path, split)
        return folder(path, size)
    if path.suffix == ".tar":
        return tar(path, split, size)
    if path.suffix == ".npz":
        return packed(path, split, size)
    if looks_like_idx(path):
        _check_unsplit(path, split)
        return idx(path, size=size)
    raise ValueError(
        f"{path}: not a data set; expected a folder of class folders, a .tar of them, a packed .npz, or IDX images. "
        f"For single pictures use pictures([...])"
    )


def _check_unsplit(path: Path, split: str) -> None:
    """One and the same images must not pass as training and as test images."""
    if split != "train":
        raise ValueError(
            f"{path}: has no split {split!r}; without splits, all of it is 'train'. Keep test images apart"
        )
