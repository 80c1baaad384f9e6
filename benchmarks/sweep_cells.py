"""Runs for ``benchmarks.sweep``, importable by workers."""

from __future__ import annotations

import time


def nothing(config: dict) -> dict:
    return {"i": config["i"]}


def busy(config: dict) -> dict:
    """Work of one thread that takes the same number of steps everywhere."""
    total = 0.0
    for k in range(config["steps"]):
        total += (k * config["i"]) % 7
    return {"total": total}


def slow(config: dict) -> dict:
    """``log``: a file that gets a line for every computation."""
    time.sleep(0.01)
    with open(config["log"], "a") as log:
        log.write(f"{config['i']}\n")
    return {"i": config["i"], "square": config["i"] ** 2}
