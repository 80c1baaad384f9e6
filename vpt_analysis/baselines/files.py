"""Baselines as safetensors files that carry their name, options and backbone config."""

from __future__ import annotations

from pathlib import Path

from .. import module_files
from ..vit import ViTConfig
from .base import Baseline
from .registry import build


def save(baseline: Baseline, path: str | Path) -> None:
    """Write what a baseline has learned to ``path`` as safetensors, whole or not at all; the backbone is not in it."""
    record = {"mechanism": baseline.name, "options": baseline.options, "config": baseline.config.to_dict()}
    module_files.save(baseline, path, "baseline", record)


def load(path: str | Path) -> Baseline:
    """Read a baseline that ``save`` wrote; executes nothing.

    Raises ``ValueError`` that names the file and the fault, ``FileNotFoundError`` where there is none.
    """
    return module_files.load(path, "baseline", from_record, "baselines.save")


def from_record(record: dict) -> Baseline:
    return build(record.get("mechanism"), ViTConfig(**record["config"]), **record["options"])
