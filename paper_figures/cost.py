"""Accuracy against what it costs: trained parameters, arithmetic, memory of a training step and its time."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "costs"
ACCURACY = "accuracy/"
TITLE = "Accuracy against trained parameters, FLOPs, memory and step time of every arm"
COSTS = {
    "parameters": "trained parameters",
    "flops": "forward FLOPs an image (10⁶)",
    "memory": "memory of a step (MB)",
    "time": "step time over VPT-Deep's",
}


def draw(arrays: dict[str, np.ndarray], config: dict):
    from matplotlib.lines import Line2D

    from vpt_analysis import plotting

    tasks, arms = tasks_of(arrays), config["arms"]
    figure = plotting.figure(plotting.PAGE, 1.75 * max(1, len(tasks)) + 0.75)
    axes = figure.subplots(max(1, len(tasks)), len(COSTS), sharex="col", sharey="row", squeeze=False)
    for row, task in zip(axes, tasks, strict=False):
        for ax, what in zip(row, COSTS, strict=True):
            for i, arm in enumerate(arms):
                draw_arm(ax, arrays, task, arm, what, look(i))
        row[0].set_ylabel(f"{shared.task_name(task)}, n = {images(arrays, task):,}\ntest accuracy (%)")
    for ax, (what, words) in zip(axes[-1], COSTS.items(), strict=True):
        ax.set_xlabel(words)
        if what == "parameters":
            ax.set_xscale("symlog", linthresh=1000)
            ax.minorticks_off()
            ax.set_xticks([0, 1e3, 1e4, 1e5, 1e6], ["0", "10³", "10⁴", "10⁵", "10⁶"])
        if what == "time":
            for above in axes[:, -1]:
                above.axvline(1, color=plotting.QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    handles = [Line2D([], [], label=label(arm), linestyle="", markersize=4.2, **look(i)) for i, arm in enumerate(arms)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def look(i: int) -> dict:
    """Marker of the i-th arm: those of the house style filled, then hollow, then grey inside."""
    from vpt_analysis import plotting

    series = plotting.SERIES[i % len(plotting.SERIES)]
    face = (series["color"], "white", "#CCCCCC")[i // len(plotting.SERIES)]
    return {"color": series["color"], "marker": series["marker"], "markerfacecolor": face}


def label(arm: str) -> str:
    from vpt_analysis.efficiency.arms import arm as known

    return known(arm).label


def draw_arm(ax, arrays: dict, task: str, arm: str, what: str, look: dict) -> None:
    found, cost = accuracy(arrays, task, arm), costs(arrays, arm)[what]
    if found is None:
        return
    ax.vlines(cost.estimate, found.low, found.high, color=look["color"], linewidth=0.9, zorder=2)
    ax.hlines(found.estimate, cost.low, cost.high, color=look["color"], linewidth=0.9, zorder=2)
    ax.plot(cost.estimate, found.estimate, linestyle="", markersize=4.2, markeredgewidth=0.8, zorder=3, **look)


def tasks_of(arrays: dict) -> list[str]:
    """Tasks with accuracies, in the order of the arrays."""
    names = [name.removeprefix(ACCURACY) for name in arrays if name.startswith(ACCURACY)]
    return list(dict.fromkeys(name.rpartition(":")[0] for name in names))


def images(arrays: dict, task: str) -> int:
    return int(arrays[f"{ACCURACY}{task}:images"])


def accuracy(arrays: dict, task: str, arm: str):
    values = arrays.get(f"{ACCURACY}{task}:{arm}")
    return None if values is None else shared.percent(values)


def costs(arrays: dict, arm: str) -> dict:
    """Each cost as an ``Interval``; those that are counted have no width."""
    from vpt_analysis.stats.intervals import Interval, bootstrap

    def counted(value: float) -> Interval:
        return Interval(float(value), float(value), float(value), 0)

    seconds = arrays[f"{arm}/measured/seconds"]
    return {
        "parameters": counted(arrays[f"{arm}/parameters"]),
        "flops": counted(arrays[f"{arm}/flops"] / 1e6),
        "memory": counted((arrays[f"{arm}/kept"] + arrays[f"{arm}/state"]) / 1e6),
        "time": bootstrap(seconds[:, 0] / seconds[:, 1], np.median, shared.RESAMPLES),
    }


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    tasks, arms = tasks_of(arrays), config["arms"]
    seeds = {len(a) for n, a in arrays.items() if n.startswith(ACCURACY) and np.ndim(a)}
    without = [label(arm) for arm in arms if all(accuracy(arrays, task, arm) is None for task in tasks)]
    listed = "; ".join(_told(arrays, arm) for arm in arms)
    best = ". ".join(_best(arrays, task, arms) for task in tasks)
    bars = " or ".join(shared.seeds_told(n) for n in sorted(seeds)) or "none"
    return (
        f"Test accuracies of the committed comparison, at learning rates chosen in the same way, against four costs "
        f"of each arm; n: training images. Upright bars: {bars}. Parameters: trained, without the head (linear up to "
        f"1,000, logarithmic beyond). FLOPs: of the forward pass, a multiply-add as 2, counted. Memory: what a step "
        f"of {config['images']} images keeps for its backward pass, with gradients and AdamW's two moments, counted "
        f"from what autograd saves; weights and what kernels use in passing are left out. Step time: forward and "
        f"backward on one thread of one machine, in turns with VPT-Deep; median of {config['repeats']} ratios, level "
        f"bars: its 95 % bootstrap interval. {config['backbone']} at its own image size; other sizes shift the "
        f"balance. The linear probe's step is a plain forward pass, whose features need computing only once.\n\n"
        f"{listed}. {best}." + (f" Without an accuracy here: {', '.join(without)}." if without else "")
    )


def _told(arrays: dict, arm: str) -> str:
    found = costs(arrays, arm)
    return (
        f"{label(arm)}: {found['parameters'].estimate:,.0f} parameters, {found['flops'].estimate:.1f} MFLOPs, "
        f"{found['memory'].estimate:.1f} MB, {shared.told(found['time'], 2)} × the time"
    )


def _best(arrays: dict, task: str, arms: list[str]) -> str:
    found = {arm: a for arm in arms if (a := accuracy(arrays, task, arm)) is not None}
    top = max(found, key=lambda arm: found[arm].estimate)
    return f"Most accurate on {shared.task_name(task)}: {label(top)}, {shared.told(found[top])} %"
