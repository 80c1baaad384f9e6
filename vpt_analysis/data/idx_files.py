"""IDX files (LeCun, MNIST): big-endian header, then raw pixels or labels; plain or gzipped. Fashion-MNIST comes so."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from . import layout
from .decoding import check_size, fit
from .image_set import ImageSet

MAX_BYTES = 2**31  # once unpacked; MNIST has 47 million
PREFIXES = {"train": "train", "test": "t10k"}


def idx(
    images_path: str | Path,
    labels_path: str | Path | None = None,
    size: int | None = None,
    class_names: Sequence[str] | None = None,
) -> ImageSet:
    """Grey images uint8 (n, h, w) of ``images_path`` in three equal channels, labels uint8 (n,) of ``labels_path``.

    ``labels_path`` defaults to the images' name with ``labels`` and ``idx1``. ``class_names`` default to the numbers.
    ``size``: shorter side resized to it, then the centre cropped; None keeps the size.

    Raises ``FileNotFoundError`` for a missing file; ``ValueError`` naming the file for a wrong header, fewer or more
    bytes than the header says, counts that differ, and labels with gaps.
    """
    images_path = Path(images_path)
    name = images_path.name.removesuffix(".gz")
    if labels_path is None:
        labels_path = images_path.with_name(images_path.name.replace("images", "labels").replace("idx3", "idx1"))
        if labels_path == images_path:
            raise ValueError(f"{images_path}: cannot guess the name of the labels; give labels_path")
    check_size(size, name)
    pixels, labels = _read(images_path, 3), _read(Path(labels_path), 1)  # (n, h, w), (n,)
    if len(pixels) != len(labels):
        raise ValueError(
            f"{labels_path}: {len(labels)} labels, but {images_path} has {len(pixels)} images; expected as many"
        )
    if pixels.size == 0:
        raise ValueError(f"{images_path}: images are {pixels.shape}; expected at least one, of at least 1×1 pixels")
    names = tuple(str(c) for c in (range(int(labels.max()) + 1) if class_names is None else class_names))
    if int(labels.max()) >= len(names):
        raise ValueError(f"{labels_path}: a label is {labels.max()}; expected 0 … {len(names) - 1}, the classes given")
    counts = {names[c]: int(count) for c, count in zip(*np.unique(labels, return_counts=True), strict=True)}
    source = "the labels 0 … k−1" if class_names is None else "class_names"
    layout.check_classes(str(labels_path), counts, names, source)
    total = hashlib.sha256(repr((names, size, pixels.shape)).encode() + pixels.tobytes() + labels.tobytes())
    return ImageSet(
        torch.from_numpy(_coloured(pixels, name, size)),
        torch.from_numpy(labels.astype(np.int64)),
        names,
        total.hexdigest(),
        name,
        tuple(f"{name}/{i}" for i in range(len(labels))),
    )


def find(folder: Path, split: str) -> Path | None:
    """The images file of ``split`` in a folder with the names of MNIST (train-…, t10k-…), or None."""
    for suffix in ("", ".gz"):
        path = folder / f"{PREFIXES.get(split, split)}-images-idx3-ubyte{suffix}"
        if path.is_file():
            return path
    return None


def looks_like_idx(path: Path) -> bool:
    """Whether the file starts as IDX images do."""
    try:
        with _open(path) as f:
            return f.read(4) == bytes((0, 0, 8, 3))
    except (OSError, EOFError, zlib.error):
        return False


def _coloured(pixels: np.ndarray, name: str, size: int | None) -> np.ndarray:
    """Grey (n, h, w) to uint8 (n, 3, size, size)."""
    from PIL import Image

    if size is not None and pixels.shape[1:] != (size, size):
        fitted = (fit(Image.fromarray(p), f"{name}/{i}", size) for i, p in enumerate(pixels))
        pixels = np.stack([np.asarray(p)[..., 0] for p in fitted])
    return np.repeat(pixels[:, None], 3, axis=1)


def _open(path: Path):
    with open(path, "rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else open(path, "rb")


def _read(path: Path, ndim: int) -> np.ndarray:
    """uint8 array of ``ndim`` dimensions; exactly what the header announces is read, and no more."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected IDX {'images' if ndim == 3 else 'labels'}")
    try:
        with _open(path) as f:
            magic, shape = f.read(4), f.read(4 * ndim)
            if magic != bytes((0, 0, 8, ndim)) or len(shape) != 4 * ndim:
                raise ValueError(
                    f"{path}: starts with {magic.hex() or 'nothing'}; expected {bytes((0, 0, 8, ndim)).hex()}, "
                    f"IDX of unsigned bytes in {ndim} dimension{'s' * (ndim > 1)}"
                )
            shape = struct.unpack(f">{ndim}I", shape)
            expected = int(np.prod([int(s) for s in shape], dtype=object))
            if expected > MAX_BYTES:
                raise ValueError(f"{path}: its header claims {shape}, {expected:,} bytes; expected ≤ {MAX_BYTES:,}")
            data = f.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: truncated or damaged ({error}); expected an IDX file. Copy it again") from error
    if len(data) != expected:
        raise ValueError(
            f"{path}: {'more than' if len(data) > expected else f'only {len(data):,} of'} the {expected:,} bytes that "
            f"its header {shape} announces; copy it again"
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)
