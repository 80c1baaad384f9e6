"""Approximation and estimation apart: risk against n of static and adaptive students, on both kinds of teachers."""

from __future__ import annotations

import numpy as np

STUDY = "approximation"
TITLE = "Risk of static and adaptive prompts on static and adaptive teachers, with fitted floors"
TITLES = {"static": "static teacher (VPT)", "adaptive": "adaptive teacher (VAPT)"}
STUDENTS = {"static": "static student", "adaptive": "adaptive student",
            "static, twice": "static student of twice the size"}  # fmt: skip


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    figure = plotting.figure(plotting.PAGE, 2.9)
    axes = figure.subplots(1, len(config["teachers"]), sharex=True, sharey=True)
    for ax, teacher in zip(axes, config["teachers"], strict=True):
        for i, student in enumerate(config["students"]):
            draw_student(ax, arrays, config, teacher, student, i)
        ax.set(xscale="log", yscale="log", title=TITLES[teacher], xlabel="n, samples")
        ax.minorticks_off()
    draw_guide(axes, config)
    axes[0].set_ylabel("mean risk E‖f̂(X) − f(X)‖²")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(config["students"]) + 1)
    return figure


def draw_student(ax, arrays: dict, config: dict, teacher: str, student: str, series: int) -> None:
    """Means with intervals as markers, the fitted law as a line, its floor as a level line with its interval."""
    from vpt_analysis import plotting

    n, look = np.array(config["sizes"]), plotting.SERIES[series]
    found, fitted = means(arrays, config, teacher, student), law(arrays, config, teacher, student)
    ax.vlines(n, found.low, found.high, color=look["color"], linewidth=1.0)
    ax.plot(n, found.estimate, **look | {"linestyle": ""}, markersize=4.5, markeredgecolor="white",
            markeredgewidth=0.4, zorder=3)  # fmt: skip
    between = np.geomspace(n[0], n[-1], 60)
    parameters = int(arrays[f"{teacher}:{student}:{n[0]}/parameters"])
    ax.plot(between, fitted.at(between), **look, markevery=[], markersize=4.5, linewidth=1.1,
            label=f"{STUDENTS[student]}, p = {parameters}")  # fmt: skip
    if fitted.floor_identified and fitted.floor.low > 0:
        ax.axhspan(fitted.floor.low, fitted.floor.high, color=look["color"], alpha=0.25, linewidth=0, zorder=0)
        ax.axhline(fitted.floor.estimate, color=look["color"], linewidth=0.6, zorder=1)


def draw_guide(axes, config: dict) -> None:
    """What falls as 1/n, through the middle of the panel."""
    from vpt_analysis import plotting

    low, high = axes[0].get_ylim()
    n = np.array([config["sizes"][0], config["sizes"][-1]], dtype=float)
    for ax in axes:
        ax.plot(n, np.sqrt(low * high) * np.sqrt(n[0] * n[1]) / n, color=plotting.QUIET, linewidth=0.7,
                linestyle=(0, (1, 2)), marker="", zorder=1, label="slope −1")  # fmt: skip
    axes[0].set_ylim(low, high)


def means(arrays: dict, config: dict, teacher: str, student: str):
    """Mean risk at every n with its interval, (S,)."""
    from vpt_analysis.stats.intervals import Interval, bootstrap

    found = [bootstrap(arrays[f"{teacher}:{student}:{n}/risk"], resamples=2_000) for n in config["sizes"]]
    return Interval(*(np.array([getattr(f, name) for f in found]) for name in ("estimate", "low", "high")), found[0].n)


def law(arrays: dict, config: dict, teacher: str, student: str):
    """floor + c · n^−b of the mean risks, as claim C19 fits it."""
    from vpt_analysis.claims.approximation import fitted_law
    from vpt_analysis.claims.base import Results

    return fitted_law(Results(arrays, config, STUDY), teacher, student)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    from vpt_analysis.claims.approximation import PAIR, crossover
    from vpt_analysis.claims.base import Results

    sizes, results = config["sizes"], Results(arrays, config, STUDY)
    listed = ". ".join(
        f"{teacher.capitalize()} teacher: "
        + "; ".join(
            f"{STUDENTS[student]} {_words(law(arrays, config, teacher, student))}" for student in config["students"]
        )
        for teacher in config["teachers"]
    )
    crossovers = "; ".join(f"on the {teacher} teacher, {crossover(results, teacher)}" for teacher in PAIR)
    certified = 100 * np.mean([arrays[f"{t}:{s}:{n}/converged"] for t in config["teachers"] for s in config["students"]
                               for n in sizes])  # fmt: skip
    return (
        f"Least squares of mixtures of prompts beside 4 frozen experts, d = {config['d']}, {config['outputs']} "
        f"outputs, noise {config['noise']:g}. Teachers have two prompts: static ones are tied (VPT), adaptive ones "
        f"non-linear in the input with a hidden layer of width 1 (VAPT); students have p parameters. Points: mean "
        f"risks over {config['replicates']} replicates at each n (from {sizes[0]:,} to {sizes[-1]:,}), each the best "
        f"of {config['restarts']} random starts; bars: 95 % bootstrap intervals over replicates. Lines: floor + "
        f"c · n^−b, fitted to the means; level lines and bands: floors above 0 with their 95 % intervals. "
        f"{certified:.1f} % of the fits are certified minima; all count. One draw of each teacher."
        f"\n\nFitted. {listed}.\n\nWhat follows. A floor above 0 is approximation, which no number of samples mends; "
        f"what falls is estimation. Intervals of paired differences: {crossovers}. Where a student holds its teacher's "
        f"function, no floor is in the way: how fast the two kinds fall there is what estimation is about, and the "
        f"exponents say it."
    )


def _words(fitted) -> str:
    """Floor and exponent with their intervals, or that there is none that the data tell."""
    floor, exponent = fitted.floor, fitted.exponent
    said = f"floor {floor.estimate:.2g} [{floor.low:.2g}, {floor.high:.2g}]"
    said += "" if fitted.floor_identified else " (not identified)"
    said += f", exponent {exponent.estimate:.2f} [{exponent.low:.2f}, {exponent.high:.2f}]"
    return said + ("" if fitted.identified else " (not identified)")
