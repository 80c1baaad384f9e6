"""Which learning rate each arm is given: chosen on a part of the training images, never on test images.

Every arm has the same number of trials on a task. The training subset of seed 0 is cut in two at random; an arm is
trained on the larger part at each rate, for a quarter of the images that the family study shows it, and judged on the
other. The choice is made once and serves all seeds. Weight decay stays at its default. With 400 images judged,
accuracies have a standard error of about 2 points, so that neighbouring rates are often not told apart.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import tasks
from .arms import ARMS

RATES = (0.003, 0.01, 0.03)
STANDARD = 0.01  # where nothing was chosen: the quick tier


def config(tier: str) -> dict:
    """The quick tier chooses nothing: its runs use the middle rate."""
    common = {"backbone": "vit-micro", "rates": list(RATES), "arms": list(ARMS), "batch": 16, "seeds": [0]}
    if tier == "quick":
        return common | {"tasks": ["digits"], "steps": 10, "train_images": 200, "validation_images": 100, "images": 100}
    return common | {
        "tasks": ["cifar100", "grocery81", "shapes-count"], "steps": 50, "train_images": 2000,
        "validation_images": 400, "images": 400,
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    return {"weights": tasks.weights(config["backbone"])} | tasks.files(config["tasks"])


def parts(config: dict) -> list[dict]:
    shared = {k: config[k] for k in ("backbone", "rates", "batch", "steps", "train_images", "validation_images")}
    return [
        {"name": f"{task}:{arm}", "task": task, "arm": arm, **shared}
        for arm in config["arms"]
        for task in config["tasks"]
    ]


def compute(part: dict) -> dict[str, np.ndarray]:
    """Validation accuracy at each rate: ``validation`` (rates,)."""
    from .. import data, load_backbone, prompts, training

    vit, arm = load_backbone(part["backbone"]), ARMS[part["arm"]]
    drawn = data.load(part["task"], "train", vit.config.image_size).subset(n=part["train_images"], seed=0)
    held = np.random.default_rng(0).permutation(len(drawn))[: part["validation_images"]]
    kept = np.setdiff1d(np.arange(len(drawn)), held)
    fit, judge = drawn.select(kept), drawn.select(np.sort(held))
    found = []
    for rate in part["rates"]:
        prompt = prompts.create(arm.mechanism, vit.config, arm.length, **arm.options)
        run = training.Training(steps=part["steps"], lr=rate, batch=part["batch"])
        trained = training.train(
            vit, prompt, fit.normalised(vit.config), fit.labels, run, classes=len(fit.class_names), label=part["name"]
        )
        found.append(training.accuracy(vit, prompt, trained.head, judge.normalised(vit.config), judge.labels))
    return {"validation": np.array(found)}


def best(arrays: dict[str, np.ndarray], config: dict) -> dict[str, float]:
    """The rate of each ``<task>:<arm>``; of equally good ones the smallest."""
    names = [part["name"] for part in parts(config)]
    return {name: config["rates"][int(np.argmax(arrays[f"{name}/validation"]))] for name in names}


def chosen() -> dict[str, float]:
    """The rates of the committed full run."""
    from .. import study

    arrays, record = study.committed("rates")
    return best(arrays, record["config"])
