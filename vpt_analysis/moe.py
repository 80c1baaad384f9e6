r"""The mixture-of-experts view of prompted attention.

One query's output is :math:`y = \sum_j g_j f_j` over N content experts (values :math:`v_j`) and P prompt experts
(values :math:`v'_j`), with gates from the attention weights; a ``LayerSplit`` has both, as ``gates`` and ``experts``.
How much of the prompt's part moves with the input, and through what (gate or expert), is its **adaptivity spectrum**.
Shapes: B images, H heads, Q queries, N content tokens,
P prompts, e head width, n images of a sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .decomposition import decompose
from .errors import unknown
from .prompts.base import Prompt
from .vit import VisionTransformer

PARTS = ("constant", "gate", "expert", "remainder")


def prompt_singular_values(
    vit: VisionTransformer, images: Tensor, prompt: Prompt, layer: int, batch: int = 64
) -> Tensor:
    """Singular values of a layer's prompt term, stacked over images and queries: (H, e), descending, float64.

    The stack of n·N rows is never held: it is reduced batch by batch to its triangular factor, which keeps small
    singular values at full relative accuracy, unlike a Gram matrix.

    For static prompts at most min(P, e) of them are not zero (T3).
    """
    factor = None
    for start in range(0, len(images), batch):
        (split,) = decompose(vit, images[start : start + batch], prompt, layers=[layer], keep=("terms",))
        rows = split.prompt_term.double().transpose(0, 1).flatten(1, 2)  # (H, B*N, e)
        stacked = rows if factor is None else torch.cat([factor, rows], dim=1)
        factor = torch.linalg.qr(stacked, mode="r").R
    if factor is None:
        raise ValueError("no images given; the prompt term needs at least one")
    values = torch.linalg.svdvals(factor)
    return torch.nn.functional.pad(values, (0, vit.config.head_width - values.shape[-1]))


def numerical_rank(singular_values: Tensor, tolerance: float = 1e-6) -> Tensor:
    """How many singular values exceed ``tolerance`` times the first; (...,) int64, 0 where all are 0.

    >>> numerical_rank(torch.tensor([[4.0, 1.0, 1e-9], [0.0, 0.0, 0.0]]))
    tensor([2, 0])
    """
    first = singular_values[..., :1]
    return ((singular_values > tolerance * first) & (first > 0)).sum(-1)


@dataclass(frozen=True)
class Spectrum:
    """Adaptivity spectrum of one layer.

    ``shares`` (4,): shares of E‖t‖² of the prompt term t that are constant, gate-only variance, expert-only variance,
    and the remainder (interaction and covariances; may be negative); they sum to 1. ``intervals`` (4, 2): percentile
    bootstrap over images. ``per_head`` (H, 4). ``direction`` (H,): share of the first direction, the largest eigenvalue
    of E[t tᵀ] over its trace. ``energy`` (H,): E‖t‖². ``images``: n.
    """

    layer: int
    shares: np.ndarray
    intervals: np.ndarray
    per_head: np.ndarray
    direction: np.ndarray
    energy: np.ndarray
    images: int


def adaptivity_spectrum(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt,
    queries: str = "all",
    layers: list[int] | None = None,
    batch: int = 64,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Spectrum]:
    r"""How input-dependent is the prompt term? One ``Spectrum`` a layer.

    With means :math:`\bar g_j, \bar v_j` of prompt gates and values over images and queries, the prompt term
    :math:`t = \sum_j g_j v_j` splits into constant :math:`\sum \bar g_j \bar v_j`, gate part
    :math:`\sum (g_j - \bar g_j) \bar v_j`, expert part :math:`\sum \bar g_j (v_j - \bar v_j)` and interaction. Reported
    are energy shares of E‖t‖². For static experts the last two shares are 0 (T8). Exact for the sample; the intervals
    resample images, with the means recomputed in every resample. ``queries``: "cls" or "all" content queries.
    Shares are NaN where the prompt term is 0 everywhere.

    All is computed from per-image moments of P gates and P values, so memory is O(n·H·P·(P + e)).
    """
    if queries not in ("cls", "all"):
        raise unknown("queries", queries, ("cls", "all"))
    if prompt.length == 0:
        raise ValueError("a prompt of length 0 has no prompt term and so no adaptivity spectrum")
    if len(images) < 2:
        raise ValueError(f"{len(images)} images given; variation over images needs at least 2")
    if batch < 2:
        raise ValueError(f"batch is {batch}; the spectrum tells shared from per-image experts in batches of at least 2")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=resamples) / len(images)
    tail = (1 - level) / 2
    spectra = []
    for layer, moments in _moments(vit, images, prompt, queries, layers, batch):
        uniform = np.full((1, len(images)), 1 / len(images))
        parts = moments.parts(uniform)[0]  # (H, 5)
        few = max(1, 10_000_000 // (moments.M[0].size + moments.V[0].size))  # resamples at a time, within 100 MB
        boot = [moments.parts(some).sum(1) for some in np.array_split(counts, -(-resamples // few))]
        boot = np.concatenate(boot)  # (resamples, 5), heads summed
        intervals = np.quantile(boot[:, :4] / boot[:, 4:], [tail, 1 - tail], axis=0).T
        total, per_head = parts.sum(0), parts[:, :4] / parts[:, 4:]
        spectra.append(
            Spectrum(layer, total[:4] / total[4], intervals, per_head, moments.direction(), parts[:, 4], len(images))
        )
    return spectra


@dataclass
class _Moments:
    """Per-image moments, float64: gates' mean m (n, H, P) and second M (n, H, P, P), values V (n or 1, H, P, e)."""

    m: np.ndarray
    M: np.ndarray
    V: np.ndarray

    def parts(self, weights: np.ndarray) -> np.ndarray:
        """Energies (R, H, 5) of constant, gate, expert, remainder and total, for weights (R, n) over images."""
        static = len(self.V) == 1
        gram = self.V @ self.V.swapaxes(-1, -2)  # (n or 1, H, P, P)
        mean_gate = np.tensordot(weights, self.m, 1)  # (R, H, P)
        second = np.tensordot(weights, self.M, 1)  # (R, H, P, P)
        outer = mean_gate[..., :, None] * mean_gate[..., None, :]
        if static:
            mean_gram, spread = gram, None
            total = np.einsum("hpq,rhpq->rh", gram[0], second)
        else:
            mean_value = np.tensordot(weights, self.V, 1)  # (R, H, P, e)
            mean_gram = mean_value @ mean_value.swapaxes(-1, -2)
            spread = np.tensordot(weights, gram, 1) - mean_gram
            total = weights @ (gram * self.M).sum((-1, -2))
        constant = (mean_gram * outer).sum((-1, -2))
        gate = (mean_gram * (second - outer)).sum((-1, -2))
        expert = np.zeros_like(constant) if static else (spread * outer).sum((-1, -2))
        remainder = np.zeros_like(constant) if static else total - constant - gate - expert
        return np.stack([constant, gate, expert, remainder, total], axis=-1)

    def direction(self) -> np.ndarray:
        """Share of the largest eigenvalue of E[t tᵀ] in its trace, each head (H,)."""
        inner = self.M @ self.V  # (n, H, P, e)
        second = (self.V.swapaxes(-1, -2) @ inner).mean(0)  # (H, e, e)
        eigenvalues = np.linalg.eigvalsh(second)
        return eigenvalues[:, -1] / eigenvalues.sum(-1)


def _moments(
    vit: VisionTransformer, images: Tensor, prompt: Prompt, queries: str, layers: list[int] | None, batch: int
) -> Iterator[tuple[int, _Moments]]:
    """Per-image moments of every layer asked for."""
    m: dict[int, list] = {}
    M: dict[int, list] = {}
    V: dict[int, list] = {}
    for start in range(0, len(images), batch):
        for split in decompose(vit, images[start : start + batch], prompt, layers=layers, keep=("prompt",)):
            g = split.prompt_gates.double().cpu()
            g = g[:, :, :1] if queries == "cls" else g  # (B, H, Q, P)
            m.setdefault(split.layer, []).append(g.mean(2))
            M.setdefault(split.layer, []).append(g.transpose(-1, -2) @ g / g.shape[2])
            V.setdefault(split.layer, []).append(split.prompt_experts.detach().double().cpu())
    for layer in m:
        values = V[layer][0] if len(V[layer][0]) == 1 else torch.cat(V[layer])  # one set for all images, or one each
        yield layer, _Moments(torch.cat(m[layer]).numpy(), torch.cat(M[layer]).numpy(), values.numpy())
