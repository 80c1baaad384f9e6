"""Which figures there are.

A figure is a module of this package whose name does not begin with an underscore, with

- ``TITLE``: one line;
- ``config(tier) -> dict``: every choice of the "quick" or the "full" tier, as plain JSON values. ``images`` (how many),
  ``seeds`` and ``backbone`` are printed on the figure and kept in its record;
- ``inputs(config) -> dict[str, Path]``: the files that the result depends on, weights and data; their digests enter the
  cache key;
- ``parts(config) -> list[dict]``: the work, cut into pieces that are cached one by one, each with a ``name``;
- ``compute(part) -> dict[str, np.ndarray]``: one piece, from its own dict alone;
- ``draw(arrays, config) -> Figure``: the picture, from arrays named ``<part>/<array>`` and nothing else;
- ``caption(arrays, config) -> str``: what is shown, n, what the intervals are, and what follows.

Modules import torch and the like inside ``compute``, so that finding out that nothing changed costs next to nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from vpt_analysis.errors import unknown

NEEDED = ("TITLE", "config", "inputs", "parts", "compute", "draw", "caption")
TIERS = ("quick", "full", "committed")


def names() -> list[str]:
    """All figures, in alphabetical order."""
    import paper_figures

    return sorted(m.name for m in pkgutil.iter_modules(paper_figures.__path__) if not m.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of one figure. Raises ``ValueError`` for an unknown name, ``TypeError`` for an incomplete module."""
    if name not in names():
        raise unknown("figure", name, names())
    module = importlib.import_module(f"paper_figures.{name}")
    missing = [part for part in NEEDED if not hasattr(module, part)]
    if missing:
        raise TypeError(f"{module.__file__} lacks {', '.join(missing)}; paper_figures/_registry.py says what each is")
    return module
