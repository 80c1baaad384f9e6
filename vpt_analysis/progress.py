"""Progress: a bar on a terminal, a plain line now and then elsewhere, nothing inside notebooks under test."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T], label: str, total: int | None = None, done: int = 0, every: float = 20.0
) -> Iterator[T]:
    """Iterate over ``items`` and show how far it is, on stderr.

    A bar on a terminal; elsewhere a line with an estimate of the time left, at most one in ``every`` seconds and none
    for work that ends sooner. ``TQDM_DISABLE=1`` silences both. ``done`` counts items finished in an earlier run.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items) + done
    if os.environ.get("TQDM_DISABLE", "") not in ("", "0"):
        yield from items
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, desc=label, total=total, initial=done, leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for count, item in enumerate(items, done + 1):
        yield item
        now = time.monotonic()
        if now - last >= every:
            last = now
            left = (
                ""
                if total is None
                else f"/{total}, {(now - start) / (count - done) * (total - count) / 60:.1f} min left"
            )
            print(f"{label}: {count}{left}", file=sys.stderr, flush=True)
