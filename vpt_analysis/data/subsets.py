"""Which images a seeded, stratified, nested subset takes.

Each class gets an order of its own, drawn from the seed; a subset takes the first few of each. The rank of an image is
its place in that order. One order serves all sizes, hence the nesting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def ranks(labels: Tensor, seed: int) -> np.ndarray:
    """The place of each image in its class's seeded order, int64 (n,), counted from 0.

    The order sorts by a hash of seed, label and position: no library's random stream is involved.
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"subset: seed is {seed!r}; expected an integer")
    values = labels.tolist()
    keys = [hashlib.blake2b(f"{seed}/{c}/{i}".encode(), digest_size=8).digest() for i, c in enumerate(values)]
    seen: dict[int, int] = {}
    rank = np.empty(len(values), dtype=np.int64)
    for i in sorted(range(len(values)), key=keys.__getitem__):
        rank[i] = seen.get(values[i], 0)
        seen[values[i]] = int(rank[i]) + 1
    return rank


def per_class(labels: Tensor, count: int, seed: int, class_names: Sequence[str], name: str) -> Tensor:
    """Positions of ``count`` images of each class, ascending."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"subset of {name}: per_class is {count!r}; expected an integer ≥ 1")
    present, sizes = torch.unique(labels, return_counts=True)
    if int(sizes.min()) < count:
        least = int(present[sizes.argmin()])
        label = repr(class_names[least]) if least >= 0 else "the unlabelled set"
        raise ValueError(
            f"subset of {name}: per_class={count}, but {label} has {int(sizes.min())} images; "
            f"take at most {int(sizes.min())}, or fraction= or n="
        )
    return torch.from_numpy(np.flatnonzero(ranks(labels, seed) < count))


def of_size(labels: Tensor, n: int, seed: int, name: str) -> Tensor:
    """Positions of ``n`` images, ascending: one of each class, then in order of ``(rank + ½) / class size``.

    That order is Sainte-Laguë apportionment: with m images taken of a class, the next comes at ``(m + ½) / size``.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"subset of {name}: n is {n!r}; expected an integer ≥ 1")
    if n > len(labels):
        raise ValueError(f"subset of {name}: n={n}, but there are {len(labels)} images; take at most {len(labels)}")
    _, index, sizes = np.unique(labels.numpy(), return_inverse=True, return_counts=True)
    if n < len(sizes):
        raise ValueError(f"subset of {name}: n={n} has no room for all {len(sizes)} classes; take n ≥ {len(sizes)}")
    rank = ranks(labels, seed)
    share = (rank + 0.5) / sizes[index]
    tie = np.argsort(np.argsort([hashlib.blake2b(f"{seed}/class/{c}".encode()).hexdigest() for c in range(len(sizes))]))
    order = np.lexsort((tie[index], share, rank > 0))
    return torch.from_numpy(np.sort(order[:n]))


def of_fraction(labels: Tensor, fraction: float, seed: int, name: str) -> Tensor:
    """Positions of a share of the images, ascending; at least one of each class."""
    if not isinstance(fraction, int | float) or isinstance(fraction, bool) or not 0 < fraction <= 1:
        raise ValueError(f"subset of {name}: fraction is {fraction!r}; expected a number in (0, 1]")
    classes = len(torch.unique(labels))
    return of_size(labels, max(classes, round(fraction * len(labels))), seed, name)
