"""Weights into ``vit.py``: one file a family of names, all read strictly.

``load_backbone(source)`` for models, state dicts, files, folders and hub ids; ``from_official`` for checkpoints of the
VPT and VAPT code; ``save`` and ``names`` for the package's own format.
"""

from __future__ import annotations

from .load import load_backbone, names, save
from .official import from_official

__all__ = ["from_official", "load_backbone", "names", "save"]
