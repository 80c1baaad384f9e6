"""The family at a glance: what each mechanism chooses on the three axes, its size, and what training made of it."""

from __future__ import annotations

import numpy as np

STUDY = "family"
TITLE = "The family of prompt mechanisms: experts × gate × combine"
REFERENCE = "vpt-deep"
COLUMNS = {"mechanism": 0.0, "experts": 0.165, "gate": 0.425, "combine": 0.702, "parameters": 1.02}


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting
    from vpt_analysis.prompts.registry import MECHANISMS
    from vpt_analysis.studies.arms import ARMS

    arms = config["arms"]
    figure = plotting.figure(plotting.PAGE, 0.215 * len(arms) + 0.8)
    table, plot = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    rows = np.arange(len(arms))
    for y, arm in zip(rows, arms, strict=True):
        mechanism = MECHANISMS[ARMS[arm].mechanism]
        parameters = int(arrays[f"{config['tasks'][0]}:{arm}:{config['seeds'][0]}/parameters"])
        cells = (ARMS[arm].label, *axes_of(mechanism, ARMS[arm].options, MECHANISMS), f"{parameters:,}")
        for (column, x), text in zip(COLUMNS.items(), cells, strict=True):
            right = column == "parameters"
            table.text(x, y, text, fontsize=5.8, va="center", ha="right" if right else "left")
    for column, x in COLUMNS.items():
        table.text(
            x, -1, column, fontsize=6.5, weight="bold", va="center", ha="right" if column == "parameters" else "left"
        )
    table.set(xlim=(0, 1.03), ylim=(len(arms) - 0.4, -1.6))
    plotting.bare(table)
    for y in rows[::2]:
        for ax in (table, plot):
            ax.axhspan(y - 0.5, y + 0.5, color="#f2f1ec", zorder=0)
    draw_gains(plot, arrays, config)
    return figure


def draw_gains(ax, arrays: dict, config: dict) -> None:
    from vpt_analysis import plotting

    arms = config["arms"]
    for i, task in enumerate(config["tasks"]):
        runs = np.stack([gains(arrays, config, task, arm) for arm in arms])  # (arms, seeds)
        look = plotting.SERIES[i]
        y = np.arange(len(arms)) + 0.22 * (i - (len(config["tasks"]) - 1) / 2)
        ax.hlines(y, runs.min(1), runs.max(1), color=look["color"], linewidth=0.9)
        ax.plot(runs.mean(1), y, linestyle="none", marker=look["marker"], color=look["color"], markersize=3, label=task)
    ax.axvline(0, color=plotting.QUIET, linewidth=0.7)
    ax.grid(False, axis="y")
    ax.tick_params(axis="y", length=0, labelleft=False)
    ax.set_xlabel("points above VPT-Deep")
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.45, 1.1),
        ncols=len(config["tasks"]),
        columnspacing=0.6,
        handletextpad=0.1,
        fontsize=5.8,
    )


def axes_of(mechanism, options: dict, mechanisms: dict) -> tuple[str, str, str]:
    """Experts, gate and combine; a gate put on another mechanism has that one's experts."""
    below = mechanisms[options["on"]] if "on" in options else mechanism
    gate = "residual, identity" if options.get("activation") == "identity" else mechanism.gate
    return below.experts, gate, mechanism.combine


def gains(arrays: dict, config: dict, task: str, arm: str) -> np.ndarray:
    """Points of test accuracy above VPT-Deep's, seed by seed."""
    return np.array(
        [
            100 * float(arrays[f"{task}:{arm}:{seed}/top1"] - arrays[f"{task}:{REFERENCE}:{seed}/top1"])
            for seed in config["seeds"]
        ]
    )


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    seeds = len(config["seeds"])
    level = "; ".join(
        f"{task} {np.mean([arrays[f'{task}:{REFERENCE}:{seed}/top1'] for seed in config['seeds']]):.3f}"
        for task in config["tasks"]
    )
    return (
        f"What each mechanism chooses for its experts, its gate, and the way its output joins the content's; trained "
        f"parameters without the classifier on {config['backbone']}, P = 10 (5 where said). Right: test accuracy above "
        f"VPT-Deep's with the same seed, {config['steps']} steps of {config['batch']} images on "
        f"{config['train_images']} training images, judged on {config['test_images']} test images; points: means over "
        f"{seeds} seed{'s' if seeds > 1 else ''}, lines from the smallest to the largest seed. Learning rates were "
        f"chosen on held-out training images, three trials for every arm and task, where the tier is full. VPT-Deep "
        f"itself: {level}."
    )
