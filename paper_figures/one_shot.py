"""One image a class: what every arm reaches, at which learning rates, beside the published pair (C7)."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "one_shot"
PUBLISHED = ("dogs_curve",)
TITLE = "One image a class: every arm and its learning rates, beside the published 3.6 % and 60.1 %"
COLUMNS = 7
PANELS = 4  # beside each other
SEVERAL = 3  # tasks that a summary over them is worth
LEGEND = 5  # names in a line
ROW = 0.21  # inches an arm
PRINTED = {"VPT": "vpt-deep", "VAPT": "vapt"}  # which of our arms a published method is
ADAPTIVE = ("vapt", "vapt-released")
RIVALS = ("linear", "vpt-deep", "vpt-deep-small", "vpt-deep-prototypes")  # those that C7 holds against VAPT


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    found = shared.results(arrays, config)
    grids = [arm for arm in found.plan.names if any(grid(found, task, arm) for task in found.plan.tasks)]
    lines = -(-count(found) // PANELS)
    legend = 0.16 * -(-(len(found.plan.tasks) + 3) // LEGEND)
    heights = [lines * (0.85 + ROW * len(found.plan.names)), 0.4 + legend + 1.25 * -(-len(grids) // COLUMNS)]
    figure = plotting.figure(plotting.PAGE, sum(heights) if grids else heights[0])
    if not grids:
        draw_arms(figure, found)
        return figure
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    draw_arms(above, found)
    draw_grids(below, found, grids)
    return figure


def subset(found, task: str) -> dict:
    """The smallest training subset of a task."""
    return shared.sized(found, task)[0][1]


def grid(found, task: str, arm: str):
    return shared.trial(found, task, arm, subset(found, task))


def several(found) -> bool:
    return len(found.plan.tasks) >= SEVERAL


def count(found) -> int:
    """Panels of arms: one a task, one over several tasks, one for what is printed."""
    return len(found.plan.tasks) + several(found) + 1


def draw_arms(figure, found) -> None:
    """A panel a task, a row an arm; the arms over all tasks, and the published pair, in panels of their own."""
    from vpt_analysis import plotting

    names, tasks, panels = found.plan.names, found.plan.tasks, count(found)
    columns = min(PANELS, panels)
    every = figure.subplots(-(-panels // columns), columns, sharey=True, squeeze=False)
    for ax in every.flat[panels:]:
        ax.set_visible(False)
    axes = every.flat[:panels]
    for ax, task in zip(axes, tasks, strict=False):
        for y, arm in enumerate(names):
            values = found.accuracy(task, arm, subset(found, task))
            look = plotting.SERIES[1 if arm in ADAPTIVE else 0]
            ax.plot(100 * values, np.full(len(values), y + 0.24), linestyle="", marker="|", markersize=4,
                    color=plotting.QUIET, zorder=1)  # fmt: skip
            mean = shared.percent(values)
            shared.rows(ax, y - 0.08, mean.estimate, mean.low, mean.high, look)
        ax.axvline(shared.chance(found, task), color=plotting.QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        ax.set_xlim(left=0)
        ax.set(title=f"{shared.task_name(task)}\nn = {shared.sized(found, task)[0][0]:,}", xlabel="test accuracy (%)")
    if several(found):
        draw_summary(axes[-2], found)
    draw_published(axes[-1], names)
    axes[0].set_yticks(range(len(names)), [found.arm(arm).label for arm in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for ax in every[:, 0]:
        ax.set_ylabel("arm")
    for ax in axes:
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)


def over_tasks(found, arm: str):
    return found.over_tasks(arm, {task: subset(found, task) for task in found.plan.tasks}, shared.RESAMPLES)


def draw_summary(ax, found) -> None:
    from vpt_analysis import plotting

    for y, arm in enumerate(found.plan.names):
        mean = over_tasks(found, arm)
        shared.rows(ax, y, mean.estimate, mean.low, mean.high, plotting.SERIES[1 if arm in ADAPTIVE else 0])
    ax.axvline(0, color=plotting.QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    ax.set(title="all tasks\ninterquartile mean", xlabel="% of the way from chance")


def draw_published(ax, names: tuple[str, ...]) -> None:
    from vpt_analysis import plotting

    for row in published():
        if PRINTED[row["method"]] not in names:
            continue
        y, accuracy = names.index(PRINTED[row["method"]]), row["accuracy"]
        adaptive, read = PRINTED[row["method"]] in ADAPTIVE, row["how_read"] == "pixels"
        look = plotting.SERIES[1 if adaptive else 0]
        error = 0.0 if np.isnan(row["reading_error"]) else row["reading_error"]
        shared.rows(ax, y + (0.24 if read else -0.08), accuracy, accuracy - error, accuracy + error, look, hollow=True)
        if not read:
            side = {"ha": "right", "x": accuracy - 4} if accuracy > 50 else {"ha": "left", "x": accuracy + 4}
            ax.text(y=y - 0.08, s=f"{accuracy:g} %", va="center", fontsize=6.2, **side)
    ax.set(title="Stanford Dogs, 1 %\nas printed", xlabel="test accuracy (%)", xlim=(0, 75))


def published() -> list[dict]:
    """Printed accuracies on Stanford Dogs at one per cent of the data, about one image a class."""
    from vpt_analysis.studies import tables

    rows = tables.read("dogs_curve")
    return [row for row in rows if row["percent_of_data"] == 1 and row["method"] in PRINTED]


def draw_grids(figure, found, arms: list[str]) -> None:
    """A panel an arm: test accuracy of the trials against the learning rate, a line a task."""
    from matplotlib.lines import Line2D

    from vpt_analysis import plotting

    lines = -(-len(arms) // COLUMNS)
    axes = figure.subplots(lines, min(COLUMNS, len(arms)), sharey=True, squeeze=False)
    for ax in axes.flat[len(arms) :]:
        ax.set_visible(False)
    for ax, arm in zip(axes.flat, arms, strict=False):
        for i, task in enumerate(found.plan.tasks):
            draw_grid(ax, found, task, arm, plotting.SERIES[i % len(plotting.SERIES)])
        ax.set_xscale("log")
        ax.minorticks_off()
        ax.set_title(shared.wrapped(found.arm(arm).label), fontsize=6.5)
    axes[0, 0].set_ylim(bottom=0)
    figure.supxlabel("learning rate", fontsize=7.5)
    figure.supylabel("accuracy of the trial (%)", fontsize=7.5)
    looks = [plotting.SERIES[i % len(plotting.SERIES)] for i in range(len(found.plan.tasks))]
    names = [shared.task_name(task) for task in found.plan.tasks]
    handles = [Line2D([], [], label=name, **look | {"marker": ""}) for name, look in zip(names, looks, strict=True)]
    marks = {"marker": "o", "linestyle": "", "color": "black", "markersize": 4}
    handles += [Line2D([], [], label="chosen", **marks),
                Line2D([], [], label="chosen, end of the grid", **marks | {"marker": "s"}, markerfacecolor="white"),
                Line2D([], [], label="chance", color=plotting.QUIET, linewidth=0.8, linestyle=(0, (2, 2)))]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=min(LEGEND, len(handles)))


def draw_grid(ax, found, task: str, arm: str, look: dict) -> None:
    from vpt_analysis import plotting

    ax.axhline(shared.chance(found, task), color=plotting.QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    tried = grid(found, task, arm)
    if tried is None:
        return
    rates, (run, choice) = np.array(found.plan.rates_of(found.arm(arm))), tried
    order, accuracy = np.argsort(rates), 100 * run["test"]
    ax.plot(rates[order], accuracy[order], **look | {"marker": ""}, linewidth=1.0)
    chosen = rates == choice.rate
    ax.plot(rates[chosen], accuracy[chosen], linestyle="", marker="s" if choice.edge else "o", color=look["color"],
            markerfacecolor="white" if choice.edge else look["color"], markersize=4.2, zorder=3)  # fmt: skip


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    found = shared.results(arrays, config)
    printed = {row["method"]: row["accuracy"] for row in published() if row["how_read"] != "pixels"}
    gap = printed["VAPT"] - printed["VPT"]
    return (
        f"Above: test accuracy with one training image a class, at the learning rate that was chosen; marker: mean, "
        f"bar: {shared.seeds_told(len(found.plan.seeds))}, ticks below: single seeds; dashed: chance; n: training "
        f"images. {shared.protocol(config)}. At the right what is printed for Stanford Dogs at 1 % of the data "
        f"(arXiv 2501.18936, ViT-B/16 of ImageNet-21k; hollow, no seeds and no intervals are given; the small marker "
        f"is read off the poster, with the reading error): another backbone, other images, longer training, so that "
        f"the ranking and the gap may be held beside ours and the level may not. Below: the trials from which rates "
        f"were chosen, test accuracy of the first seed at every rate. One image a class leaves none to choose on, so "
        f"a task's rate is the one that is best on the *other* tasks; nothing was chosen on these test images. What "
        f"an arm reaches at its best rate is what it can express and be trained to; where its marker lies below its "
        f"line's top, that is tuning.\n\nIn brackets: the highest point of a line, which the test images choose, so "
        f"that it is no result. {'. '.join(story(found, task) for task in found.plan.tasks)}. {summary(found)}The "
        f"printed gap is {gap:.1f} points. {shared.edges_told(found)}"
    )


def summary(found) -> str:
    if not several(found):
        return ""
    listed = ", ".join(f"{found.arm(arm).label} {shared.told(over_tasks(found, arm))}" for arm in found.plan.names)
    return (
        f"Over all {len(found.plan.tasks)} tasks, the mean of the middle half of all runs, in per cent of the way from "
        f"chance to 100 % (seeds drawn within tasks: other seeds, not other tasks): {listed}. "
    )


def story(found, task: str) -> str:
    """The rivals of VAPT in one task, as chosen and, in brackets, at the rate that the test images prefer."""
    at = subset(found, task)
    values = {arm: found.accuracy(task, arm, at) for arm in found.plan.names}
    said = []
    for arm, accuracy in values.items():
        tried = grid(found, task, arm)
        best = "" if tried is None else f" (best of the grid {100 * np.max(tried[0]['test']):.1f})"
        said.append(f"{found.arm(arm).label} {shared.told(shared.percent(accuracy))}{best}")
    line = f"{shared.task_name(task)}, chance {shared.chance(found, task):.1f} %: {'; '.join(said)}"
    rivals = [arm for arm in RIVALS if arm in values]
    if "vapt" in values and rivals:
        best = max(rivals, key=lambda arm: values[arm].mean())
        gap = shared.points(values[best], values["vapt"])
        line += f"; {found.arm(best).label}, the best of the linear probe and static prompts, less VAPT: "
        line += f"{shared.told(gap, sign=True)} points"
    return line
