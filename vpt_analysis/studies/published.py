"""Do printed means follow from the printed numbers below them? (T14, C21)

VTAB has 7 Natural, 4 Specialized and 8 Structured tasks; the mean over its tasks is (7 N + 4 S + 8 T) / 19 of the group
means. Nothing is trained or drawn at random: the study reads ``paper_figures/published`` and divides.

Arrays of a part, one number a row, with the rows of the config's ``checks`` in order:

- ``printed`` as the paper prints it;
- ``recomputed`` from printed numbers below it: part ``means`` from group means, ``tasks`` from single tasks (groups and
  mean), ``sets`` from the five FGVC sets, ``source`` LoRA's mean against the groups of another run of LoRA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from . import tables
from .tables import GROUPS, SETS

READ = ("vtab_groups", "vtab_tasks", "fgvc_sets")
# The tasks were read in a copy of the VPT paper's table, their group and FGVC means in Table 1 of the VFPT paper.
GROUPS_IN = {"2203.12119": "2411.01327"}
OTHER_LORA = "LoRA, another run"


def config(tier: str) -> dict:
    """The same for both tiers; it names the rows, which the tables decide."""
    return {"tables": list(READ), "checks": {part: list(found) for part, found in checks(read()).items()}}


def inputs(config: dict) -> dict[str, Path]:
    return {name: tables.path(name) for name in config["tables"]}


def parts(config: dict) -> list[dict]:
    return [{"name": part, "rows": rows} for part, rows in config["checks"].items()]


def compute(part: dict) -> dict[str, np.ndarray]:
    found = checks(read())[part["name"]]
    printed, recomputed = zip(*(found[row] for row in part["rows"]), strict=True)
    return {"printed": np.array(printed), "recomputed": np.array(recomputed)}


def read() -> dict[str, list[dict]]:
    return {name: tables.read(name) for name in READ}


def checks(read: dict[str, list[dict]]) -> dict[str, dict[str, tuple[float, float]]]:
    """Printed and recomputed numbers of every row, by part and row, from the tables by name.

    Raises ``ValueError`` where a printed mean, or a row of single tasks, has no row of group means to go with it.
    """
    groups, by_task = read["vtab_groups"], read["vtab_tasks"]
    means = {label(row): (row["mean"], weighted(row)) for row in groups if printed(row, *GROUPS, "mean")}
    tasks, sets = {}, {}
    for row in by_task:
        above = partner(groups, row)
        if printed(row, "mean"):
            means[label(row)] = (row["mean"], weighted(above))
            tasks[f"{label(row)}: mean"] = (row["mean"], average(row, [t for names in GROUPS.values() for t in names]))
        complete = {group: names for group, names in GROUPS.items() if printed(row, *names)}
        tasks |= {
            f"{label(row)}: {group.title()}": (above[group], average(row, names)) for group, names in complete.items()
        }
    for row in read["fgvc_sets"]:
        sets[f"{label(row)}: FGVC"] = (partner(groups, row)["fgvc"], average(row, SETS))
    other = [weighted(row) for row in groups if row["method"] == OTHER_LORA]
    source = {name: (mean, other[0]) for name, (mean, _) in means.items() if other and name.startswith("LoRA ")}
    return {"means": means, "tasks": tasks, "sets": sets, "source": source}


def weighted(row: dict) -> float:
    """The mean over VTAB's 19 tasks from its three group means. Raises ``ValueError`` where one is missing.

    >>> weighted({"natural": 19.0, "specialized": 0.0, "structured": 0.0})
    7.0
    """
    missing = [group for group in GROUPS if not printed(row, group)]
    if missing:
        raise ValueError(
            f"{label(row)} has no mean of {', '.join(missing)}; a mean over 19 tasks needs all three groups"
        )
    return sum(len(names) * row[group] for group, names in GROUPS.items()) / sum(map(len, GROUPS.values()))


def average(row: dict, columns) -> float:
    return float(np.mean([row[column] for column in columns]))


def printed(row: dict, *columns: str) -> bool:
    """Whether all these numbers are there."""
    return bool(np.isfinite([row[column] for column in columns]).all())


def label(row: dict) -> str:
    """
    >>> label({"method": "LoRA", "arxiv": "2411.01327", "setting": "1,000 images a task"})
    'LoRA (2411.01327)'
    """
    few = f", {row['setting']}" if row.get("setting", "1,000 images a task") != "1,000 images a task" else ""
    return f"{row['method']}{few} ({row['arxiv']})"


def partner(groups: list[dict], row: dict) -> dict:
    """The row of group means for a row of single tasks or sets."""
    arxiv = GROUPS_IN.get(row["arxiv"], row["arxiv"])
    wanted = {"arxiv": arxiv} | {column: row[column] for column in ("backbone", "setting", "method") if column in row}
    for found in groups:
        if all(found[column] == value for column, value in wanted.items()):
            return found
    raise ValueError(f"vtab_groups.csv has no row of arXiv {arxiv} for {label(row)}; add its group means")


def scope(config: dict, weights: str | None) -> str:
    rows = sorted({row.rpartition("(")[2].rstrip(")") for row in config["checks"]["means"]})
    return (
        f"{len(config['checks']['means'])} rows with a printed mean of VTAB's 19 tasks, of arXiv {', '.join(rows)}, as "
        f"they were read: on a poster, in the paper, in a copy of the table; each file says which"
    )


def notes(config: dict, cases: tuple) -> list[str]:
    return [
        "Printed numbers are rounded to 0.01 (single tasks to 0.1): means of rounded tasks may be off by 0.05 with "
        "nothing wrong.",
    ]
