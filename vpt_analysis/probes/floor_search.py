r"""Static prompts of free keys and values: the best keys, found by variable projection.

For given keys the best values are exact (``floors.floor``). What is left to search are the keys, by L-BFGS on

.. math:: F(K) = \min_V \; \|\text{wanted}(K) - A(K) V\|^2 + \mu \|V\|^2,

whose gradient is that at the minimising V (Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973). The small ridge μ is
in the search alone. So a floor is exact given its keys, and an upper bound on that of the best keys: how far starts
differ says how well the search does.

A prompt of length P can do what a shorter one does wherever a direction w has q·w < 0 for all queries of a head: keys
far along w have no mass. Then floors fall with P by construction, and each length starts from the last one's keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from sklearn.cluster import KMeans
from torch import Tensor

from ..attention import KeyGroup
from .floors import Floor, floor, gates
from .one_layer import OneLayer

RIDGE = 1e-10  # μ, a multiple of the number of items
FAR = 2000.0  # the score of a key without mass: exp(−FAR) is 0 in float64
KINDS = ("queries", "clusters")


@dataclass(frozen=True, eq=False)
class Found:
    """Static prompts of one length: ``keys`` (H, P, e), the exact ``floor`` given them, and ``start``, the floor at the
    keys that the search began with."""

    keys: Tensor
    floor: Floor
    start: float


def static_floor(layer: OneLayer, change: Tensor, keys: Tensor) -> Floor:
    """The floor of static values at static ``keys`` (H, P, e), joined by one softmax."""
    found = gates(layer, KeyGroup(keys[None], torch.zeros_like(keys)[None]))
    return floor(found.prompt, found.wanted(layer, change), float(change.square().sum()))


def starting_keys(layer: OneLayer, length: int, kind: str, seed: int, mass: float = 0.1, spread: float = 1.0) -> Tensor:
    """Keys (H, P, e) along queries drawn at random, or along the centres of their clusters ("clusters", k-means).

    Each key's scores have standard deviation ``spread`` over the population, and are moved along the mean query so that
    each has the share ``mass`` / P of the content's mass, at the mean.
    """
    if kind not in KINDS:
        raise ValueError(f"kind of start is {kind!r}; expected one of {KINDS}")
    if length > len(layer.query):
        raise ValueError(f"{length} keys from {len(layer.query)} queries; give more images or queries")
    rng = np.random.default_rng(seed)
    found = []
    for h in range(layer.heads):
        q = layer.query[:, h]
        mean = q.mean(0)
        centred = q - mean
        if kind == "clusters":
            means = KMeans(length, n_init=1, random_state=seed, max_iter=20).fit(centred.numpy())
            along = torch.from_numpy(means.cluster_centers_)
        else:
            along = centred[torch.from_numpy(rng.choice(len(q), length, replace=False))]
        along = along + 1e-3 * centred.std() * torch.from_numpy(rng.standard_normal(along.shape))
        deviation = (centred @ along.T).std(0)  # 0 where all queries are equal
        key = spread * along / torch.where(deviation > 1e-9 * along.norm(dim=1), deviation, torch.inf)[:, None]
        wanted = layer.lse[:, h].mean() + np.log(mass / length)
        found.append(key + (wanted - key @ mean)[:, None] * mean / mean.square().sum())
    return torch.stack(found)


def massless(layer: OneLayer) -> Tensor | None:
    """A key (H, e) that no query gives any mass, beside the content; None where the queries of a head surround 0.

    By linear programming: the w of |w| ≤ 1 in every coordinate whose largest score is the smallest.
    """
    keys = []
    for h in range(layer.heads):
        q = layer.query[:, h].numpy()
        e = q.shape[1]
        rows = np.hstack([q, -np.ones((len(q), 1))])  # q·w − t ≤ 0
        solved = linprog(np.eye(e + 1)[e], A_ub=rows, b_ub=np.zeros(len(q)), bounds=[(-1, 1)] * e + [(None, None)])
        top = float((q @ solved.x[:e]).max()) if solved.status == 0 else 0.0
        if not top < -1e-9 * np.abs(q).max():
            return None
        keys.append(torch.from_numpy(solved.x[:e] * FAR / -top))
    return torch.stack(keys)


def search(layer: OneLayer, change: Tensor, keys: Tensor, steps: int = 40) -> Found:
    """L-BFGS over keys (H, P, e) from ``keys``, at most ``steps`` iterations; never worse than where it began."""
    first = static_floor(layer, change, keys)
    if steps == 0:
        return Found(keys, first, first.share)
    energy, query, lse = float(change.square().sum()), layer.query.transpose(0, 1), layer.lse.T[..., None]
    content, moved = layer.content.transpose(0, 1), change.transpose(0, 1)  # (H, M, e)
    ridge = RIDGE * len(change) * torch.eye(keys.shape[1], dtype=torch.float64)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        k = torch.from_numpy(x).view_as(keys).requires_grad_()
        with torch.enable_grad():
            scores = query @ k.mT  # (H, M, P)
            total = torch.logaddexp(torch.logsumexp(scores, -1, keepdim=True), lse)
            weights = torch.exp(scores - total)
            wanted = moved - torch.expm1(lse - total) * content
            with torch.no_grad():
                normal = torch.linalg.cholesky(weights.mT @ weights + ridge)
                values = torch.cholesky_solve(weights.mT @ wanted, normal)
                penalty = float(ridge[0, 0] * values.square().sum())
            cost = (wanted - weights @ values).square().sum()
            (slope,) = torch.autograd.grad(cost, k)
        return (cost.item() + penalty) / energy, (slope / energy).numpy().ravel()

    solved = minimize(objective, keys.numpy().ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    moved_keys = torch.from_numpy(solved.x).view_as(keys)
    last = static_floor(layer, change, moved_keys)
    return Found(moved_keys, last, first.share) if last.share < first.share else Found(keys, first, first.share)


def floors_by_length(
    layer: OneLayer,
    change: Tensor,
    lengths: tuple[int, ...],
    kind: str = "clusters",
    seed: int = 0,
    steps: int = 40,
    after: Found | None = None,
) -> list[Found]:
    """Static prompts of rising ``lengths``: each begins with the last one's keys and new ones of a tenth of their mass,
    and where a key without mass exists no length is worse than a shorter one. ``after``: a shorter prompt that was
    found before, to go on from."""
    if not lengths or any(p < 1 for p in lengths) or list(lengths) != sorted(set(lengths)):
        raise ValueError(f"lengths {lengths}; expected rising integers ≥ 1, such as (1, 2, 5)")
    found = [] if after is None else [after]
    for p in lengths:
        if not found:
            found.append(search(layer, change, starting_keys(layer, p, kind, seed), steps))
            continue
        last, more = found[-1], p - found[-1].keys.shape[1]
        new = starting_keys(layer, more, kind, seed + p, mass=0.01)
        best = search(layer, change, torch.cat([last.keys, new], dim=1), steps)
        nothing = massless(layer) if best.floor.share > last.floor.share else None
        if nothing is not None:
            padded = torch.cat([last.keys, nothing[:, None].expand(-1, more, -1)], dim=1)
            best = Found(padded, static_floor(layer, change, padded), best.start)
        found.append(best)
    return found if after is None else found[1:]
