"""What static prompts of any length cannot do: errors on Wang pairs against P, the certificate, and its geometry."""

from __future__ import annotations

import numpy as np

STUDY = "reachable"
TITLE = "Two inputs with a common query token: best errors of prompts and LoRA, and what static prompts can reach"
TITLES = {"mlp": "no LayerNorm, MLP", "norm": "behind a LayerNorm"}
SHOWN = {"prefix": "prefix (static, untied)", "vpt-deep": "VPT-Deep (static, tied)", "norga": "NoRGa (static)",
         "vapt": "VAPT (adaptive)", "lora": "LoRA, rank 1"}  # fmt: skip
LEAST = 1e-3  # smaller errors are drawn at the edge
SMALL = 1e-6  # smaller ones are not printed
COLOURS = ("#0072B2", "#D55E00")  # of the two inputs
GREY = "#8a8a8a"


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    figure = plotting.figure(plotting.PAGE, 2.95)
    left, right = figure.subfigures(1, 2, width_ratios=[1.9, 1])
    axes = left.subplots(1, len(config["judged"]), sharey=True, squeeze=False)[0]
    for ax, (layer, target) in zip(axes, config["judged"], strict=True):
        draw_errors(ax, arrays, config, f"{layer}:{target}")
        ax.set_title(TITLES[layer])
    axes[0].set_ylabel("best relative error ‖ŷ − y‖/‖y‖")
    left.legend(*axes[-1].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    draw_plane(right.subplots(), arrays, config)
    return figure


def curve(arrays: dict, setting: str, method: str, exactly: bool = False):
    """Mean over pairs, by length, of the best error of that length or a shorter one, with its interval; (S,)."""
    from vpt_analysis.stats.intervals import Interval, bootstrap

    errors = arrays[f"{setting}:{method}/errors"]
    errors = errors if exactly else np.minimum.accumulate(errors, axis=0)
    found = [bootstrap(row, resamples=2_000) for row in errors]
    return Interval(*(np.array([getattr(f, name) for f in found]) for name in ("estimate", "low", "high")), found[0].n)


def draw_errors(ax, arrays: dict, config: dict, setting: str) -> None:
    """A series a method; the certified distance as a line with its band; what tied prompts of each length keep."""
    from vpt_analysis import plotting
    from vpt_analysis.claims.reachable import FITS, STAYS
    from vpt_analysis.stats.intervals import bootstrap

    lengths = np.array(config["lengths"])
    bound = bootstrap(arrays[f"{setting}:certificate/bound"], resamples=2_000)
    ax.axhspan(bound.low, bound.high, color=GREY, alpha=0.3, linewidth=0, zorder=0)
    ax.axhline(bound.estimate, color="black", linewidth=1.0, zorder=1, label="certified, any length")
    for level in (STAYS, FITS):
        ax.axhline(level, color=plotting.QUIET, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
    for i, (method, label) in enumerate(SHOWN.items()):
        found = curve(arrays, setting, method)
        values = [np.broadcast_to(np.maximum(v, LEAST), lengths.shape) for v in (found.estimate, found.low, found.high)]
        plotting.interval(ax, lengths, *values, series=i, label=label, size=3.2)
    if arrays[f"{setting}:certificate/floors"].any():
        draw_lengths(ax.inset_axes([0.2, 0.11, 0.77, 0.37]), arrays, setting, lengths)
    ax.set(xscale="log", yscale="log", xlabel="P, prompts", ylim=(0.8 * LEAST, 1.2))
    ax.set_xticks(lengths, [str(n) for n in lengths])
    ax.minorticks_off()


def draw_lengths(ax, arrays: dict, setting: str, lengths: np.ndarray) -> None:
    """Static prompts, magnified: untied, and tied ones of exactly P with what P of them or more do not come below."""
    from vpt_analysis import plotting

    small = {"markersize": 2.2, "linewidth": 0.9}
    ax.axhline(arrays[f"{setting}:certificate/bound"].mean(), color="black", linewidth=0.9, zorder=1)
    for i, method in enumerate(("prefix", "vpt-deep")):
        ax.plot(lengths, arrays[f"{setting}:{method}/errors"].mean(1), **plotting.SERIES[i] | small)
    floors = arrays[f"{setting}:certificate/floors"].mean(0)
    ax.fill_between(lengths, floors, 0, color=plotting.SERIES[1]["color"], alpha=0.2, linewidth=0, zorder=0)
    ax.text(0.03, 0.93, "static, exactly P", transform=ax.transAxes, fontsize=6, va="top")
    low, high = (arrays[f"{setting}:{m}/errors"].mean(1) for m in ("prefix", "vpt-deep"))
    low, high = min(low.min(), floors.min()), high.max()
    ax.set(xscale="log", ylim=(low - 0.15 * (high - low), high + 0.25 * (high - low)))
    ax.set_xticks(lengths, [""] * len(lengths))
    ax.minorticks_off()
    ax.tick_params(labelsize=5.5, length=2)


def draw_plane(ax, arrays: dict, config: dict) -> None:
    """The first pair of the last judged setting."""
    setting = ":".join(config["judged"][-1])
    points = {name: arrays[f"{setting}:certificate/{name}"][0] for name in ("content", "target", "nearest", "segments")}
    style = {"linestyle": "", "zorder": 3, "markeredgewidth": 0.8}
    for a, colour in enumerate(COLOURS):
        c, y, near = (points[name][a] for name in ("content", "target", "nearest"))
        other = points["segments"][1 - a]  # where this input is, with the other one on target
        ax.plot(*other.T, color=colour, linewidth=2.2, alpha=0.45, marker="", zorder=1, solid_capstyle="butt")
        ax.annotate("", y, c, arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 0.8, "shrinkB": 3})
        ax.plot(*c, marker="o", color=colour, markersize=4.5, **style)
        ax.plot(*y, marker="*", color=colour, markersize=8, **style)
        ax.plot(*near, marker="D", color=colour, markerfacecolor="white", markersize=4.5, **style)
        side = 1 if a == 1 else -1
        for place, words in ((c, f"c{'₁₂'[a]}"), (y, f"y{'₁₂'[a]}")):
            ax.annotate(words, place, xytext=(8 * side, -4), textcoords="offset points", color=colour, fontsize=7.5,
                        ha="center", va="center")  # fmt: skip
    ax.set(xlabel="along c₂ − c₁ (units of its length)", ylabel="across it", title="static prompts, any length")
    ax.margins(0.2)
    ax.set_aspect("equal", adjustable="datalim")
    draw_key(ax)


def draw_key(ax) -> None:
    from matplotlib.lines import Line2D

    looks = (("o", GREY, "content output"), ("*", GREY, "target"), ("D", "white", "nearest reachable"))
    handles = [Line2D([], [], linestyle="", marker=m, color=GREY, markerfacecolor=face, label=words, markersize=4.5)
               for m, face, words in looks]  # fmt: skip
    handles.append(Line2D([], [], color=GREY, linewidth=2.2, alpha=0.6, marker="", label="other on target"))
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.45, -0.22), ncols=2, columnspacing=1.0,
              handletextpad=0.4)  # fmt: skip


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    from vpt_analysis.claims.base import Results
    from vpt_analysis.claims.reachable import best_static, mean

    results, lengths, n = Results(arrays, config, STUDY), config["lengths"], len(config["seeds"])
    settings = {TITLES[layer]: f"{layer}:{target}" for layer, target in config["judged"]}
    listed = ". ".join(
        f"{name[0].upper()}{name[1:]}: certified {_words(mean(arrays[f'{s}:certificate/bound']))}, best static found "
        f"{_words(mean(best_static(results, s)))}, no prompt {_words(mean(arrays[f'{s}:certificate/plain']))}, VAPT "
        f"{_words(mean(arrays[f'{s}:vapt/errors'].min(0)))}, LoRA {_words(mean(arrays[f'{s}:lora/errors'][0]))}"
        for name, s in settings.items()
    )
    return (
        f"Left and middle: one layer of width {config['width']}, two inputs [x₀, x₁] and [x₀, x₂] with a common query "
        f"token x₀, and targets for the outputs there, away from the attention outputs by {config['shift']:g} times "
        f"their mean size, in opposite directions. Points: best error of at most P prompts, the mean over n = {n} "
        f"pairs, each with a layer of its own; bars and band: 95 % bootstrap intervals over pairs; "
        f"{config['restarts'][0]} starts a pair ({config['restarts'][-1]} at P = {lengths[-1]}) and two that continue "
        f"shorter prompts; errors below {LEAST:g} at the edge; LoRA has no P. Level line and band: static prompts of "
        f"any length are certified not to come below; with an MLP the certificate loses a factor 2, as all that is "
        f"known of the MLP is that its slope is 1/2 at most. Dotted: 0.05 and 0.01 (claim C16). Inset, on a linear "
        f"axis: static prompts of exactly P, means. A LayerNorm bounds the scores of tied ones, so that they cannot "
        f"be switched off and more may do worse; shaded: what P of them or more are certified not to reach.\n\nRight:"
        f" attention outputs c₁, c₂ of the first pair behind the LayerNorm and their targets, in the plane that holds"
        f" all four (after W_O). Static prompts pull both outputs towards one point. With one input on its target the"
        f" output of the other lies on the thick segment of the other's colour, and nowhere else, whatever the number"
        f" of prompts.\n\nMeasured. {listed}.\n\nWhat follows. One prompt output serves both inputs: what static "
        f"prompts keep of the error is geometry, not length and not optimisation. Prompts made from each input's own "
        f"patch are not held by it; behind a LayerNorm, where the values of tokens are bounded, "
        f"they come part of the way."
    )


def _words(found) -> str:
    if found.high < SMALL:
        return f"below {SMALL:g}"
    low, high = (f"{v:.2g}" if v >= SMALL else "0" for v in (found.low, found.high))
    return f"{found.estimate:.2g} [{low}, {high}]"
