"""What gates and terms know of the image's class: those of the prompt experts beside those of the content experts.

Of every image a head has four vectors, each an average over its queries or that of CLS: the gates of the P prompts, the
gates of the N content tokens, the prompt term and the content term (e). They are the weights and the parts of the
attention output as they stand in it; both sides are measured in the same way, so that they compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..decomposition import decompose
from ..errors import unknown
from ..prompts.base import Prompt
from ..stats.intervals import Interval
from ..vit import VisionTransformer
from .mutual_information import Information, clustered, information
from .over_images import centred, check_sample, checked_labels, ratio, resample_weights

OF = ("gates", "terms")
FIELDS = {"gates": ("prompt_gates", "content_gates"), "terms": ("prompt_term", "content_term")}


def expert_vectors(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt,
    of: str = "gates",
    queries: str = "all",
    layers: list[int] | None = None,
    batch: int = 16,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By layer, prompt and content vectors of every image: (n, H, P or e) and (n, H, N or e), float64.

    ``of``: "gates" or "terms"; ``queries``: that of "cls", or the mean over "all". Streamed by ``batch``.
    """
    if of not in OF:
        raise unknown("of", of, OF)
    check_sample(images, prompt, batch, queries)
    found: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for start in range(0, len(images), batch):
        for split in decompose(vit, images[start : start + batch], prompt, layers=layers, keep=(of,)):
            both = (getattr(split, name).detach() for name in FIELDS[of])  # (B, H, Q, K)
            rows = (v[:, :, 0] if queries == "cls" else v.double().mean(2) for v in both)
            found.setdefault(split.layer, []).append(tuple(v.double().cpu() for v in rows))
    return {
        layer: tuple(torch.cat(side).numpy() for side in zip(*parts, strict=True)) for layer, parts in found.items()
    }


@dataclass(frozen=True)
class ExpertInformation:
    """Mutual information with the class in one layer, in nats: one ``Information`` a head for prompts and content."""

    layer: int
    of: str
    prompt: tuple[Information, ...]
    content: tuple[Information, ...]


def expert_information(
    vit: VisionTransformer,
    images: Tensor,
    labels: Tensor,
    prompt: Prompt,
    of: str = "gates",
    queries: str = "all",
    layers: list[int] | None = None,
    clusters: int | None = None,
    batch: int = 16,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[ExpertInformation]:
    """Mutual information between the class and the image's gates, or terms; one ``ExpertInformation`` a layer.

    The vectors of a head are put into ``clusters`` (as many as classes by default, n/5 at most) without sight of the
    labels; the information of the clusters is estimated with chance taken off (``mutual_information.information``), a
    lower bound of that of the vectors. ``bias.bias_check`` says how far such an estimate is off for n images.
    ``labels`` (n,), integers. Raises ``ValueError`` for labels that do not fit the images or name one class only, for
    less than two images a class on average, and as ``gate_usage`` does.
    """
    codes = checked_labels(labels, images)
    clusters = max(2, min(int(codes.max()) + 1, len(codes) // 5)) if clusters is None else clusters
    vectors = expert_vectors(vit, images, prompt, of, queries, layers, batch)
    options = {"resamples": resamples, "level": level, "seed": seed}

    def of_heads(side: np.ndarray) -> tuple[Information, ...]:
        return tuple(information(clustered(x, clusters, seed), codes, **options) for x in side.swapaxes(0, 1))

    return [ExpertInformation(layer, of, *(of_heads(side) for side in both)) for layer, both in vectors.items()]


@dataclass(frozen=True)
class Specialisation:
    """How class-specific one layer's gates (or terms) are: intervals of arrays (H,).

    ``prompt`` and ``content``: share of the variance over images that is between classes, summed over the experts (or
    components) of the group; ``difference``, prompt − content, each from the same resamples. NaN where nothing varies.
    ``prompts`` (H, P) and ``contents`` (H, N): the share of each expert or component alone, without interval.
    """

    layer: int
    of: str
    prompt: Interval
    content: Interval
    difference: Interval
    prompts: np.ndarray
    contents: np.ndarray


def specialisation(
    vit: VisionTransformer,
    images: Tensor,
    labels: Tensor,
    prompt: Prompt,
    of: str = "gates",
    queries: str = "all",
    layers: list[int] | None = None,
    batch: int = 16,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Specialisation]:
    r"""Share of the variance of gates (or terms) that lies between classes, one ``Specialisation`` a layer.

    With the sums of squares within classes W and in all T, of K classes and n images,
    :math:`\epsilon^2 = 1 - \frac{W / (n - K)}{T / (n - 1)}`: 0 on average where the class says nothing (single values
    may be negative), 1 where all images of a class agree. The number of experts does not enter, so P prompts and N
    content tokens compare. Intervals resample images, and are moved to have their mean at the estimate. Raises as
    ``expert_information`` does.

    Source: Kelley, PNAS 21, 1935, for the correction.
    """
    codes = checked_labels(labels, images)
    weights = resample_weights(len(codes), resamples, seed)
    weights = np.concatenate([np.full((1, len(codes)), 1 / len(codes)), weights])
    found = []
    for layer, both in expert_vectors(vit, images, prompt, of, queries, layers, batch).items():
        shares = [
            np.stack([between_share(x, codes, weights) for x in side.swapaxes(0, 1)], axis=1) for side in both
        ]  # (1 + R, H) each
        pair = [*shares, shares[0] - shares[1]]
        intervals = [centred(s[0], s[1:], level, len(codes)) for s in pair]
        alone = (np.apply_along_axis(lone_share, 0, side, codes) for side in both)
        found.append(Specialisation(layer, of, *intervals, *alone))
    return found


def lone_share(x: np.ndarray, codes: np.ndarray) -> float:
    """ε² of one number an image, (n,)."""
    return float(between_share(x[:, None], codes, np.full((1, len(x)), 1 / len(x)))[0])


def between_share(x: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """ε² of vectors x (n, D) with classes ``codes`` (n,), for each row of weights (R, n), which sum to 1: (R,).

    By inner products: the sum of squares of a class's mean is wᵀGw over its images, so no resample copies x. Values
    that differ by rounding alone do not vary: NaN.

    >>> x = np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> between_share(x, np.array([0, 0, 1, 1]), np.full((1, 4), 0.25))
    array([1.])
    """
    n = len(x)
    spread = x - x.mean(0)
    if np.abs(spread).max() <= 1e-6 * np.abs(x).max():
        return np.full(len(weights), np.nan)
    gram = spread @ spread.T  # (n, n)
    second = weights @ np.diag(gram)
    total = second - ((weights @ gram) * weights).sum(1)
    total = np.where(total > 1e-12 * second.max(), total, 0)
    classes, means = np.zeros(len(weights)), np.zeros(len(weights))
    for k in np.unique(codes):
        rows = codes == k
        w = weights[:, rows]
        size = w.sum(1)
        classes += size > 0
        means += ((w @ gram[np.ix_(rows, rows)]) * w).sum(1) / np.where(size > 0, size, 1)
    return 1 - ratio((second - means) * (n - 1) / (n - classes), total)
