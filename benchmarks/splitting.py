"""The whole-model split beside the plain prompted forward, the naive path, and Hugging Face's attention maps."""

from __future__ import annotations

import torch

import vpt_analysis as va
from benchmarks.measure import interleaved, ratio
from benchmarks.models import huggingface, images, model

TARGETS = "targets: split / plain ≤ 1.15 in time and memory; split / maps ≤ 0.6 in time and ≤ 0.3 in memory at 1,024"
CASES = [("ViT-S/14-224", 8), ("ViT-B/16-224", 8), ("ViT-S/14-448", 4)]
LENGTH = 50


@torch.no_grad()
def measure(repeats: int, dtype: torch.dtype, device: str) -> list[dict]:
    rows = []
    for shape, batch in CASES:
        vit = model(shape, dtype, device)
        x = images(vit, batch)
        deep, shallow = (
            va.prompts.create(n, vit.config, LENGTH).to(vit.patch.weight) for n in ("vpt-deep", "vpt-shallow")
        )
        peer = huggingface(vit, shallow.tokens.detach())
        difference = (peer(x).last_hidden_state[:, : vit.config.tokens] - vit(x, shallow)).abs().max()
        assert difference < 1e-4 if dtype == torch.float32 else difference < 0.2, "the peer computes something else"
        calls = {
            "plain": lambda: vit(x, deep),  # noqa: B023
            "fused": lambda: va.decompose(vit, x, deep),  # noqa: B023
            "naive": lambda: va.decompose(vit, x, deep, path="naive"),  # noqa: B023
            "fused, prompts in the sequence": lambda: va.decompose(vit, x, shallow),  # noqa: B023
            "maps of transformers": lambda: peer(x, output_attentions=True),  # noqa: B023
        }
        m = interleaved(calls, repeats, f"split, {shape}")
        fused, shallow_split = m["fused"], m["fused, prompts in the sequence"]
        for name, ours, other in (
            ("split / plain forward", fused, m["plain"]),
            ("split / naive split", fused, m["naive"]),
            ("split / transformers' maps", shallow_split, m["maps of transformers"]),
        ):
            rows.append(
                {
                    "shape": shape, "batch": batch, "tokens": vit.config.tokens, "prompts": LENGTH, "compared": name,
                    "time": ratio(ours, other), "memory": f"{ours.peak / other.peak:.2f}",
                    "ours": f"{ours.median:.2f} s, {ours.peak / 2**20:.0f} MiB",
                    "other": f"{other.median:.2f} s, {other.peak / 2**20:.0f} MiB",
                }
            )  # fmt: skip
    return rows
