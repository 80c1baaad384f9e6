"""What a sweep costs beside its runs, what a second dask worker gains, and sweeps that are killed fifty times."""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from benchmarks import sweep_cells
from tests.sweep_cells import killed
from vpt_analysis import sweep
from vpt_analysis.sweep import clusters
from vpt_analysis.sweep.store import Store, encode, whole
from vpt_analysis.threads import available_cores

TARGETS = (
    "targets: cached config ≤ 1 ms at 100,000, dispatched run ≤ 20 ms, second start of 10,000 runs ≤ 5 s, two dask "
    "workers ≥ 1.8 × one; 50 kills: no finished run lost or computed twice, bytes of a sweep left alone"
)
COLUMNS = {"compared": 62, "ours": 38, "time": 30}
DTYPE = "of no matter"
CACHED, RESTARTED, DISPATCHED, KILLS = 100_000, 10_000, 400, 50
ROOT = Path(__file__).resolve().parent.parent


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    print(f"(load of the machine {os.getloadavg()[0]:.1f} on {available_cores()} cores)")
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        return [
            *cached(Path(folder)),
            *dispatched(Path(folder)),
            *two_workers(Path(folder), repeats),
            *kills(Path(folder)),
        ]


def row(compared: str, ours: str, time: str = "-") -> dict:
    return {"compared": compared, "ours": ours, "time": time}


def cached(folder: Path) -> list[dict]:
    """Sweeps that find all their results, in this process and from the start of Python."""
    configs = [{"i": i, "rate": 0.1, "seed": i % 5, "method": "vpt-deep"} for i in range(CACHED)]
    store = Store(folder / "cached")
    store.prepare()
    for key, config in zip(sweep.keys(sweep_cells.nothing, configs), configs, strict=True):
        (store.results / f"{key}.json").write_bytes(whole(key, encode(sweep_cells.nothing(config))))
    start, cpu = time.perf_counter(), time.process_time()
    found = sweep.run(sweep_cells.nothing, configs, store)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    assert found.cached == CACHED and not found.computed
    command = (
        "import sys; from benchmarks import sweep_cells; from vpt_analysis import sweep\n"
        "configs = [{'i': i, 'rate': 0.1, 'seed': i % 5, 'method': 'vpt-deep'} for i in range(int(sys.argv[2]))]\n"
        "assert sweep.run(sweep_cells.nothing, configs, sys.argv[1]).cached == len(configs)"
    )
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", command, store.folder, str(RESTARTED)], check=True, cwd=ROOT)
    again, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    its_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        row(
            f"cached config, of {CACHED:,}", f"{1000 * seconds / CACHED:.3f} ms", f"{1000 * cpu / CACHED:.3f} ms of CPU"
        ),
        row(f"second start of {RESTARTED:,} runs, with Python's own", f"{again:.1f} s", f"{its_cpu:.1f} s of CPU"),
    ]


def dispatched(folder: Path) -> list[dict]:
    """Runs that do nothing, with workers that are warm."""
    rows = []
    for jobs in (1, available_cores()):
        for part in ("warm", "timed"):
            start = time.perf_counter()
            configs = [{"i": i, "part": part, "jobs": jobs} for i in range(DISPATCHED)]
            sweep.run(sweep_cells.nothing, configs, folder / "dispatched", jobs=jobs)
            seconds = time.perf_counter() - start
        told = f"dispatched run, of {DISPATCHED} that do nothing, {jobs} at a time"
        rows.append(row(told, f"{1000 * seconds / DISPATCHED:.2f} ms", f"{seconds:.1f} s in all"))
    return rows


def two_workers(folder: Path, repeats: int) -> list[dict]:
    """The same runs, of about a second each, on one dask worker and on two, and by one process of this machine and two,
    all in turn: what the latter gain is what the cores have to give."""
    number, seconds = itertools.count(), {}
    with cluster(folder, 1) as one, cluster(folder, 2) as two:
        for round_ in range(repeats + 1):
            for count, address in ((1, one), (2, two)):
                for kind, backend in (("dask", clusters.dask(address)), ("here", nullcontext())):
                    configs = [{"i": next(number), "steps": 8_000_000} for _ in range(24)]
                    with backend:
                        start = time.perf_counter()
                        sweep.run(sweep_cells.busy, configs, folder / "busy", jobs=count if kind == "here" else None)
                        if round_:  # the first round imports
                            seconds.setdefault((kind, count), []).append(time.perf_counter() - start)
    told = {"dask": "two dask workers beside one, CPU-bound runs", "here": "two processes beside one, without dask"}
    return [row(words, *gain(seconds[kind, 1], seconds[kind, 2])) for kind, words in told.items()]


def gain(one: list[float], two: list[float]) -> tuple[str, str]:
    """Median, least and largest ratio within rounds; median seconds of both."""
    gains = [a / b for a, b in zip(one, two, strict=True)]
    low, high = (f"{x:.2f}" for x in (min(gains), max(gains)))
    each = ", ".join(f"{statistics.median(seconds):.1f} s" for seconds in (one, two))
    return f"{statistics.median(gains):.2f} ({low}-{high})", each


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """The address of a dask scheduler on the loopback with so many workers of one thread."""
    file = folder / f"{workers}.json"
    settings = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    worker = [*dask, "worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    started = [subprocess.Popen(scheduler, **settings)]
    try:
        while not file.exists():
            time.sleep(0.1)
        started += [subprocess.Popen([*worker, "--local-directory", folder], **settings) for _ in range(workers)]
        address = json.loads(file.read_text())["address"]
        with clusters.dask(address, timeout=60) as client:
            client.wait_for_workers(workers)
        yield address
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def kills(folder: Path) -> list[dict]:
    """A sweep of two workers, killed with them at random moments and started again, fifty times."""
    log, random_ = folder / "log.txt", random.Random(0)
    configs = [{"i": i, "log": str(log)} for i in range(16 * KILLS)]
    calm, hurt = Store(folder / "calm"), Store(folder / "hurt")
    sweep.run(sweep_cells.slow, configs, calm, jobs=1)
    keys = sweep.keys(sweep_cells.slow, configs)
    lost = again = seen = 0
    before = results(hurt)
    log.unlink()
    for _ in range(KILLS):
        at, seconds = len(before) + random_.randrange(14), random_.uniform(0, 0.02)
        ended = not killed(configs, hurt, at, seconds, sweep_cells.slow)
        assert not ended, "the sweep is done before its kills"
        after, computed = results(hurt), log.read_text().split()
        lost += sum(after.get(key) != content for key, content in before.items())
        again += sum(keys[int(i)] in before for i in computed[seen:])
        before, seen = after, len(computed)
    left = len(configs) - len(before)
    last = sweep.run(sweep_cells.slow, configs, hurt, jobs=1)
    same = results(hurt) == results(calm) and not last.failures
    told = f"{lost} lost, {again} computed twice, {'equal' if same else 'OTHER'} bytes"
    flight = f"{len(log.read_text().split()) - len(configs)} in flight at a kill"
    return [row(f"{KILLS} kills of a sweep of {len(configs)} runs, {left} of them left at the last", told, flight)]


def results(store: Store) -> dict[str, bytes]:
    return {key: (store.results / f"{key}.json").read_bytes() for key in store.keys()}
