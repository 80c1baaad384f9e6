"""What each arm costs, beside the accuracy that the comparisons found: parameters, arithmetic, memory, time.

Arrays of a part ``<arm>``, for steps of B images:

- ``parameters`` trained without the head, ``flops`` and ``extra_flops`` of one image's forward pass (``cost``);
- ``kept`` bytes that a step keeps for its backward pass, ``state`` bytes of gradients and optimiser (``step_cost``);
- ``measured/seconds`` (repeats, 2): of a step, and of a step of VPT-Deep in turns with it.

All but the last are exact. **Arrays named measured/... are seconds on one machine**: no two runs give the same bytes,
so whoever computes them again compares the order of magnitude of ratios (``AGREE``), and figures show ratios only.

A part ``accuracy:<study>`` takes ``<task>:<arm>`` (S,), test accuracies over seeds, and ``<task>:images`` from that
study's *committed* results: its training is the costly part, and every tier of this study shows the same. The first
study says at which training subset, the largest of each task; from the others come arms that it lacks, where they were
run by the same protocol (``SAME``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import tasks

ARMS = [
    "linear", "full", "vpt-deep", "vpt-deep-matched", "vapt", "vapt-released", "vpt-projected", "norga", "prefix",
    "prefix-scaled",
]  # fmt: skip
REFERENCE = "vpt-deep"
ACCURACIES = ["ablations", "learning_curves"]
SAME = ("backbone", "seeds", "choose", "steps", "batch", "optimiser", "weight_decay", "pool", "validation", "test")
AGREE = 10.0  # by at most this factor ratios of measured/... differ from one machine to another
CLASSES = 100  # of the head


def config(tier: str) -> dict:
    size = {"images": 8, "repeats": 3} if tier == "quick" else {"images": 32, "repeats": 7}
    return {"backbone": "vit-micro", "arms": ARMS, "accuracies": ACCURACIES, **size}


def inputs(config: dict) -> dict[str, Path]:
    """Weights, and the committed results that accuracies come from. Raises ``FileNotFoundError`` where there are none
    yet."""
    from ..study import COMMITTED

    found = {"weights": tasks.weights(config["backbone"])}
    for study in config["accuracies"]:
        path = COMMITTED / f"{study}.npz"
        if not path.is_file():
            raise FileNotFoundError(
                f"no committed results for {study}, whose accuracies this study shows; make them with `vpt-analysis "
                f"study {study} --tier full --commit`"
            )
        found[study] = path
    return found


def parts(config: dict) -> list[dict]:
    from ..efficiency.arms import arm

    shared = {k: config[k] for k in ("backbone", "images", "repeats")}
    return [{"name": name, "arm": arm(name).plain(), **shared} for name in config["arms"]] + [
        {"name": f"accuracy:{study}", "accuracies": config["accuracies"], "study": study, "arms": config["arms"]}
        for study in config["accuracies"]
    ]


def compute(part: dict) -> dict[str, np.ndarray]:
    found = accuracies(part) if "study" in part else costs(part)
    return {name: np.asarray(value) for name, value in found.items()}


def costs(part: dict) -> dict[str, object]:
    import torch

    from ..backbones import load_backbone
    from ..cost import cost
    from ..efficiency.arms import Arm, arm, create
    from ..step_cost import kept_bytes, seconds_beside, state_bytes

    vit, generator = load_backbone(part["backbone"]), torch.Generator().manual_seed(0)
    c, n = vit.config, part["images"]
    images = torch.randn(n, c.channels, c.image_size, c.image_size, generator=generator)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    head = torch.nn.Linear(c.width, CLASSES)
    method, reference = (create(each, vit, images, seed=0) for each in (Arm(**part["arm"]), arm(REFERENCE)))
    for each in (method, reference):
        each.train()
    counted = cost(vit, method)
    return {
        "parameters": counted.trainable,
        "flops": counted.flops,
        "extra_flops": counted.extra_flops,
        "kept": kept_bytes(vit, method, images, head, labels),
        "state": state_bytes(method, head),
        "measured/seconds": seconds_beside(vit, (method, reference), images, head, labels, part["repeats"]),
    }


def accuracies(part: dict) -> dict[str, np.ndarray]:
    """Of the arms that the studies before it lack, where the protocol is that of the first."""
    first, *_ = part["accuracies"]
    chief, mine = (results(study) for study in (first, part["study"]))
    if any(getattr(chief.plan, name) != getattr(mine.plan, name) for name in SAME):
        return {}
    before = part["accuracies"][: part["accuracies"].index(part["study"])]
    taken = {name for study in before for name in results(study).plan.names}
    found = {}
    for task in chief.plan.tasks:
        subset = max(chief.plan.of(task), key=lambda s: chief.images(task, chief.plan.names[0], s))
        if task not in mine.plan.tasks or subset not in mine.plan.of(task):
            continue
        found[f"{task}:images"] = chief.images(task, chief.plan.names[0], subset)
        for name in part["arms"]:
            if name in mine.plan.names and name not in taken:
                found[f"{task}:{name}"] = mine.accuracy(task, name, subset)
    return found


def results(study: str):
    """A study's committed results."""
    from .. import study as machinery
    from ..efficiency import results

    arrays, record = machinery.committed(study)
    return results.of(record["config"], arrays)
