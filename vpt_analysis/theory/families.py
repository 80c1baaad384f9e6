r"""The families of prompt experts: how parameters become scores and experts, with analytic derivatives.

========== ==================================== ============================= ==========================
family     parameters of an atom                score                         expert
========== ==================================== ============================= ==========================
tied       prompt p (d)                         (K p)·x                       V p
untied     key k (d), value v (E)               k·x                           v
norga      key k (d), value v (E)               t + α tanh(τ t), t = k·x      v
linear     weight W (r, d); U is frozen         (K U W x)·x                   V U W x
nonlinear  weight W (r, d); out U (d, r) shared (K U σ(W x))·x                V U σ(W x)
========== ==================================== ============================= ==========================

Every atom has a log-mass b besides. In the linear family only the product U W is identified, so U is frozen there.

Sources: static prompts as tied and untied experts, Le et al., arXiv 2410.02200; NoRGa's gate, arXiv 2405.14124, eq. 12,
with α = τ = 1 as in its theory; VAPT's prompts W₂σ(W₁X), arXiv 2501.18936.
"""

from __future__ import annotations

from ..errors import unknown
from .adaptive_experts import ACTIVATIONS, Linear, Nonlinear
from .experts import Derivatives, Family
from .frozen import Frozen
from .static_experts import Norga, Tied, Untied

__all__ = ["ACTIVATIONS", "FAMILIES", "Derivatives", "Family", "family"]

FAMILIES = {kind.name: kind for kind in (Tied, Untied, Norga, Linear, Nonlinear)}


def family(name: str, known: Frozen, count: int, **options) -> Family:
    """``count`` prompt experts of the family of that name. Options: ``alpha``, ``tau`` of norga, ``activation_name`` of
    nonlinear ("tanh", "gelu", "relu"). Raises ``ValueError`` for unknown names and fewer than one expert."""
    if name not in FAMILIES:
        raise unknown("family of prompt experts", name, FAMILIES)
    if count < 1:
        raise ValueError(f"{count} prompt experts asked for; expected at least 1")
    return FAMILIES[name](known, count, **options)
