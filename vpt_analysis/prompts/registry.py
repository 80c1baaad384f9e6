"""The registry: a name for every mechanism."""

from __future__ import annotations

import inspect

import torch

from ..errors import unknown
from ..vit import ViTConfig
from .base import Prompt

MECHANISMS: dict[str, type[Prompt]] = {}


def register(mechanism: type[Prompt]) -> type[Prompt]:
    """Add a mechanism under its ``name``; usable as a class decorator. A name is given once."""
    name = mechanism.name
    if name in MECHANISMS and MECHANISMS[name] is not mechanism:
        raise ValueError(f"a prompt mechanism named {name!r} is registered already; choose another name")
    MECHANISMS[name] = mechanism
    return mechanism


def names() -> list[str]:
    """Names of all registered mechanisms, sorted."""
    return sorted(MECHANISMS)


def create(name: str, config: ViTConfig, length: int, seed: int = 0, **options) -> Prompt:
    """A freshly initialised prompt of ``length`` tokens for backbones of this ``config``.

    ``options`` are the mechanism's own (``dropout=0.1``, ...). Same arguments, same values.

    >>> config = ViTConfig(image_size=8, patch_size=4, width=8, depth=2, heads=2)
    >>> create("vpt-deep", config, length=3).tokens.shape
    torch.Size([2, 3, 8])
    """
    prompt = build(name, config, length, **options)
    prompt.initialise(torch.Generator().manual_seed(seed))
    return prompt


def build(name: str, config: ViTConfig, length: int, **options) -> Prompt:
    """A prompt whose parameters are not yet given values."""
    if not isinstance(name, str) or name not in MECHANISMS:
        raise unknown("prompt mechanism", name, MECHANISMS)
    mechanism = MECHANISMS[name]
    parameters = list(inspect.signature(mechanism).parameters.values())[2:]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return mechanism(config, length, **options)
