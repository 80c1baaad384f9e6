"""``vpt-analysis sweep``: where runs are computed, what is written, and its exit codes. Runs themselves are made up."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import pytest

from tests.sweep_cells import compared
from vpt_analysis import cli
from vpt_analysis.efficiency import comparison
from vpt_analysis.sweep import clusters
from vpt_analysis.sweep.runs import perform

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "grids.md").read_text()
PLAN = """
tasks = ["digits"]
arms = ["linear", "vapt"]
shots = [2]
rates = [0.01, 0.1, 0.05]
seeds = 2
choose = "each seed"
"""


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(comparison, "run", compared)
    monkeypatch.setattr(comparison, "inputs", lambda plan: {"data": "ab"})
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "plan.toml"


def test_results_are_written_and_failures_reported(plan, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["sweep", str(plan), "--out", str(out), "--jobs", "1"]) == 1
    said = capsys.readouterr()
    assert "Linear probe" in said.out and "60.0 %" in said.out and str(out / "results.csv") in said.out
    assert "4 runs: 2 computed, 0 cached, 2 failed" in said.err and "ValueError: no such luck" in said.err
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [(r["arm"], r["seed"], r["rate"]) for r in rows] == [("linear", "0", "0.1"), ("linear", "1", "0.1")]

    assert cli.main(["sweep", str(plan), "--out", str(out), "--jobs", "1", "--skip-failed"]) == 1
    assert "4 runs: 0 computed, 2 cached, 2 failed" in capsys.readouterr().err
    plan.write_text(PLAN.replace(', "vapt"', ""))
    assert cli.main(["sweep", str(plan), "--out", str(out)]) == 0  # all is there: no worker is started


def test_slurm_gets_its_partition_and_limit(plan, tmp_path, monkeypatch):
    asked = {}

    def slurm(partition, logs, **parameters):
        asked.update(parameters, partition=partition, logs=logs)
        return lambda left: [perform(job) for job in left]

    monkeypatch.setattr(clusters, "slurm", slurm)
    out = tmp_path / "out"
    assert cli.main(["sweep", str(plan), "--out", str(out), "--slurm", "gpu", "--minutes", "30"]) == 1
    assert asked == {"partition": "gpu", "logs": out / "slurm", "timeout_min": 30}
    assert len(list((out / "store" / "results").iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--jobs", "0"], "0 jobs asked for; expected at least 1"),
        (["--scheduler", "nonsense://here"], "no dask scheduler answers at nonsense://here"),
    ],
)
def test_what_cannot_be_used_exits_with_2(plan, tmp_path, capsys, flags, fault):
    assert cli.main(["sweep", str(plan), "--out", str(tmp_path / "out"), *flags]) == 2
    assert fault in capsys.readouterr().err


def test_one_place_at_a_time(plan, tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["sweep", str(plan), "--out", str(tmp_path), "--jobs", "1", "--slurm", "gpu"])
    assert done.value.code == 2 and "not allowed with argument" in capsys.readouterr().err


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module, use = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    Path("cells.py").write_text(module)
    exec(compile(use.replace("jobs=2", "jobs=1"), "use", "exec"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "10 runs: 10 computed, 0 cached, 0 failed" and len(second.split(",")) == 10
    assert {f.name for f in Path("runs/means").iterdir()} == {"results", "records", "failures"}
    sys.modules.pop("cells")
