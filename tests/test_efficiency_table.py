"""The table of a comparison: arms by task and subset, and over all of several tasks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted_efficiency import CLASSES, ONE_SHOT, by_arm, planted
from vpt_analysis.efficiency import results, table

TASKS = ["one", "two", "three"]
CHANCE = 1 / CLASSES


def made(tasks: list[str], lost: str = "", **levels) -> results.Results:
    config = ONE_SHOT | {"tasks": tasks}
    arrays = planted(config, by_arm(0.2, **levels))
    return results.of(config, {k: v for k, v in arrays.items() if not lost or not k.startswith(lost)})


def test_scores_run_from_chance_to_one():
    found = made(TASKS, linear=CHANCE, vapt=1.0)
    one = {"per_class": 1}
    assert found.score("one", "linear", one).mean() == pytest.approx(0, abs=1e-12)
    assert found.score("one", "vapt", one).mean() == pytest.approx(1)
    np.testing.assert_allclose(
        found.score("two", "vpt-deep", one), (found.accuracy("two", "vpt-deep", one) - CHANCE) / (1 - CHANCE)
    )


def test_several_tasks_are_summed_up_arm_by_arm():
    said = table.text(made(TASKS, vapt={"one": 0.1, "two": 0.55, "three": 1.0}))
    *_, last = said.split("\n\n")
    head, *lines = last.splitlines()
    assert head.startswith("all 3 tasks, per_class 1: interquartile mean, % of the way from chance to 100 %")
    (vapt,) = (line for line in lines if line.strip().startswith("VAPT  "))
    assert " 50.0 % [" in vapt and vapt.endswith("5 seeds")
    assert "all " not in table.text(made(TASKS[:2]))


def test_an_arm_that_failed_on_a_task_has_no_sum():
    *_, last = table.text(made(TASKS, lost="two:vapt:")).split("\n\n")
    failed = [line for line in last.splitlines() if "failed on some task" in line]
    assert len(failed) == 1 and "VAPT" in failed[0]


def test_subsets_that_some_task_lacks_are_not_summed_up():
    config = ONE_SHOT | {"tasks": TASKS, "subsets": {t: [{"per_class": 2 + i}] for i, t in enumerate(TASKS)}}
    assert "all 3 tasks" not in table.text(results.of(config, planted(config, by_arm(0.2))))
