"""The shapes that are measured, with random weights shared between our model and Hugging Face's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tests.conftest  # noqa: F401  declares what transformers' model files want of torchvision
import vpt_analysis as va

SHAPES = {
    "ViT-S/14-224": {"image_size": 224, "patch_size": 14, "width": 384, "depth": 12, "heads": 6},
    "ViT-B/16-224": {"image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12},
    "ViT-S/14-448": {"image_size": 448, "patch_size": 14, "width": 384, "depth": 12, "heads": 6},
    "vit-micro": {"image_size": 32, "patch_size": 4, "width": 128, "depth": 8, "heads": 4},
}


def model(shape: str, dtype: torch.dtype, device: str) -> va.VisionTransformer:
    return va.VisionTransformer(va.ViTConfig(**SHAPES[shape])).to(device, dtype).eval().requires_grad_(False)


def images(vit: va.VisionTransformer, batch: int) -> Tensor:
    c = vit.config
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, c.image_size, c.image_size, generator=generator).to(vit.patch.weight)


def huggingface(vit: va.VisionTransformer, tokens: Tensor) -> nn.Module:
    """transformers' ViT with our weights, eager attention (the one that has maps), and prompts behind the patches."""
    from transformers import ViTConfig, ViTModel

    c = vit.config
    config = ViTConfig(
        image_size=c.image_size, patch_size=c.patch_size, hidden_size=c.width, num_hidden_layers=c.depth,
        num_attention_heads=c.heads, intermediate_size=c.mlp_width, layer_norm_eps=c.eps, attn_implementation="eager",
    )  # fmt: skip
    peer = ViTModel(config, add_pooling_layer=False).to(vit.patch.weight).eval().requires_grad_(False)
    peer.load_state_dict(renamed(vit, peer.state_dict()))
    peer.embeddings.register_forward_hook(lambda _, __, x: torch.cat([x, tokens.expand(len(x), -1, -1)], dim=1))
    return peer


def renamed(vit: va.VisionTransformer, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our state under transformers' names."""
    ours, state = vit.state_dict(), {}
    fixed = {
        "embeddings.cls_token": ours["prefix"],
        "embeddings.position_embeddings": ours["position"],
        "embeddings.patch_embeddings.projection.weight": ours["patch.weight"],
        "embeddings.patch_embeddings.projection.bias": ours["patch.bias"],
        "layernorm.weight": ours["norm.weight"],
        "layernorm.bias": ours["norm.bias"],
    }
    parts = {
        "layernorm_before": "ln1", "layernorm_after": "ln2", "mlp.fc1": "fc1", "mlp.fc2": "fc2",
        "attention.o_proj": "attention.out",
    }  # fmt: skip
    for name in theirs:
        if name in fixed:
            state[name] = fixed[name]
            continue
        _, layer, *middle, kind = name.split(".")
        part = ".".join(middle)
        if part in parts:
            state[name] = ours[f"blocks.{layer}.{parts[part]}.{kind}"]
        else:
            third = ("attention.q_proj", "attention.k_proj", "attention.v_proj").index(part)
            state[name] = ours[f"blocks.{layer}.attention.qkv.{kind}"].chunk(3)[third]
    return state
