"""Do prompts that say what the content does not say matter more? Overlap of values against the effect of ablation.

Yan et al. (NeurIPS 2025, arXiv 2505.18455) advise from rates of estimation that prompts should not double what the
pre-trained experts do; for attention it is a hypothesis, and a rank correlation of the two decides it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from ..prompts.base import Prompt
from ..stats.intervals import Interval, interval
from ..vit import VisionTransformer
from .ablation import Ablation, ablation
from .over_images import check_sample, ratio
from .overlap import Overlap, _overlap, all_weights, check_energy, head_values


@dataclass(frozen=True)
class OverlapEffect:
    """Overlap against effect: Spearman's rank correlation over the prompts of a layer, ``by_layer`` (L',), and its mean
    over layers, ``correlation``; intervals resample images in both quantities at once. ``p_value``, two-sided, of no
    relation: effects permuted over the prompts of each layer. Layers in which either does not vary have NaN and are
    left out of the mean."""

    correlation: Interval
    by_layer: Interval
    p_value: float
    overlaps: tuple[Overlap, ...]
    ablation: Ablation


def overlap_effect(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt,
    head: nn.Module | None = None,
    labels: Tensor | None = None,
    measure: str = "feature",
    energy: float = 0.9,
    layers: Iterable[int] | None = None,
    batch: int = 16,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> OverlapEffect:
    """Is a prompt's effect the smaller, the more its value overlaps with the content's? Then the correlation is < 0.

    ``measure``, ``head`` and ``labels`` are those of ``ablation``, which also says which mechanisms are refused. The
    intervals are about the images, with these prompts; the ``p_value`` about these prompts, as if each layer's had been
    drawn alike. Raises ``ValueError`` for fewer than 3 prompt keys a layer, which have no rank correlation to speak of.
    """
    check_energy(energy)
    check_sample(images, prompt, batch)
    if prompt.keys < 3:
        raise ValueError(f"{prompt.keys} prompt keys a layer; a rank correlation over prompts needs at least 3")
    layers = None if layers is None else list(layers)
    effect = ablation(vit, images, prompt, head, labels, measure, layers, batch, resamples, level, seed)
    weights = all_weights(len(images), resamples, seed)
    values = head_values(vit, images, prompt, layers, batch)
    found = [_overlap(layer, values[layer], energy, weights, level) for layer in effect.layers]
    overlap = np.stack([pooled for _, pooled in found], axis=1)  # (1 + R, L', P')
    means = np.tensordot(weights, effect.effects, 1)
    by_layer = rank_correlation(overlap, means)
    varies = np.isfinite(by_layer[0])
    mean = by_layer[:, varies].mean(1) if varies.any() else np.full(len(by_layer), np.nan)
    n = len(images)
    return OverlapEffect(
        interval(mean[0], mean[1:], level, n),
        interval(by_layer[0], by_layer[1:], level, n),
        permutation_p(overlap[0, varies], means[0, varies], seed) if varies.any() else float("nan"),
        tuple(one for one, _ in found),
        effect,
    )


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation over the last dimension, ties at their mean rank: (..., P) twice to (...).

    Values that agree to 12 digits of the largest are ties. NaN where either has one value only.

    >>> float(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([5.0, 4.0, -9.0])))
    -1.0
    """
    from scipy.stats import rankdata

    a, b = (rankdata(np.round(v / max(np.abs(v).max(), 1e-300), 12), axis=-1) for v in (a, b))
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    return ratio((a * b).sum(-1), np.sqrt((a * a).sum(-1) * (b * b).sum(-1)))


def permutation_p(overlap: np.ndarray, effects: np.ndarray, seed: int, permutations: int = 2000) -> float:
    """Two-sided p of the mean rank correlation of (L, P) and (L, P), effects permuted within each layer."""
    generator = np.random.default_rng([seed, 1])
    shuffled = generator.permuted(np.broadcast_to(effects, (permutations, *effects.shape)), axis=2)
    null = rank_correlation(np.broadcast_to(overlap, shuffled.shape), shuffled).mean(-1)
    seen = rank_correlation(overlap, effects).mean()
    return float((1 + (np.abs(null) >= abs(seen) - 1e-12).sum()) / (permutations + 1))
