"""The engine of sweeps: what is computed, what is not, and what is left when runs, processes and disks fail."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config

from tests import sweep_cells
from tests.sweep_cells import Config, square
from vpt_analysis import sweep
from vpt_analysis.sweep import engine
from vpt_analysis.sweep.store import Store, StoreError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


def numbers(*values: int, **more) -> list[dict]:
    return [{"i": i} | more for i in values]


def results(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "results").iterdir() if path.name[0] != "."}


def test_results_come_in_the_order_of_the_configs_and_are_not_computed_twice(tmp_path):
    log = tmp_path / "log"
    first = sweep.run(square, numbers(3, 1, 2, 1, log=str(log)), tmp_path / "store", jobs=1)
    assert [r["square"] for r in first.results] == [9, 1, 4, 1] and (first.computed, first.cached) == (3, 0)
    np.testing.assert_array_equal(first.results[0]["draws"], np.random.default_rng(3).normal(size=3))

    again = sweep.run(square, numbers(2, 1, 4, log=str(log)), tmp_path / "store", jobs=1)
    assert [r["square"] for r in again.results] == [4, 1, 16] and (again.computed, again.cached) == (1, 2)
    assert Counter(log.read_text().split()) == {"3": 1, "1": 1, "2": 1, "4": 1}
    assert again.keys[1] == first.keys[1] == first.keys[3]


def test_cached_results_are_what_was_computed(tmp_path):
    first, second = (sweep.run(square, numbers(1, 2), tmp_path, jobs=1) for _ in range(2))
    assert second.cached == 2
    for a, b in zip(first.results, second.results, strict=True):
        assert list(a) == list(b) == ["square", "draws", "text", "none"]
        assert a["draws"].tobytes() == b["draws"].tobytes() and a["draws"].dtype == b["draws"].dtype
        assert {k: v for k, v in a.items() if k != "draws"} == {k: v for k, v in b.items() if k != "draws"}


def test_a_frozen_dataclass_reaches_the_function_as_it_is(tmp_path):
    found = sweep.run(square, [Config(2), Config(3)], tmp_path, jobs=1)
    assert [r["square"] for r in found.results] == [4, 9]
    assert Store(tmp_path).record(found.keys[0])["config"] == {"i": 2, "rates": [0.1, 0.2]}


def test_records_say_what_made_a_result(tmp_path):
    found = sweep.run(square, [{"i": 1, "seed": 7}], tmp_path, inputs={"weights": "ab12"}, jobs=1)
    record = Store(tmp_path).record(found.keys[0])
    assert record["config"] == {"i": 1, "seed": 7} and record["seeds"] == {"seed": 7}
    assert record["inputs"] == {"weights": "ab12"} and record["function"] == "tests.sweep_cells.square"
    assert record["versions"]["torch"] == torch.__version__ and {"commit", "platform"} <= set(record)
    assert record["seconds"] >= 0 and record["finished"].startswith("20")


def test_keys_know_function_config_inputs_and_code(tmp_path):
    code = engine.Code.of("tests.sweep_cells")
    base = sweep.keys(square, [{"i": 1, "j": 2}])
    assert sweep.keys(square, [{"j": 2, "i": 1}]) == base
    others = [
        sweep.keys(sweep_cells.threads, [{"i": 1, "j": 2}]),
        sweep.keys(square, [{"i": 1, "j": 3}]),
        sweep.keys(square, [{"i": 1, "j": 2.0}]),
        sweep.keys(square, [{"i": 1, "j": 2}], {"data": "ff"}),
        sweep.keys(square, [{"i": 1, "j": 2}], code=engine.Code(code.module, code.study, "other")),
    ]
    assert len({key for (key,) in [base, *others]}) == 6


def test_a_failing_run_is_reported_and_stops_no_other(tmp_path):
    configs = [{"i": 1}, {"i": 2, "bad": True}, {"i": 3}]
    found = sweep.run(square, configs, tmp_path, jobs=1)
    assert [r and r["square"] for r in found.results] == [1, None, 9]
    (failure,) = found.failures
    assert failure.config == configs[1] and failure.error == "ValueError: 2 is a bad number"
    assert 'raise ValueError(f"{i} is a bad number")' in failure.traceback
    assert "3 runs: 2 computed, 0 cached, 1 failed" in found.report() and "2 is a bad number" in found.report()
    stored = json.loads((tmp_path / "failures" / f"{failure.key}.json").read_text())
    assert stored["config"] == configs[1] and stored["traceback"] == failure.traceback and "commit" in stored


def test_failed_runs_are_tried_again_unless_told_otherwise(tmp_path, monkeypatch):
    configs = [{"i": 1}, {"i": 2, "bad": True}]
    sweep.run(square, configs, tmp_path, jobs=1)
    left = sweep.run(square, configs, tmp_path, jobs=1, retry=False)
    assert (left.computed, left.cached) == (0, 1) and left.failures[0].error == "ValueError: 2 is a bad number"

    code = engine.Code.of("tests.sweep_cells")  # the same code, as if the fault had lain in the machine
    monkeypatch.setattr(sweep_cells, "ValueError", lambda text: KeyboardInterrupt(), raising=False)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(square, configs, tmp_path, jobs=1, code=code)
    assert len(Store(tmp_path).failed()) == 1
    monkeypatch.setattr(sweep_cells.square, "__code__", (lambda config: {"well": 1}).__code__)
    cured = sweep.run(square, configs, tmp_path, jobs=1, code=code)
    assert cured.results[1] == {"well": 1} and not cured.failures and Store(tmp_path).failed() == set()


def test_stop_raises_the_error_itself(tmp_path):
    with pytest.raises(ValueError, match="2 is a bad number"):
        sweep.run(square, [{"i": 1}, {"i": 2, "bad": True}], tmp_path, jobs=1, stop=True)
    assert Store(tmp_path).failed() == set() and len(Store(tmp_path).keys()) == 1


@pytest.mark.parametrize("damage", [b"", b'{"sha256": "', None])
def test_damaged_results_are_computed_again(tmp_path, damage):
    found = sweep.run(square, numbers(1, 2), tmp_path, jobs=1)
    whole = results(tmp_path)
    path = tmp_path / "results" / f"{found.keys[0]}.json"
    if damage is None:  # one digit of a result that still is JSON
        damage = path.read_bytes().replace(b'"square":1', b'"square":7')
    path.write_bytes(damage)
    again = sweep.run(square, numbers(1, 2), tmp_path, jobs=1)
    assert (again.computed, again.cached) == (1, 1) and again.results[0]["square"] == 1
    assert results(tmp_path) == whole


def test_the_callers_backend_is_used(tmp_path):
    with parallel_config("threading", n_jobs=2):
        inside = sweep.run(sweep_cells.threads, numbers(0, 1, 2), tmp_path / "threading")
    assert {r["process"] for r in inside.results} == {os.getpid()}
    with parallel_config("loky", n_jobs=2):
        outside = sweep.run(sweep_cells.threads, numbers(0, 1, 2), tmp_path / "loky")
    assert os.getpid() not in {r["process"] for r in outside.results}
    for result in [*inside.results, *outside.results]:
        assert result["torch"] == 1 and set(result["pools"]) == {1}


@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_threads_are_given_back(tmp_path, backend):
    torch.set_num_threads(2)
    try:
        with parallel_config(backend, n_jobs=2):
            found = sweep.run(sweep_cells.threads, numbers(*range(6)), tmp_path)
        assert {r["torch"] for r in found.results} == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_run_that_kills_its_worker_is_found_out(tmp_path):
    configs = [*numbers(*range(4)), {"i": 4, "die": True}, *numbers(*range(5, 8))]
    found = sweep.run(square, configs, tmp_path, jobs=2)
    assert [r and r["square"] for r in found.results] == [0, 1, 4, 9, None, 25, 36, 49]
    (failure,) = found.failures
    assert failure.config == configs[4] and "the worker that computed it died" in failure.error


def test_kill_at_any_moment_loses_the_runs_in_flight_and_no_other(tmp_path):
    """Killed sweeps end with the bytes of one that was left alone; what was finished is not computed again."""
    random_, store = random.Random(0), Store(tmp_path / "killed")
    configs = sweep_cells.grid(40, str(tmp_path / "log"))
    undisturbed = sweep.run(square, configs, tmp_path / "calm", jobs=1)
    (tmp_path / "log").unlink()
    store.prepare()
    kills = 0
    for _ in range(5):
        before = results(store.folder)
        kills += sweep_cells.killed(configs, store, len(before) + random_.randrange(8), random_.uniform(0, 0.02))
        assert before.items() <= results(store.folder).items()
    last = sweep.run(square, configs, store, jobs=1)
    assert kills == 5 and last.computed and not last.failures and last.keys == undisturbed.keys
    assert results(store.folder) == results(tmp_path / "calm")
    computed = Counter((tmp_path / "log").read_text().split())
    assert set(computed) == {str(i) for i in range(40)} and sum(computed.values()) <= 40 + 2 * kills


def test_two_sweeps_at_once_on_one_store(tmp_path):
    command = [sys.executable, "-m", "tests.sweep_cells", str(tmp_path / "store"), str(tmp_path / "log"), "30"]
    settings = {"cwd": ROOT, "env": os.environ | {"TQDM_DISABLE": "1"}, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **settings) for _ in range(2)]
    for process in both:
        said, _ = process.communicate(timeout=300)
        computed, cached, failed = map(int, said.split())
        assert process.returncode == 0 and computed + cached == 30 and failed == 0
    calm = sweep.run(square, sweep_cells.grid(30, str(tmp_path / "log"), 0.02), tmp_path / "calm", jobs=1)
    assert results(tmp_path / "store") == results(tmp_path / "calm") and len(calm.keys) == 30


def test_a_full_disk_stops_the_sweep_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    sweep.run(square, numbers(1), tmp_path, jobs=1)
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> None:
        write(path, content[:7])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(StoreError, match="No space left on device. Finished runs are kept"):
            sweep.run(square, numbers(1, 2), tmp_path, jobs=1)
    assert [p.name for folder in tmp_path.iterdir() for p in folder.iterdir() if p.suffix == ".part"] == []
    assert len(Store(tmp_path).keys()) == 1 and Store(tmp_path).failed() == set()
    assert sweep.run(square, numbers(1, 2), tmp_path, jobs=1).cached == 1


def test_a_disk_that_is_full_in_truth(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    try:
        with pytest.raises(StoreError, match="No space left on device"):
            sweep.run(square, numbers(*range(40)), disk / "store", jobs=1)
        assert not [path for path in disk.rglob("*.part")]
        kept = Store(disk / "store").keys()
        assert kept and all(Store(disk / "store").read(key) for key in kept)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_one(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write into .*; give another folder"):
        sweep.run(square, numbers(1), tmp_path / "file", jobs=1)


def test_workers_that_write_elsewhere_are_noticed(tmp_path):
    def elsewhere(left):
        return [engine.Outcome(job.key, b'{"square":1}') for job in left]

    with pytest.raises(StoreError, match="1 finished runs are not in .*: their workers wrote elsewhere"):
        sweep.run(square, numbers(1), tmp_path, execute=elsewhere)


def test_results_that_cannot_be_kept_are_failures_of_their_run(tmp_path, monkeypatch):
    code = engine.Code.of("tests.sweep_cells")
    monkeypatch.setattr(sweep_cells.square, "__code__", (lambda config: {"model": object()}).__code__)
    (failure,) = sweep.run(square, numbers(1), tmp_path, jobs=1, code=code).failures
    assert "result['model'] is builtins.object" in failure.error


def test_progress_counts_what_was_cached_and_not_its_time(tmp_path, monkeypatch):
    seen = {}

    def spy(items, label, total, done, every):
        seen.update(label=label, total=total, done=done)
        return items

    sweep.run(square, numbers(1, 2), tmp_path, jobs=1)
    monkeypatch.setattr(engine, "progress", spy)
    sweep.run(square, numbers(1, 2, 3, 4, 4), tmp_path, jobs=1, label="squares")
    assert seen == {"label": "squares", "total": 4, "done": 2}
