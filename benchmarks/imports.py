"""Import time of the package, everything in it touched, beside importing torch."""

from __future__ import annotations

import subprocess
import sys

import torch

from benchmarks.measure import Measured, interleaved, ratio

TARGETS = "target: import / import of torch ≤ 1.2"
EVERYTHING = "import vpt_analysis as va; [getattr(va, name) for name in va.__all__]"


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    calls = {
        "torch": lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
        "vpt_analysis": lambda: subprocess.run([sys.executable, "-c", EVERYTHING], check=True),
    }
    m: dict[str, Measured] = interleaved(calls, 2 * repeats, "imports")
    ours, other = m["vpt_analysis"], m["torch"]
    return [
        {
            "shape": "-", "batch": "-", "tokens": "-", "prompts": "-", "compared": "import, all names / import torch",
            "time": ratio(ours, other), "memory": "-", "ours": f"{ours.median:.2f} s", "other": f"{other.median:.2f} s",
        }
    ]  # fmt: skip
