"""All claims by id. They are the ``CLAIMS`` of the modules here; adding a module is one name below."""

from __future__ import annotations

import re
from collections.abc import Iterable

from . import (
    adaptivity,
    approximation,
    estimation,
    family,
    memorisation,
    one_shot,
    published,
    reachable,
    sample_efficiency,
    selection,
    skills,
    untied,
)
from .base import Claim

MODULES = (
    family, published, estimation, approximation, reachable, memorisation, skills, one_shot, sample_efficiency,
    selection, adaptivity, untied,
)  # fmt: skip


def by_id(claims: Iterable[Claim]) -> dict[str, Claim]:
    """Claims by id in the order of letter and number. Raises ``ValueError`` where an id is taken twice, or is no
    letter with a number."""
    found: dict[str, Claim] = {}
    for claim in claims:
        if not re.fullmatch(r"[CT][1-9]\d*", claim.id):
            raise ValueError(f"a claim's id is {claim.id!r}; expected C or T and a number, such as C4")
        if claim.id in found:
            raise ValueError(f"two claims have the id {claim.id}; a better rule gets a new id")
        found[claim.id] = claim
    return {name: found[name] for name in sorted(found, key=lambda name: (name[0], int(name[1:])))}


CLAIMS = by_id(claim for module in MODULES for claim in module.CLAIMS)
