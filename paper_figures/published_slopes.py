"""Slopes of one prompt expert's estimates against n, ours beside the published ones and those of the theory."""

from __future__ import annotations

import numpy as np

STUDY = "contamination"
TITLE = "Estimation of one prompt expert beside a frozen one: our slopes and the published ones"
SETUPS = {"distinguishable": "distinguishable", "near": "not distinguishable, distance n^(-1/8)"}  # as printed
TITLES = {"distinguishable": "Laplace frozen expert", "near": "Gaussian frozen expert, near"}
GATES = {"varying": "information, β* ≠ 0", "constant": "information, β* = 0"}
SYMBOLS = {"beta": "β", "tau": "τ", "eta": "η", "nu": "ν"}
ENOUGH = 0.9  # share of fits that converge, below which a size enters no slope


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    figure = plotting.figure(plotting.PAGE, 4.6)
    axes = figure.subplots(2, 3)
    for column, setup in enumerate(SETUPS):
        draw_slopes(axes[0, column], arrays, config, setup)
        draw_medians(axes[1, column], arrays, config, setup)
    for ax, gate in zip(axes[:, 2], GATES, strict=True):
        draw_information(ax, arrays, config, gate)
    for ax in axes[0, :2]:
        ax.set_ylim(min(ax.get_ylim()[0] for ax in axes[0, :2]), max(ax.get_ylim()[1] for ax in axes[0, :2]))
    axes[0, 0].set_ylabel("slope, d log |error| / d log n")
    axes[1, 0].set_ylabel("median |error|, in the parameter's unit")
    shown = {}
    for ax in (axes[0, 1], axes[1, 0]):
        shown |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=8)
    return figure


def draw_slopes(ax, arrays: dict, config: dict, setup: str) -> None:
    from vpt_analysis import plotting

    places = np.arange(len(SYMBOLS))
    slope, expected = slopes(arrays, config, setup)
    black, red = plotting.SERIES[2]["color"], plotting.SERIES[5]["color"]
    for place, quantity in zip(places, SYMBOLS, strict=True):
        values, theory = printed(config, setup, quantity)
        ax.plot([place - 0.4, place + 0.4], [theory] * 2, color=plotting.QUIET, linewidth=1, linestyle="--",
                marker="", label="published theory")  # fmt: skip
        ax.plot([place + 0.22] * len(values), values, linestyle="-", linewidth=0.8, color=red, marker="P",
                markersize=4.5, markeredgecolor="white", markeredgewidth=0.3, label="published")  # fmt: skip
    ax.plot(places, expected, linestyle="", marker="D", markersize=3.5, color="white", markeredgecolor=black,
            label="Fisher information")  # fmt: skip
    ax.vlines(places - 0.22, slope.low, slope.high, color=black, linewidth=1.1)
    ax.plot(places - 0.22, slope.estimate, linestyle="", marker="o", markersize=4, color=black,
            markeredgecolor="white", markeredgewidth=0.4, label="ours, 95 % interval")  # fmt: skip
    ax.set_xticks(places, SYMBOLS.values())
    ax.set(title=TITLES[setup], xlabel="parameter")


def draw_medians(ax, arrays: dict, config: dict, setup: str) -> None:
    from matplotlib.ticker import NullFormatter

    from vpt_analysis import plotting
    from vpt_analysis.stats.intervals import bootstrap

    n = np.array(config["sizes"])
    for i, (quantity, symbol) in enumerate(SYMBOLS.items()):
        found = [bootstrap(arrays[f"{setup}:{size}/{quantity}"], np.median, resamples=2000) for size in n]
        look = plotting.SERIES[i] | {"linestyle": ""}
        ax.plot(n, [f.estimate for f in found], markersize=3, markeredgewidth=0, label=symbol, zorder=3, **look)
        ax.vlines(n, [f.low for f in found], [f.high for f in found], color=look["color"], linewidth=0.8)
        ax.plot(n, [arrays[f"{setup}:{size}/predicted"][i] for size in n], color=look["color"], linewidth=0.7)
    few = n[~enough(arrays, config, setup)]
    if len(few):
        ax.axvspan(n[0] * 0.9, few[-1] * 1.1, color="#eeeeee", zorder=0, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="n, points")
    ax.xaxis.set_minor_formatter(NullFormatter())


def draw_information(ax, arrays: dict, config: dict, gate: str) -> None:
    from vpt_analysis import plotting

    decades, values = local(arrays, config, gate)
    ax.axvspan(config["sizes"][0], config["sizes"][-1], color="#eeeeee", zorder=0, linewidth=0)
    for level, words in ((-0.25, "−1/4"), (-0.375, "−3/8"), (-0.5, "−1/2")):
        ax.axhline(level, color=plotting.QUIET, linewidth=0.8, linestyle="--")
        place = {"xy": (1.01, level), "xycoords": ("axes fraction", "data"), "annotation_clip": False}
        ax.annotate(words, **place, fontsize=6, color=plotting.QUIET, va="center")
    for i, series in enumerate(values.T):
        ax.plot(10.0**decades, series, markersize=3, **plotting.SERIES[i])
    ax.set(xscale="log", ylim=(-0.6, -0.2), title=GATES[gate], xlabel="n, points", ylabel="local slope")


def local(arrays: dict, config: dict, gate: str) -> tuple[np.ndarray, np.ndarray]:
    """Slopes (N − 1, 4) of the predicted medians between neighbouring sizes, and where: log₁₀ of their middles."""
    decades = np.array(config["decades"], dtype=float)
    logs = np.log10(arrays[f"information:{gate}/predicted"])
    return (decades[1:] + decades[:-1]) / 2, np.diff(logs, axis=0) / np.diff(decades)[:, None]


def enough(arrays: dict, config: dict, setup: str) -> np.ndarray:
    """Which sizes enter the slopes, (S,)."""
    return np.array([arrays[f"{setup}:{n}/converged"].mean() >= ENOUGH for n in config["sizes"]])


def slopes(arrays: dict, config: dict, setup: str, all_sizes: bool = False):
    """The ``Slope`` of the four quantities over log-medians (4,), and that of the information's medians (4,)."""
    from vpt_analysis.stats.slopes import loglog_slope

    n = np.array(config["sizes"])[enough(arrays, config, setup) | all_sizes]
    values = np.stack([np.stack([arrays[f"{setup}:{size}/{q}"] for q in SYMBOLS], -1) for size in n])  # (S, R, 4)
    predicted = np.stack([arrays[f"{setup}:{size}/predicted"] for size in n])
    return loglog_slope(n, values), np.polyfit(np.log(n), np.log(predicted), 1)[0]


def printed(config: dict, setup: str, quantity: str) -> tuple[list[float], float]:
    """Printed slopes of a quantity, two where two are printed or only a range is known, and its printed theory."""
    rows = [row for row in config["published"] if row["experiment"] == SETUPS[setup]]
    rows = [row for row in rows if quantity in row["quantity"].replace(",", "").split()]
    (theory,) = {row["theory"] for row in rows}
    return [row["slope"] for row in rows], theory


def agreeing(arrays: dict, config: dict, setup: str) -> int:
    """Of how many quantities the printed slope (or the range of them) meets our interval."""
    slope, _ = slopes(arrays, config, setup)
    ranges = [printed(config, setup, quantity)[0] for quantity in SYMBOLS]
    return sum(min(r) <= high and low <= max(r) for r, low, high in zip(ranges, slope.low, slope.high, strict=True))


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    sizes, seeds = config["sizes"], len(config["seeds"])
    fits = [arrays[f"{setup}:{n}/converged"] for setup in SETUPS for n in sizes]
    restarts = [arrays[f"{s}:{n}/restart"][arrays[f"{s}:{n}/converged"]] for s in SETUPS for n in sizes]
    missing = sum(int((~fit).sum()) for fit in fits)
    others = "; ".join(f"{row['experiment']} {_plain(row['slope'])}" for row in config["others"])
    return (
        f"Maximum likelihood of the softmax-contaminated mixture, d = {config['d']}, {seeds} replicates at each of "
        f"{len(sizes)} sizes n = {sizes[0]} to {sizes[-1]}. Above: slopes of log-medians against log n (ours) with "
        f"95 % bootstrap intervals over replicates; published slopes and exponents of arXiv 2505.18455, as we "
        f"understand them (joined: of τ near the frozen expert two are printed, of β, η and ν we know the flattest and "
        f"the steepest); diamonds: what the expected Fisher information of our set-up gives at our n. Below: medians "
        f"with their intervals, and as lines those that the information predicts, with no constant fitted. "
        f"{missing} of {sum(map(len, fits))} fits are not certified: β and τ run off to infinity. They count in the "
        f"medians; sizes in grey, with more than {1 - ENOUGH:.0%} of them, enter no slope. From "
        f"the truth as another start the likelihood found differs by "
        f"{max(np.abs(r).max() for r in restarts):.0e} nats at most.\n\n{_words(arrays, config)}\n\n"
        f"Right: local slopes of what the information predicts for the prompt near the frozen expert, far beyond our n "
        f"(grey). The published exponents −1/4 and −3/8 are approached with β* = 0, a gate that does not move with the "
        f"input; with β* ≠ 0 the limits are −3/8 for β and τ and −1/2 for η and ν. Minimax rates are those of the "
        f"worst truth; a given truth may be learned faster, and at n ≤ {sizes[-1]} neither limit is there.\n\n"
        f"Comparable: model, d, inputs, expert, η₀, ν₀, τ*, range of n, replicates, a start near the truth. Not "
        f"comparable: η*, ν* and the constant in the distance n^(-1/8), which we do not know and chose (near: "
        f"{config['c']:g} standard deviations of the noise times n^(-1/8), and ν* in the same proportion), and the "
        f"optimiser; β* is (1, …, 1)/√d here, in the paper that or /d. So slopes of the first set-up should agree, "
        f"those of the second need not; of the four published ones {agreeing(arrays, config, 'distinguishable')} and "
        f"{agreeing(arrays, config, 'near')} lie in our intervals. "
        f"Not comparable at all, and not drawn: slopes of arXiv 2405.13997 (d = 32, "
        f"stochastic gradient descent, several experts, mean Voronoi loss): {others}."
    )


def _words(arrays: dict, config: dict) -> str:
    found = []
    for setup in SETUPS:
        slope, _ = slopes(arrays, config, setup)
        rows = zip(SYMBOLS.values(), slope.estimate, slope.low, slope.high, strict=True)
        said = ", ".join(f"{s} {_plain(e)} [{_plain(low)}, {_plain(high)}]" for s, e, low, high in rows)
        bent = [symbol for symbol, line in zip(SYMBOLS.values(), slope.straight, strict=True) if not line]
        found.append(f"{TITLES[setup]}: {said}" + (f" (no line: {', '.join(bent)})" if bent else ""))
        if not enough(arrays, config, setup).all():
            whole, _ = slopes(arrays, config, setup, all_sizes=True)
            rows = zip(SYMBOLS.values(), whole.estimate, strict=True)
            found[-1] += "; with the sizes in grey " + ", ".join(f"{symbol} {_plain(e)}" for symbol, e in rows)
    return "Our slopes. " + ". ".join(found) + "."


def _plain(x: float) -> str:
    """
    >>> _plain(-0.5)
    '−0.50'
    """
    return f"{x:.2f}".replace("-", "−")
