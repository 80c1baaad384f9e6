"""Prompts as safetensors files that carry their mechanism, length, options and backbone config."""

from __future__ import annotations

from pathlib import Path

from .. import module_files
from ..vit import ViTConfig
from .base import Prompt
from .registry import build


def save(prompt: Prompt, path: str | Path) -> None:
    """Write a prompt to ``path`` as safetensors, whole or not at all."""
    record = {
        "mechanism": prompt.name,
        "length": prompt.length,
        "options": prompt.options,
        "config": prompt.config.to_dict(),
    }
    module_files.save(prompt, path, "prompt", record)


def load(path: str | Path) -> Prompt:
    """Read a prompt that ``save`` wrote, for evaluation (no dropout); executes nothing.

    Raises ``ValueError`` that names the file and the fault, ``FileNotFoundError`` where there is none.
    """
    return module_files.load(path, "prompt", from_record, "prompts.save")


def from_record(record: dict) -> Prompt:
    return build(record.get("mechanism"), ViTConfig(**record["config"]), record["length"], **record["options"])
