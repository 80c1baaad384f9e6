r"""Theorem T9: which atoms can be split without any change, and what a split of a tied prompt costs.

The regression function is a ratio: with the other atoms' sums :math:`A(x) = \sum_j e^{s_j} f_j` and :math:`B(x) =
\sum_j e^{s_j}` and one atom of mass m, gate factor :math:`E(x) = e^{\varphi(s(x))}` and expert :math:`e(x)`,

.. math:: f(x) = \frac{A(x) + m\,E(x)\,e(x)}{B(x) + m\,E(x)} .

Atoms at the same gate whose masses sum to m and whose mass-weighted experts sum to :math:`m\,e(x)` give the same
numerator and the same denominator. A constant expert of its own value (untied prompts, prefix tuning) allows that for
every size of the split, whatever the gate does, NoRGa's residual included; so does every expert that is linear or
positively homogeneous in parameters of its own: v, (a, c) of :math:`a\cdot x + c`, and (a, c) of ReLU(a·x + c), where
the pieces are :math:`(1\pm\delta)(a, c)` with :math:`|\delta| < 1`.

The construction of a split in two halves is what lower bounds for such models rest on (NoRGa, NeurIPS 2024, appendix A,
uses it for biases of experts under a linear gate); that for constant experts it changes nothing at all is our remark.
"""

from __future__ import annotations

import sympy as sp

from .derivation import Derivation
from .sums import Coefficient, Partial

L, M, d = sp.symbols("L M d", integer=True, positive=True)
a, b, i, j, l = sp.symbols("a b i j l", integer=True, positive=True)  # noqa: E741
m, delta = sp.Symbol("m", positive=True), sp.Symbol("delta", real=True)


def _others(draft: Derivation) -> tuple[sp.Symbol, sp.Symbol]:
    """A and B, the sums over the L other atoms, frozen ones included."""
    s, f = sp.IndexedBase("s"), sp.IndexedBase("f")
    numerator = draft.define(
        sp.Symbol("A"), sp.Sum(sp.exp(s[j]) * f[j], (j, 1, L)), "the other atoms, at one input $x$"
    )
    return numerator, draft.define(sp.Symbol("B"), sp.Sum(sp.exp(s[j]), (j, 1, L)), "and their normaliser")


def _gate(draft: Derivation) -> sp.Expr:
    """NoRGa's gate; α = 0 is the plain one. Nothing in the proofs looks inside."""
    score, alpha, tau = sp.symbols("t alpha tau", real=True)
    words = (
        r"the gate factor, here NoRGa's with score $t = k\cdot x$ ($\alpha = 0$: the plain gate); any other would do"
    )
    return draft.define(sp.Symbol("E"), sp.exp(score + alpha * sp.tanh(tau * score)), words)


def same_gate() -> Derivation:
    """T9 in general: M pieces at one gate, masses m_i and experts e_i with Σ m_i = m and Σ m_i e_i = m e."""
    draft = Derivation(
        "same_gate",
        r"Pieces at the same gate with $\sum_i m_i = m$ and $\sum_i m_i e_i = m\,e$ are together the one atom (T9).",
        (
            "$M \\geq 1$ pieces share one gate factor $E$, a function of the input that the split leaves alone.",
            "Constant experts: $e_i = v_i$, values with the right mean. Positively homogeneous ones: $e_i = c_i e$.",
        ),
    )
    numerator, normaliser = _others(draft)
    factor, mass, piece = _gate(draft), sp.IndexedBase("mu"), sp.IndexedBase("e")
    before, after, expert = sp.symbols("f_before f_after e_mean")
    total = sp.Sum(mass[i], (i, 1, M))
    draft.define(m, total, "the mass of the atom")
    draft.define(expert, sp.Sum(mass[i] * piece[i], (i, 1, M)) / total, "its expert, one component")
    draft.define(before, (numerator + m * factor * expert) / (normaliser + m * factor), "one atom")
    pieces = [sp.Sum(mass[i] * factor * term, (i, 1, M)) for term in (piece[i], 1)]
    draft.define(after, (numerator + pieces[0]) / (normaliser + pieces[1]), "its pieces")
    draft.claim("nothing changes", after, before)
    return draft


def halves() -> Derivation:
    """T9 as its bound tests it: halves of the mass, values v ± δ, the same key. Identical for every δ."""
    draft = Derivation(
        "halves",
        r"An untied prompt, split at its key into values $v \pm \delta$, is the one prompt for every $\delta$ (T9).",
        ("The value does not enter the gate: own key, own value.",),
    )
    numerator, normaliser = _others(draft)
    factor, value, (before, after) = _gate(draft), sp.Symbol("v", real=True), sp.symbols("f_before f_after")
    draft.define(before, (numerator + m * factor * value) / (normaliser + m * factor), "one atom of value $v$")
    two = m / 2 * factor * (value + delta) + m / 2 * factor * (value - delta)
    draft.define(after, (numerator + two) / (normaliser + m / 2 * factor + m / 2 * factor), "two atoms")
    draft.claim("nothing changes", after, before)
    draft.claim("to any order: the split is invisible", Partial(after, delta), sp.S.Zero)
    return draft


def tied_split() -> Derivation:
    """T9 for atoms whose score and expert move together: orders 0, 1 and 2 of f(δ) in the step δ."""
    draft = Derivation(
        "tied_split",
        r"A tied prompt, split into halves at $p \pm \delta u$, changes the function at order $\delta^2$ exactly (T9).",
        (
            r"Score and expert are smooth in the prompt; $s_n$, $e_n$: $n$-th derivatives along $u$ at one input.",
            r"The second order is not zero: for VPT, $s_1 = (Ku)\cdot x$, $e_1 = Vu$, $s_2 = e_2 = 0$, and where "
            r"$s_1 \to 0$ the coefficient over $g s_1$ tends to $e_1$; so it vanishes for no $u$ with $Ku \neq 0$ and "
            r"$Vu \neq 0$ (with $Vu = 0$: only where $e_0 = f_0$). Where $Ku = 0$ the split is invisible: one head "
            r"identifies no more of a prompt than its key projection sees.",
        ),
    )
    numerator, normaliser = _others(draft)
    s, expert = sp.symbols("s_0:4"), sp.symbols("e_0:4")

    def moved(name: str, derivatives, step, words: str) -> sp.Symbol:
        series = sum(value * step**n / sp.factorial(n) for n, value in enumerate(derivatives))
        return draft.define(sp.Symbol(name), series, words)

    blocks = (("s", s, "score"), ("e", expert, "expert"))
    up = [moved(f"{n}_plus", of, delta, rf"{word} at $p + \delta u$") for n, of, word in blocks]
    down = [moved(f"{n}_minus", of, -delta, rf"{word} at $p - \delta u$") for n, of, word in blocks]
    top = sum(m / 2 * sp.exp(score) * value for score, value in (up, down))
    below = sum(m / 2 * sp.exp(score) for score, _ in (up, down))
    f, start, g = sp.symbols("f_delta f_0 g")
    draft.define(f, (numerator + top) / (normaliser + below), r"two atoms at $p \pm \delta u$")
    single = m * sp.exp(s[0])
    draft.define(start, (numerator + single * expert[0]) / (normaliser + single), "the one atom at $p$")
    draft.define(g, single / (normaliser + single), "its gate")
    draft.claim("order 0", Coefficient(f, delta, 0), start)
    draft.claim(
        "order 1: each half moves as much as the other, in opposite directions", Coefficient(f, delta, 1), sp.S.Zero
    )
    second = g * (s[1] * expert[1] + expert[2] / 2 + (s[2] + s[1] ** 2) * (expert[0] - start) / 2)
    draft.claim("order 2", Coefficient(f, delta, 2), second)
    draft.claim("order 3", Coefficient(f, delta, 3), sp.S.Zero)
    vpt = sp.Symbol("c_VPT")
    draft.define(vpt, second.subs({s[2]: 0, expert[2]: 0}), "order 2 for VPT, whose score and expert are linear in $p$")
    draft.claim("which factors", vpt, g * s[1] * (expert[1] + s[1] * (expert[0] - start) / 2))
    return draft


def tangent() -> Derivation:
    r"""How f moves with the moments of an atom's displacement, and when a combination of them moves nothing.

    Expanding :math:`\sum_i m_i F(\theta_i)` and :math:`\sum_i m_i H(\theta_i)` around one atom θ gives the same
    coefficients :math:`c_\alpha` for the derivatives :math:`F_\alpha` and :math:`H_\alpha`: the mass difference, the
    first and the second moments of the displacements.
    """
    draft = Derivation(
        "tangent",
        r"A move of an atom with moments $c_\alpha$ leaves $f$ alone where it leaves $F = H e$ and the gate $H$ alone.",
        (
            r"$A = B\,h$: the other atoms, of gate factor $B$ and expert $h$. $F_\alpha$, $H_\alpha$: derivatives of "
            r"$F$ and $H$ in the atom's parameters. All at one input $x$, with $D = B + mH$.",
            r"Conversely, let $B/H$ be transcendental over the field that $h$, $e$, $p/H$ and $q/H$ generate (a frozen "
            r"score with a quadratic part in general position). Then (5) vanishes for all $x$ only if $p = hq$ and "
            r"$p = eq$, so that $q = 0$ and $p = 0$ unless the two experts agree.",
        ),
    )
    b_factor, frozen, gate, expert, step = sp.symbols("B h H e epsilon")
    c, df, dh = map(sp.IndexedBase, ("c", "F_alpha", "H_alpha"))
    f, start, p, q = sp.symbols("f_epsilon f_0 p q")
    draft.define(p, sp.Sum(c[a] * df[a], (a, 1, L)), "what the moments do to $F$")
    draft.define(q, sp.Sum(c[a] * dh[a], (a, 1, L)), "and to $H$")
    below = b_factor + m * gate
    draft.define(start, (b_factor * frozen + m * gate * expert) / below, "before")
    draft.define(f, (b_factor * frozen + m * gate * expert + step * p) / (below + step * q), "after")
    moved = Coefficient(f, step, 1)
    draft.claim("the change, times $D^2$", below**2 * moved, b_factor * (p - frozen * q) + m * gate * (p - expert * q))
    draft.claim(
        r"a sum of the functions $T_\alpha = (F_\alpha - f H_\alpha)/D$",
        moved,
        sp.Sum(c[a] * (df[a] - start * dh[a]) / below, (a, 1, L)),
    )
    return draft
