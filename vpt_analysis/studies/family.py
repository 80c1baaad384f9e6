"""What each mechanism adds: every arm trained on every task, and its prompt term measured from all sides.

Arrays of a part ``<task>:<arm>:<seed>`` (L layers, H heads, e head width, n test images of the analysis):

- ``top1`` test accuracy, ``losses`` (steps,), ``lr``, ``parameters`` (trained, without the head);
- ``spectrum/cls``, ``spectrum/all`` (L, 4): shares of the adaptivity spectrum, ``.../intervals`` (L, 4, 2) over images;
- ``singular`` (L, H, e): singular values of the stacked prompt term, over the first;
- ``divergence`` (L,): KL between content patterns with and without prompts, nats, mean over images;
- ``mass/trained``, ``mass/initial`` (L, H): prompt mass of CLS, means over images; ``mass/random`` for norm-matched
  random tokens in place of the trained ones, where there are learnable tokens (all else as trained);
- ``states`` (L, 3): between-image share of the variance of travelling prompts, with its interval;
- of adaptive arms, ``swap`` (2,): accuracy with the image's own prompts and with those of an image of another class, on
  the same images; ``class_information`` (L,).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import rates, tasks
from .arms import ARMS

RESAMPLES = 1000


def config(tier: str) -> dict:
    common = {"backbone": "vit-micro", "arms": list(ARMS)}
    if tier == "quick":
        return common | {
            "tasks": ["digits", "shapes-count"], "seeds": [0], "steps": 20, "batch": 16, "train_images": 250,
            "test_images": 100, "images": 32, "rates": {},
        }  # fmt: skip
    return common | {
        "tasks": ["cifar100", "grocery81", "shapes-count"], "seeds": [0, 1, 2], "steps": 100, "batch": 32,
        "train_images": 2000, "test_images": 1000, "images": 128, "rates": rates.chosen(),
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    return {"weights": tasks.weights(config["backbone"])} | tasks.files(config["tasks"])


def parts(config: dict) -> list[dict]:
    """Seed by seed, so that a run that is stopped has whole seeds. Raises ``ValueError`` where rates were chosen and an
    arm has none."""
    missing = [f"{task}:{arm}" for task in config["tasks"] for arm in config["arms"]]
    missing = [pair for pair in missing if config["rates"] and pair not in config["rates"]]
    if missing:
        raise ValueError(
            f"no learning rate was chosen for {', '.join(missing)}; choose them with `vpt-analysis study rates --tier "
            f"full --commit`"
        )
    shared = {k: config[k] for k in ("backbone", "steps", "batch", "train_images", "test_images", "images")}
    return [
        {
            "name": f"{task}:{arm}:{seed}", "task": task, "arm": arm, "seed": seed,
            "lr": config["rates"].get(f"{task}:{arm}", rates.STANDARD), **shared,
        }
        for seed in config["seeds"]
        for arm in config["arms"]
        for task in config["tasks"]
    ]  # fmt: skip


def compute(part: dict) -> dict[str, np.ndarray]:
    import torch

    from .. import data, load_backbone, prompts, training
    from ..vit import parameter_count

    vit, arm = load_backbone(part["backbone"]), ARMS[part["arm"]]
    size, seed = vit.config.image_size, part["seed"]
    train = data.load(part["task"], "train", size).subset(n=part["train_images"], seed=seed)
    test = data.load(part["task"], "test", size).subset(n=part["test_images"], seed=0)
    sample = test.subset(n=part["images"], seed=0).normalised(vit.config)
    initial, prompt = (prompts.create(arm.mechanism, vit.config, arm.length, seed, **arm.options) for _ in range(2))
    run = training.Training(steps=part["steps"], lr=part["lr"], batch=part["batch"], seed=seed)
    trained = training.train(
        vit, prompt, train.normalised(vit.config), train.labels, run, classes=len(train.class_names), label=part["name"]
    )
    pixels = test.normalised(vit.config)
    found = {
        "top1": training.accuracy(vit, prompt, trained.head, pixels, test.labels),
        "losses": trained.losses.astype(np.float32),
        "lr": part["lr"],
        "parameters": parameter_count(prompt),
    }
    with torch.no_grad():
        found |= analysed(vit, sample, prompt, initial, seed)
        if prompt.experts.startswith("adaptive"):
            found |= input_use(vit, prompt, trained.head, train, test)
    return {name: np.asarray(value) for name, value in found.items()}


def analysed(vit, images, prompt, initial, seed: int) -> dict[str, np.ndarray]:
    from .. import moe
    from ..probes import mass, patterns, states
    from ..prompts import TokenPrompt

    found = {}
    for queries in ("cls", "all"):
        spectra = moe.adaptivity_spectrum(vit, images, prompt, queries=queries, resamples=RESAMPLES)
        found[f"spectrum/{queries}"] = np.stack([s.shares for s in spectra])
        found[f"spectrum/{queries}/intervals"] = np.stack([s.intervals for s in spectra])
    values = np.stack([moe.prompt_singular_values(vit, images, prompt, layer) for layer in range(vit.config.depth)])
    found["singular"] = (values / values[..., :1]).astype(np.float64)
    found["divergence"] = patterns.content_divergence(vit, images, prompt).mean(0)
    found["mass/trained"] = mass.cls_mass(vit, images, prompt).mean(0)
    found["mass/initial"] = mass.cls_mass(vit, images, initial).mean(0)
    if isinstance(prompt, TokenPrompt):
        found["mass/random"] = mass.cls_mass(vit, images, mass.norm_matched(prompt, seed)).mean(0)
    found["states"] = states.state_variance(vit, images, prompt, RESAMPLES)
    return found


def input_use(vit, prompt, head, train, test) -> dict[str, np.ndarray]:
    from ..probes import swap

    pixels = test.normalised(vit.config)
    hits = swap.swapped_hits(vit, prompt, head, pixels, test.labels)
    seen = train.subset(n=min(len(train), 1000), seed=0)
    information = swap.class_information(vit, prompt, (seen.normalised(vit.config), seen.labels), (pixels, test.labels))
    return {"swap": hits.mean(0), "class_information": information}


def scope(config: dict, weights: str | None) -> str:
    """Backbone, tasks, sizes and seeds: what a verdict holds for."""
    seeds = "1 seed" if len(config["seeds"]) == 1 else f"{len(config['seeds'])} seeds"
    chosen = "chosen on a part of the training images" if config.get("rates") else f"{rates.STANDARD} for all"
    return (
        f"{config['backbone']} {(weights or '')[:8]}".rstrip()
        + f", frozen; {', '.join(config['tasks'])}; {config['train_images']:,} training and {config['test_images']:,} "
        f"test images a task, {config['images']} of them where attention is taken apart; {config['steps']} steps of "
        f"{config['batch']} images, learning rates {chosen}; P = 10 unless said; {seeds}"
    )


def notes(config: dict, cases: tuple) -> list[str]:
    """What intervals over as few seeds are worth, and what is not in them."""
    from ..stats import COVERAGE

    seeds, found = len(config["seeds"]), []
    if seeds == 1:
        found.append("One seed has no interval, so nothing is decided.")
    elif seeds <= 5:
        share = f"{100 * COVERAGE[seeds]:.0f} %" if seeds in COVERAGE else "well below 95 %"
        asked = "" if seeds == 5 else " The standard set-up asks for 5 seeds."
        found.append(f"A bootstrap over {seeds} seeds holds the mean of normal values in {share} of the cases.{asked}")
    if config.get("rates"):
        found.append(
            "Learning rates were chosen once, on the first seed, three trials an arm: that choice is not in the "
            "intervals."
        )
    found.append(
        f"Training is short: {config['steps'] * config['batch'] / config['train_images']:.1f} passes over the training "
        f"images."
    )
    return found
