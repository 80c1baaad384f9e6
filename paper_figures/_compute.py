"""Compute the parts of a figure that are not in the cache, several at a time, each on one thread.

One thread a part makes the numbers independent of how many cores the machine has; parts run side by side instead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from vpt_analysis.progress import progress

from . import _arrays, _registry


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def collect(module: ModuleType, parts: list[dict], paths: dict[str, Path], jobs: int) -> dict[str, np.ndarray]:
    """Arrays of all parts, named ``<part>/<array>``: read from ``paths`` (by part name), or computed into them.

    ``jobs`` parts at a time, in processes of their own where more than one is missing.
    """
    name = module.__name__.rpartition(".")[2]
    found = {part["name"]: _arrays.readable(paths[part["name"]]) for part in parts}
    missing = [part for part in parts if found[part["name"]] is None]
    for part_name in progress(_computed(name, missing, paths, min(jobs, len(missing))), name, len(missing), every=5.0):
        found[part_name] = _arrays.read(paths[part_name])
    return {f"{part['name']}/{k}": v for part in parts for k, v in found[part["name"]].items()}


def _computed(name: str, missing: list[dict], paths: dict[str, Path], jobs: int) -> Iterator[str]:
    """Names of parts, each when its file is written."""
    if jobs <= 1:
        yield from (compute(name, part, paths[part["name"]]) for part in missing)
        return
    from joblib import Parallel, delayed

    with Parallel(n_jobs=jobs, return_as="generator_unordered", inner_max_num_threads=1) as pool:
        yield from pool(delayed(compute)(name, part, paths[part["name"]], quiet=True) for part in missing)


def compute(name: str, part: dict, path: Path, quiet: bool = False) -> str:
    """Compute one part and write its file. ``quiet``: no progress of its own, for workers that share a terminal."""
    if quiet:
        os.environ["TQDM_DISABLE"] = "1"
    with one_thread():
        arrays = _registry.load(name).compute(part)
    _arrays.write(path, arrays)
    return part["name"]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
