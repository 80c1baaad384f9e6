"""How fast each family of prompts is estimated: errors against n, and the slopes of all settings."""

from __future__ import annotations

import numpy as np

STUDY = "estimation"
TITLE = "Estimation of prompt mixtures: function error and parameter losses against n, and their slopes"
NAMES = {"tied": "tied (VPT)", "untied": "untied (prefix)", "norga": "NoRGa's gate", "linear": "linear adaptive",
         "nonlinear": "non-linear (VAPT)"}  # fmt: skip
SHOWN = {"function": "function error", "d_1": "D₁", "d_2": "D₂", "exact": "exact atoms", "over": "over-fitted atoms"}
SPECIFICATIONS = {"over": "one atom too many", "exact": "as many as true ones"}
STARTS = {
    "near": {"color": "#000000", "marker": "o", "markerfacecolor": "#000000", "label": "started near the truth"},
    "random": {"color": "#D55E00", "marker": "s", "markerfacecolor": "white", "label": "random starts"},
}
NO_LINE = {"color": "#6b6b6b", "marker": "x", "markerfacecolor": "#6b6b6b", "label": "no line: slope means nothing"}
GREY = "#8a8a8a"
ROW = 0.15  # inches for the slopes of a family and dimension
SLOPES = (-1.3, 0.2)  # slopes shown; what lies outside is drawn at the edge
RESAMPLES = 2_000


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    rows = len(config["families"]) * len(config["dimensions"])
    heights = [3.1, 0.75 + ROW * rows]
    figure = plotting.figure(plotting.PAGE, sum(heights))
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    draw_medians(above, arrays, config)
    draw_slopes(below, arrays, config)
    return figure


def middle(config: dict) -> int:
    """The dimension of the curves."""
    return config["dimensions"][len(config["dimensions"]) // 2]


def draw_medians(figure, arrays: dict, config: dict) -> None:
    """Near starts: a row a specification, a column a family."""
    from vpt_analysis import plotting

    families = config["families"]
    axes = figure.subplots(len(SPECIFICATIONS), len(families), sharex=True, sharey=True, squeeze=False)
    for row, (specification, words) in zip(axes, SPECIFICATIONS.items(), strict=True):
        for ax, family in zip(row, families, strict=True):
            draw_curves(ax, arrays, config, family, specification)
        row[0].set_ylabel(f"{words}\nmedian error or loss")
    low, high = axes[0, 0].get_ylim()
    n = np.array([config["sizes"][0], config["sizes"][-1]])
    for ax in axes.flat:
        for power, words in ((-0.5, "−1/2"), (-0.25, "−1/4")):
            line = 0.9 * high * (n / n[0]) ** power
            ax.plot(n, line, color=GREY, linewidth=0.8, linestyle="-", marker="", zorder=1)
            if ax in axes[:, -1]:
                place = {"xy": (1.02, line[-1]), "xycoords": ("axes fraction", "data"), "annotation_clip": False}
                ax.annotate(words, **place, fontsize=6, color=plotting.QUIET, va="center")
    axes[0, 0].set_ylim(low, high)
    for ax, family in zip(axes[0], families, strict=True):
        ax.set_title(NAMES[family])
    for ax in axes[-1]:
        ax.set_xlabel("n, samples")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SHOWN))


def draw_curves(ax, arrays: dict, config: dict, family: str, specification: str) -> None:
    from vpt_analysis import plotting

    for i, (quantity, label) in enumerate(SHOWN.items()):
        found = medians(arrays, config, family, specification, quantity)
        if len(found):
            plotting.interval(ax, *found.T, series=i, label=label, size=3.0)
    ax.set(xscale="log", yscale="log")
    ax.minorticks_off()


def medians(arrays: dict, config: dict, family: str, specification: str, quantity: str) -> np.ndarray:
    """Rows of n, median, lower and upper bound over the replicates that have such a cell, where enough have."""
    from vpt_analysis.claims.estimation import ENOUGH
    from vpt_analysis.stats.intervals import bootstrap

    rows = []
    for n in config["sizes"]:
        values = arrays[f"{family}:{middle(config)}:{specification}:near:{n}/{quantity}"]
        there = values[~np.isnan(values)]
        if len(there) >= ENOUGH * len(values):
            found = bootstrap(there, np.median, RESAMPLES)
            rows.append([n, found.estimate, found.low, found.high])
    return np.array(rows).reshape(-1, 4)


def slopes(arrays: dict, config: dict, specification: str = "over") -> dict:
    """``Slope`` (or None, where too few replicates have such a cell) by family, dimension, start and quantity."""
    from vpt_analysis.claims.base import Results
    from vpt_analysis.claims.estimation import Curve, curves, slope

    def found(curve: Curve, quantity: str):
        return slope(Results(arrays, config, STUDY), curve, quantity, RESAMPLES)

    cells = curves(Results(arrays, config, STUDY), tuple(config["families"]), (specification,))
    return {(c.family, c.d, c.start, quantity): found(c, quantity) for c in cells for quantity in SHOWN}


def draw_slopes(figure, arrays: dict, config: dict) -> None:
    """One atom too many: a panel a quantity, a row a family and dimension, both starts in a row."""
    from matplotlib.lines import Line2D

    from vpt_analysis import plotting
    from vpt_analysis.claims.estimation import BANDS, HALF, PLAIN, SLOW

    found, dimensions = slopes(arrays, config), config["dimensions"]
    rows = [(family, d) for family in config["families"] for d in dimensions]
    axes = figure.subplots(1, len(SHOWN), sharex=True, sharey=True)
    for ax, (quantity, label) in zip(axes, SHOWN.items(), strict=True):
        centre = BANDS.get(quantity)
        if centre is not None:
            ax.axvspan(centre - HALF, centre + HALF, color="#dcdcdc", zorder=0, linewidth=0)
        else:
            ax.axvline({"function": PLAIN, "d_2": SLOW}[quantity], color=GREY, linewidth=1, zorder=1)
        for y, (family, d) in enumerate(rows):
            for start, shift in zip(config["starts"], (-0.18, 0.18), strict=True):
                draw_slope(ax, y + shift, found[family, d, start, quantity], STARTS[start])
        for y in np.arange(len(dimensions), len(rows), len(dimensions)):
            ax.axhline(y - 0.5, color=plotting.QUIET, linewidth=0.5)
        ax.set(title=label, xlabel="slope", xlim=SLOPES, xticks=[-1, -0.5, 0])
        ax.grid(axis="y", visible=False)
    first = {family: rows.index((family, dimensions[0])) for family in config["families"]}
    words = [f"{NAMES[f]}, d = {d}" if y == first[f] else str(d) for y, (f, d) in enumerate(rows)]
    axes[0].set_yticks(range(len(rows)), words)
    axes[0].set(ylim=(len(rows) - 0.4, -0.6), ylabel="prompts and dimension")
    looks = [*(STARTS[start] for start in config["starts"]), NO_LINE]
    handles = [Line2D([], [], linestyle="", markersize=3.5, **look) for look in looks]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)


def draw_slope(ax, y: float, found, look: dict) -> None:
    if found is None:
        return
    low, high, estimate = (np.clip(v, *SLOPES) for v in (found.low, found.high, found.estimate))
    ax.plot([low, high], [y, y], color=look["color"], linewidth=0.8, linestyle="-", marker="", zorder=2)
    marker = look["marker"] if found.straight else NO_LINE["marker"]
    faces = {"markerfacecolor": look["markerfacecolor"], "markeredgecolor": look["color"], "markeredgewidth": 0.7}
    ax.plot(estimate, y, linestyle="", marker=marker, markersize=2.8, zorder=3, clip_on=False, **faces)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    sizes, families, d = config["sizes"], config["families"], middle(config)
    found = slopes(arrays, config)
    judged = [s for s in found.values() if s is not None]
    bent, absent = sum(not s.straight for s in judged), len(found) - len(judged)
    shares = "; ".join(f"{NAMES[family]} {fits(arrays, config, family)}" for family in families)
    listed = ". ".join(
        f"{NAMES[family]}: "
        + ", ".join(f"{label} {_words(found[family, d, 'near', quantity])}" for quantity, label in SHOWN.items())
        for family in families
    )
    return (
        f"Least squares of mixtures with 2 true prompts beside 4 frozen experts, {config['outputs']} outputs, noise "
        f"{config['noise']:g}. Above: medians over {config['replicates']} replicates at each n (from {sizes[0]:,} to "
        f"{sizes[-1]:,}), d = {d}, started near the truth; bars: 95 % bootstrap intervals over replicates; grey: "
        f"slopes −1/2 and −1/4. Function error: L² distance to the true regression function over fresh inputs; D₁: the "
        f"loss of the upper bounds, D₂: that of the lower bounds with r = 2; exact and over-fitted atoms: distances of "
        f"atoms alone in their Voronoi cell, and of those that share one. Below: slopes with one atom too many, of "
        f"log-medians against log n, with 95 % intervals over replicates ({RESAMPLES:,} resamples; the claims "
        f"take more); bands: −0.5 ± 0.05 and −0.25 ± 0.05 (claim C13); upright lines: −0.5 and −0.1 (claim C12); "
        f"beyond the axis: at its edge. {bent} of {len(judged)} curves are bent beyond chance (crosses)"
        + (f"; {absent} are left out, too few estimates having such atoms" if absent else "")
        + f". One truth a family and dimension.\n\nSlopes above (d = {d}, near the truth, one atom too many). {listed}."
        f"\n\nFits with one atom too many, all n, d and starts: {shares}. All of them count. Log-masses are held at "
        f"{_plain(config['least_mass'], 0)} and more: an atom too many would run off to mass 0 otherwise. Adaptive "
        f"prompts have a hidden layer of width 1."
    )


def fits(arrays: dict, config: dict, family: str) -> str:
    """Shares of certified fits and of those on a flat valley."""
    from vpt_analysis.claims.estimation import Curve

    curves = [Curve(family, d, "over", start) for d in config["dimensions"] for start in config["starts"]]
    heads = [f"{family}:{c.d}:over:{c.start}:{n}" for c in curves for n in c.sizes(config)]
    certified, flat = (100 * np.mean([arrays[f"{head}/{name}"] for head in heads]) for name in ("converged", "flat"))
    return f"{certified:.0f} % certified, {flat:.0f} % on a flat valley"


def _words(found) -> str:
    if found is None:
        return "not judged"
    return f"{_plain(found.estimate)} [{_plain(found.low)}, {_plain(found.high)}]" + (
        "" if found.straight else " (bent)"
    )


def _plain(x: float, decimals: int = 2) -> str:
    """
    >>> _plain(-0.5)
    '−0.50'
    """
    return f"{x:.{decimals}f}".replace("-", "−")
