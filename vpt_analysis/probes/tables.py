"""What a probe of the command line is given, and the table it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ..cost import Method
from ..stats.intervals import Interval
from ..vit import VisionTransformer


@dataclass(frozen=True)
class Task:
    """A backbone, a method made for it, and normalised ``images`` (n, C, h, w); ``labels`` (n,), None where there are
    none. ``mechanism``, ``length`` and ``options`` are what the method was made of; ``length`` is 0 for baselines."""

    vit: VisionTransformer
    method: Method
    mechanism: str
    length: int
    options: dict
    images: Tensor
    labels: Tensor | None
    seed: int = 0


@dataclass
class Table:
    """Values by row and column. ``keys`` name what tells rows apart (layer, head, …; counted from 1); ``units`` has an
    entry for each column; a value is (estimate, low, high), the bounds NaN where there are none. ``n`` values went into
    an interval, which is of the kind ``interval``. ``notes`` are whole sentences for the reader."""

    keys: tuple[str, ...]
    units: dict[str, str]
    n: int
    interval: str
    rows: list[tuple[tuple, dict[str, tuple[float, float, float]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, key: tuple, **values: Interval | float) -> None:
        """One row; an ``Interval`` of plain numbers, or a number without bounds, for each column named."""
        unknown = sorted(set(values) - set(self.units))
        if unknown or len(key) != len(self.keys):
            raise ValueError(f"row {key} with columns {unknown}; expected keys {self.keys} and columns {[*self.units]}")
        self.rows.append((key, {name: triple(value) for name, value in values.items()}))

    def add_array(self, key: tuple, **values: Interval | np.ndarray | Sequence) -> None:
        """A row for each entry of arrays (K,), whose number, from 1, is the last key."""
        parts = {name: split(value) for name, value in values.items()}
        for i in range(len(next(iter(parts.values())))):
            self.add((*key, i + 1), **{name: part[i] for name, part in parts.items()})


def triple(value: Interval | float) -> tuple[float, float, float]:
    if isinstance(value, Interval):
        return float(value.estimate), float(value.low), float(value.high)
    return float(value), math.nan, math.nan


def split(value: Interval | np.ndarray | Sequence) -> list[Interval | float]:
    """Entries of an array (K,), or of an interval of arrays."""
    if isinstance(value, Interval):
        bounds = zip(value.estimate, value.low, value.high, strict=True)
        return [Interval(float(e), float(low), float(high), value.n) for e, low, high in bounds]
    return list(value)


@dataclass(frozen=True)
class Probe:
    """``run(task, **settings)`` answers ``question``. ``labels``: it needs them. ``baselines``: it takes changes of
    weights too; other probes take prompts apart. ``images``: it looks at the given ones. ``fresh``: it makes
    prompts of its own and looks at no trained ones."""

    run: Callable[..., Table]
    question: str
    labels: bool = False
    baselines: bool = False
    images: bool = True
    fresh: bool = False
