"""One training step of every prompt mechanism beside VPT-Deep's at the same number of prompts."""

from __future__ import annotations

import torch

import vpt_analysis as va
from benchmarks.measure import interleaved, ratio
from benchmarks.models import images, model
from benchmarks.prefix_form import step

TARGETS = "targets: vapt / vpt-deep ≤ 1.25 in time and ≤ 1.3 in memory; the others are for the record"
CASES = [("vit-micro", 32), ("ViT-S/14-224", 8)]
LENGTH, BASE = 10, "vpt-deep"


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    rows = []
    for shape, batch in CASES:
        vit = model(shape, dtype, device)
        x = images(vit, batch)
        prompts = {n: va.prompts.create(n, vit.config, LENGTH).to(vit.patch.weight) for n in va.prompts.names()}
        calls = {name: (lambda p=p: step(vit, x, p)) for name, p in prompts.items()}  # noqa: B023
        m = interleaved(calls, repeats, f"mechanisms, {shape}")
        base = m[BASE]
        for name in prompts:
            if name == BASE:
                continue
            rows.append(
                {
                    "shape": shape, "batch": batch, "tokens": vit.config.tokens, "prompts": LENGTH,
                    "compared": f"step, {name} / {BASE}",
                    "time": ratio(m[name], base), "memory": f"{m[name].peak / base.peak:.2f}",
                    "ours": f"{m[name].median:.3f} s, {m[name].peak / 2**20:.0f} MiB",
                    "other": f"{base.median:.3f} s, {base.peak / 2**20:.0f} MiB",
                }
            )  # fmt: skip
    return rows
