r"""The sequence behind "slower than any polynomial", exactly, and what it does and does not show.

One true atom with mass :math:`e^b` is replaced by two, a step :math:`\pm\delta u` away, with the masses
:math:`(e^b + \epsilon)/2`; the published sequence :math:`G_n` has :math:`\delta = 1/n` and
:math:`\epsilon = n^{-(r+1)}`. With g the gate of the atom in the true function f, e its expert, and t(x) and w the
change of its score and of its expert along u,

.. math::
    f_{G_n} - f = \frac{g\,[\kappa\,(e - f) + (1 + \rho)\sinh(\delta t)\,\delta w]}{1 + g\,\kappa},
    \quad \kappa = 2\sinh^2(\delta t / 2) + \rho\cosh(\delta t),
    \quad \rho = \epsilon e^{-b},

in which nothing cancels, whereas the difference of two evaluations in float64 is rounding below 1e-16. For an untied
prompt split in its value alone t = 0, and the right side is :math:`g\rho(e - f)/(1 + g\rho)` *whatever δ is*: with
:math:`\epsilon e^{s}(v - f)/(D + \epsilon e^{s})`, D the denominator of f, the same number in the papers' symbols. The
loss is :math:`D_r = (e^b + \epsilon)\sum_\text{blocks}\|\delta u\|^r + \epsilon` (``voronoi.d_r``; for r = 2 it is
``voronoi.d_1`` too, which squares the distances of atoms that share a cell).

**What it shows.** Untied: the function distance is of order :math:`n^{-(r+1)}`, the loss of order :math:`n^{-r}`; their
ratio falls as 1/n for every r ≥ 1, and with Le Cam's two-point method no estimator of the mixing measure, with at least
one atom to spare, has a minimax rate faster than :math:`n^{-1/2}` in any :math:`D_r`. Since :math:`D_r` holds r-th
powers, distances of atoms are then said to converge slower than any polynomial.

**What it does not show.** Anything about prediction: the function distance of the sequence is the smaller of the two,
and least squares predict with the usual rate. With :math:`\epsilon = 0` the untied split changes nothing at all, for
any δ, small or large: the two halves are not identified, so that no amount of data tells them from one atom and there
is no rate to speak of, in :math:`D_r` or otherwise. The extra mass ε only makes a plain lack of identifiability look
like a rate.

**Tied prompts.** The same split moves score and expert together (t ≠ 0), and f changes at order δ², as ``second_order``
says: against :math:`D_1`, the loss of the upper bounds, and against :math:`D_2`, the ratio tends to a positive
constant, so the argument fails (against :math:`D_r` with r > 2 the ratio even grows). It proves nothing more: this one
sequence is harmless, which is necessary for the rates :math:`n^{-1/4}` of over-fitted tied atoms and not sufficient.
Against :math:`D_r` with r = 1 the ratio falls as 1/n for tied prompts too; over-fitted atoms do converge slower than
:math:`n^{-1/2}`.

Sources: the sequence for a linear gate and polynomial experts is in Le et al., arXiv 2405.14124 (NoRGa), appendix A
(lemma A.2). For prefixes without shared structure, arXiv 2410.02200, theorem 1 uses the same family of sequences as we
understand it, at second hand. The closed form, ε = 0, and the tied case are our own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from .atoms import Atoms
from .regression import Regression
from .voronoi import cells, check_orders

Number = float | Fraction
FAMILIES = ("tied", "untied", "norga")  # static experts: their changes along u are known in closed form


def sequence(n: int, r: int) -> tuple[Fraction, Fraction]:
    """Step 1/n and extra mass n^−(r+1) of G_n, exactly. Raises ``ValueError`` for n or r below 1 or not whole.

    >>> sequence(10, 2)
    (Fraction(1, 10), Fraction(1, 1000))
    """
    for name, value in (("n", n), ("r", r)):
        if value != int(value) or value < 1:
            raise ValueError(f"{name} = {value}; expected a whole number ≥ 1")
    return Fraction(1, int(n)), Fraction(1, int(n) ** (int(r) + 1))


@dataclass(frozen=True)
class Split:
    """One atom of a true measure, split along a direction, seen at S inputs.

    ``regression``: a model of the tied, the untied or the NoRGa family with L prompts; ``truth``: their atoms, (L,),
    float64; ``x``: inputs (d, S); ``direction``: u by block, shaped as one atom's block, blocks left out stay as they
    are; ``atom``: which atom is split. Function distances are over the empirical law of the inputs.

    Raises ``ValueError`` for another family, a direction that does not fit or is zero, and a NoRGa key in it (its score
    is not linear in the key).
    """

    regression: Regression
    truth: Atoms
    x: Tensor
    direction: Mapping[str, Tensor]
    atom: int = 0

    def __post_init__(self) -> None:
        prompts = self.regression.prompts
        if prompts.name not in FAMILIES:
            raise ValueError(f"the {prompts.name} family; a split in closed form is known for {', '.join(FAMILIES)}")
        allowed = {k: v for k, v in prompts.shapes.items() if (prompts.name, k) != ("norga", "key")}
        given = {k: tuple(u.shape) for k, u in self.direction.items()}
        if not given or any(allowed.get(k) != shape for k, shape in given.items()):
            raise ValueError(f"a direction with blocks {given}; expected some of {allowed}")
        shape = tuple(self.truth.log_mass.shape)
        if not 0 <= self.atom < prompts.count or shape != (prompts.count,):
            raise ValueError(f"atom {self.atom} of log-masses {shape}; expected one of ({prompts.count},)")
        truth = (("log_mass", self.truth.log_mass), *self.truth.blocks.items())
        for name, values in (("x", self.x), *self.direction.items(), *truth):
            if values.dtype != torch.float64 or not values.isfinite().all():
                raise ValueError(
                    f"{name} is {values.dtype} with {int((~values.isfinite()).sum())} values that are not finite; "
                    f"expected none, and torch.float64"
                )
        if self.x.dim() != 2 or len(self.x) != prompts.known.d:
            raise ValueError(f"x has shape {tuple(self.x.shape)}; expected ({prompts.known.d}, S)")
        if not any(u.any() for u in self.direction.values()):
            raise ValueError("the direction is zero; a split needs one to go along")

    def measure(self, step: Number, extra: Number) -> Atoms:
        """The split measure, (L+1,): the two halves stand where the atom stood. Its numbers are rounded to float64, so
        extra mass below 1e-16 of the atom's is lost here, and nowhere else in this class."""
        where = torch.arange(self.truth.count).repeat_interleave(
            torch.tensor([2 if i == self.atom else 1 for i in range(self.truth.count)])
        )
        log_mass = self.truth.log_mass[where]
        log_mass[[self.atom, self.atom + 1]] = math.log((self._mass + float(extra)) / 2)
        blocks = {k: block[where] for k, block in self.truth.blocks.items()}
        for k, u in self.direction.items():
            blocks[k][self.atom] -= float(step) * u
            blocks[k][self.atom + 1] += float(step) * u
        return Atoms(log_mass, blocks)

    def loss(self, step: Number, extra: Number, r: int) -> float:
        """D_r of the split measure, in closed form: relative error below 1e-15 for any r. For r = 2 also D_1.

        Raises ``ValueError`` where r is below 1 or not whole, or the step is so long that a half lies nearer to another
        true atom, in whose cell it then is.
        """
        check_orders([r])
        if r != int(r):
            raise ValueError(f"order r = {r}; expected a whole number, for others see voronoi.d_r")
        halves = cells(self.measure(step, extra), self.truth)[[self.atom, self.atom + 1]]
        if (halves != self.atom).any():
            raise ValueError(f"a step of {float(step)} takes a half into the cell of another atom; take a shorter one")
        powers = sum(_power(u, Fraction(step), int(r)) for u in self.direction.values())
        return (self._mass + float(extra)) * powers + float(extra)

    def difference(self, step: Number, extra: Number) -> Tensor:
        """f of the split measure minus f, without cancellation: (E, S)."""
        gate, excess, t, w = self._at_inputs
        step, share = float(step), float(extra) / self._mass
        kappa = 2 * torch.sinh(step * t / 2).square() + share * torch.cosh(step * t)
        along = (1 + share) * torch.sinh(step * t) * step
        return gate * (kappa * excess + along * w) / (1 + gate * kappa)

    def naive_difference(self, step: Number, extra: Number) -> Tensor:
        """``difference`` as two evaluations of the regression function: (E, S); the reference for long steps."""
        more = Regression(replace(self.regression.prompts, count=self.truth.count + 1))
        return _predict(more, self.measure(step, extra), self.x) - _predict(self.regression, self.truth, self.x)

    def distance(self, step: Number, extra: Number) -> float:
        """Root mean square of ``difference`` over the inputs, the norm taken over outputs."""
        return root_mean_square(self.difference(step, extra))

    def second_order(self) -> Tensor:
        """g (t² (e − f) / 2 + t w): the limit of ``difference`` / δ² without extra mass, (E, S). Zero for a split of
        values alone: there the difference is zero for every δ."""
        gate, excess, t, w = self._at_inputs
        return gate * (t.square() / 2 * excess + t * w)

    @property
    def _mass(self) -> float:
        """e^b of the atom."""
        return math.exp(float(self.truth.log_mass[self.atom]))

    @functools.cached_property
    def _at_inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """g (S,), e − f (E, S), t (S,), and w (E, 1) of the atom that is split."""
        prompts, x = self.regression.prompts, self.x.unsqueeze(0)
        scores, experts = prompts.experts(*prompts.predictors(self.regression.pack(_batch(self.truth)), x), x)
        lse, content = prompts.known.content(x)
        gates = _softmax(torch.cat([lse, scores[0]]))  # (1 + L, S)
        values = torch.cat([content, experts[0].expand(-1, -1, x.shape[-1])])  # (1 + L, E, S)
        excess = (gates.unsqueeze(1) * (values[1 + self.atom] - values)).sum(0)
        blocks = {k: torch.zeros_like(block) for k, block in self.truth.blocks.items()}
        for k, u in self.direction.items():
            blocks[k][self.atom] = u
        still = Atoms(torch.zeros_like(self.truth.log_mass), blocks)
        t, w = prompts.predictors(self.regression.pack(_batch(still)), x)
        return gates[1 + self.atom], excess, t[0, self.atom], w[0, self.atom].unsqueeze(-1)


def root_mean_square(values: Tensor) -> float:
    """(mean over S of ‖values‖²)^½ for (E, S), also where the squares are too small for float64.

    >>> root_mean_square(torch.tensor([[3e-200], [4e-200]], dtype=torch.float64))
    5e-200
    """
    largest = float(values.abs().max())
    return largest * math.sqrt(float((values / largest).square().sum(0).mean())) if largest else 0.0


def _power(u: Tensor, step: Fraction, r: int) -> float:
    """(‖u‖ step)^r, rounded once or twice: powers of a rounded norm would multiply its error by r."""
    square = sum(Fraction(value) ** 2 for value in u.flatten().tolist())
    whole = float(square ** (r // 2) * step**r)
    return whole * math.sqrt(square) if r % 2 else whole


def _softmax(scores: Tensor) -> Tensor:
    weights = (scores - scores.amax(0)).exp()
    return weights / weights.sum(0)


def _batch(atoms: Atoms) -> Atoms:
    return Atoms(atoms.log_mass.unsqueeze(0), {k: block.unsqueeze(0) for k, block in atoms.blocks.items()})


def _predict(regression: Regression, atoms: Atoms, x: Tensor) -> Tensor:
    return regression.predict(regression.pack(_batch(atoms)), x.unsqueeze(0))[0]
