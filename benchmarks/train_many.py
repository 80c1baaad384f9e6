"""A bank of prompts in one pass beside the same runs one after another, and how its memory grows with their number."""

from __future__ import annotations

import torch
from torch import Tensor

import vpt_analysis as va
from benchmarks.measure import Measured, interleaved, ratio
from benchmarks.models import images, model
from vpt_analysis.training import Training, train, train_many

TARGETS = (
    "targets: one by one / bank ≥ 1.0 on 2 CPU cores, ≥ 8 on a GPU at K = 16, ≥ 20 at K = 64; memory linear in K, so "
    "the ratio of two banks' is at most that of their K"
)
SHAPE, LENGTH, STEPS = "vit-micro", 5, 3
BATCHES = (8, 16)
GROWTH = (4, 8, 16)


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    vit = model(SHAPE, dtype, device)
    rows = []
    for batch in BATCHES:
        data = task(vit, 4 * batch)
        for k in (16, 64) if device == "cuda" else (16,):
            calls = {"alone": lambda: alone(vit, data, batch, k), "bank": lambda: bank(vit, data, batch, k)}  # noqa: B023
            m = interleaved(calls, repeats, f"train_many, K = {k}")
            rows.append(row(vit, batch, f"{k} runs one by one / bank of {k}", m["alone"], m["bank"]))
        banks = {k: (lambda k=k: bank(vit, data, batch, k)) for k in GROWTH}  # noqa: B023
        m = interleaved({str(k): call for k, call in banks.items()}, repeats, "train_many, growth")
        for k in GROWTH[1:]:
            rows.append(row(vit, batch, f"bank of {k} / bank of {GROWTH[0]}", m[str(k)], m[str(GROWTH[0])], first=True))
    return rows


def row(vit: va.VisionTransformer, batch: int, compared: str, a: Measured, b: Measured, first: bool = False) -> dict:
    """``a`` beside ``b``; the bank is ``b``, or ``a`` where ``first``."""
    ours, other = (a, b) if first else (b, a)
    return {
        "shape": SHAPE, "batch": batch, "tokens": vit.config.tokens, "prompts": LENGTH, "compared": compared,
        "time": ratio(a, b), "memory": f"{a.peak / b.peak:.2f}",
        "ours": f"{ours.median:.2f} s, {ours.peak / 2**20:.0f} MiB",
        "other": f"{other.median:.2f} s, {other.peak / 2**20:.0f} MiB",
    }  # fmt: skip


def task(vit: va.VisionTransformer, n: int) -> tuple[Tensor, Tensor]:
    return images(vit, n), (torch.arange(n) % 10).to(vit.patch.weight.device)


def prompt(vit: va.VisionTransformer, seed: int) -> va.prompts.Prompt:
    return va.prompts.create("vpt-deep", vit.config, LENGTH, seed=seed).to(vit.patch.weight)


def alone(vit: va.VisionTransformer, data: tuple[Tensor, Tensor], batch: int, k: int) -> None:
    for seed in range(k):
        train(vit, prompt(vit, seed), *data, Training(STEPS, batch=batch, seed=seed))


def bank(vit: va.VisionTransformer, data: tuple[Tensor, Tensor], batch: int, k: int) -> None:
    trainings = [Training(STEPS, batch=batch, seed=seed) for seed in range(k)]
    train_many(vit, [prompt(vit, seed) for seed in range(k)], *data, trainings)
