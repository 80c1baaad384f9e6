"""Adaptivity spectra of the whole family, trained: what moves with the image, and through what, layer by layer."""

from __future__ import annotations

import numpy as np

STUDY = "family"
TITLE = "Adaptivity spectrum by mechanism and layer"
QUERIES = {"all": "all queries", "cls": "CLS query"}
PARTS = ("constant", "gate", "expert", "remainder")
CONTROLS = ("vapt-p5", "norga-control", "prefix-norga-control")  # arms that a claim needs, mechanisms shown already
COLUMNS = 7


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting
    from vpt_analysis.studies.arms import ARMS

    arms = [arm for arm in config["arms"] if arm not in CONTROLS]
    rows = -(-len(arms) // COLUMNS)
    figure = plotting.figure(plotting.PAGE, 1.25 * rows * len(QUERIES) + 0.7)
    blocks = figure.subfigures(len(QUERIES), 1)
    for block, (queries, label) in zip(blocks, QUERIES.items(), strict=True):
        block.suptitle(label, fontsize=8)
        axes = block.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in axes[len(arms) :]:
            ax.set_visible(False)
        for ax, arm in zip(axes, arms, strict=False):
            draw_panel(ax, *shares(arrays, config, arm, queries))
            ax.set_title(ARMS[arm].label, fontsize=7)
        block.supylabel("share of E‖t‖²", fontsize=7)
        block.supxlabel("layer", fontsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(PARTS))
    return figure


def draw_panel(ax, centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Shares (L, 4) and their intervals; the series of a layer stand a little beside each other."""
    from vpt_analysis import plotting

    layer = np.arange(1, len(centre) + 1)
    for i, name in enumerate(PARTS):
        plotting.interval(
            ax, layer + 0.14 * (i - 1.5), centre[:, i], low[:, i], high[:, i], series=i, label=name, size=2.2
        )
    ax.set_xticks(layer[1::2])


def shares(arrays: dict, config: dict, arm: str, queries: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean share over tasks and seeds (L, 4), and the smallest interval that holds those of every run."""
    runs = [f"{task}:{arm}:{seed}/spectrum/{queries}" for task in config["tasks"] for seed in config["seeds"]]
    centre = np.stack([arrays[run] for run in runs]).mean(0)
    bounds = np.stack([arrays[f"{run}/intervals"] for run in runs])
    return centre, bounds[..., 0].min(0), bounds[..., 1].max(0)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    seeds, tasks = len(config["seeds"]), config["tasks"]
    deep, _, _ = shares(arrays, config, "vpt-deep", "all")
    vapt, _, _ = shares(arrays, config, "vapt", "all")
    return (
        f"The prompt term t = Σ g′ⱼ v′ⱼ of every mechanism after {config['steps']} training steps, split into a "
        f"constant, a part through the gates alone, a part through the experts alone, and the remainder (interaction "
        f"and covariances, may be negative); shares of E‖t‖², heads taken together. Static experts have no expert "
        f"part, exactly: what moves with the image there is the gate. P = 10, {config['backbone']}. Points: means over "
        f"{len(tasks)} tasks ({', '.join(tasks)}) and {seeds} seed{'s' if seeds > 1 else ''}; bars: 95 % bootstrap "
        f"intervals over n = {config['images']} test images, widened to hold those of all runs, so that they show "
        f"tasks and seeds too.\n\nGate part of VPT-Deep, all queries: {deep[:, 1].min():.2f} to "
        f"{deep[:, 1].max():.2f} over layers; expert part of VAPT: {vapt[:, 2].min():.2f} to {vapt[:, 2].max():.2f}."
    )
