"""Checkpoints of the official VPT and VAPT code, against what that code computed from them (tests/golden/README.md)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vpt_analysis as va
from vpt_analysis import backbones

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
FILES = {"vpt_shallow": "vpt-shallow", "vpt_deep": "vpt-deep", "vapt": "vapt-released"}
P = 5


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    with np.load(GOLDEN / f"{name}.npz") as f:
        arrays = {key: f[key] for key in f.files}
    weights = {key: torch.from_numpy(array) for key, array in arrays.items() if key.startswith("weights/")}
    return {key.removeprefix("weights/"): tensor for key, tensor in weights.items()}, arrays


def formula_images(arrays: dict) -> torch.Tensor:
    """image[b,c,i,j] = sin((c+1)·0.05·i + 0.03·(b+1)·j + seed)."""
    seed = int(re.search(r"seed=(\d+)", str(arrays["formula"])).group(1))
    b, c, i, j = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in (2, 3, 224, 224)), indexing="ij")
    return torch.sin((c + 1) * 0.05 * i + 0.03 * (b + 1) * j + seed)


@pytest.mark.parametrize(("name", "mechanism"), FILES.items())
@torch.no_grad()
def test_encoded_tokens(name, mechanism):
    weights, arrays = golden(name)
    vit, prompt = backbones.from_official(weights, heads=3)
    assert prompt.name == mechanism and prompt.length == P and vit.config.heads == 3
    encoded = torch.from_numpy(arrays["encoded"])  # (2, 1 + P + 196, d), order [CLS, prompts, patches]
    want = torch.cat([encoded[:, :1], encoded[:, 1 + P :]], dim=1)
    assert float((vit(formula_images(arrays), prompt) - want).abs().max()) <= 1e-9


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("path", ["naive", "fused"])
@torch.no_grad()
def test_attention_of_cls(name, path):
    weights, arrays = golden(name)
    vit, prompt = backbones.from_official(weights, heads=3)
    layers = va.decompose(vit, formula_images(arrays), prompt, path=path, keep=("gates",))
    assert len(layers) == 4
    for split in layers:
        content, ours = split.content_gates[:, :, 0], split.prompt_gates[:, :, 0]  # (B, H, N), (B, H, P)
        got = torch.cat([content[..., :1], ours, content[..., 1:]], dim=-1)
        want = torch.from_numpy(arrays[f"cls_attention/{split.layer}"])
        assert float((got - want).abs().max()) <= 1e-9


@pytest.mark.parametrize("prefix", ["", "transformer.", "enc.transformer.", "module.enc.transformer."])
@pytest.mark.parametrize("head", ["head", "head.last_layer"])
def test_prefixes_and_classifier(prefix, head):
    weights, _ = golden("vpt_deep")
    outer = "module." if prefix.startswith("module.") else ""
    state = {prefix + name: tensor for name, tensor in weights.items()}
    state |= {f"{outer}{head}.weight": torch.ones(7, 24), f"{outer}{head}.bias": torch.zeros(7)}
    vit, prompt = backbones.from_official(state, heads=3)
    assert vit.config.classes == 7 and prompt.tokens.shape == (4, P, 24)
    assert torch.equal(prompt.tokens[1:], weights["deep_prompt_embeddings"])


def test_head_with_hidden_layers_is_left_out():
    weights, _ = golden("vpt_shallow")
    state = weights | {"head.projection.0.weight": torch.ones(9, 24), "head.last_layer.weight": torch.ones(7, 9)}
    with pytest.warns(UserWarning, match="head.last_layer.weight"):
        vit, _ = backbones.from_official(state, heads=3)
    assert vit.head is None


@torch.no_grad()
def test_prompt_projection_is_folded():
    weights, _ = golden("vpt_deep")
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(24, 6, generator=generator).double(), torch.randn(24, generator=generator).double()
    narrow = {"prompt_embeddings": torch.randn(1, P, 6, generator=generator).double()}
    narrow["deep_prompt_embeddings"] = torch.randn(3, P, 6, generator=generator).double()
    state = weights | narrow | {"prompt_proj.weight": weight, "prompt_proj.bias": bias}
    _, prompt = backbones.from_official(state, heads=3)
    assert torch.allclose(prompt.tokens[2], F.linear(narrow["deep_prompt_embeddings"][1], weight, bias), atol=1e-14)


def test_without_prompts():
    weights, _ = golden("vpt_shallow")
    del weights["prompt_embeddings"]
    vit, prompt = backbones.from_official(weights, heads=3)
    assert prompt is None
    assert torch.equal(vit.position, backbones.load_backbone(weights, heads=3).position)


def test_dtype():
    vit, prompt = backbones.from_official(golden("vapt")[0], heads=3, dtype=torch.float32)
    assert vit.norm.weight.dtype == prompt.first.dtype == torch.float32


def without(weights: dict, pattern: str) -> dict:
    return {name: tensor for name, tensor in weights.items() if not re.match(pattern, name)}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vpt_deep", lambda w: w | {"deep_prompt_embeddings": torch.ones(2, P, 24)}, "deep_prompt_embeddings.*shape"),
        ("vpt_deep", lambda w: w | {"prompt_combiner.weight": torch.ones(2)}, "not used.*prompt_combiner.weight"),
        ("vpt_deep", lambda w: without(w, r"encoder\.layer\.2\.attn\.key\.bias"), "layer.2.attn.key.bias' is missing"),
        ("vpt_deep", lambda w: w | {"prompt_embeddings": w["prompt_embeddings"] * torch.nan}, "prompt_embeddings.*NaN"),
        ("vapt", lambda w: w | {"deep_prompt_embeddings": torch.ones(1, P, 24)}, "VPT_DEPTH"),
        ("vapt", lambda w: without(w, r"deep_prompt_embeddings_mlp"), "feature projector"),
        ("vapt", lambda w: w | {"deep_prompt_embeddings_mlp.scale": torch.ones(1)}, "not used.*mlp.scale"),
        ("vapt", lambda w: without(w, r"embeddings\.patch_embeddings\.weight"), "is it of the official code"),
    ],
)
def test_bad_checkpoints(name, change, message):
    with pytest.raises(ValueError, match=message):
        backbones.from_official(change(golden(name)[0]), heads=3)


def test_heads_are_asked_for():
    with pytest.raises(ValueError, match="width of 24.*pass heads="):
        backbones.from_official(golden("vpt_deep")[0])


def test_load_backbone_points_to_from_official():
    with pytest.raises(ValueError, match="use backbones.from_official"):
        backbones.load_backbone(golden("vpt_deep")[0], heads=3)
