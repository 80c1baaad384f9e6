"""How much of CLS's attention do prompts take: trained, initial, and random ones of equal norm (C20)."""

from __future__ import annotations

import numpy as np

STUDY = "family"
TITLE = "Prompt mass of the CLS query by layer and head"
ARM = "vpt-deep"
KINDS = ("trained", "initial", "random")


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    tasks = config["tasks"]
    figure = plotting.figure(plotting.PAGE, 1.45 * len(tasks) + 0.6)
    axes = figure.subplots(len(tasks), len(KINDS) + 1, squeeze=False, width_ratios=[1, 1, 1, 1.5])
    largest = max(mass(arrays, config, task, kind).mean(0).max() for task in tasks for kind in KINDS)
    for row, task in zip(axes, tasks, strict=True):
        for ax, kind in zip(row, KINDS, strict=False):
            heads = mass(arrays, config, task, kind).mean(0).T  # (H, L)
            artist = ax.imshow(heads, vmin=0, vmax=largest, aspect="auto", cmap=plotting.MASS)
            ax.grid(False)
            ax.set(xticks=range(1, heads.shape[1], 2), yticks=range(len(heads)))
            ax.set_title(f"{task}, {kind}", fontsize=7)
            ax.set_xticklabels(range(2, heads.shape[1] + 1, 2))
            ax.set_yticklabels(range(1, len(heads) + 1))
        row[0].set_ylabel("head")
        draw_layers(row[-1], arrays, config, task)
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    figure.colorbar(artist, ax=list(axes[:, -2]), label="prompt mass λ of CLS", fraction=0.08, aspect=30)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside upper right", ncols=len(KINDS))
    return figure


def draw_layers(ax, arrays: dict, config: dict, task: str) -> None:
    from vpt_analysis import plotting

    for i, kind in enumerate(KINDS):
        runs = mass(arrays, config, task, kind).mean(-1)  # (seeds, L)
        layer = np.arange(1, runs.shape[1] + 1)
        plotting.interval(ax, layer + 0.12 * (i - 1), runs.mean(0), runs.min(0), runs.max(0), series=i, label=kind)
    ax.set(xticks=layer, ylim=(0, None), title="mean over heads", ylabel="λ")


def mass(arrays: dict, config: dict, task: str, kind: str) -> np.ndarray:
    """(seeds, L, H), means over images."""
    return np.stack([arrays[f"{task}:{ARM}:{seed}/mass/{kind}"] for seed in config["seeds"]])


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    seeds = len(config["seeds"])
    last = -(-arrays[f"{config['tasks'][0]}:{ARM}:{config['seeds'][0]}/mass/trained"].shape[0] // 3)
    words = []
    for task in config["tasks"]:
        late = [mass(arrays, config, task, kind)[:, -last:].mean() for kind in KINDS]
        words.append(f"{task} {late[0]:.2f} trained, {late[1]:.2f} initial, {late[2]:.2f} random")
    return (
        f"Prompt mass λ of the CLS query in VPT-Deep with P = 10 on {config['backbone']}: after training, at the "
        f"initial values, and for random tokens with the norms of the trained ones. Colour: means over "
        f"n = {config['images']} test images and {seeds} seed{'s' if seeds > 1 else ''}. Right: means over heads; bars "
        f"run from the smallest to the largest seed. Ten prompts beside 65 content tokens would have λ = 0.13 if all "
        f"scores were equal.\n\nMean over the last {last} layers: {'; '.join(words)}."
    )
