"""Images of plain shapes, made here, whose every factor is known: how many, where, which way, of what colour.

A group of tasks like the "Structured" one of VTAB (Zhai et al., arXiv:1910.04867), as many images as one likes. Labels
are drawn first and scenes around them, so that classes are balanced and everything else is independent of the label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

from .. import errors
from .image_set import ImageSet
from .raster import FACTORS, paint, reach
from .streams import Streams

MIN_SIZE = 24  # below, eight shapes cannot be told apart
CHUNK = 128  # images made at a time; a multiple of every number of classes
CANDIDATES = 64  # places tried for each shape before the image is begun anew
EDGE, GAP = 0.02, 0.04  # least distance from the image's edge and between two shapes, in image widths
GRID = 4  # cells a side of "position"
GUARD = 0.03  # least distance of the target's centre from a line between cells, in image widths
PLAIN = ("disc", "square", "cross", "triangle")

Scene = Callable[[Streams, np.ndarray], np.ndarray]


def shapes(task: str, n: int, size: int = 32, seed: int = 0) -> ImageSet:
    """``n`` images of ``size`` × ``size`` pixels of one of four tasks, with as equal classes as ``n`` allows.

    - "count": 1 … 8 shapes that do not touch, of various kinds, sizes and hues; the label is their number (8 classes).
    - "position": the only triangle among other shapes on a textured background; the label is the cell of a 4 × 4 grid
      that its centre lies in, row by row (16 classes).
    - "orientation": one arrow or dart; the label is the direction of its point, in steps of 22.5° counter-clockwise
      from the right (16 classes).
    - "colour": the hue of the largest of several shapes, in steps of 45° from red (8 classes); the others have hues of
      other classes and at most 0.52 of its area.

    Centres, directions and hues keep away from the borders between classes. The same arguments give the same bytes;
    the first images of a larger set are the smaller set; another ``size`` shows the same scenes. ``factors`` tells
    what is in each image. ``load("shapes-count", split)`` takes 3,000 images of seed 0 for "train" and 2,000 of
    seed 1 for "test".

    Raises ``ValueError`` for an unknown task, ``n`` < 1 and ``size`` < 24, ``TypeError`` for a seed that is no integer.

    >>> shapes("count", 80).counts.tolist()
    [10, 10, 10, 10, 10, 10, 10, 10]
    """
    _check(task, n, size, seed)
    images, labels = np.empty((n, 3, size, size), dtype=np.uint8), np.empty(n, dtype=np.int64)
    for at, streams, scenes, chunk_labels in _scenes(task, n, size, seed):
        images[at] = paint(streams, scenes, size, texture=0.12 if task == "position" else 0.05)
        labels[at] = chunk_labels
    names = CLASS_NAMES[task]
    digest = hashlib.sha256(repr((task, names, size)).encode() + images.tobytes() + labels.tobytes())
    name = f"shapes-{task}"
    return ImageSet(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        names,
        digest.hexdigest(),
        name,
        tuple(f"{name}/{seed}/{i}" for i in range(n)),
    )


def factors(task: str, n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """What the images of ``shapes(task, n, size, seed)`` show: a structured array (n, slots), a row an image.

    Fields: ``kind``, "" for a slot without a shape, in which the other fields are 0; ``x`` and ``y`` of the centre in
    pixels from the upper left corner of the image; ``size``, the square root of the area, in pixels; ``angle``, where
    the shape points, in degrees counter-clockwise from the right; ``hue`` in degrees. No two shapes overlap.

    Raises as ``shapes`` does.

    >>> found = factors("count", 80)
    >>> bool((shapes("count", 80).labels.numpy() + 1 == (found["kind"] != "").sum(1)).all())
    True
    """
    _check(task, n, size, seed)
    return np.concatenate([scenes for _, _, scenes, _ in _scenes(task, n, size, seed)])


def _check(task: str, n: int, size: int, seed: int) -> None:
    if task not in TASKS:
        raise errors.unknown("task of shapes", task, TASKS)
    for what, value, least in (("n", n, 1), ("size", size, MIN_SIZE)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"shapes-{task}: {what} is {value!r}; expected an integer ≥ {least}")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"shapes-{task}: seed is {seed!r}; expected an integer")


def _scenes(task: str, n: int, size: int, seed: int) -> Iterator[tuple[slice, Streams, np.ndarray, np.ndarray]]:
    """(which images, their streams, scenes in pixels (m, slots), labels (m,)), chunk by chunk."""
    streams, k = Streams(f"shapes/{task}/{seed}"), len(CLASS_NAMES[task])
    for start in range(0, n, CHUNK):
        m = min(CHUNK, n - start)
        order = streams.uniform("labels", -(-m // k), k)  # each k images in a row are one of each class
        labels = order.argsort(axis=1, kind="stable").reshape(-1)[:m]
        scenes = TASKS[task](streams, labels)
        for field in ("x", "y", "size"):
            scenes[field] *= size
        scenes[scenes["kind"] == ""] = np.zeros((), dtype=FACTORS)
        yield slice(start, start + m), streams, scenes, labels


def _several(streams: Streams, present: np.ndarray, kinds: tuple[str, ...]) -> np.ndarray:
    """Shapes where ``present`` bool (m, slots) says so: kind, angle and hue at random; neither size nor place yet."""
    scenes = np.zeros(present.shape, dtype=FACTORS)
    kind = np.array(kinds)[streams.whole("kind", *present.shape, high=len(kinds))]
    scenes["kind"] = np.where(present, kind, "")
    scenes["angle"] = streams.uniform("angle", *present.shape, high=360)
    scenes["hue"] = streams.uniform("hue", *present.shape, high=360)
    return scenes


def _place(streams: Streams, scenes: np.ndarray, first: int = 0) -> np.ndarray:
    """Centres for the shapes from slot ``first`` on, in image widths, with room between all shapes.

    Where a shape finds no room, the image is tried again with all its shapes smaller by 5%.
    """
    left, attempt = np.arange(len(scenes)), 0
    while len(left):
        spots = streams.uniform(f"place {attempt}", *scenes.shape, CANDIDATES, 2)
        scenes[left], fits = _try(scenes[left], spots[left], first)
        left, attempt = left[~fits], attempt + 1
        scenes["size"][left] *= 0.95
    return scenes


def _try(scenes: np.ndarray, spots: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Each shape at the first of its places, (m, slots, candidates, 2) in [0, 1), that has room; whether all have."""
    scenes, rows = scenes.copy(), np.arange(len(scenes))
    fits, radius = np.ones(len(scenes), dtype=bool), reach(scenes)[..., None]  # (m,), (m, slots, 1)
    for s in range(first, scenes.shape[1]):
        low = EDGE + radius[:, s]
        x, y = (low + (1 - 2 * low) * spots[:, s, :, i] for i in (0, 1))  # (m, candidates)
        free = np.ones(x.shape, dtype=bool)
        for t in range(s):
            dx, dy, apart = x - scenes["x"][:, t, None], y - scenes["y"][:, t, None], radius[:, s] + radius[:, t] + GAP
            free &= (dx * dx + dy * dy >= apart * apart) | (radius[:, t] == 0)
        best = free.argmax(1)
        scenes["x"][:, s], scenes["y"][:, s] = x[rows, best], y[rows, best]
        fits &= free[rows, best] | (radius[:, s, 0] == 0)
    return scenes, fits


def _count(streams: Streams, labels: np.ndarray) -> np.ndarray:
    """Fewer shapes are larger, so that their total area grows as the square root of their number only; it still tells
    something of it."""
    m, slots = len(labels), 8
    scenes = _several(streams, np.arange(slots) <= labels[:, None], PLAIN)
    size = np.sort(streams.uniform("size", m, slots, low=0.11, high=0.17), axis=1)[:, ::-1]
    scenes["size"] = size * (slots / (labels[:, None] + 1)) ** 0.25
    return _place(streams, scenes)


def _position(streams: Streams, labels: np.ndarray) -> np.ndarray:
    m = len(labels)
    present = np.arange(4) <= 1 + streams.whole("others", m, 1, high=3)
    scenes = _several(streams, present, PLAIN[:-1])
    scenes["kind"][:, 0] = "triangle"
    scenes["size"] = streams.uniform("size", m, 4, low=0.14, high=0.2)
    margin = reach(scenes[:, 0]) + EDGE
    for field, cell in (("x", labels % GRID), ("y", labels // GRID)):
        low = np.maximum(cell / GRID + GUARD, margin)
        high = np.minimum((cell + 1) / GRID - GUARD, 1 - margin)
        scenes[field][:, 0] = low + (high - low) * streams.uniform(field, m)
    return _place(streams, scenes, first=1)


def _orientation(streams: Streams, labels: np.ndarray) -> np.ndarray:
    m = len(labels)
    scenes = _several(streams, np.ones((m, 1), dtype=bool), ("arrow", "dart"))
    scenes["size"] = streams.uniform("size", m, 1, low=0.25, high=0.36)
    scenes["angle"][:, 0] = (labels * 22.5 + streams.uniform("turn", m, low=-8, high=8)) % 360
    return _place(streams, scenes)


def _colour(streams: Streams, labels: np.ndarray) -> np.ndarray:
    m = len(labels)
    scenes = _several(streams, np.arange(5) <= 2 + streams.whole("others", m, 1, high=3), PLAIN)
    size = streams.uniform("size", m, 1, low=0.22, high=0.28)
    scenes["size"] = size * streams.uniform("smaller", m, 5, low=0.5, high=0.72)
    scenes["size"][:, :1] = size
    step = 1 + streams.whole("other hue", m, 5, high=7)
    step[:, 0] = 0
    scenes["hue"] = ((labels[:, None] + step) * 45 + streams.uniform("tone", m, 5, low=-15, high=15)) % 360
    return _place(streams, scenes)


TASKS: dict[str, Scene] = {
    "count": _count,
    "position": _position,
    "orientation": _orientation,
    "colour": _colour,
}
CLASS_NAMES = {
    "count": tuple(str(c) for c in range(1, 9)),
    "position": tuple(f"row {r} column {c}" for r in range(1, GRID + 1) for c in range(1, GRID + 1)),
    "orientation": tuple(f"{22.5 * c:g}°" for c in range(16)),
    "colour": ("red", "amber", "lime", "green", "cyan", "blue", "violet", "magenta"),
}
