"""A comparison as a table: one row a run for other programs, one line an arm for people."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..stats import Interval, bootstrap
from ..storage import write_text
from . import plan as plans
from .results import Results

SEVERAL = 3  # tasks that a summary over them is worth
COLUMNS = ("task", "arm", "subset", "images", "seed", "rate", "chosen_by", "at_edge", "test_accuracy", "parameters")


def rows(results: Results) -> list[dict]:
    """One dict of ``COLUMNS`` for every run that counts and did not fail, accuracies as shares in [0, 1]."""
    plan, found = results.plan, []
    for task, each, subset in plans.keys(plan):
        for seed in plan.seeds:
            name = plans.key(task, each.name, subset)
            choice = results.choices.get(f"{name}:{seed}" if plan.choose == "each seed" else name)
            try:
                run, place = results.run(task, each.name, subset, seed)
            except (ValueError, KeyError):
                continue
            values = (task, each.name, name.rpartition(":")[2], int(run["images"]), seed, choice.rate, choice.by)
            rest = (choice.edge, float(run["test"][place]), int(run["parameters"]))
            found.append(dict(zip(COLUMNS, (*values, *rest), strict=True)))
    return found


def write(results: Results, path: Path) -> None:
    """The rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    write_text(path, text.getvalue())


def text(results: Results) -> str:
    """For every task and training subset the arms with their test accuracy in %, its interval over seeds (percentile
    bootstrap), the learning rate and, marked, that it is an end of its grid; then the arms over all of several tasks.
    """
    plan, lines = results.plan, []
    by_key: dict[tuple, list[dict]] = {}
    for row in rows(results):
        by_key.setdefault((row["task"], row["subset"], row["arm"]), []).append(row)
    width = max(len(each.label) for each in plan.arms)
    edges = False
    for task in plan.tasks:
        for subset in plan.of(task):
            told = plans.key(task, "", subset).rpartition(":")[2]
            lines += ["", f"{task}, {told.replace('=', ' ')}"]
            for each in plan.arms:
                own = by_key.get((task, told, each.name))
                if not own:
                    lines.append(f"  {each.label:<{width}}  failed, or waits for what failed")
                    continue
                edge = any(row["at_edge"] for row in own)
                edges |= edge
                rates = " ".join(sorted({f"{row['rate']:g}" for row in own}))
                accuracy = percent(bootstrap([100 * row["test_accuracy"] for row in own]))
                lines.append(f"  {each.label:<{width}}  {accuracy}   rate {rates}{' (edge)' if edge else ''}")
    lines += over_tasks(results, width)
    if edges:
        lines += ["", "(edge): the best rate is an end of its grid, so a better one may lie beyond; widen the grid."]
    return "\n".join(lines).lstrip("\n")


def over_tasks(results: Results, width: int) -> list[str]:
    """For every subset that all of several tasks have: the interquartile mean of each arm that no run failed of."""
    plan, lines = results.plan, []
    shared = [subset for subset in plan.of(plan.tasks[0]) if all(subset in plan.of(task) for task in plan.tasks)]
    for subset in shared if len(plan.tasks) >= SEVERAL else []:
        told = plans.key("", "", subset).rpartition(":")[2]
        lines += ["", f"all {len(plan.tasks)} tasks, {told.replace('=', ' ')}: interquartile mean, % of the way from "
                  "chance to 100 % (other seeds, not other tasks)"]  # fmt: skip
        for each in plan.arms:
            try:
                found = results.over_tasks(each.name, dict.fromkeys(plan.tasks, subset))
            except (ValueError, KeyError):
                lines.append(f"  {each.label:<{width}}  failed on some task")
            else:
                lines.append(f"  {each.label:<{width}}  {percent(found)}")
    return lines


def percent(found: Interval) -> str:
    """
    >>> percent(bootstrap([50.0, 60.0, 70.0]))
    ' 60.0 % [50.0, 70.0], 3 seeds'
    >>> percent(bootstrap([50.0]))
    ' 50.0 %, 1 seed'
    """
    if found.n == 1:
        return f"{found.estimate:5.1f} %, 1 seed"
    return f"{found.estimate:5.1f} % [{found.low:.1f}, {found.high:.1f}], {found.n} seeds"
