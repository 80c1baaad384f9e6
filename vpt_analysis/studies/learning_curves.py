"""Learning curves (C8, C24): prompts, adaptive prompts, fine-tuning and the linear probe, from one image a class on.

The sizes are 1, 3, 10, 30 and 100 % of some 1,000 training images, as near as equal classes and one image a class
allow.
Arrays are those of ``efficiency.runs``, named as in ``one_shot``.
"""

from __future__ import annotations

from ..efficiency.arms import tables
from ..efficiency.study import compute, inputs, later, notes, parts, scope

__all__ = ["compute", "config", "inputs", "later", "notes", "parts", "scope"]

ARMS = ["linear", "vpt-deep", "vapt", "full"]
SIZES = {"cifar100": (1, 3, 10), "digits": (1, 3, 10, 30, 100), "shapes-count": (1, 4, 12, 38, 125)}


def config(tier: str) -> dict:
    common = {"backbone": "vit-micro", "weight_decay": 1e-4, "arms": tables(ARMS)}
    if tier == "quick":
        sizes = {"digits": (1, 5, 25), "shapes-count": (1, 5, 25)}
        more = {"rates": [0.003, 0.01], "seeds": [0, 1], "steps": 8, "batch": 8, "validation": 30, "test": 40}
        return common | more | {"tasks": list(sizes), "subsets": per_class(sizes)}
    return common | {
        "tasks": list(SIZES), "subsets": per_class(SIZES), "rates": [0.003, 0.01, 0.03, 0.1],
        "seeds": [0, 1, 2, 3, 4], "steps": 30, "batch": 32, "validation": 200, "test": 400,
    }  # fmt: skip


def per_class(sizes: dict) -> dict:
    return {task: [{"per_class": m} for m in many] for task, many in sizes.items()}
