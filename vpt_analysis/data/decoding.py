"""From encoded bytes to square uint8 images, with errors that name the file.

Orientation (EXIF) is applied, palettes, grey and CMYK become RGB, transparency is laid on white, the central square is
resampled with an antialiased bicubic filter. Only plain raster formats are opened: none that hands work to another
program.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from .image_set import ImageSet

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 89_478_485  # PIL's own limit, from which it warns; a decompression bomb is a small file that claims more
CHUNK = 64  # images a task: small ones decode in 0.1 ms, and a task costs as much

Read = Callable[[], bytes]
Produce = Callable[[int], tuple[np.ndarray, int, bytes]]


def check_size(size: int | None, what: str) -> None:
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ValueError(f"{what}: size is {size!r}; expected a positive number of pixels, or None to keep the files'")


def decode(data: bytes, name: str, size: int | None = None) -> np.ndarray:
    """uint8 (3, size, size) of an encoded image, or (3, h, w) as stored where ``size`` is None.

    Raises ``ValueError`` naming ``name`` for bytes that are no image of a known format, are truncated, or claim more
    than ``MAX_PIXELS``.
    """
    from PIL import Image

    if not data:
        raise ValueError(f"{name}: the file is empty; expected an image ({', '.join(FORMATS)}). Replace or remove it")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"claims {image.width}×{image.height} pixels")
            return np.asarray(fit(image, name, size)).transpose(2, 0, 1)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name}: {error}; expected at most {MAX_PIXELS:,} pixels. Shrink or remove it") from error
    except _Refused:
        raise
    except Exception as error:  # decoders raise whatever they like on foreign bytes (struct.error, SyntaxError, …)
        known = _looks_like_image(data)
        if known:
            reason, remedy = f"truncated or damaged ({type(error).__name__}: {error})", "Copy it again"
        else:
            reason, remedy = "not an image of a known format", "Convert it"
        raise ValueError(f"{name}: {reason}; expected one of {', '.join(FORMATS)}. {remedy}, or remove it") from error


class _Refused(ValueError):
    """An image that decodes but that we do not convert."""


def _looks_like_image(data: bytes) -> bool:
    magic = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"P5", b"P6")
    return data.startswith(magic)


def fit(image, name: str, size: int | None):
    """A PIL image as upright RGB, its central square resampled to ``size`` (None: as it is)."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise _Refused(f"{name}: pixels are 32-bit ({image.mode}), of unknown range; save it with 8 bits a channel")
    if image.mode.startswith("I;16"):  # PIL would clip these to 255 instead of scaling them
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if size is None or image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def decode_all(
    name: str,
    files: Sequence[str],
    read: Sequence[Read],
    labels: Sequence[int],
    class_names: Sequence[str],
    size: int | None,
    messages: Sequence[str] | None = None,
) -> ImageSet:
    """Decode ``read[i]()`` for each of ``files`` in a pool of threads into an ``ImageSet``.

    ``messages`` are the names used in errors (default: ``files``). The digest covers class names, size, file names,
    labels and encoded bytes, so a folder and a tar of the same files have the same one. With ``size=None`` all images
    must have the size of the first.
    """
    messages = messages or files

    def produce(i: int) -> tuple[np.ndarray, int, bytes]:
        data = read[i]()
        return decode(data, messages[i], size), labels[i], hashlib.sha256(data).digest()

    return collect(name, files, produce, class_names, size, messages)


def collect(
    name: str,
    files: Sequence[str],
    produce: Produce,
    class_names: Sequence[str],
    size: int | None,
    messages: Sequence[str],
) -> ImageSet:
    """An ``ImageSet`` of what ``produce(i)`` gives for each of ``files``, called from a pool of threads.

    ``produce`` gives pixels uint8 (3, h, w), the label, and the sha256 of the image as its source has it.
    """
    check_size(size, name)
    if not files:
        raise ValueError(f"{name}: no images; expected at least one")
    first = produce(0)[0]
    images = np.empty((len(files), *first.shape), dtype=np.uint8)  # (n, 3, h, w)

    def work(indices: range) -> list[tuple[int, bytes]]:
        rows = []
        for i in indices:
            image, label, digest = produce(i)
            if image.shape != first.shape:
                raise ValueError(
                    f"{messages[i]}: {image.shape[2]}×{image.shape[1]} pixels, but {messages[0]} has "
                    f"{first.shape[2]}×{first.shape[1]}; expected one size. Give size= to resize and crop them"
                )
            images[i] = image
            rows.append((label, digest))
        return rows

    total = hashlib.sha256(repr((tuple(class_names), size)).encode())
    labels = []
    for i, (label, digest) in enumerate(_in_order(work, len(files))):
        total.update(f"{files[i]}|{label}|".encode() + digest)
        labels.append(label)
    return ImageSet(
        torch.from_numpy(images),
        torch.tensor(labels, dtype=torch.int64),
        tuple(class_names),
        total.hexdigest(),
        name,
        tuple(files),
    )


def _in_order(work: Callable[[range], list[tuple[int, bytes]]], n: int) -> Iterator[tuple[int, bytes]]:
    """``work`` over chunks of range(n) in threads; the first error stops what has not begun."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        for rows in pool.map(work, (range(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK))):
            yield from rows
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
