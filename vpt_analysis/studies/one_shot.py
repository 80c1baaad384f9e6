"""One image a class (C7): does VPT fail for want of expressiveness? Every arm at a wide range of learning rates.

Arrays are those of ``efficiency.runs``: a trial ``<task>:<arm>:per_class=1:trial:0`` at all rates, finals
``<task>:<arm>:per_class=1:<seed>`` at the rate that the other tasks chose.
"""

from __future__ import annotations

from ..efficiency.arms import tables
from ..efficiency.study import compute, inputs, later, notes, parts, scope

__all__ = ["compute", "config", "inputs", "later", "notes", "parts", "scope"]

ARMS = ["linear", "vpt-shallow", "vpt-deep", "vpt-deep-small", "vpt-deep-prototypes", "vapt", "vapt-released"]


def config(tier: str) -> dict:
    common = {"backbone": "vit-micro", "arms": tables(ARMS), "subsets": [{"per_class": 1}], "weight_decay": 1e-4}
    if tier == "quick":
        return common | {
            "tasks": ["digits", "shapes-count"], "rates": [0.001, 0.003, 0.01], "seeds": [0, 1],
            "steps": 8, "batch": 8, "validation": 30, "test": 40,
        }  # fmt: skip
    return common | {
        "tasks": ["cifar100", "grocery81", "caltech101", "cub100", "digits", "shapes-count"],
        "rates": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
        "seeds": [0, 1, 2, 3, 4], "steps": 40, "batch": 16, "validation": 200, "test": 400,
    }  # fmt: skip
