"""Packed images: one npz with the encoded files of each split end to end, offsets, labels and class names."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from . import layout, manifest
from .decoding import decode_all
from .image_set import ImageSet

DAMAGE = (  # what zipfile and numpy raise on damaged files: RuntimeError for an encrypted member, say
    ValueError,
    KeyError,
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
)
MAX_INFLATION = 8  # encoded images do not compress; an npz that grows more than this (beyond 64 MiB) is a bomb


def packed(path: str | Path, split: str = "train", size: int | None = None, limit: int = 0) -> ImageSet:
    """An npz: ``<split>_bytes`` uint8, ``<split>_offsets`` int (n+1,), ``<split>_labels`` int (n,), ``class_names``.

    Image i of a split is ``bytes[offsets[i]:offsets[i+1]]``, an encoded image. ``limit`` > 0 takes the first images
    only, whatever their classes (for rehearsals; ``subset`` is the fair choice). A ``.json`` beside the file is
    checked: sha256, class names, counts.

    Raises ``FileNotFoundError`` for a missing file, ``ValueError`` naming file and image for arrays that are missing,
    of object type or inconsistent, for classes without images, and for broken images. Nothing is unpickled.
    """
    path = Path(path)
    if not isinstance(limit, int) or limit < 0:
        raise ValueError(f"{path}: limit is {limit!r}; expected an integer ≥ 0 (0: all images)")
    listed = manifest.read(path)
    blob, offsets, labels, names = _arrays(path, split)
    _check(path, split, blob, offsets, labels, names, listed)
    n = min(limit, len(labels)) if limit else len(labels)
    read = [blob[offsets[i] : offsets[i + 1]].tobytes for i in range(n)]
    files = [f"{split}/{i}" for i in range(n)]
    return decode_all(
        f"{path.stem}/{split}", files, read, labels[:n].tolist(), names, size, [f"{path}: image {f}" for f in files]
    )


def _arrays(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        with zipfile.ZipFile(path) as archive:
            inflated = sum(entry.file_size for entry in archive.infolist())
        if inflated > MAX_INFLATION * path.stat().st_size + 2**26:
            raise ValueError(f"it would inflate to {inflated:,} bytes")
        with np.load(path, allow_pickle=False) as z:
            present = [f.removesuffix("_bytes") for f in z.files if f.endswith("_bytes")]
            if split in present:
                keys = [f"{split}_bytes", f"{split}_offsets", f"{split}_labels", "class_names"]
                blob, offsets, labels, names = (z[key] for key in keys)
    except DAMAGE as error:
        raise ValueError(
            f"{path}: not a readable pack ({error}); expected an npz with <split>_bytes, <split>_offsets, "
            f"<split>_labels and class_names, none of them of object type. Copy it again"
        ) from error
    layout.check_split(str(path), split, present)
    for key, array, kind, ndim in (("bytes", blob, "u", 1), ("offsets", offsets, "iu", 1), ("labels", labels, "iu", 1)):
        if array.dtype.kind not in kind or array.ndim != ndim or (key == "bytes" and array.dtype != np.uint8):
            raise ValueError(
                f"{path}: {split}_{key} is {array.dtype} {array.shape}; expected one dimension of "
                f"{'uint8' if key == 'bytes' else 'integers'}"
            )
    if names.dtype.kind != "U" or names.ndim != 1 or len(set(names.tolist())) != len(names):
        raise ValueError(f"{path}: class_names is {names.dtype} {names.shape}; expected distinct strings, one a class")
    return blob, offsets.astype(np.int64), labels.astype(np.int64), tuple(names.tolist())


def _check(path: Path, split: str, blob, offsets, labels, names: tuple[str, ...], listed) -> None:
    n, k = len(labels), len(names)
    if len(offsets) != n + 1:
        raise ValueError(f"{path}: {split}_offsets has {len(offsets)} entries for {n} labels; expected {n + 1}")
    if n == 0:
        raise ValueError(f"{path}: split {split!r} has no images; expected at least one a class")
    bad = np.flatnonzero((np.diff(offsets) <= 0) | (offsets[:-1] < 0) | (offsets[1:] > len(blob)))
    if len(bad):
        i = int(bad[0])
        raise ValueError(
            f"{path}: image {split}/{i} goes from byte {offsets[i]} to {offsets[i + 1]}; expected rising offsets "
            f"within 0 … {len(blob)}"
        )
    bad = np.flatnonzero((labels < 0) | (labels >= k))
    if len(bad):
        raise ValueError(f"{path}: image {split}/{int(bad[0])} has label {labels[bad[0]]}; expected 0 … {k - 1}")
    counts = {names[c]: count for c, count in zip(*np.unique(labels, return_counts=True), strict=True)}
    layout.check_classes(f"{path}: {split}", counts, names, "class_names")
    if listed:
        manifest.check_count(path, listed, split, n)
        if listed.class_names and listed.class_names != names:
            raise ValueError(f"{path}: class_names are not those of {listed.path.name}; copy both again")
