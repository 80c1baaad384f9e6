"""Function approximation by one prompted layer: floors against the number of prompts, static and adaptive, for teachers
of growing adaptivity; risk against n where the problem is linear; and a head made for static prompts to be universal.

Places: "first", the CLS query of the backbone's first block, which is the same for all images; "middle", CLS and a
patch in a middle block; "random", the same tokens and queries in a block of random weights. Floors are shares of the
energy of the teacher's change of the heads' outputs, over a population of images that is the whole distribution.

Arrays of a part ``floors:<place>:<teacher>:<seed>`` (S lengths, C numbers of copied tokens):

- ``static`` (S,): static keys and values; exact given the keys, which were searched for; ``start`` (S,): at the keys
  that each search began with; ``other`` (≤ S,): what another start ended at; ``fresh`` (S,): on images outside the
  population;
- ``read`` (S,): the same keys, values that also read the image, v_j + U G_j(X): exact given the keys; ``read/fresh``;
  ``read/swapped``: each image's prompts read another image, so that there are as many columns, but no input;
- ``copies`` (C,): keys and values of copied content tokens, values v_j + U u_j: exact; ``copies/static``: the same
  gates with static values; ``copies/fresh``;
- ``constant`` (): the floor of one constant vector a head; ``slack`` (): largest numerical slack of all these fits;
  ``monotone`` (): 1 where keys without mass exist, so that floors cannot rise with the length;
- of "first", ``any_length`` (2,): bounds on the floor of static prompts of any length, from below and from above.

Of ``fits:<teacher>:<seed>`` (the first seed), one number a mechanism fitted by gradient in "middle", an upper bound on
its floor. Of ``samples:<teacher>:<seed>``, ``static`` and ``read`` (n, draws): risks of values fitted to n noisy
images, and their floors. Of ``universal:<m>``, ``sampled``, ``fitted``, ``largest``, ``bound`` (P, functions).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from . import tasks

PLACES = ("first", "middle", "random")
TEACHERS = ("constant", "gate", "linear-value", "rotation", "class", "lora-v", "lora-q")


def config(tier: str) -> dict:
    common = {
        "backbone": "vit-micro", "data": "digits", "block": 4, "queries": [0, 28], "places": list(PLACES),
        "teachers": list(TEACHERS), "energy": 0.1, "rank": 4, "mechanisms": ["prefix", "vpt-deep", "vapt"],
        "fit_length": 10, "sampled_teachers": ["class", "lora-v"],
    }  # fmt: skip
    if tier == "quick":
        return common | {
            "seeds": [0], "images": 200, "places": ["first", "middle"], "copied": [1, 5, 20, 65],
            "lengths": {"first": [1, 5, 20], "middle": [1, 5, 20]},
            "steps": 8, "other_up_to": 1, "fit_steps": 2, "samples": [100, 400], "draws": 3,
            "points": {"1": [8, 32, 128], "2": [16, 64, 128]}, "functions": 3, "inputs": 600,
        }  # fmt: skip
    return common | {
        "seeds": [0, 1, 2], "images": 600,
        "lengths": {"first": [1, 10, 100], "middle": [1, 2, 5, 10, 20, 50, 100, 200], "random": [1, 10, 50]},
        "copied": [1, 2, 5, 10, 20, 50, 65], "steps": 20, "other_up_to": 5, "fit_steps": 30,
        "samples": [100, 200, 500, 1000, 2000], "draws": 10,
        "points": {"1": [8, 16, 32, 64, 128, 256], "2": [16, 32, 64, 128, 256, 512]}, "functions": 20, "inputs": 3000,
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    return {"weights": tasks.weights(config["backbone"])} | tasks.files([config["data"]])


def parts(config: dict) -> list[dict]:
    population = {k: config[k] for k in ("backbone", "data", "block", "queries", "energy", "rank", "images")}
    floors = population | {k: config[k] for k in ("copied", "steps", "other_up_to")}
    fits = population | {k: config[k] for k in ("mechanisms", "fit_length", "fit_steps")}
    samples = population | {k: config[k] for k in ("fit_length", "steps", "samples", "draws")}
    universal = {k: config[k] for k in ("functions", "inputs")}
    return [
        *({"name": f"floors:{place}:{teacher}:{seed}", "kind": "floors", "place": place, "teacher": teacher,
           "seed": seed, "lengths": config["lengths"][place], **floors}
          for place in config["places"] for seed in config["seeds"] for teacher in config["teachers"]),
        *({"name": f"fits:{teacher}:{seed}", "kind": "fits", "place": "middle", "teacher": teacher, "seed": seed,
           **fits}
          for seed in config["seeds"][:1] for teacher in config["teachers"]),
        *({"name": f"samples:{teacher}:{seed}", "kind": "samples", "place": "middle", "teacher": teacher, "seed": seed,
           **samples} for seed in config["seeds"] for teacher in config["sampled_teachers"]),
        *({"name": f"universal:{m}", "kind": "universal", "m": int(m), "points": points, **universal}
          for m, points in config["points"].items()),
    ]  # fmt: skip


def compute(part: dict) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        found = {"floors": floors_of, "fits": fits_of, "samples": samples_of, "universal": universal_of}[part["kind"]](
            part
        )
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


@functools.lru_cache(maxsize=1)
def layers_of(place: str, backbone: str, data: str, images: int, block: int, queries: tuple[int, ...], seed: int):
    """The backbone and two layers with their labels: the population, and half as many other images."""
    from .. import load_backbone
    from ..data import load
    from ..probes.one_layer import OneLayer

    vit = load_backbone(backbone).requires_grad_(False)
    drawn = load(data, "train", vit.config.image_size).subset(n=3 * images // 2, seed=seed)
    first = place == "first"
    x = vit.embed(drawn.normalised(vit.config))
    x = (x if first else vit.encode(x, stop=block)).double()  # what the layer is given; from here on float64
    vit = vit.double()
    chosen = random_block(vit.config, seed) if place == "random" else vit.blocks[0 if first else block]
    outside = np.arange(len(drawn)) % 3 == 2
    layers = [OneLayer(chosen, x[which], (0,) if first else queries) for which in (~outside, outside)]
    return vit, layers, [drawn.labels[which] for which in (~outside, outside)]


def population(part: dict):
    """The backbone, two layers (the population, and other images), and the teacher's changes of both."""
    from ..probes import teachers

    shared = ("place", "backbone", "data", "images", "block")
    vit, layers, labels = layers_of(*(part[k] for k in shared), tuple(part["queries"]), part["seed"])
    teacher = teachers.draw(part["teacher"], layers[0], part["seed"], part["energy"], labels[0], part["rank"])
    return vit, layers, [teacher.change(layer, mine) for layer, mine in zip(layers, labels, strict=True)]


def random_block(config, seed: int):
    """A block of weights N(0, 1/width in) and biases N(0, 0.01), its LayerNorms at identity, float64."""
    import torch

    from ..vit import Block

    block, generator = Block(config).double().requires_grad_(False), torch.Generator().manual_seed(seed)
    for name, p in block.named_parameters():
        if "ln" not in name:
            gain = p.shape[1] ** -0.5 if p.ndim > 1 else 0.1
            p.copy_(gain * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return block


def floors_of(part: dict) -> dict:
    from ..probes import floor_bounds, floor_search, floors

    _, layers, changes = population(part)
    layer, change = layers[0], changes[0]
    chain, other = searched(layer, change, part)
    found = {
        "static": [f.floor.share for f in chain],
        "start": [f.start for f in chain],
        "other": [f.floor.share for f in other],
        "constant": floors.constant_floor(change),
        "monotone": floor_search.massless(layer) is not None,
    }
    if part["place"] == "first":
        proved = floor_bounds.any_length(layer, change)
        found["any_length"] = [proved.low, proved.high]
    arms = [students(layers, changes, keys_of(f.keys), part["seed"]) for f in chain]
    copied = [students(layers, changes, chosen, part["seed"]) for chosen in copied_tokens(layer, part["copied"])]
    for name in ("fresh", "read", "read/fresh", "read/swapped"):
        found[name] = [arm[name] for arm in arms]
    for name, of in (("copies", "read"), ("copies/static", "static"), ("copies/fresh", "read/fresh")):
        found[name] = [arm[of] for arm in copied]
    return found | {"slack": max(arm["slack"] for arm in arms + copied)}


def searched(layer, change, part: dict) -> tuple[list, list]:
    """Static prompts of every length, from the better of two starts, and what the other start ended at."""
    from ..probes.floor_search import floors_by_length

    lengths, most = part["lengths"], part["other_up_to"]
    few, many = tuple(p for p in lengths if p <= most), tuple(p for p in lengths if p > most)
    kinds = ("queries", "queries") if part["place"] == "first" else ("clusters", "queries")  # one query has no clusters
    seeds = (part["seed"], part["seed"] + 1000)
    tried = [floors_by_length(layer, change, few, k, s, part["steps"]) for k, s in zip(kinds, seeds, strict=True)]
    best, other = sorted(tried, key=lambda chain: chain[-1].floor.share)
    rest = floors_by_length(layer, change, many, kinds[0], seeds[0], part["steps"], best[-1]) if many else []
    return best + rest, other


def keys_of(keys):
    """Static keys, and prompts that read a run of patches each; for any layer."""
    from ..attention import KeyGroup
    from ..probes import floors

    return lambda layer: (KeyGroup(keys[None], keys[None]), floors.cells(layer, keys.shape[1]))


def copied_tokens(layer, counts: list[int]):
    """Copies of content tokens, those with the most attention first and CLS, which VAPT does not read, last."""
    import torch

    from ..probes import floors
    from ..probes.teachers import Maps

    received = Maps(layer).pattern.mean((0, 1, 2))
    received[0] = -1
    order = torch.argsort(received, descending=True, stable=True)
    return [(lambda layer, chosen=order[:count]: floors.copies(layer, chosen)) for count in counts]


def students(layers, changes, prompts, seed: int) -> dict[str, float]:
    """Floors of static values and of values that read the image, at one set of gates, and the same on other images."""
    import torch

    from ..probes import floors

    energies = [float(c.square().sum()) for c in changes]
    seen = []
    for layer in layers:
        group, read = prompts(layer)
        seen.append((floors.gates(layer, group), read))
    (gates, read), (fresh, fresh_read) = seen
    wanted, outside = gates.wanted(layers[0], changes[0]), fresh.wanted(layers[1], changes[1])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(read)))
    static = floors.floor(gates.prompt, wanted, energies[0])
    reading = floors.floor(floors.readout(gates, read), wanted, energies[0])
    swapped = floors.floor(floors.readout(gates, read[order]), wanted, energies[0])
    return {
        "static": static.share,
        "read": reading.share,
        "read/swapped": swapped.share,
        "fresh": floors.error(fresh.prompt, outside, static.coefficients, energies[1]),
        "read/fresh": floors.error(floors.readout(fresh, fresh_read), outside, reading.coefficients, energies[1]),
        "slack": max(f.slack for f in (static, reading, swapped)),
    }


def fits_of(part: dict) -> dict:
    from ..probes.floor_fits import fit

    vit, layers, changes = population(part)
    return {
        name: fit(vit, part["block"], layers[0], changes[0], name, part["fit_length"], part["fit_steps"], 1,
                  part["seed"]).best
        for name in part["mechanisms"]
    }  # fmt: skip


def samples_of(part: dict) -> dict:
    """Values fitted to n images drawn from the population, with noise of the change's energy; risks to the teacher."""
    import torch

    from ..attention import KeyGroup
    from ..probes import floors
    from ..probes.floor_search import floors_by_length

    _, (layer, _), (change, _) = population(part)
    lengths = tuple(p for p in (1, 2, 5) if p < part["fit_length"]) + (part["fit_length"],)
    keys = floors_by_length(layer, change, lengths, "clusters", part["seed"], part["steps"])[-1].keys
    gates = floors.gates(layer, KeyGroup(keys[None], keys[None]))
    wanted, energy = gates.wanted(layer, change), float(change.square().sum())
    noise = change.square().mean().sqrt()
    rows = torch.arange(len(wanted)).unflatten(0, (len(layer.tokens), -1))  # (images, queries)
    found = {}
    for name, columns in (
        ("static", gates.prompt),
        ("read", floors.readout(gates, floors.cells(layer, part["fit_length"]))),
    ):
        generator = torch.Generator().manual_seed(part["seed"])
        risks = np.empty((len(part["samples"]), part["draws"]))
        for i, n in enumerate(part["samples"]):
            for k in range(part["draws"]):
                at = rows[torch.randint(len(rows), (n,), generator=generator)].flatten()
                noisy = wanted[at] + noise * torch.randn(wanted[at].shape, generator=generator, dtype=torch.float64)
                fitted = floors.floor(columns[at], noisy, energy)
                risks[i, k] = floors.error(columns, wanted, fitted.coefficients, energy)
        found |= {name: risks, f"{name}/floor": floors.floor(columns, wanted, energy).share}
    return found


def universal_of(part: dict) -> dict:
    from ..probes.universality import approximate, random_waves

    functions = [random_waves(part["m"], seed) for seed in range(part["functions"])]
    found = [approximate(part["m"], p, functions, part["inputs"]) for p in part["points"]]
    return {
        name: [[getattr(a, name) for a in row] for row in found] for name in ("sampled", "fitted", "largest", "bound")
    }


def scope(config: dict, weights: str | None) -> str:
    """Backbone, layers, population, sizes and seeds: what the numbers hold for."""
    return (
        f"{config['backbone']} {(weights or '')[:8]}".rstrip()
        + f", heads of one layer (the first, CLS; block {config['block'] + 1}, CLS and "
        f"{len(config['queries']) - 1} patch; a random block on the same tokens); {config['data']}, "
        f"{config['images']} images as the population; changes of {config['energy']:g} of the content's energy; "
        f"{len(config['seeds'])} draws of each teacher"
    )


def notes(config: dict, cases: tuple) -> list[str]:
    """What is exact, what is searched for, and what the students are not."""
    return [
        "Floors are exact given the prompts' keys. Static keys are searched for, so static floors are upper bounds.",
        "Values that read the image are linear in it, and pass no LayerNorm: they are no registered mechanism.",
        "The population is finite: as columns near its size, floors fall by counting; errors on other images show it.",
    ]
