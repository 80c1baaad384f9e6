"""Weights into ``vit.py``."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from ..storage import atomic
from ..vit import VisionTransformer


def save(vit: VisionTransformer, path: str | Path) -> None:
    """Write weights and config as safetensors, in the dtype they have."""
    with atomic(path) as part:
        tensors = {k: v.contiguous() for k, v in vit.state_dict().items()}
        save_file(tensors, part, metadata={"vpt_analysis": "backbone", "config": json.dumps(vit.config.to_dict())})
