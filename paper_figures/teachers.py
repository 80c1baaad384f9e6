"""Floors of static and adaptive prompts on teachers of growing adaptivity, and a head that makes prompts universal."""

from __future__ import annotations

import numpy as np

STUDY = "teachers"
TITLE = "What one prompted layer can be taught: floors against the number of prompts"
NAMES = {
    "constant": "constant shift", "gate": "gate change", "linear-value": "linear value update",
    "rotation": "rotation of values", "class": "class-conditional shift", "lora-v": "LoRA of W_V",
    "lora-q": "LoRA of W_Q",
}  # fmt: skip
CURVES = {
    "static": "static keys and values", "read": "same keys, values read the image",
    "read/swapped": "… read another image", "copies": "copied tokens, values read them",
}  # fmt: skip
FITS = {"vpt-deep": "VPT-Deep, by gradient", "vapt": "VAPT, by gradient"}
LEAST = 1e-3  # smaller floors are drawn here
ZERO = 1e-12
RESAMPLES = 2_000


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    figure = plotting.figure(plotting.PAGE, 6.6)
    grid = figure.add_gridspec(3, 4, height_ratios=[1, 1, 1.15])
    panels = [figure.add_subplot(grid[i // 4, i % 4]) for i in range(len(config["teachers"]))]
    for i, (ax, teacher) in enumerate(zip(panels, config["teachers"], strict=True)):
        draw_teacher(ax, arrays, config, teacher)
        ax.set_title(NAMES[teacher])
        if i % 4 == 0:
            ax.set_ylabel("share of the change's energy")
        else:
            ax.tick_params(labelleft=False)
        if i >= 4:
            ax.set_xlabel("P, prompts")
    draw_universal(figure.add_subplot(grid[1, 3]), arrays, config)
    draw_places(figure.add_subplot(grid[2, :2]), arrays, config)
    for i, teacher in enumerate(config["sampled_teachers"]):
        draw_samples(figure.add_subplot(grid[2, 2 + i]), arrays, config, teacher)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def spread(arrays: dict, config: dict, part: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, least and greatest over the draws of a teacher."""
    values = np.stack([arrays[f"{part}:{seed}/{name}"] for seed in config["seeds"]])
    return values.mean(0), values.min(0), values.max(0)


def draw_teacher(ax, arrays: dict, config: dict, teacher: str) -> None:
    """Floors in the middle layer: lines are means over draws, bars their range; what is below LEAST is drawn there."""
    from vpt_analysis import plotting

    part = f"floors:middle:{teacher}"
    for i, (name, label) in enumerate(CURVES.items()):
        x = np.array(config["copied"] if name == "copies" else config["lengths"]["middle"])
        mean, low, high = (np.maximum(v, LEAST) for v in spread(arrays, config, part, name))
        plotting.interval(ax, x, mean, low, high, series=i, label=label, size=3.0)
        if spread(arrays, config, part, name)[0][-1] < ZERO:
            ax.annotate("0", (x[-1], LEAST), textcoords="offset points", xytext=(4, 1), fontsize=6.5,
                        color=plotting.SERIES[i]["color"])  # fmt: skip
    fresh = np.maximum(spread(arrays, config, part, "fresh")[0], LEAST)
    ax.plot(config["lengths"]["middle"], fresh, color=plotting.SERIES[0]["color"], linewidth=0.7, linestyle=(0, (1, 1)),
            label="static, other images")  # fmt: skip
    constant = float(np.maximum(spread(arrays, config, part, "constant")[0], LEAST))
    ax.axhline(constant, color=plotting.QUIET, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1, label="one vector added")
    for i, (name, label) in enumerate(FITS.items()):
        value = arrays[f"fits:{teacher}:{config['seeds'][0]}/{name}"]
        beside = config["fit_length"] * (0.8, 1.25)[i]  # both at one length, and often at nearly one share
        ax.plot(beside, np.maximum(value, LEAST), **plotting.SERIES[4 + i] | {"linestyle": ""},
                markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, label=label, zorder=4)  # fmt: skip
    ax.set(xscale="log", yscale="log", ylim=(0.8 * LEAST, 2))
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
    ax.minorticks_off()


def draw_universal(ax, arrays: dict, config: dict) -> None:
    """Error of the constructed head on the circle and on the sphere, medians and quartiles over functions."""
    from vpt_analysis import plotting

    i = 0
    for m, points in config["points"].items():
        for name, words in (("sampled", "samples"), ("fitted", "best")):
            values = arrays[f"universal:{m}/{name}"]
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=1)
            plotting.interval(ax, points, middle, low, high, series=i, label=f"S{'¹²'[int(m) - 1]}, {words}", size=3.0)
            i += 1
    ax.set(xscale="log", yscale="log", title="constructed head", xlabel="P, prompts", ylabel="relative error")
    ax.minorticks_off()
    ax.set_ylim(bottom=ax.get_ylim()[0] ** 1.6)  # room for the legend below the curves
    ax.legend(loc="lower left", fontsize=5.5)


def places(config: dict) -> list[tuple[str, str, int, str]]:
    """Columns of the table: place, array, its position, and the heading."""
    length, all_tokens = config["fit_length"], len(config["copied"]) - 1
    found = []
    for place, words in (("first", "first\n"), ("middle", "middle\n"), ("random", "random\n")):
        if place not in config["places"]:
            continue
        lengths = config["lengths"][place]
        at = lengths.index(length) if length in lengths else 1
        static = "any P" if place == "first" else f"P = {lengths[at]}"
        found += [
            (place, "any_length" if place == "first" else "static", 0 if place == "first" else at,
             f"{words}static\n{static}"),
            (place, "read", at, f"\nread\nP = {lengths[at]}"),
            (place, "copies", all_tokens, f"\ncopies\n{config['copied'][-1]}"),
        ]  # fmt: skip
    return found


def draw_places(ax, arrays: dict, config: dict) -> None:
    """Means over draws as a table, coloured by their logarithm."""
    columns = places(config)
    values = np.array([
        [spread(arrays, config, f"floors:{place}:{teacher}", name)[0][at] for place, name, at, _ in columns]
        for teacher in config["teachers"]
    ])  # fmt: skip
    shown = np.log10(np.clip(values, LEAST, 1))
    ax.imshow(shown, vmin=np.log10(LEAST), vmax=0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        words = "0" if value < ZERO else f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}".lstrip("0")
        words = "<.001" if ZERO <= value < 0.0005 else words.lstrip("0") or "0"
        ax.text(column, row, words, ha="center", va="center", fontsize=5.8,
                color="black" if shown[row, column] > -1 else "white")  # fmt: skip
    ax.set_xticks(range(len(columns)), [heading for *_, heading in columns], fontsize=5.5)
    ax.set_yticks(range(len(values)), [NAMES[t] for t in config["teachers"]], fontsize=6)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    for at in range(3, len(columns), 3):
        ax.axvline(at - 0.5, color="white", linewidth=2)


def draw_samples(ax, arrays: dict, config: dict, teacher: str) -> None:
    """Risk of values fitted to n noisy images at the keys found, and the floors below."""
    from vpt_analysis import plotting

    n = config["samples"]
    for i, (name, label) in enumerate((("static", "static values"), ("read", "values read the image"))):
        mean, low, high = spread(arrays, config, f"samples:{teacher}", name)
        plotting.interval(ax, n, mean.mean(1), low.min(1), high.max(1), series=i, label=label, size=3.0)
        floor = spread(arrays, config, f"samples:{teacher}", f"{name}/floor")[0]
        ax.axhline(float(floor), color=plotting.SERIES[i]["color"], linewidth=0.7, zorder=1)
    ax.set(xscale="log", yscale="log", xlabel="n, images", title=NAMES[teacher])
    ax.set_ylabel("risk, share of energy")
    ax.minorticks_off()
    ax.set_ylim(top=5 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper right", fontsize=5.5)


def slope(arrays: dict, config: dict, m: str, name: str = "sampled"):
    """Log-log slope of the error against P, interval over functions."""
    from vpt_analysis.stats.slopes import loglog_slope

    return loglog_slope(np.array(config["points"][m]), arrays[f"universal:{m}/{name}"], resamples=RESAMPLES)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    lengths, seeds = config["lengths"]["middle"], len(config["seeds"])
    draws = f"{seeds} draw{'s' if seeds > 1 else ''}"
    ratio = max(
        float((arrays[f"universal:{m}/largest"] / arrays[f"universal:{m}/bound"]).max()) for m in config["points"]
    )
    return (
        f"One layer of a frozen {config['backbone']} (block {config['block'] + 1}; CLS and a patch) is taught a change "
        f"of its heads' outputs, of {100 * config['energy']:g} % of their energy. Population: {config['images']} "
        f"images of {config['data']}; floors are shares of the change's energy over it (1: no prompt, 0: reached). "
        f"Lines: means over {draws} of teacher, images and start; bars: range. Exact given the keys, by least squares: "
        f"all values (no optimiser in them; numerical slack ≤ {_slack(arrays):.0e}), “one vector added” (what the "
        f"additive rule makes with one prompt) and “copied tokens”, whose keys are the tokens' own. Upper bounds: the "
        f"static keys, by {config['steps']} steps of L-BFGS at each length{_others(arrays, config)}; VPT-Deep and "
        f"VAPT, by {config['fit_steps']} steps (one draw). “Read another image” has as many columns as “read the "
        f"image” and no input: what it gains is counting. Dotted: static prompts on other images. Floors "
        f"below {LEAST:g} are drawn at {LEAST:g}; 0 is below {ZERO:.0e}.\n\n"
        f"The same gates, P = {_at(config)}; static values, values that read another image, values that read the image "
        f"(what is read changes with P, so that these need not fall with it): "
        f"{'; '.join(_same_gates(arrays, config, t) for t in config['teachers'])}. Static against adaptive, "
        f"P = {lengths[-1]} static against {config['copied'][-1]} copies (all tokens; VAPT reads patches only): "
        f"{'; '.join(_against(arrays, config, t) for t in config['teachers'])}. A copy of every token makes any linear "
        f"value update by construction. First layer, CLS: all images share the query, so that static prompts of any "
        f"length stay above the bounds in the table's first column, which are proved ({_gaps(arrays, config)}).\n\n"
        f"Below right: values at the keys found (P = {config['fit_length']}), fitted to n images with noise of the "
        f"change's energy, "
        f"{config['draws']} samples and {draws}; lines: means, bars: range, levels: floors. Constructed head: static "
        f"prompts as von Mises–Fisher kernels on S^m, {config['functions']} random functions, medians and quartiles of "
        f"the error over fresh inputs, with values sampled from the function or the best ones (exact given the keys). "
        f"Slopes with values sampled, 95 % intervals over functions: {_slopes(arrays, config)}; largest errors are at "
        f"most {ratio:.2f} of the proved bound."
    )


def _slack(arrays: dict) -> float:
    return max(float(v) for k, v in arrays.items() if k.endswith("/slack"))


def _others(arrays: dict, config: dict) -> str:
    """How far another start ends from the one that is kept, at the longest prompt both were tried at."""
    apart = [
        float(arrays[f"floors:middle:{t}:{s}/other"][-1] - arrays[f"floors:middle:{t}:{s}/static"][_tried(config)])
        / float(arrays[f"floors:middle:{t}:{s}/static"][_tried(config)])
        for t in config["teachers"] for s in config["seeds"]
    ]  # fmt: skip
    length = config["lengths"]["middle"][_tried(config)]
    return (
        f" (the better of two starts up to P = {config['other_up_to']}; at P = {length} the other one ends "
        f"{100 * np.median(apart):.0f} % higher, median over teachers and draws, {100 * max(apart):.0f} % at most)"
    )


def _tried(config: dict) -> int:
    return sum(p <= config["other_up_to"] for p in config["lengths"]["middle"]) - 1


def _against(arrays: dict, config: dict, teacher: str) -> str:
    part = f"floors:middle:{teacher}"
    static, fresh, copied = (spread(arrays, config, part, name)[0][-1] for name in ("static", "fresh", "copies"))
    return f"{NAMES[teacher]} {_number(static)} (other images {_number(fresh)}) against {_number(copied)}"


def _at(config: dict) -> int:
    """The length at which students are compared: that of the fits, or the longest where it was not computed."""
    lengths = config["lengths"]["middle"]
    return config["fit_length"] if config["fit_length"] in lengths else lengths[-1]


def _same_gates(arrays: dict, config: dict, teacher: str) -> str:
    at, part = config["lengths"]["middle"].index(_at(config)), f"floors:middle:{teacher}"
    return f"{NAMES[teacher]} " + ", ".join(
        _number(spread(arrays, config, part, name)[0][at]) for name in ("static", "read/swapped", "read")
    )


def _number(value: float) -> str:
    return "0" if value < ZERO else f"{value:.2g}"


def _gaps(arrays: dict, config: dict) -> str:
    """How near the bounds are to what is attained."""
    found = [
        arrays[f"floors:first:{t}:{s}/any_length"] for t in config["teachers"] for s in config["seeds"]
        if arrays[f"floors:first:{t}:{s}/any_length"][1] > ZERO
    ]  # fmt: skip
    return f"within {100 * max(float(1 - low / high) for low, high in found):.1g} % of what one prompt attains"


def _slopes(arrays: dict, config: dict) -> str:
    words = []
    for m in config["points"]:
        found = slope(arrays, config, m)
        bent = "" if found.straight else ", bent"
        words.append(f"S^{m} {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]{bent}".replace("-", "−"))
    return ", ".join(words)
