"""What a sweep may be a grid of: small frozen configs, and pure functions that a worker can import."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

LARGEST = 1 << 16  # bytes of a config as JSON


def plain(config: object) -> dict:
    """A config as JSON values, by which runs are told apart: tuples become lists, numpy's scalars Python's.

    Raises ``TypeError`` for what is no config: neither a dict nor a frozen dataclass, or holding anything but numbers,
    text, lists and dicts of them; ``ValueError`` for numbers that are not finite and for one that is too large.

    >>> plain({"rate": np.float64(0.1), "sizes": (1, 2)})
    {'rate': 0.1, 'sizes': [1, 2]}
    """
    if not isinstance(config, Mapping) and not _is_frozen(config):
        raise TypeError(f"a config is {_kind(config)}; expected a dict, or an instance of a frozen dataclass")
    value = _plain(config, "config")
    size = len(json.dumps(value))
    if size > LARGEST:
        raise ValueError(
            f"a config takes {size} bytes as JSON, more than {LARGEST}; name a file and its digest instead"
        )
    return value


def _plain(value: object, where: str) -> object:
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; expected a finite number (None may stand for 'no limit')")
        return float(value)
    if _is_frozen(value):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"{where} has the name {name!r}; expected text")
        return {name: _plain(item, f"{where}[{name!r}]") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"{where} is {_kind(value)}; configs hold numbers, text, lists, dicts and frozen dataclasses of them. Let an "
        "array, a model or a data set be named (a file, a seed), and made by the function"
    )


def _is_frozen(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and value.__dataclass_params__.frozen


def _kind(value: object) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"a dataclass that is not frozen ({kind})" if dataclasses.is_dataclass(value) else f"of type {kind}"


def name(function: Callable) -> str:
    """Dotted name of a function. Raises ``TypeError`` for one that another process could not import."""
    module, qualified = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not qualified:
        raise TypeError(f"{function!r} has no name; expected a function of a module")
    if module == "__main__" or "<" in qualified or "." in qualified:
        raise TypeError(
            f"{module}.{qualified} cannot be imported by workers; expected a function at the top of a module file, "
            "not of a script, a notebook, a class or another function"
        )
    return f"{module}.{qualified}"


def keys(common: object, configs: Sequence[dict]) -> list[str]:
    """sha256 of every plain config together with what all have in common, a JSON value."""
    start = hashlib.sha256(json.dumps(common, sort_keys=True, allow_nan=False).encode())
    found = []
    for config in configs:
        total = start.copy()
        total.update(json.dumps(config, sort_keys=True, allow_nan=False).encode())
        found.append(total.hexdigest())
    return found


def seeds(config: dict) -> dict[str, object]:
    """The entries of a config that are seeds, by their names.

    >>> seeds({"seed": 3, "rate": 0.1, "data_seed": 1})
    {'seed': 3, 'data_seed': 1}
    """
    return {name: value for name, value in config.items() if "seed" in name}
