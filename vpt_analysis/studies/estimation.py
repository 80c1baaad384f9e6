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
ATOMS = {"exact": TRUE_ATOMS, "over": TRUE_ATOMS + 1}


def config(tier: str) -> dict:
    common = {
        "families": list(FAMILIES), "specifications": list(ATOMS), "starts": ["near", "random"], "outputs": 3,
        "noise": 0.1, "radius": 8.0, "least_mass": -2.0, "wide_mass": -6.0, "seeds": [0],
    }  # fmt: skip
    if tier == "quick":
        return common | {
            "dimensions": [4], "sizes": [100, 250, 630, 1600], "replicates": 40, "restarts": 4, "fresh": 5_000,
            "wide": {},
        }  # fmt: skip
    return common | {
        "dimensions": [4, 8, 16], "sizes": [100, 400, 1600, 6300, 25_000, 100_000], "replicates": 40,
        "restarts": 6, "fresh": 20_000, "wide": {"8": ["tied", "untied", "nonlinear"]},
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    """No files: everything is drawn from seeds."""
    return {}


def parts(config: dict) -> list[dict]:
    """The largest samples first, so that none of them is left for the end."""
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
