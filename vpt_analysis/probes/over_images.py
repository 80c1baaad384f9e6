"""What probes over a sample of images share: which sample they take, and the bootstrap of what is made of means."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..decomposition import _drops_out
from ..errors import unknown
from ..prompts.base import Prompt
from ..stats.intervals import Interval, interval

QUERIES = ("cls", "all")
FEW = 4_000_000  # resampled numbers held at a time


def check_sample(images: Tensor, prompt: Prompt, batch: int, queries: str = "all") -> None:
    """Raise where a sample of images, a prompt, a batch size or a kind of queries cannot be used."""
    if queries not in QUERIES:
        raise unknown("queries", queries, QUERIES)
    if not isinstance(prompt, Prompt):
        raise TypeError(f"prompt is {type(prompt).__name__}; expected one: prompts.create(name, vit.config, length)")
    if _drops_out(prompt):
        raise ValueError("the prompt is in training mode with dropout, so every call would differ; prompt.eval() first")
    if prompt.length == 0:
        raise ValueError("a prompt of length 0 has no experts and no gates; give one of length 1 or more")
    if len(images) < 2:
        raise ValueError(f"{len(images)} images given; intervals over images need at least 2")
    if not isinstance(batch, int) or batch < 2:
        raise ValueError(f"batch is {batch!r}; shared and per-image experts are told apart in batches of at least 2")


def checked_labels(labels: Tensor, images: Tensor) -> np.ndarray:
    """Labels as 0 … K−1, int64 (n,); ``ValueError`` where they are not one integer an image, of 2 ≤ K ≤ n/2 classes."""
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.shape != (len(images),) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"labels have shape {tuple(labels.shape)} and are {labels.dtype}; expected one integer for each of the "
            f"{len(images)} images"
        )
    classes, codes = np.unique(labels.numpy(), return_inverse=True)
    if len(classes) < 2:
        raise ValueError("all images are of one class; what tells classes apart needs at least two")
    if 2 * len(classes) > len(codes):
        raise ValueError(
            f"{len(classes)} classes among {len(codes)} images; fewer than two images a class cannot tell what is the "
            f"class's from what is the image's. Give more images, or fewer classes."
        )
    return codes


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


def centred(estimate: np.ndarray, drawn: np.ndarray, level: float, n: int) -> Interval:
    """``estimate`` (...) with the bounds of ``drawn`` (resamples, ...) moved so that their mean is the estimate.

    For statistics that are larger in resamples than in samples because a resample holds images twice, and copies agree
    with each other: shares of variance between classes, plug-in information.
    """
    return interval(estimate, drawn - drawn.mean(0) + estimate, level, n)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, NaN where b is 0."""
    a, b = np.broadcast_arrays(a, b)
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)
