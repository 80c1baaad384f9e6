"""Plain shapes drawn into pixels by signed distances: no fonts, no drawing library, the same bytes everywhere.

A pixel's coverage by a shape is ``clip(½ − d, 0, 1)``, d the signed distance (negative inside) of its centre from the
outline in pixels. Pixel (row i, column j) is the square [j, j + 1] × [i, i + 1]; x grows to the right, y downwards.
Angles are counter-clockwise as one sees them, from pointing right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .streams import Streams

FACTORS = np.dtype([("kind", "U8"), ("x", "f8"), ("y", "f8"), ("size", "f8"), ("angle", "f8"), ("hue", "f8")])
COARSE, FINE = 3, 9  # knots a side of the background's gradient and of its texture


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.sqrt(u * u + v * v) - np.pi**-0.5


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.5


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Equilateral, one corner on +u."""
    return np.maximum(-u, 0.5 * u + 0.75**0.5 * np.abs(v)) - 27**-0.25


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two bars of 1.25 × 0.5."""
    u, v = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(u - 0.625, v - 0.25), np.maximum(v - 0.625, u - 0.25))


def _arrow(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """From −1 to 1 on the u axis before the scaling to area 1: a shaft to 0.2, then a head of half-width 0.55."""
    scale = 0.848**0.5
    u, v = u * scale, np.abs(v) * scale
    shaft = np.maximum(np.maximum(-1 - u, u - 0.3), v - 0.17)
    head = np.maximum(0.2 - u, (0.55 * (u - 1) + 0.8 * v) / (0.55**2 + 0.8**2) ** 0.5)
    return np.minimum(shaft, head) / scale


def _dart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Before the scaling to area 1: point (1, 0), tails (−1, ±0.6), notch (−0.5, 0)."""
    scale = 0.9**0.5
    u, v = u * scale, np.abs(v) * scale
    edge = (0.6 * (u - 1) + 2 * v) / (0.6**2 + 2**2) ** 0.5
    return np.maximum(edge, (-0.6 * (u + 0.5) - 0.5 * v) / (0.6**2 + 0.5**2) ** 0.5) / scale


# Signed distance from a shape of area 1 at the origin, pointing along +u; how far it reaches from its centre.
KINDS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], float]] = {
    "disc": (_disc, np.pi**-0.5),
    "square": (_square, 0.5**0.5),
    "triangle": (_triangle, 2 * 27**-0.25),
    "cross": (_cross, (0.625**2 + 0.25**2) ** 0.5),
    "arrow": (_arrow, ((1 + 0.17**2) / 0.848) ** 0.5),
    "dart": (_dart, ((1 + 0.6**2) / 0.9) ** 0.5),
}


def reach(scene: np.ndarray) -> np.ndarray:
    """Radius of the circle around each centre that holds the shape, in the unit of ``size``; 0 where there is none."""
    factor = np.zeros(scene.shape)
    for kind, (_, r) in KINDS.items():
        factor[scene["kind"] == kind] = r
    return factor * scene["size"]


def coverage(shapes: np.ndarray, size: int) -> np.ndarray:
    """How much of each pixel each shape covers: ``FACTORS`` (m,), in pixels, to float64 (m, size, size) in [0, 1]."""
    at = np.arange(size) + 0.5
    covered = np.zeros((len(shapes), size, size))
    for kind, (distance, _) in KINDS.items():
        rows = np.flatnonzero(shapes["kind"] == kind)
        if len(rows):
            x, y, scale, angle = (shapes[f][rows, None, None] for f in ("x", "y", "size", "angle"))  # (rows, 1, 1)
            cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
            dx, dy = at - x, at[:, None] - y
            u, v = (dx * cos - dy * sin) / scale, (dx * sin + dy * cos) / scale
            covered[rows] = np.clip(0.5 - distance(u, v) * scale, 0, 1)
    return covered


def rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Hue in degrees, saturation and value in [0, 1], each (...), to red, green, blue (..., 3) in [0, 1].

    >>> rgb(np.array([0, 60, 240]), np.ones(3), np.ones(3)).tolist()
    [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    k = (np.array([5, 3, 1]) + hue[..., None] / 60) % 6
    return value[..., None] * (1 - saturation[..., None] * np.clip(np.minimum(k, 4 - k), 0, 1))


def background(streams: Streams, n: int, size: int, texture: float) -> np.ndarray:
    """Smooth random gradients with a finer random texture of amplitude ``texture``, float64 (n, 3, size, size).

    Nearly grey, around middle brightness: a mixture of saturated colours has the same mean, so that shapes of any
    hue stand out and their number does not show in the mean colour.
    """
    base = 0.5 + streams.uniform("brightness", n, 1, low=-0.12, high=0.12)
    base = base + streams.uniform("tint", n, 3, low=-0.06, high=0.06)
    slope = streams.uniform("gradient", n, 3, COARSE, COARSE, low=-1, high=1)
    grain = streams.uniform("texture", n, 1, FINE, FINE, low=-1, high=1)
    steep = streams.uniform("steepness", n, 1, 1, 1, low=0.05, high=0.15)
    return base[:, :, None, None] + steep * _smooth(slope, size) + texture * _smooth(grain, size)


def _smooth(knots: np.ndarray, size: int) -> np.ndarray:
    """Knots (n, c, k, k) interpolated to (n, c, size, size), with the weight ``3t² − 2t³`` between neighbours."""
    at = (np.arange(size) + 0.5) / size * (knots.shape[-1] - 1)
    left = np.minimum(at.astype(np.int64), knots.shape[-1] - 2)
    t = at - left
    t = t * t * (3 - 2 * t)
    wide = knots[..., left] * (1 - t) + knots[..., left + 1] * t  # (n, c, k, size)
    t = t[:, None]
    return wide[..., left, :] * (1 - t) + wide[..., left + 1, :] * t


def paint(streams: Streams, scenes: np.ndarray, size: int, texture: float) -> np.ndarray:
    """Draw scenes, ``FACTORS`` (n, slots) in pixels, in the order of their slots: uint8 (n, 3, size, size).

    Saturation and value differ from shape to shape, contrast, brightness and noise from image to image. Contrast
    shrinks towards grey, which leaves hues as they are.
    """
    n, slots = scenes.shape
    pixels = background(streams, n, size, texture)
    saturation = streams.uniform("saturation", n, slots, low=0.75)
    value = streams.uniform("value", n, slots, low=0.8)
    colours = rgb(scenes["hue"], saturation, value)  # (n, slots, 3)
    for s in range(slots):
        rows = np.flatnonzero(scenes["kind"][:, s] != "")
        covered = coverage(scenes[rows, s], size)[:, None]  # (rows, 1, size, size)
        pixels[rows] += covered * (colours[rows, s, :, None, None] - pixels[rows])
    contrast = streams.uniform("contrast", n, 1, 1, 1, low=0.65)
    shift = streams.uniform("shift", n, 1, 1, 1, low=-0.5, high=0.5) * (1 - contrast)
    noise = streams.uniform("noise", n, 3, size, size, low=-1) * streams.uniform("noisiness", n, 1, 1, 1, high=0.06)
    pixels = 0.5 + contrast * (pixels - 0.5) + shift + noise
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
