r"""Theorems of the split, proved from the definitions for symbolic numbers of tokens, prompts, dimensions and groups.

``prove(name)`` writes a derivation down and proves each of its claims (``derivation.py``); ``names()`` lists them.

===================  ==========================================================================================
split                T1: attention over content and prompts is :math:`(1-\lambda) c + \lambda o`
content_pattern      T2: prompts leave the pattern over the content unchanged but for the factor :math:`1-\lambda`
static_expert        T4: a static prompt's expert has zero Jacobian with respect to the input; its score has not
linear_expert        T4: the Jacobian of the adaptive expert :math:`V U W x`
nonlinear_expert     T4: the Jacobian of the adaptive expert :math:`V U \sigma(W x)`
gate                 the Jacobians of a softmax gate and of the mixture, as the least squares use them
merge                outputs and log-sum-exps of any number of groups give those of all keys together
same_gate, halves    T9: atoms at the same gate can be split without any change (``splitting.py``)
tied_split           T9: splitting a tied prompt changes the function at order 2 exactly
tangent              what a step of an atom does to the regression function (``identifiability.py``)
===================  ==========================================================================================

Indices count from 1. Sources: the split is eqs. 7-9 of He et al. (ICLR 2022); that the relative pattern over the
content is unchanged is observed by Petrov et al. (ICLR 2024) within one layer and for given inputs.
"""

from __future__ import annotations

import sympy as sp

from ..errors import unknown
from .derivation import REGISTRY, Derivation, derivation
from .splitting import halves, same_gate, tangent, tied_split
from .sums import Partial

__all__ = ["Derivation", "names", "prove", "halves", "same_gate", "tangent", "tied_split"]

N, P, e, d, r, G, L = sp.symbols("N P e d r G L", integer=True, positive=True)
a, b, c, i, j, k, l, m = sp.symbols("a b c i j k l m", integer=True, positive=True)  # noqa: E741, the name of the field
rho = sp.Symbol("rho", integer=True, positive=True)
LAMBDA = sp.Symbol("lambda", positive=True)
W_KEY, W_VALUE, W_IN, W_OUT, X, PROMPT = map(sp.IndexedBase, "K V W U x p".split())


def names() -> tuple[str, ...]:
    """The derivations by name, in the order of the table above."""
    return tuple(REGISTRY)


def prove(name: str) -> Derivation:
    """The derivation of that name, proved anew. ``ValueError`` for an unknown name or a claim that does not hold.

    >>> prove("merge").residual
    0
    """
    if name not in REGISTRY:
        raise unknown("derivation", name, REGISTRY)
    return REGISTRY[name]()


def over(term: sp.Expr, index: sp.Symbol, high, low=1) -> sp.Expr:
    return sp.Sum(term, (index, low, high))


def _attention(name: str, statement: str) -> tuple[Derivation, sp.IndexedBase, sp.IndexedBase]:
    """One query over N content and P prompt tokens: scores s, gates w, and the mass of the prompts."""
    draft = Derivation(name, statement, ("Any real queries, keys and values; $N, P, e \\geq 1$.",), cut=(N, P))
    q, key, s, w = map(sp.IndexedBase, "q k s w".split())
    draft.define(
        s[j], over(q[a] * key[j, a], a, e) / sp.sqrt(e), "scores; tokens $1 … N$ are content, the rest prompts"
    )
    draft.define(w[j], sp.exp(s[j]) / over(sp.exp(s[i]), i, N + P), "the softmax over all tokens")
    lse_c = draft.define(sp.Symbol("lse_c"), sp.log(over(sp.exp(s[j]), j, N)), "log-sum-exp of the content")
    lse_p = draft.define(sp.Symbol("lse_p"), sp.log(over(sp.exp(s[j]), j, N + P, N + 1)), "and of the prompts")
    draft.define(LAMBDA, 1 / (1 + sp.exp(lse_c - lse_p)), "the prompt mass, a sigmoid of their difference")
    return draft, s, w


@derivation
def split() -> Derivation:
    """T1: y = (1-λ) c + λ o with λ = sigmoid(lse_p - lse_c), for component b of a head of any width."""
    draft, s, w = _attention("split", r"Attention over content and prompts is $(1-\lambda)\,c + \lambda\,o$ (T1).")
    v, (y, co, o) = sp.IndexedBase("v"), sp.symbols("y c o")
    content, prompts = over(sp.exp(s[i]), i, N), over(sp.exp(s[i]), i, N + P, N + 1)
    draft.define(y, over(w[j] * v[j, b], j, N + P), "attention over all tokens, component $b$")
    draft.define(co, over(sp.exp(s[j]) / content * v[j, b], j, N), "attention over the content alone")
    draft.define(o, over(sp.exp(s[j]) / prompts * v[j, b], j, N + P, N + 1), "attention over the prompts alone")
    draft.claim("the prompt mass is the sum of the prompts' gates", LAMBDA, over(w[j], j, N + P, N + 1))
    draft.claim("the split", y, (1 - LAMBDA) * co + LAMBDA * o)
    return draft


@derivation
def content_pattern() -> Derivation:
    """T2: the content's gates are 1-λ times those without prompts; renormalised they are equal."""
    draft, s, w = _attention(
        "content_pattern", "Within a layer prompts leave the pattern over the content as it is (T2)."
    )
    alone = sp.IndexedBase("w_alone")
    draft.define(alone[j], sp.exp(s[j]) / over(sp.exp(s[i]), i, N), "the softmax over the content alone")
    draft.claim("each content gate shrinks by the same factor", w[j], (1 - LAMBDA) * alone[j])
    draft.claim("so that renormalised gates are those without prompts", w[j] / over(w[i], i, N), alone[j])
    return draft


@derivation
def static_expert() -> Derivation:
    """T4, first half: the expert V p does not move with the input; its score (K p)·x does."""
    draft = Derivation(
        "static_expert",
        "A static prompt is a constant expert with an input-dependent gate (T4).",
        (r"The prompt $p_l$ and the projections $K$ ($d\times d$), $V$ ($E\times d$) do not depend on the input.",),
    )
    expert, s = sp.IndexedBase("e"), sp.IndexedBase("s")
    draft.define(expert[l, c], over(W_VALUE[c, a] * PROMPT[l, a], a, d), "the expert of prompt $l$, component $c$")
    draft.define(s[l], over(over(W_KEY[b, a] * PROMPT[l, a], a, d) * X[b], b, d), "its score")
    draft.claim("the expert's Jacobian is zero", Partial(expert[l, c], X[m]), sp.S.Zero)
    draft.claim("the score's is the key", Partial(s[l], X[m]), over(W_KEY[m, a] * PROMPT[l, a], a, d))
    return draft


@derivation
def linear_expert() -> Derivation:
    """T4, second half, linear: the Jacobian of V U W x, and a derivative of it that is 1, so that it is not zero."""
    draft = Derivation("linear_expert", "The Jacobian of the linear adaptive expert $V U W x$ (T4).", _shapes())
    expert, jacobian = sp.IndexedBase("e"), sp.IndexedBase("J")
    inner = over(W_OUT[a, rho] * over(W_IN[rho, b] * X[b], b, d), rho, r)
    draft.define(expert[c], over(W_VALUE[c, a] * inner, a, d), "the expert, component $c$")
    product = over(W_VALUE[c, a] * over(W_OUT[a, rho] * W_IN[rho, m], rho, r), a, d)
    draft.claim("differentiate", Partial(expert[c], X[m]), product)
    draft.define(jacobian[c, m], product, "call it $J = V U W$")
    once = Partial(Partial(Partial(jacobian[c, m], W_VALUE[c, i]), W_OUT[i, j]), W_IN[j, m])
    draft.claim("a polynomial with a coefficient 1 is not zero: $J \\neq 0$ for generic weights", once, sp.S.One)
    return draft


class sigma(sp.Function):  # noqa: N801, printed as the letter
    """An activation that is left open; its derivative is ``sigma_prime``."""

    nargs = 1

    def fdiff(self, argindex=1):
        return sigma_prime(self.args[0])


class sigma_prime(sp.Function):  # noqa: N801
    nargs = 1

    def _latex(self, printer) -> str:
        return rf"\sigma'\left({printer.doprint(self.args[0])}\right)"


@derivation
def nonlinear_expert() -> Derivation:
    """T4, second half, non-linear: the Jacobian of V U σ(W x) is V U diag(σ'(W x)) W, and not zero."""
    draft = Derivation(
        "nonlinear_expert", r"The Jacobian of the non-linear adaptive expert $V U \sigma(W x)$ (T4).", _shapes()
    )
    z, expert, jacobian = map(sp.IndexedBase, "z e J".split())
    draft.define(z[rho], over(W_IN[rho, b] * X[b], b, d), "hidden unit before its activation")
    inner = over(W_OUT[a, rho] * sigma(z[rho]), rho, r)
    draft.define(expert[c], over(W_VALUE[c, a] * inner, a, d), "the expert, component $c$")
    product = over(W_VALUE[c, a] * over(W_OUT[a, rho] * sigma_prime(z[rho]) * W_IN[rho, m], rho, r), a, d)
    draft.claim("differentiate", Partial(expert[c], X[m]), product)
    draft.define(jacobian[c, m], product, "call it $J$")
    once = Partial(Partial(jacobian[c, m], W_VALUE[c, i]), W_OUT[i, j])
    draft.claim(
        r"linear in $V$, $U$ with this coefficient: $J \neq 0$ for generic $V, U$ if some $\sigma'(z_j) W_{jm} \neq 0$",
        once,
        sigma_prime(z[j]) * W_IN[j, m],
    )
    return draft


def _shapes() -> tuple[str, ...]:
    return (r"$V$ is $E\times d$, $U$ is $d\times r$, $W$ is $r\times d$; none depends on the input $x$.",)


@derivation
def gate() -> Derivation:
    """Jacobians of g = softmax(s + b) and of the mixture f = Σ g e, the building blocks of the least squares."""
    draft = Derivation(
        "gate",
        "Jacobians of a softmax gate and of the mixture that it forms.",
        (r"$L \geq 1$ atoms, frozen ones included, with scores $s_l$, log-masses $b_l$ and experts $e_l$.",),
    )
    s, mass, expert, g, f = map(sp.IndexedBase, "s b e g f".split())
    draft.define(g[l], sp.exp(s[l] + mass[l]) / over(sp.exp(s[i] + mass[i]), i, L), "gates")
    draft.define(f[c], over(g[i] * expert[i, c], i, L), "the mixture, component $c$")
    draft.claim("the gates sum to 1", over(g[i], i, L), sp.S.One)
    draft.claim("a gate and a score", Partial(g[l], s[m]), g[l] * (sp.KroneckerDelta(l, m) - g[m]))
    draft.claim("the mixture and a score", Partial(f[c], s[m]), g[m] * (expert[m, c] - f[c]))
    draft.claim("a log-mass acts as a score", Partial(f[c], mass[m]), Partial(f[c], s[m]))
    draft.claim("the mixture and an expert", Partial(f[c], expert[m, a]), g[m] * sp.KroneckerDelta(a, c))
    return draft


@derivation
def merge() -> Derivation:
    """Partial softmaxes over G groups of n_k keys, merged by their log-sum-exps, are the softmax over all keys."""
    draft = Derivation(
        "merge",
        "Outputs and log-sum-exps of any number of groups give those of all keys together.",
        (r"$G \geq 1$ groups, group $k$ with $n_k \geq 1$ keys of any scores; the split is $G = 2$.",),
    )
    s, v, count, lse, y = map(sp.IndexedBase, "s v n h y".split())
    draft.define(lse[k], sp.log(over(sp.exp(s[k, j]), j, count[k])), "log-sum-exp of group $k$")
    draft.define(y[k], over(sp.exp(s[k, j] - lse[k]) * v[k, j], j, count[k]), "its output, one component")
    total = over(over(sp.exp(s[k, j]), j, count[k]), k, G)
    whole, out = sp.symbols("h_all y_all")
    draft.define(whole, sp.log(total), "log-sum-exp of all keys")
    draft.define(out, over(over(sp.exp(s[k, j]) / sp.exp(whole) * v[k, j], j, count[k]), k, G), "their output")
    draft.claim("log-sum-exps merge", sp.exp(whole), over(sp.exp(lse[k]), k, G))
    draft.claim("outputs merge", out, over(sp.exp(lse[k] - whole) * y[k], k, G))
    return draft


for build in (same_gate, halves, tied_split, tangent):
    derivation(build)
