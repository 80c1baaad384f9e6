"""Which figures there are.

A figure is a module of this package whose name does not begin with an underscore, with

- ``TITLE``: one line;
- ``STUDY``: the name of the study in ``vpt_analysis.studies`` whose results it draws; several figures may share one. A
  figure may be a study of its own instead, with ``config``, ``inputs``, ``parts`` and ``compute`` as
  ``vpt_analysis.study`` describes them. ``images`` (how many) or ``test`` (how many at most), ``seeds`` and
  ``backbone`` of the config are printed on the figure and kept in its record;
- ``PUBLISHED``, where it has any: names of the tables of published numbers that it draws beside its own;
- ``draw(arrays, config) -> Figure``: the picture, from arrays named ``<part>/<array>``, those tables and nothing else;
- ``caption(arrays, config) -> str``: what is shown, n, what the intervals are, and what follows.

Modules import torch and the like inside functions, so that finding out that nothing changed costs next to nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from vpt_analysis import study as machinery
from vpt_analysis.errors import unknown

NEEDED = ("TITLE", "draw", "caption")


def names() -> list[str]:
    """All figures, in alphabetical order."""
    import paper_figures

    return sorted(m.name for m in pkgutil.iter_modules(paper_figures.__path__) if not m.name.startswith("_"))


def load(name: str) -> ModuleType:
    """The module of one figure. Raises ``ValueError`` for an unknown name, ``TypeError`` for an incomplete module."""
    if name not in names():
        raise unknown("figure", name, names())
    module = importlib.import_module(f"paper_figures.{name}")
    own = [part for part in machinery.NEEDED if hasattr(module, part)]
    missing = [part for part in NEEDED if not hasattr(module, part)]
    if not hasattr(module, "STUDY"):
        missing += [part for part in machinery.NEEDED if part not in own]
    elif own:
        raise TypeError(f"{module.__file__} names a STUDY and defines {', '.join(own)} itself; keep one of the two")
    if missing:
        raise TypeError(f"{module.__file__} lacks {', '.join(missing)}; paper_figures/_registry.py says what each is")
    return module


def study(module: ModuleType) -> ModuleType:
    """What computes a figure's arrays: the study that it names, or the figure itself."""
    return machinery.study(module.STUDY) if hasattr(module, "STUDY") else module
