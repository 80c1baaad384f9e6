"""What prompts memorise: the largest number of random labels and targets fitted, against length, parameters and depth.

Backbones, all frozen: ``one-layer``, a random Vision Transformer of one layer that is read at the mean of its patches
(its CLS query is the same for all images, see below); ``depth-L``, random ones of L layers that are read at CLS;
``vit-micro``, the bundled one on images of 2×2 patches. Images are noise. Heads are drawn and not trained.

With one layer and CLS, static prompts add the same vector at all images but for its share (T10), so there is next to
nothing that they can memorise, whatever their length: that is ``depth-1``, and why ``one-layer`` reads the patches.

Arrays of a part ``<backbone>:<mechanism>:<kind>:<length>:<steps>:<seed>``: ``fitted`` the largest n that was fitted (0:
none), ``failed`` the smallest larger n that was tried (0: the grid ends first), ``parameters``, ``bits``, all (); tried
``sizes`` (T,) and ``shares`` (T, R). Of a part ``pilot:<backbone>:<mechanism>``, which learning rates were chosen by:
``rates`` (K,) and the mean ``shares`` (K,) of labels fitted at one n.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

RANDOM = {"width": 32, "heads": 4, "mlp_width": 64, "patch_size": 4, "image_size": 12}
MICRO_PIXELS = 8
ENOUGH, RATIO, LOOKS = 0.99, 2**0.5, 10  # share that counts as fitted; grid of sizes; evaluations of a run
PILOT_SEED = 1000  # none of the seeds of the results
RATES = (0.01, 0.03, 0.1, 0.3)  # tried for each mechanism, the same for all
CHOSEN = {  # rate with the highest share in the pilot, the smallest of equals; tests hold them to the committed one
    "one-layer:vpt-deep": 0.1, "one-layer:prefix": 0.3, "one-layer:vapt": 0.01,
    "vit-micro:vpt-deep": 0.03, "vit-micro:vapt": 0.1,
}  # fmt: skip
DEPTH = ("vpt-deep",)  # mechanisms at every depth
LABELS = {"one-layer": 4, "depth": 4, "vit-micro": 64}  # classes
TARGETS = {"one-layer": 1, "vit-micro": 8}  # numbers an image
PILOT = {  # length and n, one that is hard for the mechanism
    "one-layer:vpt-deep": (16, 23), "one-layer:prefix": (4, 64), "one-layer:vapt": (4, 48),
    "vit-micro:vpt-deep": (2, 24), "vit-micro:vapt": (2, 32),
}  # fmt: skip


def config(tier: str) -> dict:
    common = {
        "pretrained": "vit-micro",
        "rates": CHOSEN,
        "labels": LABELS,
        "targets": TARGETS,
        "restarts": 2,
        "batch": 16,
    }
    if tier == "quick":
        return common | {
            "seeds": [0, 1], "lengths": {"one-layer": [1, 2, 4, 8]}, "depths": [1, 2], "depth_length": 4, "pilot": [],
            "curves": {"one-layer": {"labels": ["vpt-deep", "prefix", "vapt"]}}, "twice": {},
            "steps": {"one-layer": 60, "depth": 60}, "largest": {"one-layer": 64, "depth": 128},
        }  # fmt: skip
    return common | {
        "seeds": [0, 1, 2], "lengths": {"one-layer": [1, 2, 4, 8, 16], "vit-micro": [1, 2, 4, 8]},
        "depths": [1, 2, 4], "depth_length": 4,
        "curves": {"one-layer": {"labels": ["vpt-deep", "prefix", "vapt"], "targets": ["vpt-deep", "vapt"]},
                   "vit-micro": {"labels": ["vpt-deep", "vapt"], "targets": ["vpt-deep"]}},
        "steps": {"one-layer": 300, "vit-micro": 100, "depth": 300},
        "twice": {"one-layer": ["vpt-deep"], "vit-micro": ["vpt-deep"]},
        "largest": {"one-layer": 256, "vit-micro": 90, "depth": 64}, "pilot": list(RATES),
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    from . import tasks

    return {"weights": tasks.weights(config["pretrained"])}


def parts(config: dict) -> list[dict]:
    """Seed by seed, so that a run that is stopped has whole seeds; within one the longest prompts first."""
    shared = {"restarts": config["restarts"], "batch": config["batch"]}
    found = [
        {"name": f"pilot:{pair}", "backbone": (b := pair.split(":")[0]), "mechanism": pair.split(":")[1],
         "rates": config["pilot"], "kind": "labels", "outputs": config["labels"][b], "length": PILOT[pair][0],
         "sizes": [PILOT[pair][1]], "steps": config["steps"][b], "seed": PILOT_SEED, **shared}
        for pair in (config["rates"] if config["pilot"] else ())
    ]  # fmt: skip
    return [*found, *(measured(config, *which, seed) | shared for seed in config["seeds"] for which in grid(config))]


def grid(config: dict) -> list[tuple]:
    """Backbone, mechanism, kind, length and steps of all that every seed has."""
    found = []
    for backbone, lengths in config["lengths"].items():
        steps = config["steps"][backbone]
        for kind, mechanisms in config["curves"][backbone].items():
            for mechanism in mechanisms:
                found += [(backbone, mechanism, kind, length, steps) for length in reversed(lengths)]
        found += [(backbone, m, "labels", lengths[-1], 2 * steps) for m in config["twice"].get(backbone, ())]
    for depth in config["depths"]:
        for mechanism in DEPTH:
            found.append((f"depth-{depth}", mechanism, "labels", config["depth_length"], config["steps"]["depth"]))
    return found


def part_name(backbone: str, mechanism: str, kind: str, length: int, steps: int, seed: int) -> str:
    return f"{backbone}:{mechanism}:{kind}:{length}:{steps}:{seed}"


def measured(config: dict, backbone: str, mechanism: str, kind: str, length: int, steps: int, seed: int) -> dict:
    from ..probes.sections import geometric

    family = backbone.split("-")[0] if backbone.startswith("depth") else backbone
    rated = "one-layer" if family == "depth" else backbone
    return {
        "name": part_name(backbone, mechanism, kind, length, steps, seed), "backbone": backbone,
        "mechanism": mechanism, "kind": kind, "length": length, "steps": steps, "seed": seed,
        "outputs": config[kind][family], "sizes": geometric(1, config["largest"][family], RATIO),
        "rates": [config["rates"][f"{rated}:{mechanism}"]],
    }  # fmt: skip


def compute(part: dict) -> dict[str, np.ndarray]:
    from ..probes.memorisation import memorisation
    from ..training import Training

    vit, found = backbone(part["backbone"]), []
    for rate in part["rates"]:
        plan = Training(
            part["steps"], lr=rate, weight_decay=0.0, batch=part["batch"], enough=ENOUGH,
            evaluate_every=max(1, part["steps"] // LOOKS),
        )  # fmt: skip
        found.append(
            memorisation(
                vit, part["mechanism"], part["length"], part["sizes"], plan, kind=part["kind"],
                outputs=part["outputs"], restarts=part["restarts"], at_once=at_once(part["backbone"]),
                seed=part["seed"],
            )
        )  # fmt: skip
    if part["name"].startswith("pilot"):
        return {"rates": np.array(part["rates"]), "shares": np.array([f.shares.mean() for f in found])}
    (one,) = found
    names = ("fitted", "failed", "parameters", "bits", "sizes", "shares")
    return {name: np.asarray(getattr(one, name)) for name in names}


def at_once(backbone: str) -> int:
    """Sizes a pass: small backbones go through a CPU together for the price of one."""
    return 1 if backbone == "vit-micro" else 3


def backbone(name: str):
    """A frozen backbone by the name that parts have."""
    from .. import ViTConfig, load_backbone
    from ..probes.small_backbones import random_backbone, resized

    if name == "vit-micro":
        return resized(load_backbone(name), MICRO_PIXELS)
    one = name == "one-layer"
    depth = 1 if one else int(name.removeprefix("depth-"))
    return random_backbone(ViTConfig(**RANDOM, depth=depth, pool="mean" if one else "cls"))


def scope(config: dict, weights: str | None) -> str:
    """Backbones, sizes, training and seeds: what a verdict holds for."""
    named = {
        "one-layer": f"a random one-layer ViT of width {RANDOM['width']} on {RANDOM['image_size']} px, read at the "
        f"mean of its patches",
        "vit-micro": f"vit-micro {(weights or '')[:8]} on {MICRO_PIXELS} px, read at CLS",
    }  # fmt: skip
    said = []
    for backbone, lengths in config["lengths"].items():
        what = " and ".join(
            f"labels of {config['labels'][backbone]} classes" if kind == "labels"
            else f"targets of {numbers(config['targets'][backbone])}"
            for kind in config["curves"][backbone]
        )  # fmt: skip
        said.append(
            f"{named[backbone]}: {what}, P = {lengths[0]} to {lengths[-1]}, {config['steps'][backbone]} steps of "
            f"{config['batch']} images"
        )
    return (
        "; ".join(said)
        + f"; backbones frozen, heads random and frozen, images of Gaussian noise; {config['restarts']} "
        f"starts at every n, Adam without weight decay; {len(config['seeds'])} seeds"
    )


def numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"


def notes(config: dict, cases: tuple) -> list[str]:
    """What intervals over as few seeds are worth, how fine sizes are, and how rates were chosen."""
    from ..stats import COVERAGE

    seeds = len(config["seeds"])
    share = f"{100 * COVERAGE[seeds]:.0f} %" if seeds in COVERAGE else "well below 95 %"
    found = [
        f"A bootstrap over {seeds} seeds holds the mean of normal values in {share} of the cases. Backbones are not "
        f"drawn anew: intervals are over images, answers, heads and starts.",
        f"Sizes are integers about a factor of {RATIO:.2f} apart, so an n may be too small by as much.",
    ]
    if config["pilot"]:
        rates = ", ".join(f"{rate:g}" for rate in config["pilot"])
        found.append(
            f"One learning rate for each backbone and mechanism, of {rates}, by labels fitted at one length and n with "
            f"another seed: that choice is not in the intervals."
        )
    return found
