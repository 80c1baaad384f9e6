r"""Atoms as functions of their parameters, F = exp(score) · expert, and all derivatives of F and of H = exp(score).

Each family is one atom with the parameters that it owns, mostly in one input dimension and with one output; what
``identifiability.py`` asks is whether the derivatives up to order 2 are linearly independent as functions of the input.
Dividing by H leaves polynomials in the input and in a few functions of it, the *generators*, with coefficients that are
polynomials in the parameters:

.. math:: \partial^\alpha F = H\,P_\alpha, \quad \partial^\alpha H = H\,Q_\alpha, \qquad
          P_{\alpha+i} = \partial_i P_\alpha + P_\alpha\,\partial_i s .

The generators are algebraically independent over the rational functions of the input, so that a polynomial in them
vanishes only if its coefficients do. For tanh z with z not constant: it is a rational function of e^{2z}, which is
transcendental; two of them are independent where their arguments are linearly independent over the rationals. For Φ and
φ of the normal law: φ is transcendental, and if Φ were algebraic over φ, then erf would be elementary, which it is not
(Liouville; the step from algebraic to rational is Ostrowski's theorem on primitives). ReLU is taken apart at its kink:
the derivatives are those almost everywhere, on each side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import sympy as sp
from scipy.special import ndtr

Index = tuple[int, ...]  # how often each parameter is differentiated


class Phi(sp.Function):
    """The distribution function of the normal law, so that gelu(z) = z Φ(z)."""

    nargs = 1

    def fdiff(self, argindex=1):
        return phi(self.args[0])


class phi(sp.Function):  # noqa: N801, printed as the letter
    """Its density."""

    nargs = 1

    def fdiff(self, argindex=1):
        return -self.args[0] * phi(self.args[0])


NUMERIC = {"Phi": ndtr, "phi": lambda z: np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)}


@dataclass(frozen=True)
class Piece:
    """Score and expert where ``where`` holds (everywhere if None)."""

    score: sp.Expr
    expert: sp.Expr
    where: sp.Expr | None = None


@dataclass(frozen=True)
class Family:
    """One atom: what it is in words, the parameters it owns, the known constants, and its score and expert by piece.

    ``generators``: the functions of the input that are treated as indeterminates, each with the letter for it.
    ``path``: parameters as functions of ``DELTA``, through the atom's own at 0, for which the atom equals its two
    halves at ±δ (``splitting.py``); None where there is none that we know.
    ``scope``: conditions, and why so few dimensions are enough or what more dimensions change.
    """

    name: str
    title: str
    parameters: tuple[sp.Symbol, ...]
    known: tuple[sp.Symbol, ...]
    pieces: tuple[Piece, ...]
    scope: str
    inputs: tuple[sp.Symbol, ...] = (sp.Symbol("x", real=True),)
    generators: Mapping[sp.Expr, sp.Symbol] = field(default_factory=dict)
    path: tuple[sp.Expr, ...] | None = None

    def members(self, order: int) -> tuple[Index, ...]:
        """All multi-indices up to ``order``, 0 first: the derivative in the mass is the atom itself.

        >>> FAMILIES["untied"].members(1)
        ((0, 0), (1, 0), (0, 1))
        """
        count, found = len(self.parameters), []
        for total in range(order + 1):
            for chosen in itertools.combinations_with_replacement(range(count), total):
                found.append(tuple(chosen.count(i) for i in range(count)))
        return tuple(found)

    def latex(self, member: Index) -> str:
        r"""How a member is written, the atom itself as nothing.

        >>> print(FAMILIES["untied"].latex((1, 2)))
        \partial_{k}\partial_{v}^2
        """
        powers = [(sp.latex(p), n) for p, n in zip(self.parameters, member, strict=True) if n]
        return "".join(rf"\partial_{{{p}}}" + (f"^{n}" if n > 1 else "") for p, n in powers)

    def quotients(self, member: Index) -> tuple[tuple[sp.Expr, sp.Expr], ...]:
        r"""P and Q of one derivative, by piece: :math:`\partial^\alpha F = H P`, :math:`\partial^\alpha H = H Q`."""
        result = []
        for piece in self.pieces:
            pair = [piece.expert, sp.S.One]
            for parameter, times in zip(self.parameters, member, strict=True):
                for _ in range(times):
                    slope = sp.diff(piece.score, parameter)
                    pair = [sp.diff(q, parameter) + q * slope for q in pair]
            result.append(tuple(pair))
        return tuple(result)

    def function(self, member: Index, of: str = "F") -> Callable[..., np.ndarray]:
        """The derivative as a numerical function of the inputs, then the parameters, then the known constants.

        ``of``: "F" (gate times expert) or "H" (gate alone). Arrays broadcast; float64.

        >>> float(FAMILIES["untied"].function((0, 1))(2.0, 0.5, 3.0))  # dF/dv = exp(k x) at x = 2, k = 0.5
        2.718281828459045
        """
        if of not in ("F", "H"):
            raise ValueError(f"of is {of!r}; expected 'F' (gate times expert) or 'H' (the gate alone)")
        arguments = (*self.inputs, *self.parameters, *self.known)
        values = [
            sp.lambdify(arguments, sp.exp(piece.score) * quotients[of == "H"], [NUMERIC, "numpy"])
            for piece, quotients in zip(self.pieces, self.quotients(member), strict=True)
        ]
        sides = [sp.lambdify(arguments, True if p.where is None else p.where, "numpy") for p in self.pieces]

        def evaluate(*given) -> np.ndarray:
            given = [np.asarray(g, dtype=np.float64) for g in given]
            shape = np.broadcast_shapes(*(g.shape for g in given))
            chosen = [np.broadcast_to(side(*given), shape) for side in sides]
            return np.select(chosen, [np.broadcast_to(value(*given), shape) for value in values])

        return evaluate


DELTA = sp.Symbol("delta", real=True)
_x, _k, _v, _a, _c, _p, _u, _w, _kappa = sp.symbols("x k v a c p u w kappa", real=True)
_t, _t1, _t2, _Phi, _phi = sp.symbols("t t1 t2 Phi phi", real=True)
_z = _a * _x + _c


def _activation(name: str, z: sp.Expr) -> tuple[tuple[tuple[sp.Expr, sp.Expr | None], ...], dict[sp.Expr, sp.Symbol]]:
    """The activation of z, piece by piece, and its generators."""
    if name == "relu":
        return ((z, z > 0), (sp.S.Zero, z <= 0)), {}
    if name == "tanh":
        return ((sp.tanh(z), None),), {sp.tanh(z): _t}
    return ((z * Phi(z), None),), {Phi(z): _Phi, phi(z): _phi}


def _own_key(name: str, path: tuple[sp.Expr, ...] | None, scope: str) -> Family:
    """exp(k x) σ(a x + c): a gate with a key of its own."""
    values, generators = _activation(name, _z)
    pieces = tuple(Piece(_k * _x, value, where) for value, where in values)
    return Family(name, f"exp(k x) {name}(a x + c)", (_k, _a, _c), (), pieces, scope, generators=generators, path=path)


def _tied_adaptive(name: str, path: tuple[sp.Expr, ...] | None, scope: str) -> Family:
    """Score κ x u σ(w x) and expert v u σ(w x): a prompt u σ(w x) that is made from the input."""
    values, generators = _activation(name, _w * _x)
    pieces = tuple(Piece(_kappa * _x * _u * value, _v * _u * value, where) for value, where in values)
    title = f"prompt u {name}(w x) in score and expert"
    return Family(f"{name}_tied", title, (_u, _w), (_kappa, _v), pieces, scope, generators=generators, path=path)


_x1, _x2 = sp.symbols("x1 x2", real=True)
_K2, _V2, _W2 = sp.symbols("K11 K12 K21 K22"), sp.symbols("v1 v2"), sp.symbols("w11 w12 w21 w22")


def _plane(name: str, title: str, parameters, prompt: list[sp.Expr], scope: str, key=(1, 0, 0, 1), value=_V2, **more):
    """Two input dimensions: score (K p)·x and expert v·p of a prompt p, constant or made from x."""
    score = (sp.Matrix(2, 2, key) * sp.Matrix(prompt)).dot(sp.Matrix([_x1, _x2]))
    expert = sum(v * p for v, p in zip(value, prompt, strict=True))
    known = tuple(s for s in (*key, *value) if isinstance(s, sp.Symbol))
    return Family(name, title, parameters, known, (Piece(sp.expand(score), expert),), scope, (_x1, _x2), **more)


def _families() -> tuple[Family, ...]:
    scaled = (_k, _a * (1 + DELTA), _c * (1 + DELTA))
    root, stretch = sp.sqrt(1 + DELTA), 1 + DELTA
    (p1, p2), (w11, w12, w21, w22) = sp.symbols("p1 p2", real=True), _W2
    hidden = [w11 * _x1 + w12 * _x2, w21 * _x1 + w22 * _x2]
    norga_alpha, norga_tau = sp.symbols("alpha tau", real=True)
    s = _k * _x
    gate = s + norga_alpha * sp.tanh(norga_tau * s)
    same_key = "Any dimension: the split needs one direction in the expert's own parameters."
    ridge = "a and the key are vectors in d dimensions; the relation holds for each of their components."
    return (
        Family(
            "tied", "VPT: score κ p x, expert v p", (_p,), (_kappa, _v), (Piece(_kappa * _p * _x, _v * _p),),
            "One dimension suffices to see it; for d see tied_2d.",
        ),
        _plane(
            "tied_2d", "VPT in two dimensions", (p1, p2), [p1, p2],
            "The monomials of K'x up to degree 2 are independent in any dimension where K is invertible. A split along "
            "the null space of K, which a single head of a real ViT has, is invisible.", key=_K2,
        ),
        Family(
            "untied", "prefix: score k x, expert v", (_k, _v), (), (Piece(s, _v),), same_key, path=(_k, _v + DELTA)
        ),
        Family(
            "norga", "NoRGa's gate, expert v", (_k, _v), (norga_alpha, norga_tau), (Piece(gate, _v),), same_key,
            generators={sp.tanh(norga_tau * s): _t}, path=(_k, _v + DELTA),
        ),
        Family(
            "linear", "exp(k x) (a x + c)", (_k, _a, _c), (), (Piece(s, _z),), same_key, path=(_k, _a + DELTA, _c)
        ),
        Family(
            "quadratic", "exp(k x) (a x + c)^2", (_k, _a, _c), (), (Piece(s, _z**2),),
            "Degree n: the pieces are (a, c) times (1 ± δ)^(1/n). " + same_key, path=(_k, _a * root, _c * root),
        ),
        Family(
            "linear_tied", "prompt w x in score and expert", (_w,), (_kappa, _v),
            (Piece(_kappa * _w * _x**2, _v * _w * _x),), "Rank 1 only; rank 2 and more differ, see linear_tied_2d.",
        ),
        _plane(
            "linear_tied_2d", "prompt W x, rank 2, two dimensions", _W2, hidden,
            "Rank r ≥ 2 in any dimension: Δ = R (K U)' with R antisymmetric leaves the score x'KUWx alone. Coordinates "
            "of input and prompt in which K = I and v = (1, 0); any invertible K and v ≠ 0 can be brought there.",
            value=(1, 0), path=(w11, w12 + DELTA, w21 - DELTA, w22),
        ),
        _own_key(
            "relu", scaled,
            "Any positively homogeneous expert, any dimension, |δ| < 1. Derivatives almost everywhere: the second ones "
            "have a point mass at the kink besides, which the path leaves where it is.",
        ),
        _own_key("tanh", None, "a ≠ 0. " + ridge),
        _own_key("gelu", None, "a ≠ 0. " + ridge),
        Family(
            "tanh_no_bias", "exp(k x) tanh(a x)", (_k, _a), (), (Piece(s, sp.tanh(_a * _x)),), "a ≠ 0.",
            generators={sp.tanh(_a * _x): _t},
        ),
        _tied_adaptive(
            "relu", (_u * stretch, _w / stretch),
            "w > 0 on x > 0, by symmetry the other cases; u and w enter through their product only.",
        ),
        _tied_adaptive("tanh", None, "w ≠ 0; u owned by the atom. For W with several rows see tanh_tied_2d."),
        _tied_adaptive("gelu", None, "w ≠ 0; u owned by the atom."),
        _plane(
            "tanh_tied_2d", "prompt tanh(W x), rank 2, two dimensions", _W2, [sp.tanh(h) for h in hidden],
            "Rows of W linearly independent over the rationals; U is put into K and v, coordinates of the input in "
            "which K U = I. The relation exchanges two components of the input, and holds for every activation.",
            generators={sp.tanh(hidden[0]): _t1, sp.tanh(hidden[1]): _t2},
        ),
    )  # fmt: skip


FAMILIES: dict[str, Family] = {family.name: family for family in _families()}
