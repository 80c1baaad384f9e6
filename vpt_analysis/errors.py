"""Errors that say what was wrong, what was expected and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """A ``ValueError`` for an unknown name, with the nearest known one as a suggestion.

    >>> str(unknown("prompt mechanism", "vpt-deap", ["vpt-deep", "vpt-shallow"]))
    "unknown prompt mechanism 'vpt-deap'; did you mean 'vpt-deep'? Known: vpt-deep, vpt-shallow"
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ValueError(f"unknown {kind} {name!r}; {hint}Known: {', '.join(known)}")
