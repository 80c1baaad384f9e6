"""One thread for numbers that must not depend on how many cores a machine has; work runs side by side instead."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
_limits = None
_before = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch, OpenMP and BLAS use one thread inside the block, and give back what was set before.

    Several threads may be inside at once: torch counts per thread, BLAS per process, so the limit on the process is
    lifted by the last that leaves.
    """
    global _inside, _limits, _before
    import torch
    from threadpoolctl import threadpool_limits

    with _lock:
        here = torch.get_num_threads()  # in every thread: the first call would overwrite what was set
        if _inside == 0:
            _before, _limits = here, threadpool_limits(1)
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _limits.restore_original_limits()
            torch.set_num_threads(_before)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
