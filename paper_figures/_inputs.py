"""Where a figure's weights and data lie, and how its prompts are trained; errors say what to do when one is missing."""

from __future__ import annotations

import os
from pathlib import Path

import vpt_analysis

VARIABLE = "VPT_ANALYSIS_DATA"


def backbone(name: str) -> Path:
    """Weights of a bundled backbone."""
    path = Path(vpt_analysis.__file__).parent / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"the bundled backbone {name!r} is not at {path}; install the package again")
    return path


def packed(name: str) -> dict[str, Path]:
    """The file of a data set by name, as inputs; nothing for the digits, which come with scikit-learn."""
    if name == "digits":
        return {}
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise FileNotFoundError(
            f"this tier needs {name}.tar: set {VARIABLE} to the folder it lies in, or draw the stored results with "
            f"--tier committed"
        )
    path = Path(folder) / f"{name}.tar"
    if not path.is_file():
        raise FileNotFoundError(f"no {name}.tar in {folder} ({VARIABLE}); --tier committed needs no data")
    return {name: path}


def train(vit, part: dict):
    """The prompt and classifier of one part, trained on its data; and its test images.

    ``part`` names ``data``, ``mechanism``, ``length``, ``train_images``, ``images``, ``steps``, ``batch``, ``lr`` and
    ``seed``. Training and test images are stratified draws of their splits; the seed draws the training images, the
    initialisation and the order. Returns prompt, test ``ImageSet``, and test accuracy.
    """
    from vpt_analysis import data, prompts, training

    size = vit.config.image_size
    train_set = data.load(part["data"], "train", size).subset(n=part["train_images"], seed=part["seed"])
    test_set = data.load(part["data"], "test", size).subset(n=part["images"], seed=0)
    prompt = prompts.create(part["mechanism"], vit.config, part["length"], seed=part["seed"])
    plan = training.Training(steps=part["steps"], batch=part["batch"], lr=part["lr"], seed=part["seed"])
    trained = training.train(
        vit, prompt, train_set.normalised(vit.config), train_set.labels, plan, classes=len(train_set.class_names),
        label=part["name"],
    )  # fmt: skip
    top1 = training.accuracy(vit, prompt, trained.head, test_set.normalised(vit.config), test_set.labels)
    return prompt, test_set, top1
