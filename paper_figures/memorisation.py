"""How much prompts memorise: random labels and targets fitted, against length, parameters and depth."""

from __future__ import annotations

import numpy as np

from vpt_analysis.studies.memorisation import DEPTH

STUDY = "memorisation"
TITLE = "Random labels and targets that prompts memorise, against their length, their parameters and depth"
BACKBONES = {"one-layer": "one random layer", "vit-micro": "vit-micro"}
MECHANISMS = ("vpt-deep", "vapt", "prefix")  # the order of the series
SHORT = {"vpt-deep": "VPT-Deep", "vapt": "VAPT", "prefix": "prefix"}


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    panels = [(backbone, kind) for kind in ("labels", "targets") for backbone in config["lengths"]
              if kind in config["curves"][backbone]]  # fmt: skip
    rows = sorted({kind for _, kind in panels})
    columns = 1 + len(config["lengths"])
    figure = plotting.figure(plotting.PAGE, 2.3 * len(rows) + 0.3)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for backbone, kind in panels:
        ax = axes[rows.index(kind), list(config["lengths"]).index(backbone)]
        draw_lengths(ax, arrays, config, backbone, kind)
    draw_depth(axes[0, -1], arrays, config)
    if len(rows) > 1:
        draw_bits(axes[1, -1], arrays, config)
    shown = dict(zip(*[v[::-1] for v in axes[0, 0].get_legend_handles_labels()][::-1], strict=True))
    figure.legend(list(shown.values())[::-1], list(shown)[::-1], loc="outside upper center", ncols=len(shown))
    return figure


def draw_lengths(ax, arrays: dict, config: dict, backbone: str, kind: str) -> None:
    """Largest n against P: geometric means over seeds with intervals, arrows where it is only known to be at least."""
    from vpt_analysis import plotting

    lengths = np.array(config["lengths"][backbone], dtype=float)
    lowest = []
    for mechanism in in_order(config["curves"][backbone][kind]):
        series = MECHANISMS.index(mechanism)
        found = means(curve(arrays, config, backbone, mechanism, kind, "fitted"))
        bounded = (curve(arrays, config, backbone, mechanism, kind, "failed") == 0).any(1)
        at = lengths * 1.04 ** (series - 1)
        plotting.interval(ax, at, *found, series=series, label=SHORT[mechanism])
        ax.plot(at[bounded], 1.25 * found[0][bounded], linestyle="", marker=r"$\uparrow$", markersize=5,
                color=plotting.SERIES[series]["color"])  # fmt: skip
        lowest.append(found[0][0])
    guide = min(lowest) * lengths / lengths[0]
    ax.plot(lengths, guide, color=plotting.QUIET, linewidth=0.8, linestyle=(0, (1, 2)), marker="", zorder=1,
            label="slope 1")  # fmt: skip
    what = f"{config['labels'][backbone]} classes" if kind == "labels" else f"E = {config['targets'][backbone]}"
    ax.set(xscale="log", yscale="log", xticks=lengths, xlabel="P, prompts a layer", ylabel=f"largest n, {kind}",
           title=f"{BACKBONES[backbone]}, {kind} ({what})")  # fmt: skip
    plain_ticks(ax, lengths)


def draw_depth(ax, arrays: dict, config: dict) -> None:
    """Largest n of labels against depth, random backbones read at CLS."""
    from vpt_analysis import plotting

    depths = np.array(config["depths"], dtype=float)
    for mechanism in DEPTH:
        found = means(depth_curve(arrays, config, mechanism))
        plotting.interval(ax, depths, *found, series=MECHANISMS.index(mechanism))
    ax.set(xscale="log", yscale="log", xticks=depths, xlabel="L, layers", ylabel="largest n, labels",
           title=f"depth, read at CLS (P = {config['depth_length']})")  # fmt: skip
    plain_ticks(ax, depths)


def draw_bits(ax, arrays: dict, config: dict) -> None:
    """Bits of labels stored a parameter against the number of parameters; those of vit-micro hollow."""
    from vpt_analysis import plotting

    for backbone in config["lengths"]:
        for mechanism in in_order(config["curves"][backbone]["labels"]):
            bits, parameters = (curve(arrays, config, backbone, mechanism, "labels", n) for n in ("bits", "parameters"))
            look = plotting.SERIES[MECHANISMS.index(mechanism)]
            hollow = {"markerfacecolor": "white"} if backbone == "vit-micro" else {}
            ax.plot(parameters.mean(1), means(bits)[0] / parameters.mean(1), markersize=3.5, **look | hollow)
    ax.set(xscale="log", yscale="log", xlabel="trained parameters", ylabel="bits a parameter",
           title="labels (hollow: vit-micro)")  # fmt: skip
    ax.minorticks_off()


def plain_ticks(ax, ticks: np.ndarray) -> None:
    ax.minorticks_off()
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    low, high = ax.get_ylim()
    shown = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if low <= n <= high]
    ax.set_yticks(shown, [str(n) for n in shown])


def in_order(mechanisms: list[str]) -> list[str]:
    return sorted(mechanisms, key=MECHANISMS.index)


def curve(arrays: dict, config: dict, backbone: str, mechanism: str, kind: str, name: str) -> np.ndarray:
    """(P, S)."""
    from vpt_analysis.claims.base import Results
    from vpt_analysis.claims.memorisation import curve

    return curve(Results(arrays, config, STUDY), backbone, mechanism, kind, name)


def depth_curve(arrays: dict, config: dict, mechanism: str) -> np.ndarray:
    """Largest n at every depth, (L, S)."""
    from vpt_analysis.claims.base import Results
    from vpt_analysis.claims.memorisation import values

    results, steps = Results(arrays, config, STUDY), config["steps"]["depth"]
    keys = [(f"depth-{depth}", mechanism, "labels", config["depth_length"], steps) for depth in config["depths"]]
    return np.stack([values(results, key, "fitted") for key in keys])


def means(n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Geometric means over seeds (P, S), with intervals; where nothing was fitted, n counts as ½."""
    from vpt_analysis.stats.intervals import bootstrap

    found = bootstrap(np.log(np.maximum(n, 0.5)).T, resamples=2_000)
    middle, low, high = (np.exp(np.asarray(x)) for x in (found.estimate, found.low, found.high))
    return middle, np.where(np.isnan(low), middle, low), np.where(np.isnan(high), middle, high)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    from vpt_analysis.claims.base import Results
    from vpt_analysis.claims.memorisation import against, gain, usable

    results, slopes = Results(arrays, config, STUDY), []
    for backbone in config["lengths"]:
        for kind, mechanisms in config["curves"][backbone].items():
            said = []
            for mechanism in in_order(mechanisms):
                found = against(results, backbone, mechanism, kind, "length")
                keep = usable(results, backbone, mechanism, kind)
                out = [str(p) for p, kept in zip(config["lengths"][backbone], keep, strict=True) if not kept]
                said.append(
                    f"{SHORT[mechanism]} "
                    + ("not judged" if found is None else _words(found))
                    + (f" (without P = {', '.join(out)})" if out else "")
                )
            slopes.append(f"{BACKBONES[backbone].capitalize()}, {kind}: {'; '.join(said)}")
    gains = [
        f"{SHORT[m]} on {BACKBONES[b]} {_words(gain(results, b, m))}"
        for b in config["lengths"]
        for m in in_order(config["twice"].get(b, []))
    ]
    depths = "; ".join(
        f"{SHORT[m]} " + ", ".join(f"{n:.1f}" for n in means(depth_curve(arrays, config, m))[0]) for m in DEPTH
    )
    steps = "; ".join(f"{BACKBONES[b]} {config['steps'][b]}" for b in config["lengths"])
    return (
        f"Largest number n of noise images whose random labels (accuracy ≥ 99 %) or normal targets (relative squared "
        f"error ≤ 1 %) a prompt was trained to give, through a random head that is not trained. Backbones are frozen. "
        f"Points: geometric means over {len(config['seeds'])} seeds (images, answers, heads, starts), bars: 95 % "
        f"bootstrap intervals over seeds; best of {config['restarts']} starts at every n; steps of "
        f"{config['batch']} images: {steps}. An n of 0 is drawn as ½; arrows: some seed fitted all sizes. Slopes of "
        f"log n on log P, without lengths where a seed fitted nothing, or all. {'. '.join(slopes)}. Depths "
        f"{', '.join(map(str, config['depths']))}: n = {depths}."
        + (f" Twice the steps at the largest P multiply n by: {'; '.join(gains)}." if gains else "")
        + "\n\nWhat follows. A fitted n is a lower bound: it is what training finds in the steps that it has, and "
        "where twice the steps find more, slopes are too small at the end that matters. With one layer read at CLS all "
        "images ask with one query, so a head's static prompts add one vector to all of them, more of it or less: "
        "depth 1 is what that leaves. Where the shortest prompts fit nothing, curves may rise from there more steeply "
        "than the slopes of the rest say. VAPT's parameters hardly grow with P, for its projector is shared, so a flat "
        "curve against P is not little memory: see bits a parameter."
    )


def _words(found) -> str:
    return f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"
