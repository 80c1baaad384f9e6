"""Our own format: the state of ``VisionTransformer`` with its config in the file's metadata."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..storage import read_record
from ..vit import VisionTransformer, ViTConfig
from .keys import Keys, listed


def recognise(names) -> bool:
    return "patch.weight" in names and "prefix" in names


def convert(tensors: Mapping[str, Tensor], source: str, metadata: Mapping) -> tuple[ViTConfig, dict[str, Tensor]]:
    """Check every tensor against the shapes that the config asks for."""
    hint = "write it with backbones.save(vit, path); prompts are read with prompts.load"
    record = read_record(metadata, "backbone", source, hint)
    try:
        config = ViTConfig(**record.get("config", {}))
    except TypeError as error:
        raise ValueError(f"{source}: cannot read the config in its metadata ({error}); {hint}") from error
    keys = Keys(tensors, source)
    state = {name: keys.take(name, *shape) for name, shape in shapes(config).items()}
    if keys.tensors:
        raise ValueError(f"{source}: keys that its config does not ask for: {listed(keys.tensors)}")
    return config, state


def shapes(config: ViTConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a ``VisionTransformer`` of this config."""
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in VisionTransformer(config).state_dict().items()}
