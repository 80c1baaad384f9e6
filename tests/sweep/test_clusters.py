"""Sweeps on a real dask cluster of two worker processes, and in jobs of submitit on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.sweep_cells import grid, square
from vpt_analysis import sweep
from vpt_analysis.sweep import clusters
from vpt_analysis.sweep.store import Store

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds, on a machine that has other work


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")


class Cluster:
    """A scheduler and workers, each a process of its own on the loopback."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / "scheduler.json"
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.file)
        self.workers = []
        self.wait(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        self.address = json.loads(self.file.read_text())["address"]

    def start(self, what: str, *options) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", what, *map(str, options), "--no-dashboard"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        return subprocess.Popen(command, env=environment, cwd=self.folder, stderr=subprocess.DEVNULL)

    def add_workers(self, count: int) -> None:
        for _ in range(count):
            options = ("--nthreads", 1, "--no-nanny", "--local-directory", self.folder)
            self.workers.append(self.start("worker", self.address, *options))

    def wait(self, ready) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < deadline, "the cluster did not start"
            time.sleep(0.05)

    def close(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("distributed", reason="dask is not installed")
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.close()


def alive(client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def test_two_workers_one_of_which_is_killed(cluster, tmp_path):
    """The other computes what was in flight; nothing that was finished is computed again."""
    cluster.add_workers(2)
    configs = grid(40, str(tmp_path / "log"), sleep=0.1)
    with clusters.dask(cluster.address) as client:
        cluster.wait(lambda: alive(client) == 2)
        pids = set(client.run(os.getpid).values())
        sweep.run(square, configs[:4], tmp_path / "store")  # both have imported what they need
        victim = cluster.workers[0]
        assert victim.pid in pids
        killer = threading.Thread(target=kill_when, args=(victim, tmp_path / "store", 12))
        killer.start()
        found = sweep.run(square, configs, tmp_path / "store")
        killer.join()
        assert victim.wait(timeout=60) == -signal.SIGKILL and alive(client) == 1
    assert (found.cached, found.computed, found.failures) == (4, 36, [])
    assert [r["square"] for r in found.results] == [i**2 for i in range(40)]
    computed = Counter((tmp_path / "log").read_text().split())
    assert set(computed) == {str(i) for i in range(40)} and sum(computed.values()) <= 42
    calm = sweep.run(square, configs, tmp_path / "calm", jobs=1)
    for key in calm.keys:
        name = f"results/{key}.json"
        assert (tmp_path / "store" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def kill_when(process: subprocess.Popen, store: Path, finished: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(Store(store).keys()) < finished and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()


def test_a_run_that_kills_its_workers_is_found_out(cluster, tmp_path):
    """dask gives up a run that costs a worker (here: the first); joblib alone would wait for it for ever."""
    with clusters.dask(cluster.address) as client:
        cluster.add_workers(3)
        cluster.wait(lambda: alive(client) >= 3)
        found = sweep.run(square, [{"i": 1}, {"i": 2, "die": True}, {"i": 3}], tmp_path)
    assert [r and r["square"] for r in found.results] == [1, None, 9]
    (failure,) = found.failures
    assert failure.config == {"i": 2, "die": True} and "the worker that computed it died" in failure.error


def test_no_scheduler():
    pytest.importorskip("distributed", reason="dask is not installed")
    with pytest.raises(OSError, match="no dask scheduler answers at tcp://127.0.0.1:9"):
        with clusters.dask("tcp://127.0.0.1:9", timeout=0.5):
            pass


@pytest.mark.parametrize(("module", "extra"), [("distributed", "dask"), ("submitit", "slurm")])
def test_an_extra_that_is_missing_is_named(monkeypatch, tmp_path, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs the extra '{extra}': pip install 'vpt-analysis\[{extra}\]'"):
        if extra == "dask":
            with clusters.dask("tcp://127.0.0.1:9"):
                pass
        else:
            clusters.slurm("gpu", tmp_path)


def test_jobs_of_submitit(tmp_path, monkeypatch):
    """Two jobs, one of which is ended by a run that kills it: what it had finished counts, the rest is reported."""
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    execute = clusters.slurm(None, tmp_path / "logs", batches=2, cluster="local", every=0.2, timeout_min=10)
    configs = [{"i": 0}, {"i": 1}, {"i": 2}, {"i": 3, "die": True}, {"i": 4}, {"i": 5}]
    found = sweep.run(square, configs, tmp_path / "store", execute=execute)
    assert [r and r["square"] for r in found.results] == [0, 1, 4, None, 16, None]
    assert {f.error for f in found.failures} == {"its Slurm job ended before it"}
    again = sweep.run(square, configs[-1:], tmp_path / "store", jobs=1)
    assert again.results[0]["square"] == 25 and len(Store(tmp_path / "store").failed()) == 1


def test_nothing_is_submitted_where_all_is_cached(tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    sweep.run(square, [{"i": 1}], tmp_path / "store", jobs=1)
    execute = clusters.slurm("gpu", tmp_path / "logs", cluster="local")
    assert sweep.run(square, [{"i": 1}], tmp_path / "store", execute=execute).cached == 1
    assert not (tmp_path / "logs").exists()


def test_no_slurm_here(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="srun.*Jobs are sent from a machine that has Slurm"):
        sweep.run(square, [{"i": 1}], tmp_path / "store", execute=clusters.slurm("gpu", tmp_path / "logs"))
