"""The largest size at which something works, by sections of a grid: bisection where one size is tried a pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Largest:
    """``passed``: the largest size that passed, 0 where none did. ``failed``: the smallest larger one that was tried
    and failed, 0 where none was (the grid ends first). ``tried``: all sizes tried, ascending; ``which`` passed."""

    passed: int
    failed: int
    tried: np.ndarray
    which: np.ndarray


def geometric(first: int, last: int, ratio: float) -> list[int]:
    """Integers from ``first`` to ``last``, each about ``ratio`` times the one before; both ends are there.

    >>> geometric(2, 16, 2.0), geometric(4, 8, 1.3)
    ([2, 4, 8, 16], [4, 5, 6, 8])
    """
    if not 1 <= first <= last or not ratio > 1:
        raise ValueError(f"a grid from {first} to {last} by {ratio}; expected 1 ≤ first ≤ last and a ratio above 1")
    steps = max(1, round(np.log(last / first) / np.log(ratio)))
    return sorted({round(first * (last / first) ** (i / steps)) for i in range(steps + 1)})


def largest(passes: Callable[[list[int]], Sequence[bool]], grid: Sequence[int], at_once: int = 1) -> Largest:
    """The largest size of ``grid`` (ascending) that passes, ``at_once`` sizes being tried a pass.

    ``passes(sizes)`` says which do. They cut the open part of the grid, between the largest that passed and the next
    that failed, into parts that are as equal as can be. That whatever passes does so at smaller sizes too is *assumed*:
    sizes below one that passed are not looked at. Where the assumption fails, and trials at once show it, the largest
    that passed counts. Raises ``ValueError`` where the grid does not ascend from 1 or ``at_once`` is below 1.

    >>> found = largest(lambda sizes: [n <= 11 for n in sizes], range(1, 33))
    >>> found.passed, found.failed, len(found.tried)
    (11, 12, 5)
    """
    grid = list(grid)
    if not grid or grid[0] < 1 or any(b <= a for a, b in zip(grid, grid[1:], strict=False)):
        raise ValueError(f"sizes are {grid}; expected ascending integers from 1 on")
    if at_once < 1:
        raise ValueError(f"{at_once} sizes at once; expected at least 1")
    low, high, seen = -1, len(grid), {}
    while high - low > 1:
        inner = np.linspace(low, high, min(at_once, high - low - 1) + 2)[1:-1]
        picked = sorted({int(np.clip(round(float(i)), low + 1, high - 1)) for i in inner})
        seen |= dict(zip(picked, map(bool, passes([grid[i] for i in picked])), strict=True))
        low = max([low, *(i for i in picked if seen[i])])
        high = min([high, *(i for i in picked if i > low)])
    tried = sorted(seen)
    return Largest(
        grid[low] if low >= 0 else 0, grid[high] if high < len(grid) else 0, np.array([grid[i] for i in tried]),
        np.array([seen[i] for i in tried]),
    )  # fmt: skip
