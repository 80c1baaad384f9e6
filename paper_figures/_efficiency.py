"""What the figures of sample efficiency share: their results, intervals over seeds in per cent, names and words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RESAMPLES = 2_000
TASKS = {
    "cifar100": "CIFAR-100", "caltech101": "Caltech-101", "grocery81": "Grocery-81", "cub100": "CUB-100",
    "digits": "digits", "shapes-count": "shapes, count", "shapes-position": "shapes, position",
    "shapes-orientation": "shapes, orientation", "shapes-colour": "shapes, colour",
}  # fmt: skip


def results(arrays: Mapping[str, np.ndarray], config: dict):
    """``efficiency.results.Results`` of a study's arrays."""
    from vpt_analysis.efficiency import results

    return results.of(config, arrays)


def need(found, *arms: str) -> None:
    """Raise ``ValueError`` where the results lack an arm that a figure is about."""
    missing = [arm for arm in arms if arm not in found.plan.names]
    if missing:
        raise ValueError(
            f"the results have no arm {', '.join(missing)}, which this figure compares; they have "
            f"{', '.join(found.plan.names)}: add it to the study's arms and compute it again"
        )


def task_name(task: str) -> str:
    return TASKS.get(task, task)


def sized(found, task: str) -> list[tuple[int, dict]]:
    """Training images and subset of every size of a task, small ones first."""
    first = found.plan.names[0]
    return sorted(((found.images(task, first, s), s) for s in found.plan.of(task)), key=lambda pair: pair[0])


def percent(values: np.ndarray):
    """Mean of shares over seeds (S, ...) with its bootstrap interval, in per cent; no bounds (NaN) of one seed."""
    from vpt_analysis.stats.intervals import bootstrap

    return bootstrap(100 * np.asarray(values), resamples=RESAMPLES)


def points(first: np.ndarray, second: np.ndarray):
    """Mean of first − second over the same seeds, (S, ...) shares, with its interval, in points of per cent."""
    from vpt_analysis.stats.intervals import paired

    return paired(100 * np.asarray(first), 100 * np.asarray(second), resamples=RESAMPLES)


def chance(found, task: str) -> float:
    """Accuracy of guessing among the classes of a task, in per cent."""
    return 100 * found.chance(task)


def trial(found, task: str, arm: str, subset: Mapping):
    """The first seed's trial of an arm and the choice made on it; None where there was nothing to choose."""
    from vpt_analysis.efficiency.plan import key

    plan, name = found.plan, key(task, arm, subset)
    seed = plan.seeds[0]
    if f"{name}:trial:{seed}" not in found.found:
        return None
    return found.found[f"{name}:trial:{seed}"], found.choices[name if plan.choose == "once" else f"{name}:{seed}"]


def at_edges(found) -> tuple[list[str], int]:
    """Arms, tasks and sizes whose chosen rate is an end of the grid, and how many choices there were."""
    from vpt_analysis.efficiency.plan import key

    cells = [(t, arm, n, key(t, arm, s)) for t in found.plan.tasks for n, s in sized(found, t)
             for arm in found.plan.names]  # fmt: skip
    said = [
        f"{found.arm(arm).label} on {task_name(task)} ({n:,} images)"
        for task, arm, n, name in cells
        if any(choice.edge for k, choice in found.choices.items() if k == name or k.rpartition(":")[0] == name)
    ]
    return said, sum(choice.by != "given" for choice in found.choices.values())


def edges_told(found) -> str:
    """How many chosen rates are ends of their grid, in a sentence; which ones where they are few."""
    said, of = at_edges(found)
    if not of:
        return "Each arm had one learning rate, so nothing was chosen."
    if not said:
        return f"No chosen learning rate is an end of its grid (of {of})."
    listed = f": {'; '.join(said)}" if len(said) <= 6 else ""
    return f"{len(said)} of {of} chosen learning rates are an end of their grid{listed}: there it should go on."


def seeds_told(n: int) -> str:
    """What bars over ``n`` seeds are, and what they are worth.

    >>> seeds_told(1)
    'one seed, no intervals'
    """
    from vpt_analysis.stats import COVERAGE

    if n == 1:
        return "one seed, no intervals"
    worth = ""
    if n in COVERAGE and n < 30:
        worth = f" (which hold the mean of normal values in {100 * COVERAGE[n]:.0f} % of the cases)"
    return f"95 % bootstrap intervals over {n} seeds{worth}"


def protocol(config: dict) -> str:
    """Steps, images and backbone, for captions."""
    steps = f"{config['steps']} steps of {config['batch']} images"
    return f"{config['backbone']}, {steps} for every arm; at most {config['test']:,} test images a task"


def told(found, decimals: int = 1, sign: bool = False) -> str:
    """An interval in words, without bounds where there are none.

    >>> from vpt_analysis.stats.intervals import Interval
    >>> told(Interval(-1.25, -2.0, 0.5, 5)), told(Interval(3.0, float("nan"), float("nan"), 1), sign=True)
    ('−1.2 [−2.0, 0.5]', '+3.0')
    """
    shown = f"{found.estimate:{'+' if sign else ''}.{decimals}f}"
    if not np.isnan(found.low):
        shown += f" [{found.low:.{decimals}f}, {found.high:.{decimals}f}]"
    return shown.replace("-", "−")


def rows(ax, y, centre, low, high, look: dict, hollow: bool = False) -> None:
    """Intervals that lie: a marker at each ``centre`` on the heights ``y``, a bar from ``low`` to ``high``."""
    y, centre, low, high = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (y, centre, low, high))
    ax.hlines(y, low, high, color=look["color"], linewidth=1.1, zorder=2)
    face = "white" if hollow else look["color"]
    ax.plot(centre, y, linestyle="", marker=look["marker"], color=look["color"], markersize=4.2, markerfacecolor=face,
            markeredgewidth=0.8, zorder=3)  # fmt: skip


def size_ticks(ax, sizes) -> None:
    """Ticks of a logarithmic axis of training images at the sizes themselves, those too near to others left out."""
    ax.set_xscale("log")
    ax.minorticks_off()
    kept: list[float] = []
    for n in sorted(set(sizes)):
        if not kept or n / kept[-1] > 1.8:
            kept.append(n)
    ax.set_xticks(kept, [f"{n:,}" for n in kept])
    if len(set(sizes)) == 1:
        ax.set_xlim(kept[0] / 2, kept[0] * 2)


def wrapped(label: str) -> str:
    """A label on two lines, broken after its first comma."""
    return label.replace(", ", ",\n", 1)
