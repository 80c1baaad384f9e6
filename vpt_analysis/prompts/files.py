"""Prompts as safetensors files that carry their mechanism, length, options and backbone config."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..storage import atomic
from ..vit import ViTConfig
from .base import Prompt
from .registry import create

VERSION = "1"


def save(prompt: Prompt, path: str | Path) -> None:
    """Write a prompt to ``path`` as safetensors, whole or not at all."""
    metadata = {
        "vpt_analysis": "prompt",
        "version": VERSION,
        "mechanism": prompt.name,
        "length": str(prompt.length),
        "options": json.dumps(prompt.options),
        "config": json.dumps(prompt.config.to_dict()),
    }
    with atomic(path) as part:
        save_file({k: v.detach().contiguous() for k, v in prompt.state_dict().items()}, part, metadata=metadata)


def load(path: str | Path) -> Prompt:
    """Read a prompt that ``save`` wrote; executes nothing. Raises ``ValueError`` that names the file and the fault."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); write it with prompts.save") from error
    if metadata.get("vpt_analysis") != "prompt":
        raise ValueError(f"{path} holds no prompt of vpt_analysis; write it with prompts.save(prompt, path)")
    if metadata.get("version") != VERSION:
        raise ValueError(f"{path} has prompt file version {metadata.get('version')!r}; this release reads {VERSION!r}")
    config = json.loads(metadata["config"])
    prompt = create(
        metadata["mechanism"], ViTConfig(**config), int(metadata["length"]), **json.loads(metadata["options"])
    )
    want, got = {k: tuple(v.shape) for k, v in prompt.state_dict().items()}, {k: tuple(v.shape) for k, v in tensors.items()}
    if want != got:
        wrong = sorted(k for k in want.keys() | got.keys() if want.get(k) != got.get(k))
        raise ValueError(
            f"{path} does not fit mechanism {metadata['mechanism']!r}: "
            + ", ".join(f"{k} is {got.get(k, 'missing')}, expected {want.get(k, 'no such tensor')}" for k in wrong)
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: tensor {name!r} has NaN or infinite values")
    prompt.to(next(iter(tensors.values())).dtype).load_state_dict(tensors)
    return prompt
