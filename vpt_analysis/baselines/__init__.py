"""Baselines beside visual prompts: linear probe, full and bias-only fine-tuning, LoRA, adapters.

``create(name, vit, seed, **options)``, ``names``, ``save``, ``load``. The trainer takes a baseline where it takes a
prompt: both have ``encode(vit, images)``, and their parameters are what is trained.
"""

from .base import Baseline
from .files import load, save
from .registry import create, names

__all__ = ["Baseline", "create", "load", "names", "save"]
