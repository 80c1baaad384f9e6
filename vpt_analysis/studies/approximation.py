"""Approximation and estimation apart: risk against n of static and adaptive students on static and adaptive teachers.

Static prompts are tied (VPT), adaptive ones non-linear in the input (VAPT); both see the same frozen experts. Teachers
have two atoms. Students of nearly equal numbers of parameters are compared, and a static one of about twice as many
shows how a floor moves with the number of prompts.

Arrays of a part ``<teacher>:<student>:<n>``, one number a replicate, (R,): ``risk`` the squared L² distance to the
teacher's function over fresh inputs, ``cost`` 2 cost / (n E σ²), ``converged``, ``flat``, ``agreeing`` as in the study
``estimation``; ``parameters`` ().
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

TEACHERS = {"static": ("tied", 2), "adaptive": ("nonlinear", 2)}
STUDENTS = {"static": ("tied", 3), "adaptive": ("nonlinear", 2), "static, twice": ("tied", 6)}


def config(tier: str) -> dict:
    common = {"teachers": list(TEACHERS), "students": list(STUDENTS), "outputs": 3, "noise": 0.1, "radius": 8.0,
              "least_mass": -2.0, "seeds": [0]}  # fmt: skip
    if tier == "quick":
        return common | {"d": 4, "sizes": [100, 250, 630, 1600], "replicates": 20, "restarts": 4, "fresh": 5_000}
    return common | {
        "d": 8, "sizes": [100, 400, 1600, 6300, 25_000], "replicates": 40, "restarts": 8, "fresh": 20_000,
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    """No files: everything is drawn from seeds."""
    return {}


def parts(config: dict) -> list[dict]:
    shared = {
        k: config[k] for k in ("d", "outputs", "noise", "radius", "least_mass", "replicates", "restarts", "fresh")
    }
    return [
        {"name": f"{teacher}:{student}:{n}", "teacher": teacher, "student": student, "n": n, "seed": config["seeds"][0],
         **shared}
        for n in sorted(config["sizes"], reverse=True)
        for teacher in config["teachers"]
        for student in config["students"]
    ]  # fmt: skip


def compute(part: dict) -> dict[str, np.ndarray]:
    from ..theory import regression, starts
    from ..theory.frozen import frozen
    from ..theory.least_squares import Box
    from .estimation import measured

    seed, d, n = part["seed"], part["d"], part["n"]
    known = frozen(d, part["outputs"], seed=seed)
    truth, student = (
        regression.model(family, known, count)
        for family, count in (TEACHERS[part["teacher"]], STUDENTS[part["student"]])
    )
    theta = regression.teacher(truth, seed + 1)
    data = regression.sample(truth, theta, n, part["replicates"], regression.hash_seed(seed, d, n), part["noise"])
    box = Box(part["radius"], part["least_mass"])
    found = starts.estimate_random(student, data, part["restarts"], regression.hash_seed(seed, n), box=box)
    fresh = regression.sample(truth, theta, part["fresh"], 1, regression.hash_seed(seed, d), part["noise"])
    arrays = measured(student, found, truth, theta, fresh, part)
    kept = {k: arrays[k] for k in ("cost", "converged", "flat", "agreeing")}
    return kept | {"risk": arrays["function"] ** 2, "parameters": np.array(student.parameters)}


def scope(config: dict, weights: str | None) -> str:
    """Model, teachers, students, sizes and starts: what a verdict holds for."""
    sizes = config["sizes"]
    least = f"{config['least_mass']:g}".replace("-", "−")
    kinds = {"tied": "tied", "nonlinear": "non-linear adaptive (r = 1)"}
    students = ", ".join(f"“{name}” {STUDENTS[name][1]} {kinds[STUDENTS[name][0]]}" for name in config["students"])
    teachers = " or ".join(f"{TEACHERS[name][1]} {kinds[TEACHERS[name][0]]}" for name in config["teachers"])
    return (
        f"synthetic mixture regression: d = {config['d']}, inputs N(0, I), 4 frozen experts with quadratic scores; "
        f"teachers with {teachers} prompts; students with {students}; E = {config['outputs']} outputs, noise "
        f"{config['noise']:g}; least squares in the box |θ| ≤ {config['radius']:g}, log-masses ≥ "
        f"{least}; n = {sizes[0]:,} to {sizes[-1]:,} ({len(sizes)} sizes), {config['replicates']} "
        f"replicates; the best of {config['restarts']} random starts; one teacher of each kind"
    )


def notes(config: dict, cases: tuple) -> list[str]:
    """What the fits are worth, what is not varied, and what is known of which atoms are identified."""
    from .estimation import CERTIFIED, FLAT

    figures, found = [figure for case in cases for figure in case.figures], []
    shares = [[f.estimate for f in figures if f.what.endswith(what)] for what in (CERTIFIED, FLAT)]
    if all(shares):
        certified, flat = (float(np.mean(values)) for values in shares)
        found.append(
            f"Of all fits {certified:.1f} % are certified minima in the box, {flat:.1f} % drift along a flat valley, "
            f"{100 - certified - flat:.1f} % are neither (no passes left, or no descent found). All count in the "
            f"mean risks; a certified minimum need not be the lowest one."
        )
    return [
        *found,
        "One draw of each teacher: intervals are over samples, not over teachers. How large a floor is depends on it.",
        "The static student has an atom more than the static teacher, so that both students have nearly equally many "
        "parameters; the adaptive one has as many as its teacher.",
        "Adaptive prompts have a hidden layer of width r = 1; a split of a tied atom, or of such an adaptive one, "
        "changes the function at second order (theory.identifiability), so neither student is the unidentified one.",
    ]
