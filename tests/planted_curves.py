"""Learning curves of known truth with the noise of seeds, for tests of what is made of them."""

from __future__ import annotations

import numpy as np

SIZES = np.array([50.0, 150, 500, 1500, 5000])


def truth(at: tuple[float, float, float], n: np.ndarray = SIZES) -> np.ndarray:
    """floor + scale (n / 50)^-exponent, of the parameters ``at``."""
    floor, scale, exponent = at
    return floor + scale * (np.asarray(n) / 50) ** -exponent


def size_of(at: tuple[float, float, float], error: np.ndarray | float) -> np.ndarray | float:
    """The size at which ``truth`` is ``error``."""
    floor, scale, exponent = at
    return 50 * ((error - floor) / scale) ** (-1 / exponent)


def noisy(curves: list[np.ndarray], seeds: int, generator: np.random.Generator) -> list[np.ndarray]:
    """(K, S) for each of ``curves`` (K,): normal of standard deviation 0.02 · (error + 0.1)^½, about that of accuracies
    over subsets and initialisations. Of its variance a seed has 30 % in common at all sizes and in all methods (the
    subset), 20 % at all sizes of a method, and half is of its own."""
    subset = generator.normal(size=seeds)
    values = []
    for curve in curves:
        noise = np.sqrt(0.3) * subset + np.sqrt(0.2) * generator.normal(size=seeds)
        noise = noise + np.sqrt(0.5) * generator.normal(size=(len(curve), seeds))
        values.append(curve[:, None] + 0.02 * np.sqrt(curve + 0.1)[:, None] * noise)
    return values


def holds(found, true: float) -> np.ndarray:
    """Whether intervals take in ``true``, which is positive, to rounding."""
    return (np.asarray(found.low) <= true * (1 + 1e-9)) & (np.asarray(found.high) >= true * (1 - 1e-9))


def agrees(hits: np.ndarray, share: float) -> bool:
    """Whether the share of ``hits`` is ``share``: within 3 errors of the binomial, and 0.015 for the error of the table
    that it stands in."""
    hits = np.asarray(hits, dtype=float)
    return bool(abs(hits.mean() - share) <= 3 * np.sqrt(share * (1 - share) / hits.size) + 0.015)
