"""Planted results of the studies ``estimation`` and ``approximation``, whose verdicts are known."""

from __future__ import annotations

import functools

import numpy as np

from vpt_analysis import claims
from vpt_analysis.claims import approximation
from vpt_analysis.stats.power_laws import power_law
from vpt_analysis.studies import approximation as pairs
from vpt_analysis.studies import estimation as rates

SIZES = [100, 1000, 10_000, 100_000]
RATES = rates.config("full") | {
    "sizes": SIZES, "dimensions": [4], "replicates": 40, "wide": {"4": ["tied", "untied"]}
}  # fmt: skip
PAIRS = pairs.config("full") | {"sizes": SIZES, "replicates": 40}
# Slopes at which every rule is undecided or, where it has bands, supported.
SLOPES = {"function": -0.5, "d_1": -0.5, "d_2": -0.1, "d_3": -0.1, "d_4": -0.1, "exact": -0.5, "over": -0.25}
FLOORS = {  # static less adaptive: above 0 on both teachers; below 0 on the static one; alike there
    "supported": {"static": {"static": 0.5, "adaptive": 0.1}, "adaptive": {"static": 0.9, "adaptive": 0.1}},
    "refuted": {"static": {"static": 0.0, "adaptive": 0.5}, "adaptive": {"static": 0.5, "adaptive": 0.0}},
    "inconclusive": {"static": {"static": 0.3, "adaptive": 0.3}, "adaptive": {"static": 0.5, "adaptive": 0.0}},
}


def few_laws(monkeypatch) -> None:
    """Laws from fewer resamples."""
    monkeypatch.setattr(approximation, "power_law", functools.partial(power_law, resamples=400))


def planted(config: dict, noise: float = 0.1, **slopes: float) -> dict[str, np.ndarray]:
    """Errors 2 (n / n₀)^slope, log-normal over the replicates; all fits certified."""
    arrays, size = {}, config["replicates"]
    for i, part in enumerate(rates.parts(config)):
        normal = np.random.default_rng(i).standard_normal((len(SLOPES), size))
        for (name, slope), draws in zip((SLOPES | slopes).items(), normal, strict=True):
            values = 2 * (part["n"] / config["sizes"][0]) ** slope * np.exp(noise * draws)
            none = name == "over" and part["specification"] == "exact"
            arrays[f"{part['name']}/{name}"] = np.full(size, np.nan) if none else values
        more = {"converged": np.ones(size, bool), "flat": np.zeros(size, bool), "held": np.ones(size, int)}
        arrays |= {f"{part['name']}/{name}": value for name, value in (more | {"agreeing": np.ones(size)}).items()}
    return arrays


def changed(arrays: dict, name: str, change, head: str = "") -> dict:
    """Arrays ``name`` of the parts that begin with ``head``, as ``change(n, values)``."""
    found = dict(arrays)
    for key, values in arrays.items():
        part, array = key.split("/")
        if array == name and part.startswith(head):
            found[key] = change(int(part.split(":")[4]), values)
    return found


def tilted(by: float):
    return lambda n, values: values * (n / SIZES[0]) ** by


def bent(n: int, values: np.ndarray) -> np.ndarray:
    """A floor: no line."""
    return values + 0.5


def none_in(share: float):
    return lambda n, values: np.where(np.arange(len(values)) < share * len(values), np.nan, values)


def risks(floors: dict, exponent: float = 1.0, config: dict = PAIRS) -> dict[str, np.ndarray]:
    """floor + 0.5 (n / n₀)^−exponent, log-normal with that mean; the larger static student as the static one."""
    arrays, size = {}, config["replicates"]
    for i, part in enumerate(pairs.parts(config)):
        draws = np.random.default_rng(i).standard_normal(size)
        fall = (part["n"] / config["sizes"][0]) ** -exponent
        mean = floors[part["teacher"]][part["student"].split(",")[0]] + 0.5 * fall
        more = {"risk": mean * np.exp(0.1 * draws - 0.005), "converged": np.ones(size, bool)}
        more |= {"flat": np.zeros(size, bool), "parameters": np.array(27)}
        arrays |= {f"{part['name']}/{name}": value for name, value in more.items()}
    return arrays


def judge(which: str, arrays: dict, config: dict | None = None):
    return claims.judge(which, arrays, config or (PAIRS if which == "C19" else RATES))


def verdicts(found) -> dict[str, str]:
    return {case.name: case.verdict for case in found.cases}


def figures(case) -> dict[str, object]:
    return {figure.what: figure for figure in case.figures}
