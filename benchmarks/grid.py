"""The grid of C7, every arm at 8 learning rates and 5 seeds: arm by arm through ``train_many``, beside cell by cell."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

import vpt_analysis as va
from benchmarks.measure import Measured, ratio, synchronise
from benchmarks.train_many import task
from vpt_analysis.efficiency.arms import ARMS, create
from vpt_analysis.progress import progress
from vpt_analysis.training import Trained, Training, train, train_many

TARGETS = "targets: cell by cell / together ≥ 1.0 on a CPU, ≥ 20 on a GPU, over all arms; losses as cell by cell"
COLUMNS = {"arm": 32, "runs": 6, "cell by cell": 15, "together": 12, "time": 20, "losses differ by": 18}
NAMES = ("linear", "vpt-shallow", "vpt-deep", "vpt-deep-small", "vpt-deep-prototypes", "vapt", "vapt-released")
RATES, SEEDS = tuple(10.0 ** (-k / 2) for k in range(8)), range(5)
STEPS, IMAGES = 2, 16


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    """Both ways take turns within an arm, arms within a round; a grid of one rate warms both up. Methods are made
    before the clock runs."""
    vit = va.load_backbone("vit-micro").to(device, dtype).requires_grad_(False)
    data = task(vit, IMAGES)
    starts = {arm: [create(ARMS[arm], vit, data[0], seed) for seed in SEEDS] for arm in NAMES}
    plans = [Training(STEPS, lr=rate, batch=IMAGES, seed=seed) for seed, rate in itertools.product(SEEDS, RATES)]
    ways = {
        "cells": lambda methods, plans: cells(vit, methods, data, plans),
        "grid": lambda methods, plans: train_many(vit, methods, *data, plans),
    }
    seconds = {arm: {way: [] for way in ways} for arm in NAMES}
    differ = dict.fromkeys(NAMES, 0.0)
    for arm in NAMES:
        for call in ways.values():
            call([copy.deepcopy(start) for start in starts[arm]], plans[:: len(RATES)])
    for _, arm in progress(list(itertools.product(range(repeats), NAMES)), "grid"):
        losses = {}
        for way, call in ways.items():
            methods = [copy.deepcopy(starts[arm][seed]) for seed, _ in itertools.product(SEEDS, RATES)]
            took, trained = timed(lambda call=call, methods=methods: call(methods, plans))
            losses[way] = np.array([t.losses for t in trained])
            seconds[arm][way].append(took)
        differ[arm] = max(differ[arm], float(np.abs(losses["cells"] - losses["grid"]).max()))
    rows = [row(arm, len(plans), seconds[arm], differ[arm]) for arm in NAMES]
    total = {way: np.sum([seconds[arm][way] for arm in NAMES], axis=0) for way in ways}
    return [*rows, row("all, a round", len(plans) * len(NAMES), total, max(differ.values()))]


def cells(vit: va.VisionTransformer, methods: list[nn.Module], data: tuple, plans: list[Training]) -> list[Trained]:
    return [train(vit, method, *data, plan) for method, plan in zip(methods, plans, strict=True)]


def timed(call: Callable[[], list[Trained]]) -> tuple[float, list[Trained]]:
    synchronise()
    start = time.perf_counter()
    trained = call()
    synchronise()
    return time.perf_counter() - start, trained


def row(arm: str, runs: int, seconds: dict, differ: float) -> dict:
    one, together = (Measured(np.array(seconds[way]), peak=0) for way in ("cells", "grid"))
    return {
        "arm": ARMS[arm].label if arm in ARMS else arm, "runs": str(runs), "cell by cell": f"{one.median:.2f} s",
        "together": f"{together.median:.2f} s", "time": ratio(one, together), "losses differ by": f"{differ:.1e}",
    }  # fmt: skip
