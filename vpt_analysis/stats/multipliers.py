r"""The data multiplier: how many times more data one method needs to make as few errors as another.

With :math:`n_A(e)` the size at which the falling curve of method A (``monotone``) first meets the error e,

.. math:: m(e) = n_A(e) / n_B(e).

A claim such as "B with 30 % of the data matches A with all of it" says :math:`m(e_A) \ge 1/0.3`, with :math:`e_A` the
error that A reaches with all its data. That is the error looked at unless another is given; it is then part of what is
estimated, and every resample has its own.

**Range of validity.** m(e) is measured where both methods meet e among their sizes (``valid``). Elsewhere the data
bound it: where A never meets e, A needs more than its largest size, and m is more than n_max / n_B(e); where B meets e
before its smallest size, m is more than n_A(e) / n_min; the other way round it is less. No curve is continued beyond
its sizes. Resamples are treated alike (``censored``), so both bounds of an interval hold on their own side.

**What an interval is worth** depends on how fast the curves fall: a flat curve meets an error anywhere, and the
interval becomes wide or one-sided by itself. With few seeds it is too narrow (``COVERAGE``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .censored import Bounded, bounded
from .learning_curves import paired_curves

# How often intervals hold the truth for S seeds, on 5 sizes with noise that is half common to the sizes of a seed: of a
# multiplier of 5.6 at level 0.95 and at ``few_seeds.expanded(0.95, S)``; of two equal methods at level 0.95, where half
# of the resamples only bound it. Measured again by the tests.
COVERAGE = {3: (0.72, 0.72, 0.87), 5: (0.86, 0.94, 0.93), 10: (0.92, 0.96, 0.94)}


@dataclass(frozen=True)
class Multiplier(Bounded):
    """How many times more data the first method needs than the second, at ``error``.

    ``bound``, ``censored``: see ``Bounded``; ">" says that it needs at least ``estimate`` times as much. ``valid`` are
    the least and the most error that both mean curves meet among their sizes, None where there is none.
    """

    error: float
    valid: tuple[float, float] | None


def data_multiplier(
    sizes: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    error: float | None = None,
    sizes_second: np.ndarray | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Multiplier:
    """n_first / n_second at ``error``: by default that of the first method at its largest size.

    ``first`` (K, S) and ``second`` (K', S) are errors (not accuracies) at ``sizes`` (K,) and ``sizes_second`` (K',),
    which are ``sizes`` unless given; column s has one seed in both. Percentile bootstrap over seeds, the same ones for
    both methods and all sizes; ``level`` is the coverage asked for. Raises ``ValueError`` where these are no curves, or
    the methods have not the same number of seeds. Sizes may have any unit, images or shares, if both have the same.

    >>> n = np.geomspace(10, 10000, 7)
    >>> slow, fast = np.stack([n**-0.5] * 3, axis=1), np.stack([(4 * n) ** -0.5] * 3, axis=1)
    >>> print(data_multiplier(n, slow, fast))                   # 4 in truth; interpolated between sizes
    4.01 [4.01, 4.01]
    >>> print(data_multiplier(n, slow, fast, error=0.006))      # only the second gets there
    > 1.47 [1.47, inf]
    """
    if error is not None and not np.isfinite(error):
        raise ValueError(f"error is {error}; expected a finite one, or None for the first method's last one")
    a, b = paired_curves(sizes, first, second, sizes_second, resamples, seed)
    at = a.values[:, -1] if error is None else np.full(len(a.values), float(error))
    (least_a, most_a), (least_b, most_b) = a.needed(at), b.needed(at)
    with np.errstate(divide="ignore"):  # a method that meets the error before its smallest size: 0 at least
        least, most = least_a / most_b, most_a / least_b
    found = bounded(least, most, level, np.shape(first)[1])
    low, high = float(max(a.values[0, -1], b.values[0, -1])), float(min(a.values[0, 0], b.values[0, 0]))
    return Multiplier(**vars(found), error=float(at[0]), valid=(low, high) if low <= high else None)
