"""Stanford Dogs as class folders: ``python -m vpt_analysis.data.stanford_dogs SOURCE TARGET``.

SOURCE holds what ``images.tar`` and ``lists.tar`` of the official page unpack to: ``Images/<class>/<file>``, with
20,580 files of 120 classes; ``train_list.mat`` with 12,000 of them; ``test_list.mat`` with 8,580. TARGET becomes
``train/<class>/<file>`` and ``test/<class>/<file>``, symbolic links into SOURCE; ``data.load`` reads it by its path.

Source: Khosla et al., Novel Dataset for Fine-Grained Image Categorization, FGVC workshop at CVPR 2011.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from . import layout

LISTS = {"train": "train_list.mat", "test": "test_list.mat"}
OFFICIAL = {"train": 12_000, "test": 8_580}
CLASSES = 120


def arrange(source: str | Path, target: str | Path) -> dict[str, int]:
    """Make TARGET, whole or not at all; the number of images of each split.

    Raises ``FileNotFoundError`` for missing lists and images, ``FileExistsError`` where TARGET is there already, and
    ``ValueError`` naming the list for one that is no list of ``<class>/<file>``, gives two classes one label, or shares
    images with the other.
    """
    source, target = Path(source).resolve(), Path(target)
    if target.exists():
        raise FileExistsError(f"{target}: is there already; expected a new folder. Remove it, or name another")
    listed = {split: _listed(source / name) for split, name in LISTS.items()}
    if shared := sorted(set(listed["train"]) & set(listed["test"])):
        raise ValueError(f"{source / LISTS['test']}: {shared[0]} is in {LISTS['train']} too; copy both lists again")
    for files in listed.values():
        if missing := [file for file in files if not (source / "Images" / file).is_file()]:
            raise FileNotFoundError(
                f"{source / 'Images' / missing[0]}: no such file, and {len(missing) - 1} more are missing; unpack "
                f"images.tar in {source}"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part"))
    try:
        for split, files in listed.items():
            for file in files:
                link = part / split / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source / "Images" / file)
        part.chmod(0o755)  # mkdtemp makes folders private
        os.rename(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {split: len(files) for split, files in listed.items()}


def _listed(path: Path) -> list[str]:
    """``<class>/<file>`` of one list, with one label a class."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; unpack lists.tar in {path.parent}")
    from scipy.io import loadmat

    try:
        found = loadmat(path, squeeze_me=True)
        files, labels = (np.atleast_1d(found[key]).tolist() for key in ("file_list", "labels"))
    except Exception as error:  # scipy's reader raises whatever it likes on foreign bytes
        raise ValueError(
            f"{path}: not a list ({type(error).__name__}: {error}); expected a MATLAB file with file_list and labels"
        ) from error
    if len(files) != len(labels) or len(set(files)) < len(files):
        raise ValueError(
            f"{path}: {len(files)} files and {len(labels)} labels; expected one label a file, each file once"
        )
    classes: dict[int, str] = {}
    for file, label in zip(files, labels, strict=True):
        parts = PurePosixPath(file).parts if isinstance(file, str) else ()
        if len(parts) != 2 or ".." in parts or "\\" in file:
            raise ValueError(f"{path}: lists {file!r}; expected <class>/<file>")
        layout.check_image_name(str(path), parts[1])
        if classes.setdefault(int(label), parts[0]) != parts[0]:
            raise ValueError(f"{path}: label {label} is {classes[int(label)]!r} and {parts[0]!r}; expected one class")
    if len(set(classes.values())) < len(classes):
        raise ValueError(f"{path}: {len(classes)} labels for {len(set(classes.values()))} classes; expected one each")
    return files


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vpt_analysis.data.stanford_dogs", description=__doc__.split("\n")[0]
    )
    parser.add_argument("source", help="folder with Images/, train_list.mat and test_list.mat")
    parser.add_argument("target", help="folder to make, with train/ and test/")
    given = parser.parse_args(arguments)
    try:
        counts = arrange(given.source, given.target)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    classes = sum(1 for _ in (Path(given.target) / "train").iterdir())
    told = ", ".join(f"{n:,} {split}" for split, n in counts.items())
    official = (
        f"the official {CLASSES} classes and {', '.join(f'{n:,} {split}' for split, n in OFFICIAL.items())} images"
    )
    same = counts == OFFICIAL and classes == CLASSES
    print(f"{given.target}: {classes} classes, {told} images" + (", as published" if same else f"; not {official}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
