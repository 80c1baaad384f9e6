"""A name for every baseline."""

from __future__ import annotations

import inspect

import torch

from ..errors import unknown
from ..vit import VisionTransformer, ViTConfig
from .adapter import Adapter
from .base import Baseline
from .copies import Bias, Full
from .linear import Linear
from .lora import LoRA

BASELINES: dict[str, type[Baseline]] = {b.name: b for b in (Linear, Full, Bias, LoRA, Adapter)}


def names() -> list[str]:
    """Names of all baselines, sorted.

    >>> names()
    ['adapter', 'bias', 'full', 'linear', 'lora']
    """
    return sorted(BASELINES)


def create(name: str, vit: VisionTransformer, seed: int = 0, **options) -> Baseline:
    """A freshly initialised baseline for ``vit``, of its dtype and on its device. Same arguments, same values.

    ``options`` are the baseline's own (``rank=4``, ...). Raises ``ValueError`` on unknown names and options out of
    range, ``TypeError`` where ``vit`` is no ``VisionTransformer``.

    >>> vit = VisionTransformer(ViTConfig(image_size=8, patch_size=4, width=8, depth=2, heads=2))
    >>> sum(p.numel() for p in create("lora", vit, rank=1).parameters())   # 2 layers × (q, v) × (A, B) × 8
    64
    """
    if not isinstance(vit, VisionTransformer):
        raise TypeError(f"vit is {type(vit).__name__}; expected the VisionTransformer that the baseline adapts")
    baseline = build(name, vit.config, **options).to(vit.patch.weight)
    baseline.initialise(vit, torch.Generator().manual_seed(seed))
    return baseline


def build(name: str, config: ViTConfig, **options) -> Baseline:
    """A baseline whose parameters are not yet given values."""
    if not isinstance(name, str) or name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    known = list(inspect.signature(BASELINES[name]).parameters)[1:]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    return BASELINES[name](config, **options)
