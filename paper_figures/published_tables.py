"""Printed means against those that follow from the printed numbers below them, row by row (T14)."""

from __future__ import annotations

import numpy as np

STUDY = "published"
TITLE = "Do the printed means of VTAB follow from the printed group means?"
SOURCES = {
    "2501.18936": "VAPT, poster",
    "2411.01327": "VFPT, Table 1",
    "2203.12119": "VPT, as copied",
    "2401.12902": "Elephant",
}
BESIDE = {"mean": 0, "Natural": 1, "Specialized": 3, "Structured": 4, "FGVC": 5}  # series of the house style
EDGE = 0.055  # points; a difference beyond is written out
TOLERANCE = 0.02


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    means, source = checks(arrays, config, "means"), checks(arrays, config, "source")
    below = {}  # differences from single tasks and sets, by the row that they lie under
    for name, (printed, recomputed) in (checks(arrays, config, "tasks") | checks(arrays, config, "sets")).items():
        row, _, what = name.rpartition(": ")
        below.setdefault(row, {})[what] = printed - recomputed
    places, labels = layout([*means, *(row for row in below if row not in means)])
    figure = plotting.figure(plotting.PAGE, 0.165 * len(labels) + 1.0)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    draw_means(left, places, means, source)
    draw_differences(right, places, means, below)
    left.set_yticks(range(len(labels)), labels)
    for text, heading in zip(left.get_yticklabels(), (label in SOURCES.values() for label in labels), strict=True):
        text.set(weight="bold" if heading else "normal", fontsize=6.2)
    left.set_ylim(len(labels) - 0.4, -0.6)
    for ax in (left, right):
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1.0, handletextpad=0.3)
    return figure


def layout(rows: list[str]) -> tuple[dict[str, int], list[str]]:
    """Where each row stands, and the labels of all lines: a heading for every source, its rows below."""
    places, labels = {}, []
    for arxiv, heading in SOURCES.items():
        labels.append(heading)
        for row in rows:
            if row.endswith(f" ({arxiv})"):
                places[row] = len(labels)
                labels.append(row.removesuffix(f" ({arxiv})"))
    return places, labels


def draw_means(ax, places: dict[str, int], means: dict, source: dict) -> None:
    from vpt_analysis import plotting

    y = [places[row] for row in means]
    printed, recomputed = np.array(list(means.values())).T
    ax.hlines(y, recomputed, printed, color=plotting.SERIES[5]["color"], linewidth=1.4, zorder=1)
    ax.plot(recomputed, y, "o", color=plotting.SERIES[0]["color"], markersize=4, label="recomputed from group means")
    look = {"markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 0.8}
    ax.plot(printed, y, "o", markersize=6.5, label="printed", **look)
    other = {row: recomputed for row, (_, recomputed) in source.items()}
    ax.plot(
        list(other.values()), [places[row] for row in other], linestyle="none", marker="x", markersize=4,
        color=plotting.SERIES[5]["color"], markeredgewidth=1.1, label="mean of another LoRA run",
    )  # fmt: skip
    for row, (value, found) in means.items():
        if abs(value - found) > EDGE:
            ax.text(found - 0.5, places[row], f"{value - found:+.2f}", ha="right", va="center", fontsize=6.2)
    ax.set(xticks=range(55, 75, 5), xlabel="mean accuracy over VTAB's 19 tasks (%)")


def draw_differences(ax, places: dict[str, int], means: dict, below: dict) -> None:
    from vpt_analysis import plotting

    ax.axvspan(-TOLERANCE, TOLERANCE, color="#ecebe5", zorder=0)
    ax.axvline(0, color=plotting.QUIET, linewidth=0.7, zorder=1)
    for row, (printed, recomputed) in means.items():
        off = printed - recomputed
        if abs(off) > EDGE:
            side, y, arrow = (
                np.sign(off) * EDGE,
                places[row],
                {"arrowstyle": "->", "color": plotting.SERIES[5]["color"]},
            )
            ax.annotate(
                f"{off:+.2f}", (side, y), (0.6 * side, y), va="center", ha="center", fontsize=6, arrowprops=arrow
            )
    kept = {row: p - r for row, (p, r) in means.items() if abs(p - r) <= EDGE}
    look = {"linestyle": "none", "markersize": 4}
    ax.plot(kept.values(), [places[r] for r in kept], marker="o", color="black", label="mean from groups", **look)
    for what, i in BESIDE.items():
        found = {row: values[what] for row, values in below.items() if what in values}
        marks = {**look, "markersize": 3, "marker": plotting.SERIES[i]["marker"], "color": plotting.SERIES[i]["color"]}
        name = f"{what} from {'sets' if what == 'FGVC' else 'tasks'}"
        ax.plot(found.values(), [places[row] + 0.28 for row in found], markerfacecolor="none", label=name, **marks)
    ax.set(xlim=(-1.1 * EDGE, 1.1 * EDGE), xlabel="printed − recomputed (points)")


def checks(arrays: dict[str, np.ndarray], config: dict, part: str) -> dict[str, tuple[float, float]]:
    """Printed and recomputed number by row."""
    found = (arrays[f"{part}/printed"], arrays[f"{part}/recomputed"])
    return {row: (float(p), float(r)) for row, p, r in zip(config["checks"][part], *found, strict=True)}


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    means, source = checks(arrays, config, "means"), checks(arrays, config, "source")
    off = {row: (p, r) for row, (p, r) in means.items() if round(abs(p - r), 9) > TOLERANCE}
    listed = "; ".join(f"{row}: printed {p:.2f}, recomputed {r:.2f}" for row, (p, r) in off.items())
    widest = max(round(abs(p - r), 9) for row, (p, r) in means.items() if row not in off)
    under = checks(arrays, config, "tasks") | checks(arrays, config, "sets")
    worst = max(under, key=lambda row: abs(under[row][0] - under[row][1]))
    return (
        f"Left: printed means over VTAB's 19 tasks, and (7 Natural + 4 Specialized + 8 Structured) / 19 of the printed "
        f"group means, n = {len(means)} rows: VAPT, arXiv 2501.18936; VFPT, 2411.01327; VPT, 2203.12119, its group "
        f"means as VFPT's table prints them. Right: printed less recomputed; grey: up to {TOLERANCE} (T14), arrows: "
        f"beyond the axis. Small open marks: the same for group means, means and FGVC from single tasks and data sets, "
        f"which are rounded to 0.1, so that 0.05 is no error; n = {len(under)}, the largest "
        f"{abs(under[worst][0] - under[worst][1]):.2f} ({worst}); Elephant, 2401.12902, has one image a class. Printed "
        f"numbers have no intervals, and nothing here was sampled: no seeds.\n\n"
        f"Rows that do not hold: {listed}. The others hold to {widest:.3f}. LoRA's printed mean is likely that of "
        f"another run (cross), which V-PEFT Bench lists with 79.49, 84.55 and 59.78 for the groups: "
        f"{next(iter(source.values()))[1]:.2f}; where Adapter's comes from is not known.\n\n"
        f"Our own accuracies are not put beside these: they are those of another backbone (the bundled one, 32-pixel "
        f"images), other tasks and far shorter training, and nothing would follow from a comparison."
    )
