"""How many directions does the prompt term span? Singular values of the stacked term against the bound P."""

from __future__ import annotations

import numpy as np

STUDY = "family"
TITLE = "Singular values of the prompt term, stacked over images and queries"
TOLERANCE = 1e-6
COLUMNS = 6
FLOOR = 1e-9


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting
    from vpt_analysis.studies.arms import ARMS

    arms = config["arms"]
    rows = -(-len(arms) // COLUMNS)
    figure = plotting.figure(plotting.PAGE, 1.4 * rows + 0.5)
    axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for ax in axes[len(arms) :]:
        ax.set_visible(False)
    for ax, arm in zip(axes, arms, strict=False):
        values = np.maximum(singular(arrays, config, arm), FLOOR)  # (runs, L, H, e)
        flat = values.reshape(-1, values.shape[-1])
        index = np.arange(1, flat.shape[1] + 1)
        ax.fill_between(index, flat.min(0), flat.max(0), color=plotting.SERIES[0]["color"], alpha=0.2, linewidth=0)
        ax.plot(index, np.median(flat, axis=0), color=plotting.SERIES[0]["color"], marker="o", markersize=1.8)
        ax.axvline(bound(arm) + 0.5, color=plotting.SERIES[5]["color"], linewidth=0.9, linestyle="--")
        ax.axhline(TOLERANCE, color=plotting.QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
        ax.set(yscale="log", xlim=(0, flat.shape[1] + 1))
        ax.set_title(f"{ARMS[arm].label}\n{words(arrays, config, arm)}", fontsize=6.5)
    figure.supxlabel("index of the singular value", fontsize=7)
    figure.supylabel("singular value over the first", fontsize=7)
    return figure


def bound(arm: str) -> int:
    """How many prompt keys a layer of this arm has."""
    from vpt_analysis import ViTConfig, prompts
    from vpt_analysis.studies.arms import ARMS

    smallest = ViTConfig(image_size=8, patch_size=4, width=8, depth=2, heads=1)  # the number of keys is the same on all
    return prompts.create(ARMS[arm].mechanism, smallest, ARMS[arm].length, **ARMS[arm].options).keys


def singular(arrays: dict, config: dict, arm: str) -> np.ndarray:
    runs = [f"{task}:{arm}:{seed}/singular" for task in config["tasks"] for seed in config["seeds"]]
    return np.stack([arrays[run] for run in runs])


def ranks(arrays: dict, config: dict, arm: str) -> np.ndarray:
    """Numerical rank of every run, layer and head: (runs, L, H)."""
    return (singular(arrays, config, arm) > TOLERANCE).sum(-1)


def words(arrays: dict, config: dict, arm: str) -> str:
    found = ranks(arrays, config, arm)
    low, high = found.min(), found.max()
    return f"rank {low}" if low == high else f"rank {low} to {high}"


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    seeds = len(config["seeds"])
    runs = len(config["tasks"]) * seeds
    return (
        f"Singular values of a head's prompt term, stacked over all content queries of n = {config['images']} test "
        f"images, over the first of them. Line: median over {runs} trained runs ({len(config['tasks'])} tasks × "
        f"{seeds} seed{'s' if seeds > 1 else ''}), layers and heads; band: smallest to largest. Dashed, upright: the "
        f"number of prompt keys; static prompts cannot have more directions (theorem T3). Dotted: 1e-6, the tolerance "
        f"of the numerical rank in the titles (range over runs, layers and heads); below about 1e-7 lies the rounding "
        f"of the float32 model.\n\nVAPT as written sends every prompt through one bottleneck of rank 8, so after the "
        f"LayerNorm its values span at most 9 directions, whatever P is; the residual of the released code lifts that."
    )
