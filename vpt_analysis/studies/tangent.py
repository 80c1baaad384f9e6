r"""How many directions does a method have? Tangent dimension of every mechanism and baseline at equal parameter counts.

Arrays of a part ``<method>:<point>``, the point being "initial" or "trained" (with a classifier, which is not in J):

- ``parameters`` and ``size`` (length, rank or width) of the method nearest to the count asked for, and ``fits``: is it
  near enough? Where it is not, nothing else is there;
- ``singular`` (k,) singular values of the Jacobian of n images' CLS tokens, over the first one, ``scale``; ``rank`` at
  the ``threshold`` (a share of the first), ``below`` the largest that does not count, a share too; ``certified``,
  ``closure``, ``functionals`` and ``exact`` as in ``probes.Tangent``;
- ``energy``, ``participation`` (3,): estimate, low, high; ``effective`` (ridges,), in expectation too low of a sketch;
- ``alignment`` (K, 3): kernel-target alignment of each class with its bounds; ``diagonal`` (n,) of the tangent kernel;
- ``top1`` of "trained", on the test images.

A rank here is numerical: how many singular values exceed a share of the largest. The spectra of these networks fall
without a gap, so that it moves with that share and is mostly not certified; the effective dimensions are steadier.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import tasks

METHODS = (
    "vpt-deep", "vapt", "lora", "prefix", "norga", "vpt-shallow", "vfpt", "zero-init", "cross", "prefix-scaled",
    "e2vpt", "gated", "vapt-released", "prefix-shared", "adapter", "bias", "full", "linear",
)  # fmt: skip
# What makes a method small enough; everything else is its default.
OPTIONS = {"vapt": {"rank": 4}, "e2vpt": {"key_values": 1}, "lora": {"targets": "v"}}


def config(tier: str) -> dict:
    rates = {"vpt-deep": 0.05, "vapt": 0.05, "lora": 0.002}  # at 0.05 LoRA, of scale α / r = 8, does not train
    common = {
        "backbone": "vit-micro", "data": "digits", "parameters": 2048, "within": 0.1, "tolerance": 1e-6,
        "ridges": [1e-2, 1e-4, 1e-6], "seeds": [0], "steps": 60, "batch": 16, "train_images": 960,
        "options": OPTIONS, "rates": rates,
    }  # fmt: skip
    if tier == "quick":
        return common | {"methods": ["vpt-deep", "vapt", "bias"], "trained": [], "images": 10}
    return common | {"methods": list(METHODS), "trained": ["vpt-deep", "vapt", "lora"], "images": 256}


def inputs(config: dict) -> dict[str, Path]:
    return {"weights": tasks.weights(config["backbone"])} | tasks.files([config["data"]])


def parts(config: dict) -> list[dict]:
    shared = {k: config[k] for k in ("backbone", "data", "parameters", "within", "tolerance", "ridges", "images")}
    training = {k: config[k] for k in ("steps", "batch", "train_images")}
    seed = config["seeds"][0]

    def part(method: str, point: str) -> dict:
        chosen = {"method": method, "options": config["options"].get(method, {}), "seed": seed}
        return {"name": f"{method}:{point}"} | chosen | shared

    initial = [part(method, "initial") for method in config["methods"]]
    return initial + [part(m, "trained") | training | {"lr": config["rates"][m]} for m in config["trained"]]


def compute(part: dict) -> dict[str, np.ndarray]:
    from .. import data, load_backbone
    from ..probes.tangent import tangent_dimension

    vit = load_backbone(part["backbone"])
    method, found = matched(vit, part)
    if method is None:
        return found
    images = data.load(part["data"], "test", vit.config.image_size).subset(n=part["images"], seed=0)
    if "steps" in part:
        found["top1"] = np.array(train(vit, method, part))
    tangent = tangent_dimension(
        vit, method, images.normalised(vit.config), images.labels, tolerance=part["tolerance"], ridges=part["ridges"],
        seed=part["seed"],
    )  # fmt: skip
    return found | measured(tangent)


def matched(vit, part: dict):
    """The method of a part at its size, and the arrays that say so; None where no size is near enough."""
    from ..probes.matched import maker, nearest
    from ..vit import parameter_count

    make = maker(vit, part["method"], part["seed"], part["options"])
    size = nearest(lambda size: parameter_count(make(size), trainable_only=True), part["parameters"])
    method = make(size)
    count = parameter_count(method, trainable_only=True)
    fits = abs(count - part["parameters"]) <= part["within"] * part["parameters"]
    found = {"size": np.array(size), "parameters": np.array(count), "fits": np.array(fits)}
    return (method if fits else None), found


def train(vit, method, part: dict) -> float:
    """Train with a classifier on the data's training images, in place; accuracy on the test images."""
    from .. import data, training

    size = vit.config.image_size
    seen = data.load(part["data"], "train", size).subset(n=part["train_images"], seed=part["seed"])
    test = data.load(part["data"], "test", size)
    plan = training.Training(steps=part["steps"], batch=part["batch"], lr=part["lr"], seed=part["seed"])
    run = training.train(
        vit, method, seen.normalised(vit.config), seen.labels, plan, classes=len(seen.class_names), label=part["name"]
    )
    return training.accuracy(vit, method, run.head, test.normalised(vit.config), test.labels)


def measured(tangent) -> dict[str, np.ndarray]:
    """The arrays of one ``Tangent``."""
    first = tangent.singular_values[0]
    bounds = {
        name: np.array([getattr(value, side) for side in ("estimate", "low", "high")])
        for name, value in (("energy", tangent.energy), ("participation", tangent.participation))
    }
    return bounds | {
        "scale": np.array(first),
        "singular": (tangent.singular_values / first).astype(np.float32),
        "rank": np.array(tangent.rank.value),
        "threshold": np.array(tangent.rank.threshold / first),
        "below": np.array(tangent.rank.below / first),
        "certified": np.array(tangent.certified),
        "closure": np.array(tangent.closure),
        "functionals": np.array(tangent.functionals),
        "exact": np.array(tangent.how == "exact"),
        "effective": np.asarray(tangent.effective.estimate),
        "alignment": np.stack([getattr(tangent.alignment, side) for side in ("estimate", "low", "high")], axis=1),
        "diagonal": np.diag(tangent.kernel).astype(np.float32),
    }


def scope(config: dict, weights: str | None) -> str:
    """Backbone, inputs, sizes: what the numbers hold for."""
    return (
        f"{config['backbone']} {(weights or '')[:8]}".rstrip()
        + f"; {config['images']} {config['data']} test images, outputs the CLS token; methods with "
        f"{config['parameters']:,} parameters ± {100 * config['within']:.0f} %, at initialisation and after "
        f"{config['steps']} steps; numerical rank at {config['tolerance']:g} of the first singular value; one seed"
    )


def notes(config: dict, cases: tuple) -> list[str]:
    return [
        "First-order: what small moves of the parameters do at one point, on these images, to the final CLS token. It "
        "bounds neither what training reaches nor what is easy to learn.",
        "Where a factor starts at zero (LoRA, adapters, zero-initialised gates) half or more of the directions are "
        "absent at initialisation and appear with the first steps.",
    ]
