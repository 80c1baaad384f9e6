r"""What a method can reach by small moves of its parameters: rank and spectrum of its Jacobian, and the tangent kernel.

J has a row for each of E outputs of n images and a column for each of p trained scalars (``jacobian.py``). Its rank is
the **tangent dimension**: how many independent first-order changes of the n·E outputs the parameters have. Three ways,
named in ``how``:

- "exact": all rows; held where they are few, else accumulated batch by batch in the Gram matrix of the smaller side.
- "sketch": of each image's E outputs only m random Gaussian combinations, so n·m rows.
  Its rank is that of all rows with probability 1 where one more combination leaves it as it is (``sketch.py``).
- "lanczos": J is only multiplied with (``spectra.py``): largest singular values, and what traces say. No rank.

A threshold never lies below what rounding makes of a zero (``Jacobian.rounding``, and that of the eigenvalues).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..cost import Method
from ..errors import unknown
from ..stats.intervals import Interval
from ..vit import VisionTransformer
from . import grams, spectra
from .alignment import estimated_alignment, jackknife, kernel_alignment, off_diagonal
from .grams import column_gram, functional_kernels, held, row_gram
from .jacobian import Jacobian, Outputs
from .sketch import closure, gaussian, pair_energies, sketched_gram

WAYS = ("auto", "exact", "sketch", "lanczos")
LARGE = 8192  # the smaller side of J up to which its Gram matrix is taken
OVERSAMPLE = 1.35  # rows of the first sketch over columns
CLOSED = 100.0  # θ up to which a fresh combination has no new direction
SHARED = 3  # functionals of a sketch that all images share, for the kernel; the others are each image's own
PAIRS = 8  # functionals whose pairs give the participation ratio


@dataclass(frozen=True)
class Tangent:
    """What ``tangent_dimension`` finds, for n ``inputs``, E ``outputs`` each, p ``parameters`` of a method.

    ``how`` it was computed and from how many ``functionals`` of the outputs (E where exact). ``singular_values``,
    descending: of J, or of the sketch divided by √m, whose squares sum to the energy without bias while each of them
    is spread wider than J's; of "lanczos" the largest, each with J's own within ``errors``. ``rank``: a ``Rank``, None
    for "lanczos"; of a sketch without a gap at the threshold it is rather low, and not ``certified``. ``closure``: θ of
    the sketch, 0 where exact. ``energy`` Σ s², ``participation`` (Σ s²)²/Σ s⁴,
    ``effective`` Σ s²/(s² + ridge), one for each of ``ridges``. ``kernel`` (n, n): tangent kernel, summed over outputs
    (an unbiased estimate unless exact); ``alignment`` (K,) with each class, None without labels.

    Intervals say how far the computation may be off (sketch: jackknife over functionals, 95 %; lanczos: quadrature and
    probes, 95 %); bounds that equal the estimate mark exact values. Of a sketch, ``effective`` lies below J's in
    expectation (concave), its ``high`` is unknown: ∞. None of them speaks of other images.
    """

    how: str
    inputs: int
    outputs: int
    parameters: int
    functionals: int
    singular_values: np.ndarray
    errors: np.ndarray
    rank: spectra.Rank | None
    closure: float
    energy: Interval
    participation: Interval
    ridges: np.ndarray
    effective: Interval
    kernel: np.ndarray
    alignment: Interval | None

    @property
    def certified(self) -> bool:
        """Whether all rows have this rank, with probability 1: no other row makes a singular value that counts."""
        if self.rank is None:
            return False
        return self.closure == 0 or self.rank.threshold * math.sqrt(1 + 2 * self.closure) < self.rank.above


def tangent_dimension(
    vit: VisionTransformer,
    method: Method,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    outputs: Outputs | None = None,
    how: str = "auto",
    tolerance: float = 1e-6,
    ridges: Sequence[float] = (1e-2, 1e-4, 1e-6),
    top: int = 16,
    batch: int = 32,
    seed: int = 0,
) -> Tangent:
    """Tangent dimension, spectrum and tangent kernel of a prompt or baseline on ``images`` (n, C, h, w).

    ``outputs`` of the content tokens (B, N, d), image by image; the CLS token where None. ``tolerance``: singular
    values count above this share of the largest. ``ridges`` are shares of the largest squared one. ``top``: how many of
    them "lanczos" finds. ``how`` "auto": exact where J is small, a sketch where one side is at most 8192, else Lanczos.

    Raises what ``Jacobian`` raises, and ``ValueError`` on options out of range, or where a side is too large for ranks.
    """
    if how not in WAYS:
        raise unknown("way to a tangent", how, WAYS)
    if len(ridges) == 0 or not all(0 < r < math.inf for r in ridges) or not 0 <= tolerance < 1:
        raise ValueError(f"ridges {ridges!r}, tolerance {tolerance!r}; expected shares > 0, and one in [0, 1)")
    jacobian = Jacobian(vit, method, images, outputs, batch)
    how = chosen(jacobian, how)
    generator = torch.Generator().manual_seed(seed)
    if how == "lanczos":
        return by_lanczos(jacobian, labels, ridges, top, seed, generator)
    if how == "sketch":
        found = by_sketch(jacobian, labels, ridges, tolerance, generator)
        if found is not None:
            return found
    return exact(jacobian, labels, ridges, tolerance, generator)


def chosen(jacobian: Jacobian, how: str) -> str:
    rows, columns = jacobian.inputs * jacobian.outputs, jacobian.parameters
    small = rows * columns <= grams.HELD
    if how == "auto":
        if min(rows, columns) > LARGE:
            return "lanczos"
        return "exact" if small or rows <= 2 * columns else "sketch"
    if how != "lanczos" and not small and min(rows, columns) > 2 * LARGE:
        raise ValueError(
            f"J is {rows} × {columns}; a rank needs a side of at most {2 * LARGE}. Give fewer images or outputs, or "
            f"take how='lanczos', which finds no rank"
        )
    return how


def exact(
    jacobian: Jacobian, labels: Tensor | None, ridges: Sequence[float], tolerance: float, generator: torch.Generator
) -> Tangent:
    n, e, p = jacobian.inputs, jacobian.outputs, jacobian.parameters
    kernels = None
    if n * e * p <= grams.HELD:
        rows = held(jacobian).double()
        kernel = (rows.flatten(1) @ rows.flatten(1).T).numpy()
        s, error = spectra.singular_values(rows.flatten(0, 1).numpy())
    elif n * e < p:
        gram = row_gram(jacobian)
        kernel = np.einsum("iejE,eE->ij", gram.reshape(n, e, n, e), np.eye(e))
        s, error = spectra.from_gram(gram)
    else:
        s, error = spectra.from_gram(column_gram(jacobian))
        kernels = functional_kernels(jacobian, gaussian(8, e, generator))
        kernel = kernels.mean(0)
    found = spectra.rank(s, tolerance, max(error, jacobian.rounding()))
    absolute = np.asarray(ridges, float) * s[0] ** 2
    participation = spectra.participation_ratio(s)
    effective = np.array([spectra.effective_dimension(s, r) if r > 0 else math.nan for r in absolute])
    return Tangent(
        "exact", n, e, p, e, s, np.full(len(s), found.threshold if found.limit == "rounding" else error), found, 0.0,
        known(float(np.square(s).sum()), e), known(participation, e), absolute, known(effective, e), kernel,
        aligned(kernel, kernels, labels, e),
    )  # fmt: skip


def known(x: np.ndarray | float, n: int) -> Interval:
    """A value that nothing was sampled for."""
    return Interval(x, x, x, n)


def aligned(kernel: np.ndarray, kernels: np.ndarray | None, labels: Tensor | None, n: int) -> Interval | None:
    if labels is None:
        return None
    return known(kernel_alignment(kernel, labels), n) if kernels is None else estimated_alignment(kernels, labels)


def by_sketch(
    jacobian: Jacobian, labels: Tensor | None, ridges: Sequence[float], tolerance: float, generator: torch.Generator
) -> Tangent | None:
    """None where as many functionals as outputs would be needed."""
    n, e, p = jacobian.inputs, jacobian.outputs, jacobian.parameters
    m = max(3, math.ceil(OVERSAMPLE * p / n))
    while m + 1 < e:
        functionals = gaussian(n * (m + 1), e, generator).unflatten(0, (n, m + 1))
        functionals[:, :SHARED] = functionals[:1, :SHARED]
        rows = held(jacobian, functionals).transpose(0, 1)  # (m + 1, n, p)
        gram = sketched_gram(rows[:m])
        s, error = spectra.from_gram(gram)
        rounding = jacobian.rounding(functionals) / math.sqrt(m)
        found = spectra.rank(s, tolerance, max(error, rounding))
        theta = 0.0 if found.value == p or s[0] == 0 else closure(gram, rows[m], found.threshold, m)
        if theta <= CLOSED:
            return sketched(jacobian, rows, s, found, theta, error, labels, ridges)
        m *= 2
    return None


def sketched(
    jacobian: Jacobian, rows: Tensor, s: np.ndarray, found: spectra.Rank, theta: float, error: float,
    labels: Tensor | None, ridges: Sequence[float],
) -> Tangent:  # fmt: skip
    """What all m + 1 functionals say of energy, participation and kernel, beside the spectrum of the first m."""
    m = len(rows)
    kernels = np.stack([(part.double() @ part.double().T).numpy() for part in rows[:SHARED]])
    energies = np.array([float(part.double().square().sum()) for part in rows])
    few = min(m, PAIRS)
    products, squares = np.outer(energies, energies), pair_energies(rows[:few])

    def participation(index: np.ndarray) -> float:
        some = np.ix_(index, index)
        return np.float64(off_diagonal(products[some]) / off_diagonal(squares[some]))

    absolute = np.asarray(ridges, float) * s[0] ** 2
    effective = np.array([spectra.effective_dimension(s, r) if r > 0 else math.nan for r in absolute])
    return Tangent(
        "sketch", jacobian.inputs, jacobian.outputs, jacobian.parameters, m, s,
        np.full(len(s), found.threshold if found.limit == "rounding" else error), found, theta,
        jackknife(lambda index: energies[index].mean(), m), jackknife(participation, few), absolute,
        Interval(effective, effective, np.full(len(effective), math.inf), m), kernels.mean(0),
        aligned(kernels.mean(0), kernels, labels, SHARED),
    )  # fmt: skip


def by_lanczos(
    jacobian: Jacobian, labels: Tensor | None, ridges: Sequence[float], top: int, seed: int, generator: torch.Generator
) -> Tangent:
    p = jacobian.parameters

    def product(v: np.ndarray) -> np.ndarray:
        return jacobian.gram_product(torch.from_numpy(np.asarray(v, np.float64).ravel())).numpy()

    s, errors = spectra.largest(product, p, top, seed)
    absolute = np.asarray(ridges, float) * s[0] ** 2
    energy, square, effective = spectra.quadrature(product, p, absolute, seed=seed)
    kernels = functional_kernels(jacobian, gaussian(4, jacobian.outputs, generator))
    low, high = max(energy.low, 0) ** 2 / square.high, energy.high**2 / max(square.low, float((s**4).sum()))
    participation = Interval(energy.estimate**2 / square.estimate, low, high, energy.n)
    return Tangent(
        "lanczos", jacobian.inputs, jacobian.outputs, p, 4, s, errors, None, math.nan, energy, participation, absolute,
        effective, kernels.mean(0), aligned(kernels.mean(0), kernels, labels, 4),
    )  # fmt: skip
