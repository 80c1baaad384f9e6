r"""Which atoms are identified: linear independence of derivatives, proved by the computer algebra.

Let :math:`F = e^{s}\,e` and :math:`H = e^{s}` be an atom's part of the numerator and of the denominator of the
regression function f. Two families of functions of the input are looked at, each for derivatives up to order 1 and up
to order 2, the derivative of order 0 (that is, in the mass) included:

*atoms*
    :math:`\{\partial^\alpha F\}`, the condition on gate times expert that the papers on such mixtures call strong
    identifiability, as we understand them.
*pairs*
    :math:`\{(\partial^\alpha F, \partial^\alpha H)\}`. To first order f moves by :math:`\sum_\alpha c_\alpha
    (\partial^\alpha F - f\,\partial^\alpha H)/D` with *the same* moments in both terms (derivation ``tangent``), so
    that a move is invisible where one vector c annihilates both families, and, beside a frozen expert in general
    position, only there. This is the condition that belongs to the regression function. It is weaker than that on
    atoms: a constant expert has :math:`F = v\,\partial_v F`, but mass and value are not confounded, because the mass
    moves the denominator.

Order 1 decides whether an atom that is fitted by one is identified (rate n^-1/2). For an atom that is fitted by
several, independence at order 2 is more than is needed: the second moments of their displacements form a positive
semi-definite matrix M, and only an annihilator with such an M hurts. Hence a third answer, *split*:

"order 2"
    no annihilator has M ≠ 0 positive semi-definite; a split costs the order of its squared size (rate n^-1/4). Proved
    where every annihilator has a zero diagonal in M, which makes M = 0.
"invisible"
    a path of parameters along which the two halves at ±δ are the one atom, in F and in H, exactly and not to order 2
    only.

**What differs from the literature**, as we understand it; we have not read the definitions of all of these papers.

1. Experts with sigmoid and tanh are called strongly identifiable under softmax gating (Nguyen, Ho and Rinaldo, ICML
   2024, abstract), those with GELU under other gates. For every ridge expert *with a bias*, under a linear gate of its
   own key, :math:`\partial_k \partial_c F = x\,\sigma'(ax+c)\,e^{kx} = \partial_a F`, so that no activation makes the
   literal family independent; without the bias the relation is gone. The rate survives all the same, by the third
   answer.
2. ReLU is said to be identifiable under sigmoid gating (NeurIPS 2024) and under NoRGa's gate (NeurIPS 2024, definition
   4.2). It is positively homogeneous: (1±δ)(a, c), half the mass each, is the same atom under any gate.
3. Linear adaptive prompts of rank 2 and more can be split invisibly, by a rotation that the quadratic score does not
   see. A non-linear activation ends that, though one relation off the diagonal stays.
4. NoRGa's gate does nothing for constant experts, which are what prefixes are.

All verdicts are for one atom, beside frozen ones, and for parameters in general position: outside the zero set of a
polynomial, of which ``conditions`` gives the factors. How several atoms of a family interact is not decided here; those
with a key of their own can be told apart by their exponentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sympy as sp
from sympy.polys.matrices import DomainMatrix

from ..errors import unknown
from .derivative_families import DELTA, FAMILIES, Family, Index, Piece
from .gram import gram_rank, point

METHODS = ("symbolic", "multi-precision")
Relation = Mapping[Index, sp.Expr]  # coefficients of the members; the sum is zero for all inputs and parameters


@dataclass(frozen=True)
class Independence:
    """``members`` of a family of derivatives, those that are ``zero``, and their ``rank``.

    ``relations``: a basis of all linear relations; each vanishes identically. Empty for the multi-precision method.
    ``conditions``: if independent, polynomials whose being non-zero is sufficient for it, together with what the
    family's ``scope`` asks for (its generators must be independent).
    """

    members: tuple[Index, ...]
    zero: tuple[Index, ...]
    rank: int
    relations: tuple[Relation, ...] = ()
    conditions: tuple[sp.Expr, ...] = ()

    @property
    def independent(self) -> bool:
        return self.rank == len(self.members)


@dataclass(frozen=True)
class Verdict:
    """What is identified of one family: ``atoms`` and ``pairs`` by order, and ``split`` (see the head of this module).

    ``method`` is "symbolic" (proved, for parameters in general position) or "multi-precision" (a numerical rank at one
    point; ``split`` is then "undecided" unless the pairs are independent or a path is known).
    """

    family: Family
    method: str
    atoms: Mapping[int, Independence]
    pairs: Mapping[int, Independence]
    split: str

    def equations(self, kind: str = "pairs", order: int = 2) -> tuple[str, ...]:
        """The relations as LaTeX, leaving out the members that are zero.

        >>> identify("tanh").equations()
        ('\\\\partial_{a} F = \\\\partial_{k}\\\\partial_{c} F',)
        """
        found = {"atoms": self.atoms, "pairs": self.pairs}[kind][order]
        shown = [r for r in found.relations if not set(r) <= set(found.zero)]
        return tuple(_equation(self.family, relation) for relation in shown)


def identify(family: str | Family, method: str = "symbolic") -> Verdict:
    """Decide the identifiability of a family, by name (``FAMILIES``) or of your own.

    ``ValueError`` for an unknown name or method, and where a family's path does not hold.

    >>> verdict = identify("untied")
    >>> verdict.pairs[1].independent, verdict.pairs[2].independent, verdict.split
    (True, False, 'invisible')
    >>> identify("tied").split
    'order 2'
    """
    if isinstance(family, str):
        if family not in FAMILIES:
            raise unknown("derivative family", family, FAMILIES)
        family = FAMILIES[family]
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    decide = _symbolic if method == "symbolic" else _numerical
    atoms, pairs = ({order: decide(family, order, kind) for order in (1, 2)} for kind in ("atoms", "pairs"))
    return Verdict(family, method, atoms, pairs, _split(family, pairs))


def _numerical(family: Family, order: int, kind: str) -> Independence:
    members = family.members(order)
    parts = 1 if kind == "atoms" else 2
    zero = tuple(m for m in members if all(part == 0 for pair in family.quotients(m) for part in pair[:parts]))
    return Independence(members, zero, gram_rank(family, order, kind).rank)


def _symbolic(family: Family, order: int, kind: str) -> Independence:
    """Rank of the coefficients: at most by the relations, at least by the rank at one rational point."""
    members = family.members(order)
    matrix = coefficients(family, order, kind)
    zero = tuple(member for member, column in zip(members, matrix.T.tolist(), strict=True) if not any(column))
    at_point = DomainMatrix.from_Matrix(matrix.subs(point(family))).to_field()
    pivots = at_point.transpose().rref()[1]
    if len(pivots) == len(members):
        return Independence(
            members, zero, len(members), conditions=_factors(matrix.extract(list(pivots), range(matrix.cols)))
        )
    relations = _null_space(matrix, members)
    for relation in relations:
        if any(sp.expand(matrix[row, :].dot([relation.get(m, 0) for m in members])) for row in range(matrix.rows)):
            raise ArithmeticError(
                f"{family.name}: a relation between {kind} does not vanish; expected an exact null vector"
            )
    vectors = sp.Matrix([[r.get(m, 0) for m in members] for r in relations]).subs(point(family))
    if len(pivots) + vectors.rank() != len(members) or vectors.rows != vectors.rank():
        raise ArithmeticError(
            f"{family.name}: {vectors.rows} relations for {len(members)} members of rank {len(pivots)}"
        )
    return Independence(members, zero, len(pivots), relations)


def coefficients(family: Family, order: int, kind: str = "pairs") -> sp.Matrix:
    """One column a member, one row a monomial in input and generators, for each piece, of (pairs) Q and of P.

    >>> coefficients(FAMILIES["untied"], 1).T   # rows 1, k, v; columns 1 and x of Q, 1 and x of P
    Matrix([
    [1, 0, v, 0],
    [0, 1, 0, v],
    [0, 0, 1, 0]])
    """
    if kind not in ("atoms", "pairs"):
        raise ValueError(f"kind is {kind!r}; expected 'atoms' or 'pairs'")
    letters = (*family.inputs, *family.generators.values())
    columns: list[dict] = []
    for member in family.members(order):
        column = {}
        for side, pair in enumerate(family.quotients(member)):
            for part, expression in enumerate(pair if kind == "pairs" else pair[:1]):
                polynomial = _polynomial(expression.xreplace(dict(family.generators)), letters, family.name)
                column |= {(side, part, *monomial): value for monomial, value in polynomial.terms() if value}
        columns.append(column)
    rows = sorted({key for column in columns for key in column}, key=lambda row: (-row[1], row))  # Q first: simpler
    return sp.Matrix([[column.get(row, 0) for column in columns] for row in rows])


def _polynomial(expression: sp.Expr, letters: tuple[sp.Symbol, ...], name: str) -> sp.Poly:
    try:
        return sp.Poly(expression, *letters)
    except sp.PolynomialError:
        raise ValueError(
            f"{name}: {expression} is no polynomial in {letters}; expected one. Name the functions of the input that "
            "occur in it as generators, or use method='multi-precision'."
        ) from None


def _null_space(matrix: sp.Matrix, members: tuple[Index, ...]) -> tuple[Relation, ...]:
    """A basis of the null space over the rational functions of the parameters, as polynomials without common factor."""
    basis = DomainMatrix.from_Matrix(matrix).to_field().nullspace().to_Matrix()
    relations = []
    for vector in basis.tolist():
        common = sp.lcm_list([sp.fraction(sp.together(entry))[1] for entry in vector])
        cleared = [sp.cancel(entry * common) for entry in vector]
        divisor = sp.gcd_list([entry for entry in cleared if entry])
        entries = (sp.factor(sp.cancel(entry / divisor)) for entry in cleared)
        relations.append({member: value for member, value in zip(members, entries, strict=True) if value != 0})
    return tuple(relations)


def _factors(square: sp.Matrix) -> tuple[sp.Expr, ...]:
    """The irreducible factors of a determinant that carry parameters."""
    exact = DomainMatrix.from_Matrix(square)
    return tuple(factor for factor, _ in sp.factor_list(exact.domain.to_sympy(exact.to_dense().det()))[1])


def _split(family: Family, pairs: Mapping[int, Independence]) -> str:
    """Whether an atom in two halves can be told from one (see the head of this module)."""
    if family.path is not None:
        _check_path(family)
        return "invisible"
    second = pairs[2]
    squares = [m for m in second.members if max(m) == 2]
    diagonal_free = second.relations and not any(m in r for r in second.relations for m in squares)
    visible = second.independent or (diagonal_free and pairs[1].independent)
    return "order 2" if visible else "undecided"


def _check_path(family: Family) -> None:
    """Half an atom at θ(δ) and half at θ(-δ) are the atom at θ(0), in F and in H, for all δ on the same pieces."""
    steps = [
        dict(zip(family.parameters, (sp.sympify(p).subs(DELTA, s * DELTA) for p in family.path), strict=True))
        for s in (1, -1)
    ]
    for piece in family.pieces:
        moved = [_moved(piece, step) for step in steps]
        scores = [sp.simplify(score - piece.score) for score, _ in moved]
        experts = sp.simplify(sum(expert for _, expert in moved) / 2 - piece.expert)
        if any(scores) or experts != 0:
            raise ValueError(
                f"{family.name}: along its path the score changes by {scores} and the mean expert by {experts}; "
                "expected 0. Correct the path, or set it to None."
            )


def _moved(piece: Piece, step: Mapping[sp.Symbol, sp.Expr]) -> tuple[sp.Expr, sp.Expr]:
    return tuple(sp.expand(e.subs(step, simultaneous=True)) for e in (piece.score, piece.expert))


def _equation(family: Family, relation: Relation) -> str:
    """The member of lowest order with a constant coefficient, as the others' sum where that reads well."""
    terms = list(relation.items())
    lead, value = next(((m, v) for m, v in terms if v.is_number), terms[0])
    others = [(m, sp.factor(-v / value)) for m, v in terms if m != lead]
    right = " ".join(_term(family, member, coefficient, first=i == 0) for i, (member, coefficient) in enumerate(others))
    return f"{family.latex(lead)} F = {right or '0'}".strip()


def _term(family: Family, member: Index, coefficient: sp.Expr, first: bool) -> str:
    negative = coefficient.could_extract_minus_sign()
    size = -coefficient if negative else coefficient
    sign = "-" if negative else "" if first else "+"
    number = "" if size == 1 else (rf"\left({sp.latex(size)}\right)" if size.is_Add else sp.latex(size)) + r"\,"
    return f"{sign} {number}{family.latex(member)} F".strip()
