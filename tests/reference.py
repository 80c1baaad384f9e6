"""Models and reference implementations that several tests share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import vpt_analysis as va
from vpt_analysis.attention import KeyGroup
from vpt_analysis.prompts import Prompt, registry

WEIGHTS = Path(va.__file__).parent / "weights" / "vit-micro.safetensors"
MECHANISMS = tuple(va.prompts.names())
STATIC = tuple(name for name in MECHANISMS if registry.MECHANISMS[name].experts.startswith("static"))
OPEN = {"gated": {"gate_init": 0.0}}  # options without which random values leave a mechanism near a special case


def scatter(module: nn.Module, seed: int, std: float = 0.2) -> nn.Module:
    """Move every parameter by normal noise, so that none is at a special value and attention is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += std * torch.randn(p.shape, generator=generator).to(p)
    return module


def random_vit(dtype: torch.dtype = torch.float64, seed: int = 0, **changes) -> va.VisionTransformer:
    fields = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 3, "heads": 3} | changes
    return scatter(va.VisionTransformer(va.ViTConfig(**fields), seed=seed), seed).to(dtype).eval()


def backbone(kind: str, dtype: torch.dtype = torch.float64) -> va.VisionTransformer:
    """ "random" weights, or the "real" bundled ones."""
    return random_vit(dtype) if kind == "random" else va.load_backbone("vit-micro").to(dtype).eval()


def saved_backbone(folder: Path, image_size: int, depth: int) -> str:
    """A weight file of a backbone of width 8."""
    config = va.ViTConfig(image_size=image_size, patch_size=4, width=8, depth=depth, heads=2)
    va.backbones.save(va.VisionTransformer(config, seed=0), folder / "tiny.safetensors")
    return str(folder / "tiny.safetensors")


def random_prompt(vit: va.VisionTransformer, name: str, length: int, seed: int = 1, **options) -> Prompt:
    prompt = va.prompts.create(name, vit.config, length, **OPEN.get(name, {}) | options)
    return scatter(prompt, seed, 0.5).to(vit.patch.weight.dtype).eval()


def random_images(vit: va.VisionTransformer, n: int = 3, seed: int = 2) -> Tensor:
    c = vit.config
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, c.channels, c.image_size, c.image_size, generator=generator).to(vit.patch.weight)


def moves(prompt: Prompt, layer: int) -> bool:
    """Whether the experts of a layer may depend on the image."""
    if prompt.experts.startswith("static"):
        return False
    return layer > 0 or (prompt.experts == "adaptive" and not prompt.options.get("static_first"))


class TokenForm(Prompt):
    """VPT-Deep as the official code runs it: prompts stand in the sequence, every layer replaces them."""

    name = "token-form"
    experts = "static"

    def __init__(self, deep: Prompt):
        super().__init__(deep.config, deep.length)
        self.tokens = nn.Parameter(deep.tokens.detach().clone())

    def forward(self, layer, block, x, before):
        return self.tokens[layer].expand(len(x), -1, -1), None


class FixedKeys(Prompt):
    """Extra keys and values given from outside, the same in every layer, joined by any rule."""

    name = "fixed-keys"
    experts = "static"

    def __init__(self, config: va.ViTConfig, key: Tensor, value: Tensor, **group):
        super().__init__(config, key.shape[2])
        self.key, self.value, self.group = nn.Parameter(key), nn.Parameter(value), group

    def forward(self, layer, block, x, before):
        return None, KeyGroup(self.key, self.value, **self.group)


def entering(vit: va.VisionTransformer, images: Tensor, prompt: Prompt | None) -> list[Tensor]:
    """The sequence (B, N or N + P, d) that enters each block."""
    found = []
    hooks = [block.register_forward_pre_hook(lambda _, args: found.append(args[0])) for block in vit.blocks]
    with torch.no_grad():
        vit(images, prompt)
    for hook in hooks:
        hook.remove()
    return found


def captured(vit: va.VisionTransformer, images: Tensor, prompt: Prompt | None) -> list[tuple]:
    """(query, key, value, extra, plain output) of every layer."""
    calls = []

    def attend_at(layer):
        def look(query, key, value, extra):
            output = va.attention.attend(query, key, value, extra)
            calls.append((query, key, value, extra, output))
            return output

        return look

    with torch.no_grad():
        vit.encode(vit.embed(images), prompt, attend_at)
    return calls
