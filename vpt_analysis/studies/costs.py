"""What each arm costs, beside the accuracy that the comparisons found: parameters, arithmetic, memory, time.

Arrays of a part ``<arm>``, for steps of B images:

- ``parameters`` trained without the head, ``flops`` and ``extra_flops`` of one image's forward pass (``cost``);
- ``kept`` bytes that a step keeps for its backward pass, ``state`` bytes of gradients and optimiser (``step_cost``);
- ``measured/seconds`` (repeats, 2): of a step, and of a step of VPT-Deep in turns with it.

All but the last are exact. **Arrays named measured/... are seconds on one machine**: no two runs give the same bytes,
so whoever computes them again compares the order of magnitude of ratios (``AGREE``), and figures show ratios only.

The part ``accuracy`` takes ``<task>:<arm>`` (S,), test accuracies over seeds, and ``<task>:images``, of the largest
training subset of each task, from the *committed* results of a comparison: its training is the costly part, and every
tier of this study shows the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import tasks

ARMS = [
    "linear", "full", "bias", "lora", "vpt-shallow", "vpt-deep", "vpt-deep-matched", "vapt", "vapt-released",
    "vpt-projected", "norga", "prefix", "prefix-scaled",
]  # fmt: skip
REFERENCE = "vpt-deep"
COMPARISON = "ablations"
AGREE = 10.0  # by at most this factor ratios of measured/... differ from one machine to another
CLASSES = 100  # of the head


def config(tier: str) -> dict:
    size = {"images": 8, "repeats": 3} if tier == "quick" else {"images": 32, "repeats": 7}
    return {"backbone": "vit-micro", "arms": ARMS, "comparison": COMPARISON, **size}


def inputs(config: dict) -> dict[str, Path]:
    """Weights, and the committed results that accuracies come from. Raises ``FileNotFoundError`` where there are none
    yet."""
    from ..study import COMMITTED

    study = config["comparison"]
    path = COMMITTED / f"{study}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"no committed results for {study}, whose accuracies this study shows; make them with `vpt-analysis study "
            f"{study} --tier full --commit`"
        )
    return {"weights": tasks.weights(config["backbone"]), study: path}


def parts(config: dict) -> list[dict]:
    from ..efficiency.arms import arm

    shared = {k: config[k] for k in ("backbone", "images", "repeats")}
    return [{"name": name, "arm": arm(name).plain(), **shared} for name in config["arms"]] + [
        {"name": "accuracy", "comparison": config["comparison"], "arms": config["arms"]}
    ]


def compute(part: dict) -> dict[str, np.ndarray]:
    found = accuracies(part) if part["name"] == "accuracy" else costs(part)
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
    """Of the arms that were compared, task by task."""
    from .. import study as machinery
    from ..efficiency import results

    arrays, record = machinery.committed(part["comparison"])
    compared, found = results.of(record["config"], arrays), {}
    for task in compared.plan.tasks:
        largest = max(compared.plan.of(task), key=lambda s: compared.images(task, compared.plan.names[0], s))
        found[f"{task}:images"] = np.array(compared.images(task, compared.plan.names[0], largest))
        for name in part["arms"]:
            if name in compared.plan.names:
                found[f"{task}:{name}"] = compared.accuracy(task, name, largest)
    return found
