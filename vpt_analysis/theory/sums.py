r"""A normal form for expressions with symbolic sums, so that an identity can be decided for symbolic lengths.

Sums :math:`\sum_{j=1}^N` with symbolic bounds stay sums. Four rules bring an expression to a form in which equal ones
cancel: a sum is linear; what does not carry its index stands before it; bound indices have canonical names; and
:math:`\sum_j \delta_{jm} f_j = f_m`. The last assumes that the free index m lies in the range of j, as an index of a
derivative always does here. What remains is a rational function of finitely many sums, exponentials and indexed
quantities, and the computer algebra decides whether its numerator is the zero polynomial. The form is sound (what it
reduces to 0 is 0) but not complete: it does not change the order of nested sums, for example.
"""

from __future__ import annotations

import sympy as sp


class Partial(sp.Function):
    r"""A derivative :math:`\partial f/\partial z` that stays as written until ``normal_form`` takes it.

    Unlike ``sympy.Derivative`` it does not vanish while f is still a name whose definition has not been put in.
    """

    nargs = 2

    def _latex(self, printer) -> str:
        of, below = self, []
        while isinstance(of, Partial):
            of, by = of.args
            below.insert(0, rf"\partial {printer.doprint(by)}")
        power = f"^{len(below)}" if len(below) > 1 else ""
        return rf"\frac{{\partial{power} {printer.doprint(of)}}}{{{' '.join(below)}}}"


class Coefficient(sp.Function):
    """The coefficient of ``step`` to the power ``order`` in the Taylor series of an expression at 0."""

    nargs = 3

    def _latex(self, printer) -> str:
        of, step, order = (printer.doprint(argument) for argument in self.args)
        return rf"[{step}^{{{order}}}]\,{of}"


def evaluate(expr: sp.Expr) -> sp.Expr:
    """``expr`` with its derivatives and Taylor coefficients taken."""

    def coefficient(of, step, order):
        return (sp.diff(of, step, order) if order else of).subs(step, 0) / sp.factorial(order)

    return expr.replace(Partial, lambda of, by: sp.diff(of, by)).replace(Coefficient, coefficient)


def normal_form(expr: sp.Expr, cut: tuple[sp.Symbol, sp.Symbol] | None = None) -> sp.Expr:
    """The normal form of ``expr``; 0 where the expression vanishes by the rules of this module.

    ``cut`` (N, P): sums over 1 … N+P are taken apart at N.

    >>> i, j, N = sp.Symbol("i"), sp.Symbol("j"), sp.Symbol("N")
    >>> a, b = sp.IndexedBase("a"), sp.Symbol("b")
    >>> normal_form(sp.Sum(b * a[i], (i, 1, N)) - b * sp.Sum(a[j], (j, 1, N)))
    0
    """
    return _fraction(_walk(evaluate(expr), cut))


def _walk(expr: sp.Expr, cut) -> sp.Expr:
    """Bottom-up: all sums in their normal form."""
    if isinstance(expr, sp.Sum):
        body, *limits = expr.args
        for index, low, high in limits:  # the first limit is the innermost sum
            body = _sum(_walk(body, cut), index, low, high, cut)
        return body
    if not expr.args or isinstance(expr, sp.Indexed):
        return expr
    return expr.func(*[_walk(argument, cut) for argument in expr.args])


def _fraction(expr: sp.Expr) -> sp.Expr:
    """One fraction in lowest terms, each sum an indeterminate of its own."""
    names = {s: sp.Dummy() for s in expr.atoms(sp.Sum) if not any(s != t and t.has(s) for t in expr.atoms(sp.Sum))}
    back = {dummy: s for s, dummy in names.items()}
    return sp.cancel(sp.together(expr.xreplace(names))).xreplace(back)


def _sum(body: sp.Expr, index: sp.Symbol, low, high, cut) -> sp.Expr:
    """The sum of one body over one index: linear, constants in front, deltas taken, the index renamed."""
    if cut and low == 1 and high == sum(cut):
        first, second = (1, cut[0]), (cut[0] + 1, high)
        return sum(_sum(body, index, *limits, None) for limits in (first, second))
    numerator, denominator = sp.fraction(_fraction(body))
    total = sp.S.Zero
    for term in sp.Add.make_args(sp.expand_mul(numerator)):
        outer, inner = (term / denominator).as_independent(index, as_Add=False)
        total += outer * _one_sum(inner, index, low, high)
    return total


def _one_sum(inner: sp.Expr, index: sp.Symbol, low, high) -> sp.Expr:
    for factor in sp.Mul.make_args(inner):
        if isinstance(factor, sp.KroneckerDelta) and index in factor.args:
            (other,) = set(factor.args) - {index}
            return (inner / factor).subs(index, other)
    if inner == 1:
        return high - low + 1
    name = sp.Symbol(f"i_{_height(inner) + 1}", integer=True, positive=True)
    return sp.Sum(inner.subs(index, name), (name, low, high))


def _height(expr: sp.Expr) -> int:
    """How deep the sums of an expression are nested."""
    deepest = max((_height(argument) for argument in expr.args), default=0)
    return deepest + isinstance(expr, sp.Sum)
