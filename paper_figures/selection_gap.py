"""What choosing the learning rate on the test images would gain (C22): how not to do it, measured."""

from __future__ import annotations

import numpy as np

from . import _efficiency as shared

STUDY = "learning_curves"
TITLE = "What choosing learning rates on the test images would gain: an inflated accuracy, which nobody should report"
CHOICES = {True: "a part of its own training images", False: "other tasks (one image a class)"}


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    found = shared.results(arrays, config)
    figure = plotting.figure(plotting.PAGE, 2.5)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
    listed = gaps(found)
    if listed:
        draw_arms(left, found, listed)
        draw_sizes(right, found, listed)
        handles = {label: handle for ax in (left, right) for handle, label in zip(*ax.get_legend_handles_labels(),
                                                                                  strict=True)}  # fmt: skip
        figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=3)
    else:
        left.text(0.5, 0.5, "one learning rate: nothing was chosen", transform=left.transAxes, ha="center")
    left.set(ylabel="gain of choosing on test (points),\nnot a result")
    left.set_xlabel("arm")
    right.set_xlabel("n, training images")
    for ax in (left, right):
        ax.axhline(0, color=plotting.QUIET, linewidth=0.9, zorder=1)
    return figure


def gaps(found) -> list[tuple[str, str, int, bool, float]]:
    """Of every trial: task, arm, training images of the subset, whether the choice was made on images of its own, and
    test accuracy at the test images' favourite rate less that at the chosen one, in points."""
    from vpt_analysis.efficiency.plan import key

    listed, tests = [], {own: found.test_selection(own) for own in (True, False)}
    for task in found.plan.tasks:
        for n, subset in shared.sized(found, task):
            for arm in found.plan.names:
                head = f"{key(task, arm, subset)}:trial:"
                listed += [(task, arm, n, own, 100 * (best - chosen)) for own, pairs in tests.items()
                           for name, (chosen, best) in pairs.items() if name.startswith(head)]  # fmt: skip
    return listed


def draw_arms(ax, found, listed: list) -> None:
    """A column an arm: every trial as a small mark, their mean with its interval."""
    from vpt_analysis import plotting

    arms = found.plan.names
    for i, arm in enumerate(arms):
        every = [(own, gap) for _, a, _, own, gap in listed if a == arm]
        places = i - 0.35 + 0.4 * np.arange(len(every)) / len(every)
        for own, face in ((True, plotting.QUIET), (False, "white")):
            mine = [(x, gap) for x, (o, gap) in zip(places, every, strict=True) if o == own]
            label = f"chosen on {CHOICES[own]}" if i == 0 and mine else None
            ax.plot(*np.array(mine).reshape(-1, 2).T, linestyle="", marker="o", markersize=2.6, color=plotting.QUIET,
                    markerfacecolor=face, label=label, zorder=2)  # fmt: skip
        mean = over_trials([gap for _, gap in every])
        label = "mean and interval" if i == 0 else None
        plotting.interval(ax, [i + 0.15], [mean.estimate], [mean.low], [mean.high], series=2, label=label)
    ax.set_xticks(range(len(arms)), [found.arm(arm).label.replace(" ", "\n", 1) for arm in arms])
    ax.set_xlim(-0.7, len(arms) - 0.5)
    ax.grid(axis="x", visible=False)


def draw_sizes(ax, found, listed: list) -> None:
    """A line a task: means over arms at every size."""
    from vpt_analysis import plotting

    every = []
    for i, task in enumerate(found.plan.tasks):
        sizes = [n for n, _ in shared.sized(found, task)]
        means = [over_trials([gap for t, _, m, _, gap in listed if t == task and m == n]) for n in sizes]
        parts = ([getattr(mean, name) for mean in means] for name in ("estimate", "low", "high"))
        at = np.array(sizes) * 1.05 ** (i - 1)
        plotting.interval(ax, at, *parts, series=(0, 1, 3, 4, 5)[i % 5], label=f"{shared.task_name(task)}, all arms")
        every += sizes
    shared.size_ticks(ax, every)


def over_trials(values: list[float]):
    """Mean of gaps with its bootstrap interval over trials."""
    from vpt_analysis.stats.intervals import bootstrap

    return bootstrap(np.array(values), resamples=shared.RESAMPLES)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    found = shared.results(arrays, config)
    listed = gaps(found)
    if not listed:
        return "Each arm had one learning rate, so that nothing was chosen, on test images or on others."
    told = "; ".join(
        f"{found.arm(arm).label} {shared.told(over_trials([g for _, a, _, _, g in listed if a == arm]))}"
        for arm in found.plan.names
    )
    by = "; ".join(
        f"chosen on {CHOICES[own]}: {shared.told(over_trials(values))} (n = {len(values)} trials)"
        for own in CHOICES
        if (values := [g for _, _, _, o, g in listed if o == own])
    )
    each = sorted({len(found.plan.rates_of(arm)) for arm in found.plan.arms})
    return (
        f"What must not be done, and what it would gain: test accuracy at the learning rate that the test images "
        f"themselves prefer, less that at the rate that was chosen without them, both of the same "
        f"trial ({' or '.join(map(str, each))} rates). Small marks: single trials, of the first seed; large: means, "
        f"bars: 95 % bootstrap intervals over trials, which share tasks, so that they say little of other tasks. "
        f"{shared.protocol(config)}. A gain is never below 0: the best of several noisy numbers is at least each of "
        f"them, so part of it would be luck of these test images even for rates that are all equally good.\n\n"
        f"Points gained, by arm: {told}. {by[0].upper()}{by[1:]}. Results of the other figures were not chosen so."
    )
