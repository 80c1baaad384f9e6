"""How fast prompt mixtures are estimated: errors of least squares against n, for every family of prompt experts.

The truth is one draw of ``theory.regression.teacher`` a family and dimension; a student of the same family has as many
atoms ("exact") or one more ("over"), starts near the truth or at random, and is fitted to R data sets of each size.

Arrays of a part ``<family>:<d>:<exact|over>:<near|random>:<n>``, one number a replicate, (R,):

- ``function`` L² distance to the true regression function over fresh inputs, ``function_mc`` its Monte-Carlo error;
- ``d_1`` … ``d_4``: Voronoi losses, ``d_1`` that of the upper bounds (``theory.voronoi``), others by order; ``exact``,
  ``over``: distances of atoms alone in their cell and of those that share one; ``mass``: the mass error;
- ``cost`` 2 cost / (n E σ²); ``converged`` whether the fit is certified, ``flat`` whether it drifts along a flat
  valley; ``curvature``, ``passes``, ``held`` (coordinates that the box holds) of the fit;
- ``agreeing``: share of the random starts that found the same minimum.

Parts that end in ``:wide`` have a box with smaller masses: where an atom too many may nearly vanish.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FAMILIES = ("tied", "untied", "norga", "linear", "nonlinear")
TRUE_ATOMS = 2
CERTIFIED, FLAT, NEITHER, HELD = (
    "fits certified, %", "fits on a flat valley, %", "fits that are neither, %", "coordinates that the box holds, %",
)  # fmt: skip
ATOMS = {"exact": TRUE_ATOMS, "over": TRUE_ATOMS + 1}


def config(tier: str) -> dict:
    common = {
        "families": list(FAMILIES), "specifications": list(ATOMS), "starts": ["near", "random"], "outputs": 3,
        "noise": 0.1, "radius": 8.0, "least_mass": -2.0, "wide_mass": -6.0, "seeds": [0],
    }  # fmt: skip
    if tier == "quick":
        return common | {
            "dimensions": [4], "sizes": [100, 250, 630, 1600], "replicates": 40, "restarts": 4, "fresh": 5_000,
            "wide": {}, "random_up_to": {},
        }  # fmt: skip
    return common | {
        "dimensions": [4, 8, 16], "sizes": [100, 400, 1600, 6300, 25_000, 100_000], "replicates": 40,
        "restarts": 6, "fresh": 20_000, "wide": {"8": ["tied", "untied", "nonlinear"]},
        "random_up_to": {"16": 25_000},
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    """No files: everything is drawn from seeds."""
    return {}


def parts(config: dict) -> list[dict]:
    """The largest samples first, so that none of them is left for the end. ``random_up_to`` bounds n by dimension where
    random starts would take too long."""
    shared = {k: config[k] for k in ("outputs", "noise", "radius", "replicates", "restarts", "fresh")}
    cases = [
        (d, family, specification, start, config["least_mass"], "")
        for d in config["dimensions"]
        for family in config["families"]
        for specification in config["specifications"]
        for start in config["starts"]
    ]
    cases += [
        (int(d), family, "over", "near", config["wide_mass"], ":wide")
        for d, families in config["wide"].items()
        for family in families
    ]
    return [
        {
            "name": f"{family}:{d}:{specification}:{start}:{n}{box}", "family": family, "d": d, "n": n,
            "specification": specification, "start": start, "least_mass": least, "seed": config["seeds"][0], **shared,
        }
        for n in sorted(config["sizes"], reverse=True)
        for d, family, specification, start, least, box in cases
        if start == "near" or n <= config["random_up_to"].get(str(d), n)
    ]  # fmt: skip


def compute(part: dict) -> dict[str, np.ndarray]:
    from ..theory import regression, starts
    from ..theory.frozen import frozen
    from ..theory.least_squares import Box

    seed, d, n = part["seed"], part["d"], part["n"]
    known = frozen(d, part["outputs"], seed=seed)
    truth = regression.model(part["family"], known, TRUE_ATOMS)
    student = regression.model(part["family"], known, ATOMS[part["specification"]])
    theta = regression.teacher(truth, seed + 1)
    data = regression.sample(truth, theta, n, part["replicates"], regression.hash_seed(seed, d, n), part["noise"])
    box = Box(part["radius"], part["least_mass"])
    if part["start"] == "near":
        start = starts.near(student, truth, theta, part["replicates"], regression.hash_seed(seed, n))
        found = starts.estimate_near(student, data, start, box=box)
    else:
        found = starts.estimate_random(student, data, part["restarts"], regression.hash_seed(seed, n), box=box)
    fresh = regression.sample(truth, theta, part["fresh"], 1, regression.hash_seed(seed, d), part["noise"])
    return measured(student, found, truth, theta, fresh, part) | losses(student, found.fits.theta, truth, theta)


def measured(student, found, truth, theta, fresh, part: dict) -> dict[str, np.ndarray]:
    """Function error and certificates."""
    from ..theory.regression import function_error

    fits = found.fits
    error = function_error(student, fits.theta, truth, theta, fresh)
    return {
        "function": error[:, 0].numpy(),
        "function_mc": error[:, 1].numpy(),
        "cost": (2 * fits.cost / (part["n"] * part["outputs"] * part["noise"] ** 2)).numpy(),
        "converged": fits.certified.numpy(),
        "flat": np.array([status == "flat" for status in fits.status]),
        "curvature": fits.curvature.numpy(),
        "passes": fits.passes.numpy(),
        "held": fits.bound.sum(1).numpy(),
        "agreeing": found.agreeing.numpy(),
    }


def losses(student, fitted, truth, theta) -> dict[str, np.ndarray]:
    from ..theory import alignment, voronoi

    estimate, true = student.atoms(fitted), truth.atoms(theta.expand(len(fitted), -1))
    if student.prompts.name == "nonlinear":
        estimate = alignment.align(estimate, true)
    found = voronoi.compare(estimate, true, orders=(2, 3, 4))
    arrays = {"d_1": found.d_1, "exact": found.exact_mean, "over": found.over_mean, "mass": found.mass_error}
    return {k: v.numpy() for k, v in arrays.items()} | {f"d_{r}": found.d_r[r].numpy() for r in (2, 3, 4)}


def scope(config: dict, weights: str | None) -> str:
    """Model, sizes, box, replicates and starts: what a verdict holds for."""
    sizes, dimensions = config["sizes"], ", ".join(str(d) for d in config["dimensions"])
    ends = "".join(f" (at d = {d} up to n = {n:,})" for d, n in config["random_up_to"].items())
    least = f"{config['least_mass']:g}".replace("-", "−")
    return (
        f"synthetic mixture regression: d = {dimensions}, inputs N(0, I), 4 frozen experts with quadratic scores, "
        f"L = {TRUE_ATOMS} true prompts and {ATOMS['exact']} (exact) or {ATOMS['over']} (over) fitted ones, "
        f"E = {config['outputs']} outputs, noise {config['noise']:g}; least squares in the box |θ| ≤ "
        f"{config['radius']:g}, log-masses ≥ {least}; n = {sizes[0]:,} to {sizes[-1]:,} "
        f"({len(sizes)} sizes), {config['replicates']} replicates; one start near the truth, or the best of "
        f"{config['restarts']} random ones{ends}; one truth a family and dimension"
    )


def notes(config: dict, cases: tuple) -> list[str]:
    """What the fits are worth, what the box does, and what is known of which atoms are identified."""
    shares: dict[str, list[float]] = {}
    for figure in (figure for case in cases for figure in case.figures):
        shares.setdefault(figure.what, []).append(figure.estimate)
    found = []
    if CERTIFIED in shares:
        names = (CERTIFIED, FLAT, NEITHER, HELD)
        certified, flat, neither, held = (f"{np.mean(shares[name]):.1f} %" for name in names)
        verdicts = [case.verdict for case in cases]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in ("supported", "refuted", "inconclusive"))
        found += [
            f"{len(cases)} cases: {counts}.",
            f"Of all fits {certified} are certified minima in the box; {flat} drift along a flat valley, along which "
            f"the data tell no parameters apart; {neither} are neither (no passes left, or no descent found). All "
            f"of them stay in the medians. The box holds {held} of the coordinates.",
        ]
    if config["wide"]:
        least = f"{config['wide_mass']:g}".replace("-", "−")
        found.append(
            f"An atom too many would run off to mass 0; least log-masses keep the parameter set compact, as theory "
            f"asks for, and are our choice. Slopes with log-masses down to {least} (“wide box”) are reported, not "
            f"judged."
        )
    return [
        *found,
        "One draw of the truth a family and dimension: intervals are over samples, not over truths.",
        "Adaptive prompts have a hidden layer of width r = 1, the linear family too; theory bounds the inputs, here "
        "they are normal.",
        "Proved by computer algebra (theory.identifiability), for one atom beside frozen experts: two halves of "
        "an untied atom, with NoRGa's gate or without, that keep its key are the same function for values v ± δ of "
        "any size; halves of a tied atom, or of an adaptive one with r = 1, differ from it at second order. From r = 2 "
        "on linear adaptive atoms can be split unseen too.",
    ]
