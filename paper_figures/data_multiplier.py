"""How many times the data VPT-Deep needs to equal VAPT, against the accuracy that both are to reach (C8)."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "learning_curves"
TITLE = "Data multiplier: how many times VAPT's training images VPT-Deep needs for the same accuracy"
PAIR = ("vpt-deep", "vapt")
LEVELS = 7
LINES = (1.0, 2.0)  # equal data, and what C8 asks the interval to lie above
ARROW = {"arrowstyle": "-|>", "linewidth": 0.9, "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0}


def draw(arrays: dict[str, np.ndarray], config: dict):
    from matplotlib.lines import Line2D

    from vpt_analysis import plotting

    found = shared.results(arrays, config)
    shared.need(found, *PAIR)
    tasks = found.plan.tasks
    figure = plotting.figure(plotting.PAGE, 2.6)
    axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    made = [multipliers(found, task) for task in tasks]
    limits = extent([m for each in made for m in each])
    for ax, task, each in zip(axes, tasks, made, strict=True):
        draw_task(ax, task, each, limits)
    axes[0].set_ylabel("times as many images,\nVPT-Deep over VAPT")
    look = {"color": plotting.SERIES[0]["color"], "linestyle": "", "markersize": 4}
    handles = [
        Line2D([], [], marker="o", label="both reach this accuracy", **look),
        Line2D([], [], marker=r"$\uparrow$", label="at least, at most", **look | {"markersize": 6}),
        Line2D([], [], marker="D", label="VPT-Deep's accuracy with all images", **look | {"color": "black"}),
        Line2D([], [], color="#dcdcdc", linewidth=6, label="range of validity"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def extent(made: list) -> tuple[float, float]:
    """Limits of the axis that hold all finite estimates and bounds, and the lines."""
    values = np.array([(m.estimate, m.low, m.high) for m in made]).ravel()
    values = np.array([*LINES, *values[np.isfinite(values) & (values > 0)]])
    return float(values.min() / 2), float(values.max() * 2.5)


def multipliers(found, task: str) -> list:
    """At the accuracy of VPT-Deep's last size first, then at levels between the highest and the lowest mean error of
    either; nothing where there is one size."""
    from vpt_analysis.stats import data_multiplier

    (n, first), (_, second) = (found.curve(task, arm) for arm in PAIR)
    if len(n) < 2:
        return []
    means = np.concatenate([first.mean(1), second.mean(1)])
    levels = np.linspace(means.max(), means.min(), LEVELS + 2)[1:-1]
    made = [data_multiplier(n, first, second, error, resamples=shared.RESAMPLES) for error in (None, *levels)]
    return made[:1] + [m for m in made[1:] if m.bound != "?"]


def draw_task(ax, task: str, made: list, limits: tuple[float, float]) -> None:
    from vpt_analysis import plotting

    for line in LINES:
        ax.axhline(line, color=plotting.QUIET, linewidth=0.9, linestyle="-" if line == 1 else (0, (2, 2)), zorder=1)
    ax.set(title=shared.task_name(task), xlabel="accuracy to reach (%)", yscale="log", ylim=limits)
    ax.minorticks_off()
    ticks = [x for x in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if limits[0] < x < limits[1]]
    ax.set_yticks(ticks, [f"{x:g}" for x in ticks])
    if not made:
        ax.text(0.5, 0.75, "one size: no multiplier", transform=ax.transAxes, ha="center", fontsize=6.5)
        return
    if made[0].valid is not None:
        ax.axvspan(*(100 * (1 - error) for error in made[0].valid[::-1]), color="#ededed", linewidth=0, zorder=0)
    for i, m in enumerate(made):
        draw_multiplier(ax, m, limits, "black" if i == 0 else plotting.SERIES[0]["color"], "D" if i == 0 else "o")


def draw_multiplier(ax, m, limits: tuple[float, float], color: str, marker: str) -> None:
    """A multiplier with its interval; a bound is an arrow from where it lies, an interval without an end leaves."""
    x = 100 * (1 - m.error)
    if not np.isnan(m.low):
        low, high = np.clip([m.low, m.high], *limits)
        ax.plot([x, x], [low, high], color=color, linewidth=1.0, linestyle="-", marker="", zorder=2)
    if m.bound in ("<", ">"):
        start = m.estimate
        reach = (limits[1] / limits[0]) ** 0.12
        end = start * reach if m.bound == ">" else start / reach
        ax.annotate("", (x, end), (x, start), arrowprops=ARROW | {"color": color}, annotation_clip=False)
        ax.plot(x, start, marker="_", markersize=6, color=color, linestyle="", zorder=3)
    else:
        ax.plot(x, m.estimate, marker=marker, markersize=4, color=color, linestyle="", zorder=3)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    found = shared.results(arrays, config)
    shared.need(found, *PAIR)
    return (
        f"How many times as many training images VPT-Deep needs as VAPT to reach an accuracy, read off the falling "
        f"curves through their mean test errors. Markers: multipliers where both reach it within their sizes (grey); "
        f"arrows: where only one does, the multiplier is at least, or at most, where the arrow begins, and no curve is "
        f"continued. Bars: {shared.seeds_told(len(found.plan.seeds))}, the same seeds for both; where resamples only "
        f"bound it, the bar reaches the edge. Full line: equal data; dashed: twice as many, above which claim C8 wants "
        f"the interval. Black: at the accuracy of VPT-Deep with all its images, of which the claim speaks (30 % of the "
        f"data would be a multiplier of {1 / 0.3:.1f}). {shared.protocol(config)}.\n\n"
        f"Black. {'. '.join(_told(found, task) for task in found.plan.tasks)}. A curve that is nearly flat meets an "
        f"accuracy anywhere, and its intervals are as wide as that. {shared.edges_told(found)}"
    )


def _told(found, task: str) -> str:
    made = multipliers(found, task)
    if not made:
        return f"{shared.task_name(task)}: one size, no multiplier"
    first = made[0]
    bound = {">": "at least ", "<": "at most ", "?": "unknown, "}.get(first.bound, "")
    at = f"at {100 * (1 - first.error):.1f} %"
    if first.bound == "?":
        return f"{shared.task_name(task)} {at}: unknown"
    bounds = "" if np.isnan(first.low) else f" [{first.low:.2g}, {first.high:.2g}]".replace("inf", "no bound")
    return f"{shared.task_name(task)} {at}: {bound}{first.estimate:.2g}{bounds}"
