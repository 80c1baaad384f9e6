"""Does full fine-tuning overtake prompts as data grow, and where? Differences against n, with the crossing (C24)."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "learning_curves"
TITLE = "Full fine-tuning less VPT-Deep against the number of training images, and where it overtakes"
PAIR = ("full", "vpt-deep")
WORDS = {"before": "ahead at every n", "never": "not ahead at the largest n", "inside": "overtakes"}


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    found = shared.results(arrays, config)
    shared.need(found, *PAIR)
    tasks = found.plan.tasks
    figure = plotting.figure(plotting.PAGE, 2.3)
    axes = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for i, (ax, task) in enumerate(zip(axes, tasks, strict=True)):
        draw_task(ax, found, task, i)
    axes[0].set_ylabel("accuracy, fine-tuning less\nVPT-Deep (points)")
    return figure


def draw_task(ax, found, task: str, series: int) -> None:
    """Paired differences at every size; the interval of the crossing as a band, its estimate as an upright line."""
    from vpt_analysis import plotting

    n = np.array([size for size, _ in shared.sized(found, task)])
    gap = difference(found, task)
    plotting.interval(ax, n, gap.estimate, gap.low, gap.high, series=series)
    ax.axhline(0, color=plotting.QUIET, linewidth=0.9, zorder=1)
    shared.size_ticks(ax, n)
    crossed = crossing(found, task)
    if crossed is not None:
        low, high = ax.get_xlim()
        if not np.isnan(crossed.low):
            ax.axvspan(max(crossed.low, low), min(crossed.high, high), color="#e6e6e6", linewidth=0, zorder=0)
        if crossed.status == "inside":
            ax.axvline(crossed.estimate, color="black", linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
        ax.set_xlim(low, high)
    words = "one size" if crossed is None else WORDS[crossed.status]
    ax.set(title=f"{shared.task_name(task)}\n{words}", xlabel="n, training images")


def difference(found, task: str):
    """Accuracy of fine-tuning less that of VPT-Deep at every size, points, with paired intervals: (K,)."""
    (_, full), (_, prompts) = (found.curve(task, arm) for arm in PAIR)
    return shared.points(prompts.T, full.T)  # errors: the larger one's method is behind


def crossing(found, task: str):
    """The size from which on fine-tuning makes fewer errors; None where there is one size."""
    from vpt_analysis.stats import crossover

    (n, full), (_, prompts) = (found.curve(task, arm) for arm in PAIR)
    return crossover(n, prompts, full, resamples=shared.RESAMPLES) if len(n) > 1 else None


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    found = shared.results(arrays, config)
    shared.need(found, *PAIR)
    told = [f"{shared.task_name(task)}: {_told(found, task)}" for task in found.plan.tasks]
    return (
        f"Test accuracy of full fine-tuning less that of VPT-Deep at every number n of training images, both at "
        f"learning rates chosen for it. Markers: means of paired differences, bars: "
        f"{shared.seeds_told(len(found.plan.seeds))}. Dashed upright: the n from which on fine-tuning makes fewer "
        f"errors, read off the falling curves; grey: its interval, up to the edge where resamples have no crossing "
        f"within the sizes. {shared.protocol(config)}: short for fine-tuning.\n\n{'. '.join(told)}. "
        f"{shared.edges_told(found)}"
    )


def _told(found, task: str) -> str:
    gap, crossed = difference(found, task), crossing(found, task)
    ends = f"{gap.estimate[0]:+.1f} points at the smallest n, {gap.estimate[-1]:+.1f} at the largest"
    if crossed is None:
        return ends.replace("-", "−")
    if crossed.status == "inside":
        bounds = "" if np.isnan(crossed.low) else f" [{crossed.low:,.0f}, {crossed.high:,.0f}]"
        where = f"crossing at n = {crossed.estimate:,.0f}{bounds.replace('inf', 'no bound')}"
    else:
        where = {"before": "fine-tuning is ahead from the smallest n on",
                 "never": "fine-tuning is not ahead at the largest n"}[crossed.status]  # fmt: skip
    shares = f"resamples: {100 * crossed.before:.0f} % ahead throughout, {100 * crossed.inside:.0f} % with a crossing, "
    shares += f"{100 * crossed.never:.0f} % without one"
    return f"{ends}; {where} ({shares})".replace("-", "−").replace("fine−tuning", "fine-tuning")
