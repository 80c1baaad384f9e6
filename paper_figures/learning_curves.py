"""Learning curves: error against the number of training images, with fitted power laws, beside the published curve."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "learning_curves"
PUBLISHED = ("dogs_curve",)
TITLE = "Learning curves of prompts, adaptive prompts and baselines, beside the published one on Stanford Dogs"
PRINTED = {"VPT": "vpt-deep", "VAPT": "vapt"}  # which of our arms a published method is
ASIDE = 1.04  # by this factor the markers of neighbouring arms stand apart


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    found = shared.results(arrays, config)
    panels = len(found.plan.tasks) + 1
    columns = min(panels, 4)
    lines = -(-panels // columns)
    figure = plotting.figure(plotting.PAGE, 2.3 * lines + 0.25)
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.flat[panels:]:
        ax.set_visible(False)
    for ax, task in zip(axes.flat, found.plan.tasks, strict=False):
        draw_task(ax, found, task)
    draw_published(axes.flat[panels - 1], found)
    for row in axes:
        row[0].set_ylabel("test error (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def draw_task(ax, found, task: str) -> None:
    """Mean errors with intervals; behind them the fitted law of arms for which it is identified."""
    from vpt_analysis import plotting

    names = found.plan.names
    for i, arm in enumerate(names):
        n, errors = found.curve(task, arm)
        mean, look = shared.percent(errors.T), plotting.SERIES[i % len(plotting.SERIES)]
        at = n * ASIDE ** (i - (len(names) - 1) / 2)
        plotting.interval(ax, at, mean.estimate, mean.low, mean.high, series=i, label=found.arm(arm).label)
        fitted = law(found, task, arm)
        if fitted is not None and fitted.identified:
            between = np.geomspace(n[0], n[-1], 60)
            ax.plot(between, 100 * fitted.at(between), color=look["color"], linewidth=2.6, alpha=0.3, zorder=1)
    ax.axhline(100 - shared.chance(found, task), color=plotting.QUIET, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    shared.size_ticks(ax, n)
    ax.set(title=shared.task_name(task), xlabel="n, training images")


def law(found, task: str, arm: str):
    """The power law of the mean errors; None where too few sizes were run to fit one."""
    from vpt_analysis.stats import learning_curve

    n, errors = found.curve(task, arm)
    return learning_curve(n, errors, resamples=shared.RESAMPLES).law if len(n) > 1 else None


def draw_published(ax, found) -> None:
    from vpt_analysis import plotting

    for method, arm in PRINTED.items():
        share, accuracy = printed(method)
        series = found.plan.names.index(arm) if arm in found.plan.names else len(found.plan.names)
        look = plotting.SERIES[series % len(plotting.SERIES)] | {"markerfacecolor": "white"}
        ax.plot(share, 100 - accuracy, **look, markersize=3.8)
        ax.text(1.2 * share[0], 100 - accuracy[0], f"accuracy {accuracy[0]:g} %", fontsize=6.2, va="bottom")
    ax.set(title="Stanford Dogs\nas printed", xlabel="training data (%)", xscale="log", ylim=(0, 102))
    ax.minorticks_off()
    ax.set_xticks([1, 10, 30, 100], ["1", "10", "30", "100"])


def printed(method: str) -> tuple[np.ndarray, np.ndarray]:
    """Per cent of the data and printed accuracies; of the text where both text and picture give one."""
    from vpt_analysis.studies import tables

    rows = [row for row in tables.read("dogs_curve") if row["method"] == method]
    rows.sort(key=lambda row: row["how_read"] != "pixels")  # what comes later stays
    kept = {row["percent_of_data"]: row["accuracy"] for row in rows}
    return np.array(sorted(kept)), np.array([kept[share] for share in sorted(kept)])


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    found = shared.results(arrays, config)
    listed = [
        f"{shared.task_name(task)}: " + "; ".join(_fit(found, task, arm) for arm in found.plan.names)
        for task in found.plan.tasks
    ]
    gaps = [gap for task in found.plan.tasks if (gap := _gap(found, task))]
    return (
        f"Test error against the number n of training images, subsets that lie inside each other, at learning rates "
        f"chosen at every n on a part of these images (with one image a class, on the other tasks). Markers: means, "
        f"drawn a little beside each other, bars: {shared.seeds_told(len(found.plan.seeds))}; dashed: chance; pale "
        f"lines: fits of floor + scale · n^−exponent where the exponent is identified. {shared.protocol(config)}; "
        f"as many steps at every n, so that a curve shows what more images bring, not more training. Hollow, "
        f"at the right: what is printed for Stanford Dogs (arXiv 2501.18936; ViT-B/16, no intervals; VPT's "
        f"{printed('VPT')[1][0]:g} % and VAPT's {printed('VAPT')[1][0]:g} % at 1 % from the text, the rest read off "
        f"the poster to 0.3 points).\n\nExponents. {'. '.join(listed)}."
        + (f" VAPT less VPT-Deep in points of accuracy, smallest and largest n. {'. '.join(gaps)}." if gaps else "")
        + f" {shared.edges_told(found)}"
    )


def _fit(found, task: str, arm: str) -> str:
    label, fitted = found.arm(arm).label, law(found, task, arm)
    if fitted is None:
        return f"{label} not fitted (fewer than 4 sizes, or an error of 0)"
    if not fitted.identified:
        return f"{label} not identified"
    floor = f", floor {100 * fitted.floor.estimate:.0f} %" if fitted.floor_identified else ", floor not identified"
    return f"{label} {shared.told(fitted.exponent, 2)}{floor}"


def _gap(found, task: str) -> str:
    if not {"vapt", "vpt-deep"} <= set(found.plan.names):
        return ""
    ends = shared.sized(found, task)
    ends = [ends[0], ends[-1]] if len(ends) > 1 else ends
    gaps = [shared.points(found.accuracy(task, "vapt", s), found.accuracy(task, "vpt-deep", s)) for _, s in ends]
    told = "; ".join(f"n = {n:,}: {shared.told(gap, sign=True)}" for (n, _), gap in zip(ends, gaps, strict=True))
    return f"{shared.task_name(task)} {told}"
