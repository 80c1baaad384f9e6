r"""Rank of a family of functions from its Gram matrix in multi-precision arithmetic.

The Gram matrix of the members over a discrete measure on more nodes than there are members, scaled to unit diagonal. An
eigenvalue that is zero comes out at the size of the arithmetic's last digit, one that is not keeps its size, so that
the gap between the smallest kept and the first dropped says how safe the rank is. This is evidence at one parameter
point, not a proof; ``identifiability.py`` proves, and the tests compare the two.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

import mpmath
import sympy as sp

from .derivative_families import Family

MP = {"Phi": mpmath.ncdf, "phi": mpmath.npdf}
NODES = {1: 40, 2: 8}  # per input dimension; 40 and 64 in all, against at most 15 members
KINDS = ("atoms", "pairs", "tangent")


@dataclass(frozen=True)
class GramRank:
    """``rank`` of the non-zero members, ``members`` of them, and the square roots of the two eigenvalues at the gap.

    ``kept``: of the smallest that counts; ``dropped``: of the largest that does not (0.0 where there is none).
    """

    rank: int
    members: int
    kept: float
    dropped: float


def point(family: Family, seed: int = 0) -> dict[sp.Symbol, sp.Rational]:
    """Parameters and constants in general position: rationals with large denominators, drawn from a seed."""
    draw = random.Random(f"{family.name}-{seed}")
    return {s: sp.Rational(draw.randint(300, 1500), 997) for s in (*family.parameters, *family.known)}


def gram_rank(
    family: Family,
    order: int,
    kind: str = "pairs",
    at: Mapping[sp.Symbol, sp.Rational] | None = None,
    digits: int = 60,
) -> GramRank:
    r"""Rank of the derivatives up to ``order`` as functions of the input, zero members left out.

    ``kind``: "atoms" :math:`\partial^\alpha F`; "pairs" :math:`(\partial^\alpha F, \partial^\alpha H)`; "tangent"
    :math:`\partial^\alpha F - f\,\partial^\alpha H` with f the regression function of this atom beside one frozen
    expert with a quadratic score and a linear expert. ``at``: the parameter point, ``point(family)`` if None.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    at = point(family) if at is None else at
    with mpmath.workdps(digits):
        rows = [_values(family, member, kind, at) for member in family.members(order)]
        norms = [mpmath.sqrt(mpmath.fdot(row, row)) for row in rows]
        rows = [[v / norm for v in row] for row, norm in zip(rows, norms, strict=True) if norm]
        gram = mpmath.matrix([[mpmath.fdot(first, second) for second in rows] for first in rows])
        spectrum = sorted((abs(v) for v in mpmath.eigsy(gram, eigvals_only=True)), reverse=True)
        threshold = mpmath.mpf(10) ** (-digits // 2)
        rank = sum(value > threshold for value in spectrum)
        dropped = float(mpmath.sqrt(spectrum[rank])) if rank < len(spectrum) else 0.0
        return GramRank(rank, len(rows), float(mpmath.sqrt(spectrum[rank - 1])), dropped)


def _values(family: Family, member, kind: str, at) -> list:
    """One member at all nodes; for pairs, F's values and then H's."""
    constants = [mpmath.mpf(value.p) / value.q for value in at.values()]
    arguments = (*family.inputs, *at)
    table = []
    for piece, (p, q) in zip(family.pieces, family.quotients(member), strict=True):
        gate = sp.exp(piece.score)
        where = sp.true if piece.where is None else piece.where
        expressions = (gate * p, gate * q, gate * piece.expert, gate)
        table.append((sp.lambdify(arguments, where, "mpmath"), sp.lambdify(arguments, expressions, [MP, "mpmath"])))
    values, gates = [], []
    for node in _nodes(len(family.inputs)):
        at_node = (*node, *constants)
        df, dh, f, h = next(call(*at_node) for side, call in table if side(*at_node))
        if kind == "tangent":
            frozen = mpmath.exp(sum((x * x + x) / 7 for x in node))
            df -= (frozen * (1 + 2 * node[0]) + f) / (frozen + h) * dh
        values.append(df)
        gates.append(dh)
    return values + gates if kind == "pairs" else values


def _nodes(dimensions: int):
    """Chebyshev nodes on [-5/4, 7/4] in each dimension, so that no symmetry of the interval helps."""
    n = NODES[dimensions]
    middle, half = mpmath.mpf(1) / 4, mpmath.mpf(3) / 2
    axis = [middle + half * mpmath.cos(mpmath.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    return itertools.product(axis, repeat=dimensions)
