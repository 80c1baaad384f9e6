"""VPT-Deep as keys and values beside VPT-Deep as tokens: training step and inference."""

from __future__ import annotations

import torch

import vpt_analysis as va
from benchmarks.measure import interleaved, ratio
from benchmarks.models import images, model
from tests.reference import TokenForm

TARGETS = "target: token form / prefix form ≥ 1.4 for a training step at P = 50, rising with P"
CASES = [("vit-micro", 64), ("ViT-S/14-224", 8)]
LENGTHS = (10, 50, 100, 200)


def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    rows = []
    for shape, batch in CASES:
        vit = model(shape, dtype, device)
        x = images(vit, batch)
        for length in LENGTHS:
            deep = va.prompts.create("vpt-deep", vit.config, length).to(vit.patch.weight)
            token = TokenForm(deep).to(vit.patch.weight)
            calls = {
                "prefix step": lambda: step(vit, x, deep),  # noqa: B023
                "token step": lambda: step(vit, x, token),  # noqa: B023
                "prefix forward": lambda: forward(vit, x, deep),  # noqa: B023
                "token forward": lambda: forward(vit, x, token),  # noqa: B023
                "no prompt": lambda: forward(vit, x, None),  # noqa: B023
            }
            m = interleaved(calls, repeats, f"prefix, {shape}, P = {length}")
            for kind in ("step", "forward"):
                prefix, tokens = m[f"prefix {kind}"], m[f"token {kind}"]
                rows.append(
                    {
                        "shape": shape, "batch": batch, "tokens": vit.config.tokens, "prompts": length,
                        "compared": f"token / prefix, {'training step' if kind == 'step' else 'inference'}",
                        "time": ratio(tokens, prefix), "memory": f"{tokens.peak / prefix.peak:.2f}",
                        "ours": f"{prefix.median:.3f} s, {prefix.peak / 2**20:.0f} MiB",
                        "other": f"{tokens.median:.3f} s, {tokens.peak / 2**20:.0f} MiB",
                    }
                )  # fmt: skip
    return rows


def step(vit: va.VisionTransformer, x: torch.Tensor, prompt: va.prompts.Prompt) -> None:
    prompt.zero_grad()
    vit(x, prompt)[:, 0].square().mean().backward()


@torch.no_grad()
def forward(vit: va.VisionTransformer, x: torch.Tensor, prompt: va.prompts.Prompt | None) -> None:
    vit(x, prompt)
