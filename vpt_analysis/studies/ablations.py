"""What the gain of adaptive prompts comes from (C9, C10) and whether untied prefixes fail for their scale (C14), beside
methods of other kinds.

Arrays are those of ``efficiency.runs``, named as in ``one_shot``; of one training subset.
"""

from __future__ import annotations

from ..efficiency.arms import tables
from ..efficiency.study import compute, inputs, later, notes, parts, scope

__all__ = ["compute", "config", "inputs", "later", "notes", "parts", "scope"]

ARMS = [
    "vpt-deep", "vpt-deep-matched", "vpt-projected", "vapt", "vapt-mean", "vapt-released", "vapt-released-mean",
    "vapt-released-no-norm", "vapt-released-no-residual", "vapt-released-no-zero-start", "vapt-released-no-convolution",
    "norga", "prefix", "prefix-scaled", "prefix-warm", "vpt-shallow", "linear", "bias", "lora", "full",
]  # fmt: skip


def config(tier: str) -> dict:
    common = {"backbone": "vit-micro", "weight_decay": 1e-4}
    if tier == "quick":
        return common | {
            "tasks": ["digits"], "arms": tables(ARMS), "subsets": [{"per_class": 10}], "rates": [0.01], "seeds": [0, 1],
            "steps": 8, "batch": 8, "validation": 30, "test": 40,
        }  # fmt: skip
    return common | {
        "tasks": ["cifar100", "grocery81", "caltech101", "digits"], "arms": tables(ARMS),
        "subsets": [{"per_class": 10}], "rates": [0.001, 0.003, 0.01, 0.03, 0.1], "seeds": [0, 1, 2, 3, 4],
        "steps": 30, "batch": 32, "validation": 200, "test": 400,
    }  # fmt: skip
