"""Tasks of studies and figures: where their weights and data lie, and a prompt trained on one."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "VPT_ANALYSIS_DATA"
BUNDLED = ("digits", "shapes-count", "shapes-position", "shapes-orientation", "shapes-colour")


def weights(name: str) -> Path:
    """The file of a bundled backbone."""
    path = Path(__file__).parent.parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"the bundled backbone {name!r} is not at {path}; install the package again")
    return path


def files(names: list[str]) -> dict[str, Path]:
    """The packed file of each task by name; none for those that need no file."""
    found = {}
    for name in names:
        if name in BUNDLED:
            continue
        folder = os.environ.get(VARIABLE)
        if not folder:
            raise FileNotFoundError(
                f"this tier needs {name}.tar: set {VARIABLE} to the folder it lies in, or use the stored results with "
                f"--tier committed"
            )
        path = Path(folder) / f"{name}.tar"
        if not path.is_file():
            raise FileNotFoundError(f"no {name}.tar in {folder} ({VARIABLE}); --tier committed needs no data")
        found[name] = path
    return found


def trained(vit, part: dict):
    """The prompt of one part, trained with a classifier on its data; its test images, and the test accuracy.

    ``part`` names ``data``, ``mechanism``, ``length``, ``train_images``, ``images``, ``steps``, ``batch``, ``lr`` and
    ``seed``. Training and test images are stratified draws of their splits; the seed draws the training images, the
    initialisation and the order.
    """
    from .. import data, prompts, training

    size = vit.config.image_size
    train_set = data.load(part["data"], "train", size).subset(n=part["train_images"], seed=part["seed"])
    test_set = data.load(part["data"], "test", size).subset(n=part["images"], seed=0)
    prompt = prompts.create(part["mechanism"], vit.config, part["length"], seed=part["seed"])
    plan = training.Training(steps=part["steps"], batch=part["batch"], lr=part["lr"], seed=part["seed"])
    run = training.train(
        vit, prompt, train_set.normalised(vit.config), train_set.labels, plan, classes=len(train_set.class_names),
        label=part["name"],
    )  # fmt: skip
    top1 = training.accuracy(vit, prompt, run.head, test_set.normalised(vit.config), test_set.labels)
    return prompt, test_set, top1
