"""A plan as a study: what the studies of sample efficiency have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import plan as plans


def inputs(config: dict) -> dict[str, Path]:
    from ..studies import tasks

    return {"weights": tasks.weights(config["backbone"])} | tasks.files(config["tasks"])


def parts(config: dict) -> list[dict]:
    """Round one."""
    return named(plans.trials(plans.from_plain(config)))


def later(config: dict, arrays: Mapping[str, np.ndarray]) -> list[dict]:
    """Round two, from the arrays of round one."""
    return named(plans.finals(plans.from_plain(config), by_run(arrays)))


def compute(part: dict) -> dict[str, np.ndarray]:
    from . import runs

    return runs.run(part)


def named(configs: dict[str, dict]) -> list[dict]:
    return [{"name": name, **config} for name, config in configs.items()]


def by_run(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Arrays named ``<run>/<array>`` as those of each run."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        run, _, what = name.rpartition("/")
        found.setdefault(run, {})[what] = array
    return found


def scope(config: dict, weights: str | None) -> str:
    """Backbone, tasks, sizes and seeds: what a verdict holds for."""
    plan = plans.from_plain(config)
    sizes = {t: ", ".join(f"{v:g}" for s in plan.of(t) for v in s.values()) for t in plan.tasks}
    kind = "training image(s) a class" if "per_class" in plan.of(plan.tasks[0])[0] else "of the training images"
    same = len(set(sizes.values())) == 1
    told = f"{next(iter(sizes.values()))} {kind}" if same else "; ".join(f"{t}: {s} {kind}" for t, s in sizes.items())
    return (
        f"{plan.backbone} {(weights or '')[:8]}".rstrip()
        + f", frozen; {', '.join(plan.tasks)}; {told}; at most {plan.test:,} test images a task; {plan.steps} steps of "
        f"{plan.batch} images, AdamW, {len(plan.rates)} learning rates an arm; P = 10 unless said; "
        + ("1 seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds")
    )


def notes(config: dict, cases: tuple) -> list[str]:
    """How learning rates were chosen and what intervals over as few seeds are worth."""
    from ..stats import COVERAGE

    plan, found = plans.from_plain(config), []
    if len(plan.seeds) == 1:
        found.append("One seed has no interval, so nothing is decided.")
    elif len(plan.seeds) in COVERAGE and COVERAGE[len(plan.seeds)] < 0.9:
        share = 100 * COVERAGE[len(plan.seeds)]
        found.append(
            f"A bootstrap over {len(plan.seeds)} seeds holds the mean of normal values in {share:.0f} % of cases."
        )
    if plan.choose == "once" and len(plan.rates) > 1:
        found.append("Learning rates were chosen once, on the first seed: that choice is not in the intervals.")
    found.append(f"Training is short: {plan.steps * plan.batch:,} images are seen, at every size of the training set.")
    return found
