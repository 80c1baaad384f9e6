"""Wall time of the quick figures from nothing, and again when nothing changed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

import torch

TARGETS = "targets: from nothing ≤ 600 s on 2 cores, unchanged ≤ 5 s"


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    seconds = []
    with tempfile.TemporaryDirectory() as out:
        for _ in range(2):
            start = time.perf_counter()
            command = [sys.executable, "-m", "vpt_analysis", "figures", "--tier", "quick", "--out", out]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
    compared = "figures, from nothing / unchanged"
    first, second = (f"{s:.1f} s" for s in seconds)
    row = {"shape": "vit-micro", "batch": "-", "tokens": 65, "prompts": 10, "compared": compared}
    return [row | {"time": "-", "memory": "-", "ours": first, "other": second}]
