r"""Which prompts do queries attend to, how evenly, and does it depend on the query?

The gates of one query over N content and P prompt experts are taken as shares of its weight,
:math:`\pi_j = |g_j| / \sum_k |g_k|`: under one softmax that is :math:`g_j` itself; where content and prompts have
softmaxes of their own the shares are those of the two weights together. "A prompt is attended" has the probability
:math:`\lambda_i = \sum_{j \in P} \pi_{ij}` for query i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..decomposition import decompose
from ..prompts.base import Prompt
from ..stats.intervals import Interval
from ..vit import VisionTransformer
from .over_images import bootstrap_means, check_sample, ratio


@dataclass(frozen=True)
class Usage:
    r"""Gates of one layer: intervals over images of arrays (H,), entropies in nats.

    ``mass``: mean λ. ``entropy``: of the prompt attended, given the query and that a prompt is attended,
    :math:`-\sum_i \sum_j \pi_{ij} \log(\pi_{ij} / \lambda_i) / \sum_i \lambda_i`, between 0 and log P.
    ``content_entropy``: the same over the content. ``total_entropy``: mean over queries of the entropy over all N + P
    keys. ``shares`` (H, P): of the prompt mass that each prompt takes, :math:`u_j`. ``effective``: how many prompts are
    used, :math:`\exp H(u)`. ``routing``: :math:`H(u)` − ``entropy``, the mutual information of query and prompt
    attended; 0 where all queries use the prompts alike. ``dead``: how many prompts take less than the threshold share.
    NaN where no prompt of the head has mass.
    """

    layer: int
    mass: Interval
    entropy: Interval
    content_entropy: Interval
    total_entropy: Interval
    shares: Interval
    effective: Interval
    routing: Interval
    dead: Interval


def gate_usage(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt,
    queries: str = "all",
    layers: list[int] | None = None,
    dead: float = 0.01,
    batch: int = 16,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Usage]:
    """Entropy and usage of the prompts' gates, one ``Usage`` a layer; exact for the sample, streamed by ``batch``.

    ``queries``: "cls" or "all" content queries. A prompt is dead in a head where its share of the prompt mass is below
    ``dead``/P, a hundredth of an even share by default. Intervals resample images, all queries of an image together.
    Raises ``ValueError`` for prompts of length 0, fewer than 2 images, and unknown ``queries``.

    Source: the entropies are Shannon's; their sum over both groups is the chain rule.
    """
    check_sample(images, prompt, batch, queries)
    if not 0 < dead < 1:
        raise ValueError(f"dead is {dead!r}; expected a share of an even share of the mass, between 0 and 1")
    found: dict[int, list[np.ndarray]] = {}
    for start in range(0, len(images), batch):
        for split in decompose(vit, images[start : start + batch], prompt, layers=layers, keep=("gates",)):
            rows = slice(0, 1) if queries == "cls" else slice(None)
            content, prompts = (g.detach()[:, :, rows].double() for g in (split.content_gates, split.prompt_gates))
            found.setdefault(split.layer, []).append(gate_moments(content, prompts).cpu().numpy())
    return [
        _usage(layer, np.concatenate(parts), dead, resamples=resamples, level=level, seed=seed)
        for layer, parts in found.items()
    ]


def gate_moments(content: Tensor, prompts: Tensor) -> Tensor:
    """Means over queries of gates (B, H, Q, N) and (B, H, Q, P), as shares: (B, H, 4 + P).

    In order: −Σ π log(π/λ) over prompts, the same over the content with 1 − λ, content mass, total entropy, and the
    mass of each prompt.
    """
    total = content.abs().sum(-1, keepdim=True) + prompts.abs().sum(-1, keepdim=True)  # (B, H, Q, 1)
    content, prompts = content.abs() / total, prompts.abs() / total
    inside = [within(group) for group in (prompts, content)]
    whole = within(torch.cat([content, prompts], dim=-1))
    moments = torch.stack([*inside, content.sum(-1), whole], dim=-1)
    return torch.cat([moments, prompts], dim=-1).mean(2)


def within(shares: Tensor) -> Tensor:
    """−Σ_j π_j log(π_j / Σπ) over the last dimension: the sum's size times the entropy of its parts.

    >>> float(within(torch.tensor([0.25, 0.25])))                    # half of the mass, on two: 0.5 · log 2
    0.3465735912322998
    """
    return torch.special.entr(shares).sum(-1) - torch.special.entr(shares.sum(-1))


def _usage(layer: int, moments: np.ndarray, dead: float, **options) -> Usage:
    n, heads, k = moments.shape
    prompts = k - 4

    def statistics(means: np.ndarray) -> np.ndarray:
        """(R, H·k) to (R, H, 7 + P)."""
        m = means.reshape(-1, heads, k)
        masses = m[..., 4:]
        mass = masses.sum(-1)
        shares = ratio(masses, mass[..., None])
        entropy, content_entropy = ratio(m[..., 0], mass), ratio(m[..., 1], m[..., 2])
        marginal = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(-1)
        idle = np.where(mass > 0, (np.nan_to_num(shares) < dead / prompts).sum(-1), np.nan)
        scalars = [mass, entropy, content_entropy, m[..., 3], np.exp(marginal), marginal - entropy, idle]
        return np.concatenate([np.stack(scalars, axis=-1), shares], axis=-1)

    found = bootstrap_means(moments.reshape(n, -1), statistics, **options)

    def part(i: int | slice) -> Interval:
        return Interval(*(x[..., i] for x in (found.estimate, found.low, found.high)), found.n)

    mass, entropy, content, total, effective, routing, idle = (part(i) for i in range(7))
    return Usage(layer, mass, entropy, content, total, part(slice(7, None)), effective, routing, idle)
