"""Tangent dimension of VPT-Deep on vit-micro beside a loop of one autograd call an output, and its peak memory."""

from __future__ import annotations

import multiprocessing
import resource
import time

import numpy as np
import torch

import vpt_analysis as va
from benchmarks.measure import Measured, ratio
from benchmarks.models import images
from vpt_analysis.probes.jacobian import Jacobian, naive
from vpt_analysis.probes.tangent import Tangent, tangent_dimension
from vpt_analysis.progress import progress

TARGETS = (
    "targets: ≤ 60 s, ≤ 2 GiB (of the whole process, torch with it) on 2 CPU cores; loop / ours ≥ 5. The loop is timed "
    "on 1 image, all outputs, and scaled to all images; ours is the sketch, whose rank is that of all outputs"
)
SHAPE, INPUTS, LENGTH = "vit-micro", 512, 5
COLUMNS = {"shape": 14, "batch": 6, "prompts": 8, "compared": 28, "time": 20, "ours": 18, "other": 16, "found": 80}


def measure(repeats: int, dtype: torch.dtype, device: str, inputs: int = INPUTS, length: int = LENGTH) -> list[dict]:
    if dtype not in (torch.float32, torch.float64):
        return []  # ranks are not for half precision
    seconds: dict[str, list[float]] = {"loop": [], "ours": []}
    naive(task(dtype, device, 1, length))
    for _ in progress(range(max(1, repeats // 2)), "tangent"):
        start = time.perf_counter()
        naive(task(dtype, device, 1, length))
        seconds["loop"].append(inputs * (time.perf_counter() - start))
        start = time.perf_counter()
        found = ours(dtype, device, inputs, length)
        seconds["ours"].append(time.perf_counter() - start)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.apply(peak_of_process, (dtype, device, inputs, length, torch.get_num_threads()))
    loop, mine = (Measured(np.array(seconds[name]), 0) for name in ("loop", "ours"))
    rank = found.rank
    return [
        {
            "shape": SHAPE, "batch": inputs, "tokens": 65, "prompts": length, "compared": "loop over outputs / tangent",
            "time": ratio(loop, mine), "memory": "-", "ours": f"{mine.median:.1f} s, {peak / 2**20:.0f} MiB",
            "other": f"{loop.median:.0f} s, scaled",
            "found": f"{found.how}: rank {rank.value} of {found.parameters} above {rank.threshold:.2e} ({rank.limit}), "
            f"gap {rank.gap:.2f}, theta {found.closure:.2g}, certified {found.certified}",
        }
    ]  # fmt: skip


def task(dtype: torch.dtype, device: str, inputs: int, length: int) -> Jacobian:
    vit = va.load_backbone(SHAPE).to(device, dtype).eval().requires_grad_(False)
    return Jacobian(vit, va.prompts.create("vpt-deep", vit.config, length).to(vit.patch.weight), images(vit, inputs))


def ours(dtype: torch.dtype, device: str, inputs: int, length: int) -> Tangent:
    made = task(dtype, device, inputs, length)
    return tangent_dimension(made.vit, made.method, made.images)


def peak_of_process(dtype: torch.dtype, device: str, inputs: int, length: int, threads: int) -> int:
    """Peak resident bytes of a process that does nothing else; the device's own memory is not in it."""
    torch.set_num_threads(threads)
    ours(dtype, device, inputs, length)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
