"""Skills that prompts, LoRA and fine-tuning give to two small Transformers of sequences, old ones and new ones."""

from __future__ import annotations

import numpy as np

STUDY = "skills"
TITLE = "What prompts elicit and what they teach: whole sequences right, by task and method"
METHODS = {"prefix": "prefix (static)", "vpt-deep": "VPT-Deep (static)", "vapt": "VAPT (adaptive)",
           "norga": "NoRGa", "lora": "LoRA", "full": "full fine-tuning"}  # fmt: skip
TASKS = {"ascending": "ascending", "descending": "descending", "add-1": "add 1", "add-2": "add 2",
         "ascending-add-1": "ascending,\nthen add 1", "histogram": "histogram"}  # fmt: skip
KINDS = ("elicited", "composed", "new")
SPREAD = 0.72  # share of the distance between two tasks that their methods take


def cells(config: dict, model: str) -> list[tuple[str, str]]:
    """Tasks of a model with their kinds, elicited ones first."""
    from vpt_analysis.claims.skills import COMPOSED
    from vpt_analysis.studies.skills import kind

    found = [(t, "composed" if t in COMPOSED else kind(model, t)) for m, t, _ in config["tasks"] if m == model]
    return sorted(found, key=lambda cell: KINDS.index(cell[1]))  # a stable sort


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    models = list(dict.fromkeys(model for model, _, _ in config["tasks"]))
    figure = plotting.figure(plotting.PAGE, 3.1)
    widths = [len(cells(config, model)) for model in models]
    axes = figure.subplots(1, len(models), sharey=True, width_ratios=widths)
    for ax, model in zip(np.atleast_1d(axes), models, strict=True):
        draw_model(ax, arrays, config, model)
    np.atleast_1d(axes)[0].set(ylabel="whole sequences right (%)", ylim=(-4, 104))
    handles, labels = np.atleast_1d(axes)[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def draw_model(ax, arrays: dict, config: dict, model: str) -> None:
    """One group of methods a task; the papers' numbers, hollow, beside the method that they are of."""
    from vpt_analysis import plotting

    found = cells(config, model)
    for x, (task, _) in enumerate(found):
        for i, method in enumerate(config["methods"]):
            draw_method(ax, arrays, model, task, method, position(config, x, i), i, METHODS[method] if x == 0 else None)
    draw_published(ax, config, model, [task for task, _ in found])
    for level in (5, 50):
        ax.axhline(level, color=plotting.QUIET, linewidth=0.6, linestyle=(0, (1, 2)), zorder=1)
    borders = [x for x in range(1, len(found)) if found[x][1] != found[x - 1][1]]
    for x in borders:
        ax.axvline(x - 0.5, color=plotting.QUIET, linewidth=0.7, zorder=1)
    said = {"elicited": "trained on", "composed": "composed", "new": "new"}
    for start in (0, *borders):
        many = sum(kind == found[start][1] for _, kind in found)
        ax.text(start + (many - 1) / 2, 107, said[found[start][1]], ha="center", va="bottom", color=plotting.QUIET,
                fontsize=6.5)  # fmt: skip
    ax.set_xticks(range(len(found)), [TASKS[task] for task, _ in found])
    ax.set(xlim=(-0.5, len(found) - 0.5), xlabel=f"task, {model}")
    ax.grid(False, axis="x")


def position(config: dict, x: int, method: int) -> float:
    many = len(config["methods"])
    return x + SPREAD * ((method + 0.5) / many - 0.5)


def draw_method(ax, arrays, model: str, task: str, method: str, x: float, series: int, label: str | None) -> None:
    """The mean over seeds with its interval, and every seed as a small mark."""
    from vpt_analysis import plotting

    shares, look = 100 * arrays[f"{model}:{task}:{method}/whole"], plotting.SERIES[series]
    found = over_seeds(shares)
    ax.vlines(x, found.low, found.high, color=look["color"], linewidth=1.2)
    ax.plot(np.full(len(shares), x), shares, marker="_", markersize=4, linestyle="", color=look["color"], zorder=2)
    ax.plot(x, found.estimate, **look | {"linestyle": ""}, markersize=4.5, markeredgecolor="white", markeredgewidth=0.4,
            zorder=3, label=label)  # fmt: skip


def draw_published(ax, config: dict, model: str, tasks: list[str]) -> None:
    from vpt_analysis import plotting
    from vpt_analysis.claims.skills import published

    methods, label = config["methods"], "printed by the papers"
    for row in published():
        if row["model"] == model and row["task"] in tasks and row["method"] in methods:
            i = methods.index(row["method"])
            look = plotting.SERIES[i]
            ax.plot(position(config, tasks.index(row["task"]), i), row["accuracy"], marker=look["marker"], linestyle="",
                    markersize=7.5, markerfacecolor="none", markeredgecolor=look["color"], markeredgewidth=0.9,
                    zorder=4, label=label)  # fmt: skip
            label = None


def over_seeds(shares: np.ndarray):
    from vpt_analysis.stats.intervals import Interval, bootstrap

    found = bootstrap(shares, resamples=2_000)
    if found.n == 1:
        return Interval(found.estimate, found.estimate, found.estimate, 1)
    return found


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    from vpt_analysis.claims.skills import published

    seeds, models = len(config["seeds"]), list(dict.fromkeys(model for model, _, _ in config["tasks"]))
    steps = ", ".join(f"{n:,} ({model}, {_task(task)})" for model, task, n in config["tasks"])
    sizes = "; ".join(
        f"{model} "
        + ", ".join(
            f"{method} {int(arrays[f'{model}:{cells(config, model)[0][0]}:{method}/parameters']):,}"
            for method in config["methods"]
        )
        for model in models
    )
    printed = "; ".join(f"{row['printed']} {row['accuracy']:g} %" for row in published())
    listed = ". ".join(
        f"{model}, {_task(task)} ({kind}): "
        + ", ".join(
            _words(method, over_seeds(100 * arrays[f"{model}:{task}:{method}/whole"])) for method in config["methods"]
        )
        for model in models
        for task, kind in cells(config, model)
    )
    return (
        f"Two Transformers of sequences of 9 symbols of 8 kinds, frozen with their readouts: toy-sort (one layer, one "
        f"head) was trained to sort ascending, toy-mixture (three layers, four heads) on four tasks without being told "
        f"which. Each method learns one task at a time from {config['batch']} fresh sequences a step, in steps: "
        f"{steps}; at the best of {len(config['rates'])} learning rates by validation sequences. Filled marks: mean "
        f"over {_seeds(seeds)} of the share of "
        f"n = {config['test']:,} test sequences with every symbol right; small marks: the seeds; bars: 95 % bootstrap "
        f"intervals over seeds. Dotted lines: 5 % and 50 %, the bounds of claim C17. Sums are modulo 8; histogram: how "
        f"often the own symbol occurs (the papers' double histogram). Trained parameters: {sizes}.\n\nHollow marks: "
        f"printed by Petrov, Torr and Bibi (outputs of their notebooks: {printed}), for causal models of other sizes "
        f"that write the answer symbol by symbol, with prefixes of 1 to 12 and up to 40,000 iterations: of the same "
        f"tasks, not of the same experiment.\n\nWhole sequences right: {listed}."
    )


def _task(task: str) -> str:
    return TASKS[task].replace("\n", " ")


def _seeds(count: int) -> str:
    return f"{count} seed" + "s" * (count != 1)


def _words(method: str, found) -> str:
    return f"{METHODS[method]} {found.estimate:.1f} % [{found.low:.1f}, {found.high:.1f}]"
