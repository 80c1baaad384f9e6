"""A comparison as a table: one row a run for other programs, one line an arm for people."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..stats import Interval, bootstrap
from ..storage import write_text
from . import plan as plans
from .results import Results

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
    bootstrap), the learning rate and, marked, that it is an end of its grid."""
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
    if edges:
        lines += ["", "(edge): the best rate is an end of its grid, so a better one may lie beyond; widen the grid."]
    return "\n".join(lines).lstrip("\n")


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
