"""Random numbers that stay the same with any version of numpy: one stream of PCG64 a purpose, named by a hash.

numpy promises the raw bits of PCG64, but not what ``Generator`` makes of them; here they become fractions by hand.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np


class Streams:
    """Independent streams under one ``name``, each begun on first use and continued from there.

    The rows of successive calls are the successive rows of one long table: drawing 2 and then 3 is drawing 5. A
    purpose more or less leaves the others as they are.

    >>> a, b = Streams("x"), Streams("x")
    >>> whole = a.uniform("size", 5, 2)
    >>> bool((whole == np.concatenate([b.uniform("size", 2, 2), b.uniform("size", 3, 2)])).all())
    True
    """

    def __init__(self, name: str):
        self._name = name
        self._begun: dict[str, np.random.PCG64] = {}

    def uniform(self, purpose: str, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """float64 of ``shape`` in [low, high): the upper 53 of 64 bits."""
        if purpose not in self._begun:
            seed = hashlib.sha256(f"{self._name}|{purpose}".encode()).digest()
            self._begun[purpose] = np.random.PCG64(int.from_bytes(seed[:16], "little"))
        raw = self._begun[purpose].random_raw(math.prod(shape))
        return low + (high - low) * ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def whole(self, purpose: str, *shape: int, high: int) -> np.ndarray:
        """int64 of ``shape``, 0 … high − 1."""
        return (self.uniform(purpose, *shape) * high).astype(np.int64)
