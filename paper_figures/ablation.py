"""What adaptive prompts gain and through what: every arm less VPT-Deep, paired, in groups (C9, C10, C14)."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "ablations"
TITLE = "Equal parameters, prompts fed with means, parts left out, untied prefixes: each less VPT-Deep"
REFERENCE = "vpt-deep"
GROUPS = {
    "Equal parameters or extras (C9)": ("vpt-deep-matched", "vapt", "vpt-projected", "vapt-released"),
    "Reading the input, and what goes with it (C10)": (
        "vapt-mean", "vapt-released-mean", "vapt-released-no-norm", "vapt-released-no-residual",
        "vapt-released-no-zero-start", "vapt-released-no-convolution",
    ),
    "Untied keys and values (C14)": ("prefix", "prefix-scaled", "prefix-warm"),
    "Other methods": ("norga", "vpt-shallow", "linear", "bias", "lora", "full"),
}  # fmt: skip
OTHER = "Others"
NEAR = -1.0  # points; C14 asks whether an untied arm comes nearer
LEVEL = 0.05
ROW = 0.185  # inches a line


def draw(arrays: dict[str, np.ndarray], config: dict):
    from matplotlib.lines import Line2D

    from vpt_analysis import plotting

    found = shared.results(arrays, config)
    shared.need(found, REFERENCE)
    lines, columns, made = layout(found), panels(found), differences(found)
    figure = plotting.figure(plotting.PAGE, 1.1 + ROW * len(lines))
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for ax, task in zip(axes, columns, strict=True):
        draw_task(ax, found, task, lines, made)
    axes[0].set_yticks(range(len(lines)), [name if arm is None else _label(found, arm) for arm, name in lines])
    for text, (arm, _) in zip(axes[0].get_yticklabels(), lines, strict=True):
        text.set(weight="bold" if arm is None else "normal", fontsize=6.3)
    axes[0].set_ylim(len(lines) - 0.5, -0.6)
    axes[len(axes) // 2].set_xlabel("less VPT-Deep (points)")  # the same for all; five would touch each other
    look = {"linestyle": "", "marker": "o", "color": "black", "markersize": 4}
    handles = [Line2D([], [], label=f"p < {LEVEL:g} after Holm's correction", **look),
               Line2D([], [], label="not", **look, markerfacecolor="white")]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _label(found, arm: str) -> str:
    return f"{found.arm(arm).label} ({found.parameters(found.plan.tasks[0], arm):,})"


def panels(found) -> list[str]:
    """A panel a task, and the mean over them where they are several."""
    return [*found.plan.tasks, *(["all"] if len(found.plan.tasks) > 1 else [])]


def layout(found) -> list[tuple[str | None, str]]:
    """Lines from above: headings (None and their words) and arms."""
    known = {arm for group in GROUPS.values() for arm in group} | {REFERENCE}
    groups = GROUPS | {OTHER: tuple(arm for arm in found.plan.names if arm not in known)}
    lines: list[tuple[str | None, str]] = []
    for heading, group in groups.items():
        there = [arm for arm in group if arm in found.plan.names]
        if there:
            lines += [(None, heading), *((arm, arm) for arm in there)]
    return lines


def largest(found, task: str) -> dict:
    return shared.sized(found, task)[-1][1]


def differences(found) -> dict:
    """By arm and panel: the difference to VPT-Deep in points, and its p-value after Holm's correction (NaN for a single
    seed, which no test can be made of)."""
    from vpt_analysis.stats import compare

    tasks, names = found.plan.tasks, found.plan.names
    scores = {
        arm: np.stack([100 * found.accuracy(task, arm, largest(found, task)) for task in tasks], axis=1)
        for arm in names
    }  # (S, T)
    if len(found.plan.seeds) > 1:
        rows = compare(scores, REFERENCE, tasks, resamples=shared.RESAMPLES)
        return {(row.method, row.task): (row.difference, row.t_adjusted) for row in rows}
    apart = {arm: values - scores[REFERENCE] for arm, values in scores.items() if arm != REFERENCE}
    columns = {task: slice(i, i + 1) for i, task in enumerate(tasks)} | {"all": slice(None)}
    return {(arm, panel): (shared.percent(values[:, columns[panel]].mean(1) / 100), np.nan)
            for arm, values in apart.items() for panel in panels(found)}  # fmt: skip


def draw_task(ax, found, task: str, lines: list, made: dict) -> None:
    from vpt_analysis import plotting

    looks = [plotting.SERIES[i] for i in (0, 1, 3, 5)]
    group, untied = -1, []
    for y, (arm, _) in enumerate(lines):
        if arm is None:
            group += 1
            continue
        gap, p = made[arm, task]
        shared.rows(ax, y, gap.estimate, gap.low, gap.high, looks[group % len(looks)], hollow=not p < LEVEL)
        if arm.startswith("prefix"):
            untied.append(y)
    ax.axvline(0, color=plotting.QUIET, linewidth=0.9, zorder=1)
    if untied:
        ax.vlines(NEAR, min(untied) - 0.4, max(untied) + 0.4, color=plotting.QUIET, linewidth=0.9,
                  linestyle=(0, (2, 2)), zorder=1)  # fmt: skip
    if task == "all":
        ax.set_title("mean over\ntasks")
    else:
        ax.set_title(f"{shared.task_name(task)}\nn = {shared.sized(found, task)[-1][0]:,}")
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    found = shared.results(arrays, config)
    shared.need(found, REFERENCE)
    made, seeds = differences(found), len(found.plan.seeds)
    told = []
    for task in panels(found):
        listed = "; ".join(
            f"{found.arm(arm).label} {shared.told(made[arm, task][0], sign=True)}"
            for arm, _ in layout(found) if arm is not None
        )  # fmt: skip
        told.append(f"{'Mean over tasks' if task == 'all' else shared.task_name(task)}. {listed}")
    levels = "; ".join(
        f"{shared.task_name(task)} {shared.told(shared.percent(found.accuracy(task, REFERENCE, largest(found, task))))}"
        for task in found.plan.tasks
    )
    return (
        f"Test accuracy of every arm less that of VPT-Deep with the same seed, at learning rates chosen in the same "
        f"way (VPT-Deep itself: {levels} %). In brackets: trained parameters without the head. Markers: mean "
        f"differences, bars: {shared.seeds_told(seeds)}; filled: a paired t-test rejects that there is none, at "
        f"{LEVEL:g} after Holm's correction for all tests of single tasks (those of the mean over tasks are a family "
        f"of their own). Dashed: one point below, within which C14 looks for untied arms. n: training images. "
        f"{shared.protocol(config)}.\n\n"
        f"Points. {'. '.join(told)}. {shared.edges_told(found)}"
    )
