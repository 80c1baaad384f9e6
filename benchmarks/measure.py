"""Interleaved timing and exact peak memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from vpt_analysis.progress import progress


@dataclass(frozen=True)
class Measured:
    """Seconds of every repeat, and the peak of bytes allocated during one call above what was allocated before it."""

    seconds: np.ndarray
    peak: int

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


def interleaved(calls: Mapping[str, Callable[[], object]], repeats: int, label: str) -> dict[str, Measured]:
    """Time every call once a round, in turn, so that a slow moment of the machine hits all of them alike."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in progress(range(repeats), label):
        for name, call in calls.items():
            synchronise()
            start = time.perf_counter()
            call()
            synchronise()
            seconds[name].append(time.perf_counter() - start)
    return {name: Measured(np.array(seconds[name]), peak_memory(call)) for name, call in calls.items()}


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(call: Callable[[], object]) -> int:
    """Highest sum of live bytes that the allocator gave out during ``call``; counted, not sampled."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = call()
    del result
    live = peak = 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def ratio(a: Measured, b: Measured) -> str:
    """Ratio of medians of a to b, with the quartiles of the ratios within rounds."""
    low, high = np.quantile(a.seconds / b.seconds, [0.25, 0.75])
    return f"{a.median / b.median:.2f} ({low:.2f}-{high:.2f})"
