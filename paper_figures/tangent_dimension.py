"""Tangent dimension of mechanisms and baselines at equal parameter counts: ranks, spectra, alignment with classes."""

from __future__ import annotations

import numpy as np

STUDY = "tangent"
TITLE = "Tangent dimension, spectra and kernel alignment of methods with equally many parameters"
SHARES = (1e-2, 1e-4, 1e-6)  # of the first singular value, at which directions are counted
LABELS = {
    "vpt-deep": "VPT-Deep", "vapt": "VAPT", "lora": "LoRA", "prefix": "Prefix", "norga": "NoRGa", "gated": "Gated",
    "vpt-shallow": "VPT-Shallow", "vfpt": "VFPT", "zero-init": "Zero-init", "cross": "Cross", "e2vpt": "E²VPT",
    "prefix-scaled": "Prefix, scaled", "vapt-released": "VAPT, released", "prefix-shared": "Prefix, shared",
    "adapter": "Adapter", "bias": "Bias", "full": "Full fine-tuning", "linear": "Linear probe",
}  # fmt: skip
# What differs is whether prompts see the image: not at all, by travelling through the layers, or by being made from it.
KINDS = {"static": "static prompts", "propagated": "travelling prompts", "adaptive": "adaptive prompts",
         "weights": "changes of weights"}  # fmt: skip
PEAKED = 0.2  # share of one image in the energy above which the caption names it
SHOWN = ("vpt-deep:initial", "vapt:initial", "lora:initial", "vpt-shallow:initial", "cross:initial")


def kind(method: str) -> str:
    from vpt_analysis.prompts.registry import MECHANISMS

    return MECHANISMS[method].experts.partition(",")[0] if method in MECHANISMS else "weights"


def parts_of(config: dict) -> list[str]:
    return [f"{m}:initial" for m in config["methods"]] + [f"{m}:trained" for m in config["trained"]]


def rows(arrays: dict[str, np.ndarray], config: dict) -> list[str]:
    """Names of the parts with a Jacobian: kind by kind, largest rank first."""
    held = [name for name in parts_of(config) if arrays[f"{name}/fits"]]
    order = list(KINDS)
    return sorted(held, key=lambda name: (order.index(kind(name.partition(":")[0])), -share(arrays, name)))


def share(arrays: dict[str, np.ndarray], name: str) -> float:
    """Rank over parameters."""
    return float(arrays[f"{name}/rank"] / arrays[f"{name}/parameters"])


def counted(arrays: dict[str, np.ndarray], name: str, at: float) -> int:
    """Singular values above a share of the first; never below the threshold of the rank, where rounding may rule."""
    return int((arrays[f"{name}/singular"] > max(at, float(arrays[f"{name}/threshold"]))).sum())


def label(name: str) -> str:
    method, _, point = name.partition(":")
    return LABELS.get(method, method) + (", trained" if point == "trained" else "")


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    names = rows(arrays, config)
    figure = plotting.figure(plotting.PAGE, 1.5 + 0.17 * len(names))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1.0, 0.75])
    draw_ranks(left, arrays, names)
    draw_spectra(middle, arrays, [n for n in shown(config) if n in names])
    draw_alignment(right, arrays, names)
    right.sharey(left)
    right.tick_params(labelleft=False)
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4)
    return figure


def shown(config: dict) -> list[str]:
    """The parts whose spectra are drawn, as many as lines that can be told apart."""
    return [n for n in (*SHOWN, "vapt:trained") if n in parts_of(config)]


def draw_ranks(ax, arrays: dict, names: list[str]) -> None:
    """Three counts a row as markers; the rank's is filled where it is certified."""
    from vpt_analysis import plotting

    at = np.arange(len(names))
    for i, size in enumerate(SHARES):
        look = plotting.SERIES[i] | {"linestyle": ""}
        values = np.array([counted(arrays, n, size) / float(arrays[f"{n}/parameters"]) for n in names])
        certified = np.array([bool(arrays[f"{n}/certified"]) and size == SHARES[-1] for n in names])
        ax.plot(
            values, at, **look | {"markerfacecolor": "white"}, markersize=4, label=f"above {_power(size)} of the first"
        )
        if size == SHARES[-1]:
            ax.plot(values[certified], at[certified], **look, markersize=4.5, label="the same, certified")
    for row in breaks(names):
        ax.axhline(row - 0.5, color=plotting.QUIET, linewidth=0.5)
    ax.set(xlim=(-0.03, 1.06), ylim=(len(names) - 0.4, -0.6), yticks=at, title="directions",
           xlabel="count / parameters")  # fmt: skip
    ax.set_yticklabels([label(n) for n in names])


def breaks(names: list[str]) -> list[int]:
    """Rows at which another kind begins."""
    kinds = [kind(n.partition(":")[0]) for n in names]
    return [i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]]


def draw_spectra(ax, arrays: dict, names: list[str]) -> None:
    from vpt_analysis import plotting

    for i, name in enumerate(names):
        s = arrays[f"{name}/singular"]
        s = s[s > float(arrays[f"{name}/threshold"])]
        look = plotting.SERIES[i % len(plotting.SERIES)] | {"markersize": 3, "linewidth": 1.0}
        index = np.arange(1, len(s) + 1) / float(arrays[f"{name}/parameters"])
        every = np.unique(np.linspace(i * len(s) // 30, len(s) - 1, 6).astype(int))
        ax.plot(index, s, **look, markevery=list(every), label=label(name))
    ax.set(yscale="log", title="spectra", xlabel="index / parameters", ylabel="singular value / first one")
    ax.minorticks_off()
    ax.legend(loc="upper right", handlelength=2.6)


def draw_alignment(ax, arrays: dict, names: list[str]) -> None:
    """Mean over classes, between the means of the classes' bounds."""
    from vpt_analysis import plotting

    at = np.arange(len(names))
    mean, low, high = np.array([arrays[f"{n}/alignment"].mean(0) for n in names]).T
    ax.hlines(at, low, high, color=plotting.QUIET, linewidth=0.9)
    ax.plot(mean, at, **plotting.SERIES[0] | {"linestyle": ""}, markersize=4)
    ax.axvline(0, color=plotting.QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
    for row in breaks(names):
        ax.axhline(row - 0.5, color=plotting.QUIET, linewidth=0.5)
    ax.set(title="alignment with classes", xlabel="kernel-target alignment")


def _power(size: float) -> str:
    return "10" + str(round(np.log10(size))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    names = rows(arrays, config)
    initial = [n for n in names if n.endswith(":initial")]
    counts = [int(arrays[f"{n}/parameters"]) for n in initial]
    exact = sum(bool(arrays[f"{n}/exact"]) for n in names)
    how = "All are exact" if exact == len(names) else (
        f"{exact} of {len(names)} are exact, the others sketches of {_span(arrays, names)} random combinations of each "
        f"image's outputs"
    )  # fmt: skip
    certified = sum(bool(arrays[f"{n}/certified"]) for n in names)
    return (
        f"Jacobian of the CLS token of {config['images']} {config['data']} images with respect to all parameters of "
        f"{len(initial)} methods of {min(counts):,} to {max(counts):,} parameters, on {config['backbone']}; one seed. "
        f"Rows: at initialisation, but those called trained ({config['steps']} steps). Directions: singular values "
        f"above a share of the first, over the number of parameters; the rank is that at {_power(config['tolerance'])} "
        f"or where rounding begins. "
        f"{how}. {certified} of {len(names)} ranks are certified (a filled mark): no further combination adds to them. "
        f"The others stand where the spectrum has no gap, and move with the share. Alignment: centred, of the "
        f"tangent kernel with each of the classes against the rest, means over classes; bars: means of the classes' "
        f"95 % jackknife bounds over random combinations, which say how far the computation is off, nothing of other "
        f"images or seeds.\n\nLeft out, as no size is near enough: {_left_out(arrays, config)}."
        f"\n\nWhat follows. {_comparison(arrays, config)} First-order all of it: what small moves do at one point, not "
        f"what training reaches."
    )


def _span(arrays: dict, names: list[str]) -> str:
    m = [int(arrays[f"{n}/functionals"]) for n in names if not arrays[f"{n}/exact"]]
    return str(min(m)) if min(m) == max(m) else f"{min(m)} to {max(m)}"


def _left_out(arrays: dict, config: dict) -> str:
    lost = [m for m in config["methods"] if not arrays[f"{m}:initial/fits"]]
    found = [f"{label(f'{m}:initial')} (nearest {int(arrays[f'{m}:initial/parameters']):,} parameters)" for m in lost]
    return ", ".join(found) or "none"


def _comparison(arrays: dict, config: dict) -> str:
    """The range of the static prompts, and every other method beside it, by rank and by effective dimension."""
    names = rows(arrays, config)
    static = [n for n in names if kind(n.partition(":")[0]) == "static" and n.endswith(":initial")]
    said = []
    if static:
        shares, dimensions = ([f(arrays, n) for n in static] for f in (share, _effective))
        said.append(
            f"static prompts ({len(static)} methods) {100 * min(shares):.0f} to {100 * max(shares):.0f} % and "
            f"{min(dimensions):.0f} to {max(dimensions):.0f}"
        )
    said += [
        f"{label(n)} ({KINDS[kind(n.partition(':')[0])]}) {100 * share(arrays, n):.0f} % and "
        f"{_effective(arrays, n):.0f}"
        for n in names
        if n.endswith(":initial") and n not in static
    ]
    after = [
        f"{label(n)} {100 * share(arrays, n):.0f} % and {_effective(arrays, n):.0f} (accuracy "
        f"{100 * float(arrays[f'{n}/top1']):.0f} %)"
        for n in names
        if n.endswith(":trained")
    ]
    found = (
        f"Rank over parameters, and effective dimension at a ridge of {_power(config['ridges'][1])} of the largest "
        f"squared singular value, at initialisation: {'; '.join(said)}."
    )
    found += f" After training: {'; '.join(after)}." if after else ""
    peaks = [f"{label(n)} {100 * peak(arrays, n):.0f} %" for n in names if peak(arrays, n) > PEAKED]
    if peaks:
        found += (
            f" Share of the energy that belongs to a single image, where it is above {100 * PEAKED:.0f} %: "
            f"{', '.join(peaks)}; the first singular value, and with it the counts, the effective dimension and the "
            f"alignment, are about that image."
        )
    return found


def peak(arrays: dict, name: str) -> float:
    """Share of the largest image in the trace of the tangent kernel."""
    diagonal = arrays[f"{name}/diagonal"].astype(float)
    return float(diagonal.max() / diagonal.sum())


def _effective(arrays: dict, name: str) -> float:
    return float(arrays[f"{name}/effective"][1])
