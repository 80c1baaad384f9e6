r"""Sequences of symbols and what is to be made of them: sorting, adding, counting.

A sequence is n symbols from {0, …, K−1}, drawn independently and uniformly; an answer is a sequence of the same length
over the same symbols. Numbers that leave the range are taken modulo K, so that every answer can be written with the
symbols that a model has seen.

- ``ascending``, ``descending``: the sequence sorted;
- ``add-1``, ``add-2``: every symbol plus 1, or 2, modulo K;
- ``ascending-add-1``: the sorted sequence plus 1, in this order (so that with modulo it need not be sorted);
- ``histogram``: for every position, how many positions hold the same symbol. The task that Petrov, Torr and Bibi call
  double histogram, as their released code computes it;
- ``double-histogram``: for every position, how many different symbols occur as often as its own: "abbc" gives 2112.
  As we understand the task of that name in Weiss, Goldberg and Yahav.

A Vision Transformer takes a sequence as an image of √n × √n pixels with one channel a symbol, one-hot, so that patches
of one pixel make its patch embedding a table of symbol embeddings.

Sources: Petrov, Torr and Bibi, When Do Prompting and Prefix-Tuning Work?, ICLR 2024, arXiv 2310.19698, and its code, in
which sums are not taken modulo anything; Weiss, Goldberg and Yahav, Thinking Like Transformers, ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import unknown


def counts(x: Tensor, kinds: int) -> Tensor:
    """How often each symbol occurs: (..., n) to (..., kinds)."""
    return F.one_hot(x, kinds).sum(-2)


def histogram(x: Tensor, kinds: int) -> Tensor:
    return counts(x, kinds).gather(-1, x)


def double_histogram(x: Tensor, kinds: int) -> Tensor:
    found = counts(x, kinds)
    own = found.gather(-1, x)  # at least 1, so that symbols that do not occur are never counted
    return (found.unsqueeze(-2) == own.unsqueeze(-1)).sum(-1)


TASKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "ascending": lambda x, kinds: x.sort(-1).values,
    "descending": lambda x, kinds: x.sort(-1, descending=True).values,
    "add-1": lambda x, kinds: x + 1,
    "add-2": lambda x, kinds: x + 2,
    "ascending-add-1": lambda x, kinds: x.sort(-1).values + 1,
    "histogram": histogram,
    "double-histogram": double_histogram,
}
MIXTURE = ("ascending", "descending", "add-1", "add-2")  # what one model is trained on without being told which


def answers(task: str, x: Tensor, kinds: int) -> Tensor:
    """What ``task`` makes of sequences x (..., n): int64 of the same shape, in [0, kinds).

    Raises ``ValueError`` for an unknown task and symbols outside [0, kinds), ``TypeError`` where x is not int64.

    >>> x = torch.tensor([3, 0, 3, 1])
    >>> {task: answers(task, x, 4).tolist() for task in ("descending", "add-1", "histogram", "double-histogram")}
    {'descending': [3, 3, 1, 0], 'add-1': [0, 1, 0, 2], 'histogram': [2, 1, 2, 1], 'double-histogram': [1, 2, 1, 2]}
    """
    if task not in TASKS:
        raise unknown("task on sequences", task, TASKS)
    check(x, kinds)
    return TASKS[task](x, kinds).remainder(kinds)


def draw(n: int, length: int, kinds: int, generator: torch.Generator) -> Tensor:
    """``n`` sequences (n, length) of uniform, independent symbols, int64, from ``generator``."""
    for what, value, least in (("number of sequences", n, 1), ("length", length, 1), ("number of symbols", kinds, 2)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{what} is {value!r}; expected an integer ≥ {least}")
    return torch.randint(kinds, (n, length), generator=generator)


def images(x: Tensor, kinds: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sequences (B, n) as one-hot images (B, kinds, √n, √n), position by position in rows.

    Raises ``ValueError`` where n is no square number, or as ``answers`` does.

    >>> images(torch.tensor([[1, 0, 0, 1]]), 2)[0, 1].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check(x, kinds)
    side = math.isqrt(x.shape[-1])
    if x.ndim != 2 or side * side != x.shape[-1]:
        raise ValueError(f"sequences have shape {tuple(x.shape)}; expected (B, n) with n a square, as patches form one")
    return F.one_hot(x, kinds).to(dtype).transpose(1, 2).unflatten(2, (side, side)).contiguous()


def check(x: Tensor, kinds: int) -> None:
    if not isinstance(x, Tensor) or x.dtype != torch.long:
        raise TypeError(f"sequences are {getattr(x, 'dtype', type(x).__name__)}; expected a tensor of torch.int64")
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"sequences have shape {tuple(x.shape)}; expected at least one symbol")
    if x.min() < 0 or x.max() >= kinds:
        raise ValueError(f"symbols lie in [{int(x.min())}, {int(x.max())}]; expected [0, {kinds - 1}]")
