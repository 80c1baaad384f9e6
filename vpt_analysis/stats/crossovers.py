r"""The crossover: the size from which on one method makes fewer errors than another.

Both falling curves (``monotone``) are compared on the sizes that they have in common, from the larger of the smallest
sizes to the smaller of the largest. The crossover is the last size at which the second curve goes below the first: from
there on it stays below. That it lies "before" all sizes (the second is ahead throughout) or "never" comes (the first is
ahead, or equal, at the largest size) are results as well. For the interval they count as "between 0 and the smallest
size" and "between the largest size and infinity", so that an interval that reaches beyond the sizes says so.

Falling curves are used here too, since a dip that is chance would add two crossings. Differences between sizes are
taken
from the monotone cubics; the curves are compared at all sizes of either, and a second crossing between two neighbouring
ones is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .censored import Bounded, bounded
from .learning_curves import paired_curves
from .monotone import Curves, bisected

# How often intervals hold the truth for S seeds, on curves of 5 sizes that cross between two of them: at level 0.95 and
# at ``few_seeds.expanded(0.95, S)``; measured again by the tests.
COVERAGE = {3: (0.77, 0.77), 5: (0.85, 0.92), 10: (0.89, 0.94)}


@dataclass(frozen=True)
class Crossover(Bounded):
    """The size from which on the second method makes fewer errors than the first.

    ``bound`` is "<" where it lies before all common sizes and ">" where it never comes within them; ``status`` says so
    in a word. ``before``, ``inside`` and ``never`` are the shares of resamples with each, and sum to 1.
    """

    before: float
    inside: float
    never: float

    @property
    def status(self) -> str:
        return {"<": "before", "": "inside", ">": "never"}[self.bound]


def crossover(
    sizes: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    sizes_second: np.ndarray | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Crossover:
    """The size at which the second learning curve goes below the first for good.

    ``first`` (K, S) and ``second`` (K', S) are errors (not accuracies) at ``sizes`` (K,) and ``sizes_second`` (K',),
    which are ``sizes`` unless given; column s has one seed in both. Percentile bootstrap over seeds, the same ones for
    both methods and all sizes. Raises ``ValueError`` where these are no curves with common sizes.

    >>> n = np.array([10, 100, 1000, 10000])
    >>> early = np.stack([0.2 + 1 / n**0.5] * 3, axis=1)
    >>> late = np.stack([0.1 + 2 / n**0.5] * 3, axis=1)         # equal at n = 100
    >>> found = crossover(n, early, late)
    >>> print(found, found.status)
    100 [100, 100] inside
    >>> crossover(n, late, early).status
    'never'
    """
    a, b = paired_curves(sizes, first, second, sizes_second, resamples, seed)
    low, high = max(a.n[0], b.n[0]), min(a.n[-1], b.n[-1])
    if low >= high:
        raise ValueError(
            f"the curves have sizes {a.n[0]:g} to {a.n[-1]:g} and {b.n[0]:g} to {b.n[-1]:g}, which share no range; "
            "methods can be compared only where both were run"
        )
    n = np.union1d(a.n, b.n)
    n = n[(n >= low) & (n <= high)]
    least, most = _overtaken(n, a, b)
    found = bounded(least, most, level, np.shape(first)[1])
    before, never = float((least[1:] == 0).mean()), float(np.isinf(most[1:]).mean())
    return Crossover(**vars(found), before=before, inside=1 - before - never, never=never)


def _overtaken(n: np.ndarray, a: Curves, b: Curves) -> tuple[np.ndarray, np.ndarray]:
    """Least and most size (R,) from which on each curve of ``b`` lies below that of ``a``, on sizes ``n`` (U,)."""
    x, rows = np.log(n), len(a.values)
    ahead = np.stack([b.at(at) >= a.at(at) for at in np.tile(x[:, None], rows)], axis=1)  # (R, U): b is not below
    last = len(n) - 1 - np.argmax(ahead[:, ::-1], axis=1)  # the last size at which it is not
    before, never = ~ahead.any(axis=1), ahead[:, -1]
    left = np.clip(last, 0, len(n) - 2)
    middle = (x[left] + x[left + 1]) / 2
    of_a, of_b = a.cubics(middle), b.cubics(middle)
    found = np.exp(bisected(lambda log_n: of_b(log_n) - of_a(log_n), x[left], x[left + 1]))
    least = np.where(before, 0.0, np.where(never, n[-1], found))
    return least, np.where(before, n[0], np.where(never, np.inf, found))
