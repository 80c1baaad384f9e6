"""Prompts as safetensors files that carry their mechanism, length, options and backbone config."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..storage import read_record, write_tensors
from ..vit import ViTConfig
from .base import Prompt
from .registry import build

VERSION = 1


def save(prompt: Prompt, path: str | Path) -> None:
    """Write a prompt to ``path`` as safetensors, whole or not at all."""
    record = {
        "kind": "prompt",
        "version": VERSION,
        "mechanism": prompt.name,
        "length": prompt.length,
        "options": prompt.options,
        "config": prompt.config.to_dict(),
    }
    write_tensors(path, prompt.state_dict(), record)


def load(path: str | Path) -> Prompt:
    """Read a prompt that ``save`` wrote, for evaluation (no dropout); executes nothing.

    Raises ``ValueError`` that names the file and the fault, ``FileNotFoundError`` where there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prompt file at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); write it with prompts.save") from error
    record = read_record(metadata, "prompt", path, "write it with prompts.save(prompt, path)")
    if record.get("version") != VERSION:
        raise ValueError(f"{path} has prompt file version {record.get('version')!r}; this release reads {VERSION}")
    mechanism = record.get("mechanism")
    try:
        with torch.device("meta"):  # shapes only: what a record claims costs no memory before it fits the tensors
            prompt = build(mechanism, ViTConfig(**record["config"]), record["length"], **record["options"])
    except KeyError as error:
        raise ValueError(f"{path}: its prompt record lacks {error}; write the file anew") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its prompt record cannot be used: {error}") from error
    want, got = (
        {k: tuple(v.shape) for k, v in prompt.state_dict().items()},
        {k: tuple(v.shape) for k, v in tensors.items()},
    )
    if want != got:
        wrong = sorted(k for k in want.keys() | got.keys() if want.get(k) != got.get(k))
        raise ValueError(
            f"{path} does not fit mechanism {mechanism!r}: "
            + ", ".join(f"{k} is {got.get(k, 'missing')}, expected {want.get(k, 'no such tensor')}" for k in wrong)
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: tensor {name!r} has NaN or infinite values")
    prompt.load_state_dict(tensors, assign=True)
    return prompt.eval()
