"""Prompt mechanisms: one file each, one registry, one file format.

``create(name, config, length, **options)``, ``save``, ``load``, ``names``; ``register`` adds a mechanism of one's own.
"""

from .base import Prompt
from .files import load, save
from .registry import create, names, register
from .vapt_released import VAPTReleased
from .vpt_deep import VPTDeep
from .vpt_shallow import VPTShallow

for _mechanism in (VPTShallow, VPTDeep, VAPTReleased):
    register(_mechanism)

__all__ = ["Prompt", "create", "load", "names", "register", "save"]
