r"""A derivation: definitions and claims in order, each claim proved by the computer algebra when it is written down.

A claim holds when the difference of its two sides, with all definitions put in, has the normal form 0 (``sums.py``); it
is an identity in the symbols, lengths included, not a check at numbers. A derivation prints as LaTeX, and each of its
quantities becomes a numerical function of arrays, so that tests can compare it with the torch code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import sympy as sp

from ..errors import unknown
from .sums import evaluate, normal_form

# Names that are words, or more than a letter, as they are printed.
NAMES = {sp.Symbol(n): rf"\mathrm{{{n[:3]}}}_{n[4:]}" for n in ("lse_c", "lse_p")}
NAMES |= {sp.Symbol(n): rf"{n[0]}_{{\mathrm{{{n[2:]}}}}}" for n in ("w_alone", "f_before", "f_after", "h_all", "y_all")}
NAMES |= {sp.Symbol("H_alpha"): "H", sp.Symbol("F_alpha"): "F", sp.Symbol("e_mean"): r"\bar e"}
NAMES |= {
    sp.Symbol(n): f"{n[0]}_{'+' if n.endswith('plus') else '-'}" for n in ("s_plus", "s_minus", "e_plus", "e_minus")
}


@dataclass(frozen=True)
class Step:
    """One line: words and the equation ``left`` = ``right``. ``residual`` is None for a definition, 0 for a claim."""

    words: str
    left: sp.Expr
    right: sp.Expr
    residual: sp.Expr | None = None

    def latex(self) -> str:
        left, right = (sp.latex(side, symbol_names=NAMES) for side in (self.left, self.right))
        return rf"{left} {':=' if self.residual is None else '='} {right}"


@dataclass(repr=False)
class Derivation:
    """``name``, ``statement`` and ``assumptions`` in words (LaTeX between dollar signs), and the ordered ``steps``.

    Built by ``define`` and ``claim``; ``cut`` (N, P) says where sums over 1 … N+P are taken apart.

    >>> d = Derivation("square", "$(a+b)^2$ expands.")
    >>> a, b, c = sp.symbols("a b c")
    >>> c = d.define(c, (a + b) ** 2, "call it c")
    >>> d.claim("expand", c, a**2 + 2 * a * b + b**2)
    >>> d.residual
    0
    >>> d.function("c")(a=1.0, b=2.0)
    9.0
    """

    name: str
    statement: str
    assumptions: tuple[str, ...] = ()
    cut: tuple[sp.Symbol, sp.Symbol] | None = None
    steps: list[Step] = field(default_factory=list)

    def define(self, left: sp.Expr, right: sp.Expr, words: str) -> sp.Expr:
        """Let ``left``, a symbol or an indexed symbol such as g[l], stand for ``right``; returns ``left``."""
        self.steps.append(Step(words, left, sp.sympify(right)))
        return left

    def claim(self, words: str, left: sp.Expr, right: sp.Expr) -> None:
        """Prove ``left`` = ``right``; ``ValueError`` where the difference does not vanish."""
        left, right = sp.sympify(left), sp.sympify(right)
        residual = normal_form(self.expand(left - right), self.cut)
        if residual != 0:
            raise ValueError(
                f"derivation {self.name!r}: the two sides of {left} = {right} differ by {residual}; expected 0. The "
                "claim is wrong, or needs a rule that theory/sums.py does not have."
            )
        self.steps.append(Step(words, left, right, residual))

    @property
    def residual(self) -> sp.Expr:
        """What is left of all claims together: exactly 0. ``ValueError`` for a derivation without a claim."""
        claims = [step.residual for step in self.steps if step.residual is not None]
        if not claims:
            raise ValueError(f"derivation {self.name!r} has no claim; expected at least one")
        return sum((abs(r) for r in claims), sp.S.Zero)

    def expand(self, expr: sp.Expr) -> sp.Expr:
        """``expr`` with every definition put in, the last one first."""
        for step in reversed([s for s in self.steps if s.residual is None]):
            expr = _put(expr, step.left, step.right)
        return expr

    def function(self, what: str | sp.Expr, **functions: Callable) -> Callable[..., float]:
        """A numerical function of the keyword arguments that ``what`` depends on, in float64.

        ``what``: the name of a defined quantity, or an expression in the symbols of the derivation. Indexed symbols
        take arrays, the others numbers. Indices count from 1, as in the text, so that the component ``c=1`` is the
        first. ``functions`` gives numerical meanings to functions that the derivation leaves open, as
        ``sigma=np.tanh``. The result raises ``TypeError`` where an argument is missing; it ignores those that it does
        not depend on.
        """
        expr = self._defined(what) if isinstance(what, str) else what
        expr = evaluate(self.expand(expr))
        bases = {entry.base.label for entry in expr.atoms(sp.Indexed)}
        names = sorted({s for s in expr.free_symbols if isinstance(s, sp.Symbol)} | bases, key=str)
        expr = expr.replace(sp.Indexed, lambda base, *at: base[tuple(i - 1 for i in at)])
        call = sp.lambdify(names, expr, [{"KroneckerDelta": lambda i, j: float(i == j), **functions}, "numpy"])
        expected = [str(name) for name in names]

        def value(**given) -> float:
            if missing := set(expected) - set(given):
                raise TypeError(f"missing {sorted(missing)}; expected {', '.join(expected)}")
            return float(call(*(np.asarray(given[n])[()] if np.ndim(given[n]) else given[n] for n in expected)))

        return value

    def _defined(self, name: str) -> sp.Expr:
        known = {str(s.left.base if isinstance(s.left, sp.Indexed) else s.left): s.left for s in self.steps[::-1]}
        if name not in known:
            raise unknown("quantity", name, known)
        return known[name]

    def __repr__(self) -> str:
        return f"<Derivation {self.name!r}, {len(self.steps)} steps, residual {self.residual}>"

    def latex(self) -> str:
        """The equations, one a line."""
        lines = (rf"{step.latex()} && \text{{({i})}}" for i, step in enumerate(self.steps, 1))
        return "\\begin{aligned}\n" + " \\\\\n".join("&" + line for line in lines) + "\n\\end{aligned}"

    def _repr_markdown_(self) -> str:
        parts = [f"**{self.name}.** {self.statement}"]
        if self.assumptions:
            parts.append("*Assumptions.* " + " ".join(self.assumptions))
        for i, step in enumerate(self.steps, 1):
            ending = "" if step.residual is None else r" \qquad\checkmark"
            parts.append(f"({i}) {step.words}\n\n$$ {step.latex()}{ending} $$")
        return "\n\n".join([*parts, f"*Residual of all claims:* ${sp.latex(self.residual)}$. ∎"])


def _put(expr: sp.Expr, left: sp.Expr, right: sp.Expr) -> sp.Expr:
    if not isinstance(left, sp.Indexed):
        return expr.subs(left, right)

    def replaced(base, *at):
        if base != left.base:
            return sp.Indexed(base, *at)
        return right.subs(dict(zip(left.indices, at, strict=True)), simultaneous=True)

    return expr.replace(sp.Indexed, replaced)


REGISTRY: dict[str, Callable[[], Derivation]] = {}


def derivation(build: Callable[[], Derivation]) -> Callable[[], Derivation]:
    """Register a function that writes a derivation down, under the function's name."""
    REGISTRY[build.__name__] = build
    return build
