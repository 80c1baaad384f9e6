"""Runs of the sweeps under test, and a process that can be killed while it sweeps."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from joblib import parallel_config

from vpt_analysis import sweep
from vpt_analysis.sweep.store import Store


@dataclass(frozen=True)
class Config:
    i: int
    rates: tuple[float, ...] = (0.1, 0.2)


def square(config) -> dict:
    """The square of ``i`` and a few draws; ``log`` counts how often it was computed, ``sleep`` makes it last."""
    i = config.i if isinstance(config, Config) else config["i"]
    options = {} if isinstance(config, Config) else config
    if options.get("die"):
        os.kill(os.getpid(), 9)
    if options.get("bad"):
        raise ValueError(f"{i} is a bad number")
    time.sleep(options.get("sleep", 0.0))
    if "log" in options:
        with open(options["log"], "a") as log:
            log.write(f"{i}\n")
    return {"square": i**2, "draws": np.random.default_rng(i).normal(size=3), "text": f"i = {i}", "none": None}


def threads(config) -> dict:
    import torch
    from threadpoolctl import threadpool_info

    pools = [pool["num_threads"] for pool in threadpool_info()]
    time.sleep(0.05)
    return {"torch": torch.get_num_threads(), "pools": pools, "process": os.getpid()}


def compared(config: dict) -> dict:
    """In place of ``efficiency.runs.run``: made up accuracies, and an arm that fails."""
    if config["arm"]["method"] == "vapt":
        raise ValueError("no such luck")
    rates = np.array(config["rates"])
    found = {"test": 0.5 + rates, "loss": rates, "images": np.array(10), "classes": np.array(10)}
    found |= {"parameters": np.array(0), "own": np.array(True)}
    return found | ({"validation": 0.4 + rates} if config["carve"] else {})


def grid(n: int, log: str, sleep: float = 0.01) -> list[dict]:
    return [{"i": i, "log": log, "sleep": sleep} for i in range(n)]


def killed(configs: list[dict], store: Store, runs: int, seconds: float, function: Callable = square) -> bool:
    """Sweep in a fork, which has imported all, and kill it and its workers when there are so many results and some time
    has passed; False where it is done before."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        quiet_sweep(function, configs, store)
    with contextlib.suppress(PermissionError, ProcessLookupError):  # whoever comes first makes its group
        os.setpgid(child, child)
    while True:
        enough = len(store.keys()) >= runs
        time.sleep(seconds if enough else 0.002)
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if enough:
            os.killpg(child, 9)
            os.waitpid(child, 0)
            return True


def quiet_sweep(function: Callable, configs: list[dict], store: Store) -> None:
    try:
        with parallel_config("multiprocessing", n_jobs=2):
            sweep.run(function, configs, store)
    finally:
        os._exit(0)


if __name__ == "__main__":
    from tests import sweep_cells

    result = sweep.run(sweep_cells.square, grid(int(sys.argv[3]), sys.argv[2], 0.02), sys.argv[1], jobs=1)
    print(result.computed, result.cached, len(result.failures))
