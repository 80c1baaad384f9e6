"""Planted results of the studies of sample efficiency, whose verdicts are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vpt_analysis import claims
from vpt_analysis.efficiency import plan as plans
from vpt_analysis.studies import ablations, learning_curves, one_shot

STATIC = ("linear", "vpt-deep", "vpt-deep-small", "vpt-deep-prototypes")
RELEASED = "vapt-released"
CLASSES = 10
SEEDS = [0, 1, 2, 3, 4]
SHIFTS = 0.004 * np.linspace(-1, 1, len(SEEDS))  # of a seed's accuracy
SIZES = (1, 3, 10, 30, 100)
SHARED = {"tasks": ["one", "two"], "rates": [0.001, 0.01, 0.1], "seeds": SEEDS}
ONE_SHOT = one_shot.config("full") | SHARED | {"arms": [*STATIC, "vpt-shallow", "vapt", RELEASED]}
CURVES = learning_curves.config("full") | SHARED | {
    "subsets": [{"per_class": m} for m in SIZES], "arms": ["linear", "vpt-deep", "vapt", "full"],
}  # fmt: skip
ABLATIONS = ablations.config("full") | SHARED | {
    "subsets": [{"per_class": 10}],
    "arms": [
        "vpt-deep", "vpt-deep-matched", "vpt-projected", "vapt", "vapt-mean", RELEASED, f"{RELEASED}-mean",
        f"{RELEASED}-no-norm", f"{RELEASED}-no-convolution", "prefix", "prefix-scaled", "prefix-warm",
    ],
}  # fmt: skip
CONFIGS = {
    "C7": ONE_SHOT,
    **dict.fromkeys(("C8", "C22", "C24"), CURVES),
    **dict.fromkeys(("C9", "C10", "C14"), ABLATIONS),
}
Level = Callable[[str, str, int], float]


def planted(
    config: dict, level: Level, gap: float = 0.0, spread: Level = lambda task, arm, size: 0.0
) -> dict[str, np.ndarray]:
    """Accuracies ``level(task, arm, images)`` moved alike by the seed, and apart by ``spread`` times −1 to 1.

    Of the rates the second is best on validation, the third is better by ``gap`` on test.
    """
    plan, arrays, own_shift = plans.from_plain(config), {}, np.linspace(1, -1, len(SEEDS))[[2, 0, 4, 1, 3]]

    def add(name: str, part: dict) -> None:
        per_class, arm, rates = part["subset"]["per_class"], part["arm"], part["rates"]
        here = (part["task"], arm["name"], CLASSES * per_class)
        at = SEEDS.index(part["seed"])
        best = level(*here) + SHIFTS[at] + own_shift[at] * spread(*here)
        # Accuracies at the rates of a trial, or at the one of a final: both are at their best in the second.
        test = best + (np.array([-0.1, 0.0, gap]) if len(rates) > 1 else np.zeros(1))
        found = {"test": test, "loss": np.ones(len(rates)), "images": np.array(CLASSES * per_class)}
        found |= {"classes": np.array(CLASSES), "parameters": np.array(100 * arm["length"])}
        if part["carve"]:
            validation = best - np.abs(np.arange(len(rates)) - 1) / 10
            found |= {"validation": validation, "own": np.array(per_class > 1)}
        arrays.update({f"{name}/{what}": value for what, value in found.items()})

    for name, part in plans.trials(plan).items():
        add(name, part)
    runs: dict = {}
    for key, value in arrays.items():
        run, _, what = key.rpartition("/")
        runs.setdefault(run, {})[what] = value
    for name, part in plans.finals(plan, runs).items():
        add(name, part)
    return arrays


def by_arm(default: float, **levels: float | dict[str, float]) -> Level:
    """A level for every size: "vpt_deep" stands for "vpt-deep"; a dict gives one a task."""

    def level(task: str, arm: str, size: int) -> float:
        found = levels.get(arm.replace("-", "_"), default)
        return found[task] if isinstance(found, dict) else found

    return level


def curves(times: dict[str, float], exponent: float = 0.3) -> Level:
    """Errors 0.9 (n / 10)^−exponent of VPT-Deep; VAPT makes those of ``times`` (a task) as many images, full
    fine-tuning is worse up to 100 images and better from there on."""

    def level(task: str, arm: str, size: int) -> float:
        n = size * times[task] if arm == "vapt" else size
        steep = 0.15 if arm == "full" else 0.0
        return 1 - 0.9 * (n / 10) ** -exponent * (size / 100) ** -steep

    return level


def judge(which: str, arrays: dict, **changes):
    return claims.judge(which, arrays, CONFIGS[which] | changes)


def figures(case) -> dict[str, object]:
    found = {figure.what: figure for figure in case.figures}
    assert len(found) == len(case.figures), "two figures have one name"
    return found


def verdicts(found) -> dict[str, str]:
    return {case.name: case.verdict for case in found.cases}


def noisy(by: float, *arms: str):
    """A spread that one arm has and others have not, so that differences are uncertain."""
    return lambda task, arm, size: by if arm in arms else 0.0


def of(which: str, level, **options):
    return judge(which, planted(CONFIGS[which], level, **options))


# For each rule, results that it must call supported, refuted and inconclusive.
PLANTED = {
    "C7": (
        (by_arm(0.2, vapt=0.5), {}),
        (by_arm(0.2, vapt=0.5, vpt_deep_small=0.47), {}),
        (by_arm(0.2, vapt=0.5, linear=0.38), {}),
    ),
    "C8": (
        (curves({"one": 4.0, "two": 4.0}), {}),
        (curves({"one": 1.0, "two": 1.0}), {"spread": noisy(0.01, "vapt")}),
        (curves({"one": 1.6, "two": 1.6}), {}),
    ),
    "C9": (
        (by_arm(0.5, vapt=0.52, vapt_released=0.52), {}),
        (by_arm(0.5, vapt=0.52, vapt_released=0.48), {}),
        (by_arm(0.5, vapt=0.52, vapt_released=0.5), {"spread": noisy(0.02, "vapt-released")}),
    ),
    "C10": (
        (by_arm(0.5, vapt=0.6, vapt_mean=0.51, vapt_released=0.6, vapt_released_mean=0.5), {}),
        (by_arm(0.5, vapt=0.6, vapt_mean=0.59, vapt_released=0.6, vapt_released_mean=0.65), {}),
        (by_arm(0.5, vapt=0.6, vapt_mean=0.55, vapt_released=0.6, vapt_released_mean=0.55), {}),
    ),
    "C14": (
        (by_arm(0.5, prefix=0.4, prefix_scaled=0.45, prefix_warm=0.48), {}),
        (by_arm(0.5, prefix=0.4, prefix_scaled=0.45, prefix_warm=0.495), {}),
        (by_arm(0.5, prefix=0.4, prefix_scaled=0.45, prefix_warm=0.49), {"spread": noisy(0.01, "prefix-warm")}),
    ),
}
