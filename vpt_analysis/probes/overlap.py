r"""Do prompts say what the content says already?

In one head the content values :math:`v_i` of all tokens and images have the second moment
:math:`C = \mathrm E\,v v^\top` (e, e); its first r eigenvectors U, those that hold a share of its trace, span what the
content says. The overlap of a prompt is the share of its value in that span,

.. math:: \rho_j = \frac{\mathrm E \|U^\top v'_j\|^2}{\mathrm E \|v'_j\|^2},

r / e for a direction at random; over heads numerator and denominator are summed. For static tied prompts
:math:`v'_j = W_V\,\mathrm{LN1}(p_j) + b_V`. The span of all values, without a share cut off, is the whole space as soon
as there are e tokens, and would tell nothing.

That prompts should not double what the pre-trained experts do is the advice of Yan et al., NeurIPS 2025, arXiv
2505.18455, from the rates of a contaminated mixture; ``overlap_effect`` asks whether overlap lowers a prompt's effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..decomposition import decompose
from ..prompts.base import Prompt
from ..stats.intervals import Interval, interval
from ..vit import VisionTransformer
from .over_images import FEW, check_sample, ratio, resample_weights


@dataclass(frozen=True)
class Overlap:
    """Overlap of one layer's prompt values with the content's. ``shares`` (H, P) and, over heads, ``pooled`` (P,), with
    intervals over images, the span estimated anew in each resample; ``dimension`` (H,), r; ``chance`` (H,), r / e;
    ``angles``, for each head the principal angles (radians, ascending) between the content's span and that of the
    prompts, found by the same rule."""

    layer: int
    shares: Interval
    pooled: Interval
    dimension: np.ndarray
    chance: np.ndarray
    angles: tuple[np.ndarray, ...]


def value_overlap(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt,
    energy: float = 0.9,
    layers: Iterable[int] | None = None,
    batch: int = 16,
    resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> list[Overlap]:
    """Share of each prompt's value in the span that holds ``energy`` of the content's, an ``Overlap`` a layer.

    Content values are those of the prompted model, all N tokens. Streamed by ``batch``; per image a layer keeps the
    second moment of its content values, H·e² numbers, and its prompt values. NaN for prompts whose value is 0. Raises
    ``ValueError`` for an ``energy`` outside (0, 1], and as ``gate_usage`` does.
    """
    check_energy(energy)
    check_sample(images, prompt, batch)
    weights = all_weights(len(images), resamples, seed)
    return [
        _overlap(layer, values, energy, weights, level)[0]
        for layer, values in head_values(vit, images, prompt, layers, batch).items()
    ]


def check_energy(energy: float) -> None:
    if not 0 < energy <= 1:
        raise ValueError(f"energy is {energy!r}; expected a share in (0, 1], such as 0.9")


def all_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """Equal weights of n images, and below them those of the resamples: (1 + resamples, n)."""
    return np.concatenate([np.full((1, n), 1 / n), resample_weights(n, resamples, seed)])


def head_values(
    vit: VisionTransformer, images: Tensor, prompt: Prompt, layers: Iterable[int] | None, batch: int
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """By layer, second moments of each image's content values (n, H, e, e) and prompt values (n or 1, H, P, e)."""
    layers = None if layers is None else list(layers)
    found: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for start in range(0, len(images), batch):
        for split in decompose(vit, images[start : start + batch], prompt, layers=layers, keep=("gates",)):
            v = split.content_experts.detach().double()  # (B, H, N, e)
            moment = v.transpose(-1, -2) @ v / v.shape[2]
            found.setdefault(split.layer, []).append((moment.cpu(), split.prompt_experts.detach().double().cpu()))
    values = {}
    for layer, parts in found.items():
        moments, prompts = zip(*parts, strict=True)
        shared = len(prompts[0]) == 1  # the first batch has at least two images
        values[layer] = torch.cat(moments).numpy(), (prompts[0] if shared else torch.cat(prompts)).numpy()
    return values


def _overlap(
    layer: int, values: tuple[np.ndarray, np.ndarray], energy: float, weights: np.ndarray, level: float
) -> tuple[Overlap, np.ndarray]:
    """The overlap of one layer, and ``pooled`` for every row of weights, (1 + R, P)."""
    moments, prompts = values
    n, heads, e, _ = moments.shape
    spans = [span(m, energy) for m in moments.mean(0)]
    rank = np.array([u.shape[1] for u in spans])
    parts = [explained(moments[:, h], prompts[:, h], weights, rank[h]) for h in range(heads)]
    inside, whole = (np.stack(side, axis=1) for side in zip(*parts, strict=True))  # (1 + R, H, P)
    shares, pooled = ratio(inside, whole), ratio(inside.sum(1), whole.sum(1))
    flat = prompts.swapaxes(0, 1).reshape(heads, -1, e)
    theirs = [span(v.T @ v, energy) for v in flat]
    angles = tuple(principal_angles(a, b) for a, b in zip(spans, theirs, strict=True))
    intervals = (interval(s[0], s[1:], level, n) for s in (shares, pooled))
    return Overlap(layer, *intervals, rank, rank / e, angles), pooled


def span(moment: np.ndarray, energy: float) -> np.ndarray:
    """The fewest eigenvectors of a second moment (e, e) that hold the share ``energy`` of its trace: (e, r).

    >>> span(np.diag([8.0, 1.0, 1.0]), 0.8).shape, span(np.diag([8.0, 1.0, 0.0]), 1.0).shape
    ((3, 1), (3, 2))
    """
    eigenvalues, vectors = np.linalg.eigh(moment)
    held = np.cumsum(eigenvalues[::-1])
    rank = int((held < energy * (1 - 1e-12) * held[-1]).sum()) + 1 if held[-1] > 0 else 0
    return vectors[:, ::-1][:, :rank]


def principal_angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Principal angles between the spans of orthonormal columns (e, r) and (e, s), ascending: (min(r, s),).

    >>> principal_angles(np.eye(3)[:, :2], np.eye(3)[:, 1:]).round(3)
    array([0.   , 1.571])
    """
    from scipy.linalg import subspace_angles

    return subspace_angles(a, b)[::-1] if a.size and b.size else np.zeros(0)


def explained(
    moments: np.ndarray, prompts: np.ndarray, weights: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """E‖Uᵀv'_j‖² and E‖v'_j‖² of one head, for every row of weights: (R, P) each.

    ``moments`` (n, e, e), ``prompts`` (n or 1, P, e), ``weights`` (R, n).
    """
    n, e, _ = moments.shape
    inside, whole = [], []
    for some in np.array_split(weights, max(1, -(-len(weights) * e * e // FEW))):
        u = np.linalg.eigh((some @ moments.reshape(n, -1)).reshape(-1, e, e))[1][..., e - rank :]  # (R, e, r)
        if len(prompts) == 1:
            inside.append(((prompts[0] @ u) ** 2).sum(-1))
            whole.append(np.broadcast_to((prompts[0] ** 2).sum(-1), inside[-1].shape))
            continue
        found = []
        for v in prompts.swapaxes(0, 1):  # one prompt, (n, e)
            second = (some @ (v[:, :, None] * v[:, None, :]).reshape(n, -1)).reshape(-1, e, e)
            found.append((((second @ u) * u).sum((1, 2)), np.trace(second, axis1=1, axis2=2)))
        for side, out in zip(zip(*found, strict=True), (inside, whole), strict=True):
            out.append(np.stack(side, axis=1))
    return np.concatenate(inside), np.concatenate(whole)
