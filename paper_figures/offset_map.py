"""Where the prompt's mass goes on real images, and how much of each head's output is the offset term.

One VPT-Deep prompt, as initialised and after training on a frozen backbone: the mass λ over patches and layers on a few
images, the offset term's share of the energy by layer and head, and that share by layer with an interval over images.

The share of one query is ‖λo‖² / (‖λo‖² + ‖(1−λ)c‖²). It lies in [0, 1] also where the two terms oppose each other;
their share of ‖y‖², the sum's energy, has no upper bound there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt_analysis.studies import tasks

TITLE = "Where a prompt's mass goes, and how much of the output is its offset term"
STATES = ("untrained", "trained")
RESAMPLES = 2000


def config(tier: str) -> dict:
    common = {"backbone": "vit-micro", "mechanism": "vpt-deep", "length": 10, "lr": 0.05}
    if tier == "quick":
        return common | {
            "data": "digits", "shown": [3], "photographs": True, "seeds": [0], "steps": 100, "batch": 32,
            "train_images": 1200, "images": 128,
        }  # fmt: skip
    return common | {
        "data": "cub100", "shown": [2, 57], "photographs": False, "seeds": [0, 1, 2], "steps": 200, "batch": 32,
        "train_images": 2900, "images": 400,
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    return {"weights": tasks.weights(config["backbone"])} | tasks.files([config["data"]])


def parts(config: dict) -> list[dict]:
    shared = {k: v for k, v in config.items() if k != "seeds"}
    return [{"name": f"seed{seed}", "seed": seed, **shared} for seed in config["seeds"]]


def compute(part: dict) -> dict[str, np.ndarray]:
    """``pictures`` uint8 (I, h, w, 3); for each state ``maps`` (I, L, patches), mean over heads, and of the n test
    images ``share`` and ``mass`` (n, L, H), means over all queries, ``mass_cls`` (n, L, H); ``top1``."""
    import torch

    from vpt_analysis import data, load_backbone, prompts

    vit = load_backbone(part["backbone"])
    trained, test, top1 = tasks.trained(vit, part)
    shown = test.images[part["shown"]]
    if part["photographs"]:
        shown = torch.cat([shown, data.photographs(vit.config.image_size).images[1:]])  # the flower
    found = {"pictures": shown.permute(0, 2, 3, 1).numpy(), "top1": np.array(top1)}
    untrained = prompts.create(part["mechanism"], vit.config, part["length"], seed=part["seed"])
    for state, prompt in zip(STATES, (untrained, trained), strict=True):
        maps = measure(vit, data.normalise(shown, vit.config), prompt)["mass"].mean(2)  # (I, L, N)
        found[f"{state}/maps"] = maps[..., vit.config.prefix :]
        seen = measure(vit, test.normalised(vit.config), prompt)
        found[f"{state}/share"] = seen["share"].mean(-1)
        found[f"{state}/mass"] = seen["mass"].mean(-1)
        found[f"{state}/mass_cls"] = seen["mass"][..., 0]
    return found


def measure(vit, images, prompt) -> dict[str, np.ndarray]:
    """Mass and offset share of every image, layer, head and query: (n, L, H, N) float32 each."""
    import torch

    from vpt_analysis import decompose

    mass, share = [], []
    with torch.no_grad():
        for start in range(0, len(images), 64):
            split = decompose(vit, images[start : start + 64], prompt)
            mass.append(torch.stack([s.mass for s in split], dim=1))
            offset, content = (torch.stack([getattr(s.energy, t) for s in split], 1) for t in ("prompt", "content"))
            share.append(offset / (offset + content))
    return {"mass": torch.cat(mass).float().numpy(), "share": torch.cat(share).float().numpy()}


def over_images(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over images of (n, L), and its 95 % percentile bootstrap."""
    rng = np.random.default_rng(0)
    weights = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES) / len(values)
    return values.mean(0), *np.quantile(weights @ values, [0.025, 0.975], axis=0)


def mean_over_seeds(arrays: dict[str, np.ndarray], config: dict, name: str) -> np.ndarray:
    return np.mean([arrays[f"seed{seed}/{name}"] for seed in config["seeds"]], axis=0)


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    first = f"seed{config['seeds'][0]}"
    pictures = arrays[f"{first}/pictures"]
    figure = plotting.figure(plotting.PAGE, 1.55 * len(pictures) + 2.1)
    top, below = figure.subfigures(2, 1, height_ratios=[1.55 * len(pictures), 2.1])
    draw_maps(top, pictures, {state: arrays[f"{first}/{state}/maps"] for state in STATES})
    heat, lines = below.subfigures(1, 2, width_ratios=[1.25, 1])
    draw_heads(heat, {state: mean_over_seeds(arrays, config, f"{state}/share").mean(0).T for state in STATES})
    ax = lines.subplots()
    for i, state in enumerate(STATES):
        values = mean_over_seeds(arrays, config, f"{state}/share").mean(-1)  # (n, L), mean over heads
        plotting.interval(ax, np.arange(1, values.shape[1] + 1), *over_images(values), series=i, label=state)
    ax.set(xlabel="layer", ylabel="offset share of the energy", title="mean over heads, queries and images")
    ax.set_xticks(np.arange(1, values.shape[1] + 1))
    ax.set_ylim(0, 1)
    ax.legend()
    return figure


def draw_maps(holder, pictures: np.ndarray, maps: dict[str, np.ndarray]) -> None:
    """For each picture one row untrained and one trained, a column a layer; one colour scale for all."""
    from vpt_analysis import plotting

    depth = maps[STATES[0]].shape[1]
    vmax = max(m.max() for m in maps.values())
    axes = holder.subplots(len(pictures) * 2, depth + 1, squeeze=False)
    for row, line in enumerate(axes):
        picture, state = pictures[row // 2], STATES[row % 2]
        line[0].imshow(picture)
        plotting.bare(line[0])
        line[0].set_ylabel(state)
        for layer, ax in enumerate(line[1:]):
            mass = maps[state][row // 2, layer]
            side = round(len(mass) ** 0.5)
            artist = ax.imshow(mass.reshape(side, -1), vmin=0, vmax=vmax, cmap=plotting.MASS)
            plotting.bare(ax, f"layer {layer + 1}" if row == 0 else "")
    holder.colorbar(artist, ax=list(axes.ravel()), label="prompt mass λ of a patch", fraction=0.02, pad=0.01)


def draw_heads(holder, shares: dict[str, np.ndarray]) -> None:
    """Two heat maps (H, L) on one colour scale."""
    from vpt_analysis import plotting

    axes = holder.subplots(2, 1, sharex=True)
    for ax, (state, share) in zip(axes, shares.items(), strict=True):
        artist = ax.imshow(share, vmin=0, vmax=1, aspect="auto", cmap=plotting.MASS)
        heads, depth = share.shape
        ax.set(ylabel="head", title=state)
        ax.set_yticks(range(heads), [str(h + 1) for h in range(heads)])
        ax.set_xticks(range(depth), [str(i + 1) for i in range(depth)])
        ax.grid(False)
    axes[-1].set_xlabel("layer")
    holder.colorbar(artist, ax=list(axes), label="offset share of the energy", fraction=0.04, pad=0.02)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    top1 = np.mean([arrays[f"seed{seed}/top1"] for seed in config["seeds"]])
    seeds = len(config["seeds"])
    numbers = {state: mean_over_seeds(arrays, config, f"{state}/share").mean(-1) for state in STATES}
    last = {state: [v[-1] for v in over_images(values)] for state, values in numbers.items()}
    peaks = {state: int(values.mean(0).argmax()) + 1 for state, values in numbers.items()}
    foreign = "; the last picture is a photograph that the prompt was not trained for" if config["photographs"] else ""
    return (
        f"Top: prompt mass λ over patches and layers, mean over heads, for one prompt as initialised and after "
        f"training (first seed){foreign}. Bottom left: share of the energy in the offset term, "
        f"‖λo‖² / (‖λo‖² + ‖(1−λ)c‖²), mean over queries and images, by layer and head; right: mean over heads too, "
        f"with 95 % bootstrap intervals over images."
        f"\n\nVPT-Deep, P = {config['length']}, on a frozen {config['backbone']}, trained with a linear head for "
        f"{config['steps']} steps of {config['batch']} images on {config['data']} ({config['train_images']} images, "
        f"learning rate {config['lr']}; test accuracy {top1:.3f}). n = {config['images']} test images, {seeds} "
        f"seed{'s' if seeds > 1 else ''}{', averaged image by image' if seeds > 1 else ''}. In the last layer the "
        f"offset term has {percent(last['untrained'])} of the energy untrained and {percent(last['trained'])} trained; "
        f"its largest share is at layer {peaks['untrained']} untrained and {peaks['trained']} trained."
    )


def percent(interval: list[float]) -> str:
    """
    >>> percent([0.1, 0.08, 0.123])
    '10.0 % [8.0, 12.3]'
    """
    value, low, high = (100 * v for v in interval)
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
