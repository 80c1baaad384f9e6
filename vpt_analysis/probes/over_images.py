"""What probes over a sample of images share: which sample they take, and the bootstrap of what is made of means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ..errors import unknown
from ..intervals import Interval, interval
from ..prompts.base import Prompt

QUERIES = ("cls", "all")
FEW = 4_000_000  # resampled numbers held at a time


def check_sample(images: Tensor, prompt: Prompt, batch: int, queries: str = "all") -> None:
    """Raise ``ValueError`` where a sample of images, a prompt, a batch size or a kind of queries cannot be used."""
    if queries not in QUERIES:
        raise unknown("queries", queries, QUERIES)
    if prompt.length == 0:
        raise ValueError("a prompt of length 0 has no experts and no gates; give one of length 1 or more")
    if len(images) < 2:
        raise ValueError(f"{len(images)} images given; intervals over images need at least 2")
    if not isinstance(batch, int) or batch < 2:
        raise ValueError(f"batch is {batch!r}; shared and per-image experts are told apart in batches of at least 2")


def resample_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """Shares of n images in ``resamples`` samples of n with replacement, (resamples, n); those ``bootstrap`` draws."""
    drawn = np.random.default_rng(seed).integers(n, size=(resamples, n))
    flat = np.bincount((drawn + n * np.arange(resamples)[:, None]).ravel(), minlength=resamples * n)
    return flat.reshape(resamples, n) / n


def bootstrap_means(
    moments: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of ``statistic(means)``, means (..., K) over images of ``moments`` (n, K).

    The same resamples and bounds as ``stats.bootstrap`` of that function, by one matrix product instead of a copy of
    the moments a resample. ``statistic`` maps (R, K) to (R, ...). Values that are not finite give bounds NaN.

    >>> ratio = lambda means: means[:, 0] / means[:, 1]
    >>> bootstrap_means(np.array([[1.0, 2.0], [2.0, 4.0]]), ratio, resamples=10)
    Interval(estimate=0.5, low=0.5, high=0.5, n=2)
    """
    n = len(moments)
    weights = resample_weights(n, resamples, seed)
    parts = np.array_split(weights, max(1, -(-weights.shape[0] * moments.shape[1] // FEW)))
    drawn = np.concatenate([statistic(some @ moments) for some in parts])
    return interval(statistic(moments.mean(0, keepdims=True))[0], drawn, level, n)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    a, b = np.broadcast_arrays(a, b)
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
