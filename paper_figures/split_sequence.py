"""The sequence behind "slower than any polynomial": what its function distance and its loss do, untied and tied.

Every number is a closed form of ``vpt_analysis.theory.split_sequence``; there is no noise, no fit and no sampling but
that of the models and of the inputs over which the function distance is taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TITLE = "The split sequence: function distance and loss, for untied and for tied prompts"
ORDERS = (1, 2, 3, 4)
TIED = 2  # the sequence of D_2: on a split atom it is D_1, which squares the distances of atoms that share a cell


def config(tier: str) -> dict:
    common = {"d": 4, "outputs": 2, "experts": 4, "prompts": 2}
    if tier == "quick":
        return common | {"seeds": [0, 1, 2], "samples": 500, "n": [10, 100, 1000, 10_000, 100_000]}
    n = [round(10 ** (1 + k / 4)) for k in range(17)]
    return common | {"seeds": list(range(20)), "samples": 5000, "n": n}


def inputs(config: dict) -> dict[str, Path]:
    return {}


def parts(config: dict) -> list[dict]:
    shared = {k: v for k, v in config.items() if k != "seeds"}
    return [{"name": f"seed{seed}", "seed": seed, **shared} for seed in config["seeds"]]


def compute(part: dict) -> dict[str, np.ndarray]:
    """For one model: ``untied/distance``, ``untied/loss`` (4, n), by order r; ``tied/distance``, ``tied/loss`` (n,);
    ``tied/limit``: of their ratio; ``same``: function distance of untied splits without extra mass, steps 0.01 to 1."""
    from vpt_analysis.theory.split_sequence import root_mean_square, sequence

    untied, tied = splits(part)
    found = {}
    for what in ("distance", "loss"):
        found[f"untied/{what}"] = np.array([[value(untied, what, n, r) for n in part["n"]] for r in ORDERS])
        found[f"tied/{what}"] = np.array([value(tied, what, n, TIED) for n in part["n"]])
    # Without extra mass the loss is e^b ‖u‖² δ² exactly, and the distance tends to that of the second order.
    step, _ = sequence(1000, TIED)
    found["tied/limit"] = np.array(root_mean_square(tied.second_order()) * float(step) ** 2 / tied.loss(step, 0, TIED))
    found["same"] = np.array([untied.distance(step, 0) for step in (0.01, 0.1, 1.0)])
    return found


def value(split, what: str, n: int, r: int) -> float:
    from vpt_analysis.theory.split_sequence import sequence

    return split.distance(*sequence(n, r)) if what == "distance" else split.loss(*sequence(n, r), r)


def splits(part: dict):
    """One true function written with untied and with tied prompts, and its first atom split along one direction u: the
    prompt along u, the value alone along V u; both of length 1."""
    import torch

    from vpt_analysis.theory.atoms import Atoms
    from vpt_analysis.theory.frozen import frozen, normal_draws
    from vpt_analysis.theory.regression import hash_seed, model, teacher
    from vpt_analysis.theory.split_sequence import Split

    known = frozen(part["d"], part["outputs"], part["experts"], seed=part["seed"])
    tied, untied = (model(name, known, part["prompts"]) for name in ("tied", "untied"))
    atoms = tied.atoms(teacher(tied, part["seed"]))
    log_mass, prompt = atoms.log_mass[0], atoms.blocks["prompt"][0]
    normal = normal_draws(hash_seed(part["seed"], 1))
    x, u = normal(part["d"], part["samples"]), normal(part["d"])
    along_prompt, along_value = (torch.nn.functional.normalize(v, dim=0) for v in (u, known.value @ u))
    own = Atoms(log_mass, {"key": prompt @ known.key.T, "value": prompt @ known.value.T})
    return (
        Split(untied, own, x, {"value": along_value}),
        Split(tied, Atoms(log_mass, {"prompt": prompt}), x, {"prompt": along_prompt}),
    )


def curves(arrays: dict[str, np.ndarray], config: dict, panel: int) -> dict[str, np.ndarray]:
    """``distance``, ``loss`` and ``ratio`` (seeds, n) of a panel: one of each order, untied, and then the tied one."""
    found = {}
    for what in ("distance", "loss"):
        runs = [arrays[f"seed{seed}/{'untied' if panel < len(ORDERS) else 'tied'}/{what}"] for seed in config["seeds"]]
        found[what] = np.stack([run[panel] if panel < len(ORDERS) else run for run in runs])
    return found | {"ratio": found["distance"] / found["loss"]}


def slope(n, values: np.ndarray) -> np.ndarray:
    """Slope in log-log coordinates from n = 1,000 on, along the last axis.

    >>> float(slope([10, 1000, 10_000], np.array([9.0, 1e-6, 1e-8])).round(12))
    -2.0
    """
    x, late = np.log(np.asarray(n, float)), np.asarray(n) >= 1000
    centred = x[late] - x[late].mean()
    return (np.log(values[..., late]) * centred).sum(-1) / (centred**2).sum()


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    panels = len(ORDERS) + 1
    figure = plotting.figure(plotting.PAGE, 3.6)
    axes = figure.subplots(2, panels, sharex=True, sharey="row", height_ratios=[1.6, 1])
    for panel in range(panels):
        top, below = axes[:, panel]
        found = curves(arrays, config, panel)
        untied = panel < len(ORDERS)
        top.set_title(f"untied, r = {ORDERS[panel]}" if untied else f"tied, r = {TIED}")
        draw_curve(top, config["n"], found["loss"], 2, "Dᵣ" if untied else "D₁")
        draw_curve(top, config["n"], found["distance"], 1, "‖Δf‖")
        draw_curve(below, config["n"], found["ratio"], 0, "ratio")
        below.set_xlabel("n")
        for ax in (top, below):
            ax.legend(loc="lower left", handlelength=2.4, borderpad=0, borderaxespad=0.4, fontsize=6)
    axes[1, 0].set(yscale="log", ylabel="function distance / loss")
    axes[0, 0].set(xscale="log", yscale="log", xlim=(6, 1.7e5), ylabel="loss, function distance ‖Δf‖")
    for ax in axes[:, 0]:  # room for the legends
        low, high = ax.get_ylim()
        ax.set_ylim(low * (low / high) ** 0.12, high)
    axes[0, 0].set_xticks([1e1, 1e3, 1e5])
    return figure


def draw_curve(ax, n, values: np.ndarray, series: int, name: str) -> None:
    """Median over models as a line, their range as a band, the slope in the legend."""
    from vpt_analysis import plotting

    look = plotting.SERIES[series]
    ax.fill_between(n, values.min(0), values.max(0), color=look["color"], alpha=0.25, linewidth=0)
    every = max(1, (len(n) - 1) // 4)
    words = f"{name}: {label(slope(n, values))}"
    ax.plot(n, np.median(values, axis=0), label=words, markersize=2.6, markevery=every, linewidth=1.0, **look)


def label(slopes: np.ndarray) -> str:
    """Slopes of all models in one number where they agree to its two decimals, else as a range.

    >>> label(np.array([-2.0, -2.001])), label(np.array([-1.9, -2.0])), label(np.array([-1e-5]))
    ('−2.00', '−2.00 to −1.90', '0.00')
    """
    low, high = (f"{round(v, 2) + 0.0:.2f}".replace("-", "−") for v in (slopes.min(), slopes.max()))
    return low if low == high else f"{low} to {high}"


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    seeds, last = config["seeds"], config["n"][-1]
    limits = np.array([float(arrays[f"seed{seed}/tied/limit"]) for seed in seeds])
    reached = curves(arrays, config, len(ORDERS))["ratio"][:, -1] / limits
    same = max(float(arrays[f"seed{seed}/same"].max()) for seed in seeds)
    away = np.abs(reached - 1).max()
    return (
        f"One of {config['prompts']} true prompts is replaced by two, ± u/n away (‖u‖ = 1), with the masses "
        f"(eᵇ + n^−(r+1))/2: the sequence behind lower bounds that are “slower than any polynomial”. Above: the loss "
        f"Dᵣ on mixing measures, with r-th powers of distances, and the L² distance ‖Δf‖ between the regression "
        f"functions; below: ‖Δf‖ over the loss. Lines: medians over {len(seeds)} random models (one seed each; "
        f"d = {config['d']}, {config['outputs']} outputs, {config['experts']} frozen experts); bands: their smallest "
        f"and largest values; legends: slopes from n = 1,000 on, a range where models differ. ‖Δf‖ is a root mean "
        f"square over {config['samples']} normal inputs. All values are closed forms, exact to 1e-15: no estimate, no "
        f"noise. Tied: the same functions and direction, with the prompt behind both key and value, r = {TIED}; D₁ is "
        f"there the loss of the upper bounds, which squares the distances of atoms that share a cell (not Dᵣ with "
        f"r = 1)."
        f"\n\nWhat follows. Untied, the ratio falls as 1/n for every r; by the two-point method no estimator of the "
        f"mixing measure, with an atom to spare, has a minimax rate faster than n^−1/2 in any Dᵣ. Nothing follows for "
        f"prediction: the functions grow equal before the parameters do. Without the extra mass the two halves are the "
        f"same function as the one atom, for every step (largest ‖Δf‖ at steps 0.01, 0.1 and 1: {same:g}): the "
        f"parameters are not identified, and that is all. Tied, both fall as n^−2 and the ratio tends to a positive "
        f"constant ({limits.min():.2f} to {limits.max():.2f} in these models; at n = {last:,} it is there to "
        f"{100 * away:.1g} %), so the argument fails for tied prompts. That proves no rate for them: it says that this "
        f"sequence does not stand in the way of one."
    )
