r"""What a spectrum says: rank with its gap, effective dimensions, and both for matrices that are only multiplied with.

Singular values :math:`s_1 \ge s_2 \ge \dots` of a Jacobian J, :math:`G = J^\top J`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse.linalg
import scipy.stats

from ..stats.intervals import Interval


@dataclass(frozen=True)
class Rank:
    """How many singular values exceed ``threshold``: ``value`` of them.

    ``above`` is the smallest that counts (NaN where none does), ``below`` the largest that does not (0 where none is
    left), ``gap`` their ratio: a rank is worth what its gap is. ``limit`` says what set the threshold: the "tolerance"
    times the first singular value, or "rounding", where that is larger.
    """

    value: int
    threshold: float
    above: float
    below: float
    limit: str

    @property
    def gap(self) -> float:
        return math.inf if self.below == 0 else self.above / self.below


def rank(singular_values: np.ndarray, tolerance: float, rounding: float = 0.0) -> Rank:
    """Rank of descending ``singular_values`` at ``tolerance`` times the first, and never below ``rounding``.

    >>> rank(np.array([4.0, 1.0, 1e-9]), 1e-6)
    Rank(value=2, threshold=4e-06, above=1.0, below=1e-09, limit='tolerance')
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; expected a share of the largest singular value, such as 1e-6")
    s = np.asarray(singular_values, dtype=np.float64)
    first = float(s[0]) if len(s) else 0.0
    threshold = max(tolerance * first, rounding)
    value = int((s > threshold).sum())
    above, below = float(s[value - 1]) if value else math.nan, float(s[value]) if value < len(s) else 0.0
    return Rank(value, threshold, above, below, "rounding" if rounding > tolerance * first else "tolerance")


def effective_dimension(singular_values: np.ndarray, ridge: float) -> float:
    r""":math:`\sum_i s_i^2 / (s_i^2 + \mathrm{ridge})`, the degrees of freedom of ridge regression on the tangent.

    >>> effective_dimension(np.array([1.0, 1.0, 0.0]), 1.0)
    1.0
    """
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge!r}; expected a number > 0, in units of squared singular values")
    squares = np.square(np.asarray(singular_values, dtype=np.float64))
    return float((squares / (squares + ridge)).sum())


def participation_ratio(singular_values: np.ndarray) -> float:
    r""":math:`(\sum s^2)^2 / \sum s^4`: k for k equal singular values; NaN where all are 0.

    >>> participation_ratio(np.array([3.0, 3.0, 3.0, 0.0]))
    3.0
    """
    s = np.asarray(singular_values, dtype=np.float64)
    squares = np.square(s / s.max()) if s.size and s.max() > 0 else np.zeros(1)
    return float(squares.sum() ** 2 / np.square(squares).sum()) if squares.any() else math.nan


def singular_values(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Singular values, descending, with what rounding in their computation may make of a zero.

    Up to a smaller side of 1024 by a decomposition of the matrix itself, which keeps small values; beyond that by the
    Gram matrix of the smaller side, whose rounding is the square root of the precision.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    if min(matrix.shape) > 1024:
        tall = matrix.shape[0] >= matrix.shape[1]
        return from_gram(matrix.T @ matrix if tall else matrix @ matrix.T)
    if matrix.shape[0] > 2 * matrix.shape[1]:
        matrix = scipy.linalg.qr(matrix, mode="r", check_finite=False)[0][: matrix.shape[1]]
    s = scipy.linalg.svdvals(matrix, check_finite=False)
    return s, float(s[0]) * np.finfo(np.float64).eps * math.sqrt(max(matrix.shape))


def from_gram(gram: np.ndarray) -> tuple[np.ndarray, float]:
    """Singular values of J from :math:`J^\\top J` or :math:`J J^\\top`, and their rounding: near √precision · s₁."""
    values = np.sqrt(np.maximum(scipy.linalg.eigvalsh(gram, check_finite=False)[::-1], 0))
    return values, float(values[0]) * math.sqrt(np.finfo(np.float64).eps * math.sqrt(len(gram)))


def largest(product: Callable, size: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    r"""The k largest singular values of J by Lanczos' method (ARPACK) from :math:`v \mapsto J^\top J v`, and bounds.

    Within each bound, :math:`\|Gv - \theta v\| / \sqrt\theta` of its Ritz pair, lies a singular value of J. That none
    larger was missed is not certified: it is unlikely from a random start.
    """
    if not 1 <= k < size:
        raise ValueError(f"{k} singular values of {size} columns asked for; expected at least 1 and fewer than columns")
    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(size)
    theta, vectors = scipy.sparse.linalg.eigsh(operator, k, v0=start, tol=1e-6)
    order = np.argsort(-theta)
    theta, vectors = np.maximum(theta[order], 0), vectors[:, order]
    residual = np.array([np.linalg.norm(product(v) - t * v) for t, v in zip(theta, vectors.T, strict=True)])
    s = np.sqrt(theta)
    return s, np.minimum(np.divide(residual, s, out=np.full(k, np.inf), where=s > 0), np.sqrt(residual))


def quadrature(
    product: Callable, size: int, ridges: Sequence[float], probes: int = 8, steps: int = 24, seed: int = 0
) -> tuple[Interval, Interval, Interval]:
    r"""Energy tr G, :math:`\operatorname{tr} G^2` and effective dimensions (a ridge each) by Lanczos quadrature.

    For Rademacher probes z the expectation of :math:`z^\top f(G) z` is tr f(G). Energy and square are exact for a
    probe; for f(x) = x/(x + ridge) the Gauss rule of ``steps`` nodes lies above and the Gauss-Radau rule with a node at
    0 below it, by the signs of the derivatives of f. The 95 % intervals go from the lower mean to the upper, widened by
    Student's t over probes.

    Sources: Golub and Meurant, Matrices, Moments and Quadrature, 2010; Ubaru, Chen and Saad, SIMAX 38, 2017, as we
    understand them.
    """
    rng = np.random.default_rng(seed)
    found = [probe(product, rng.choice([-1.0, 1.0], size), np.asarray(ridges, float), steps) for _ in range(probes)]
    lower, upper = (np.array([f[side] for f in found]) for side in (0, 1))  # (probes, 2 + ridges)
    both = [widened(lower[:, i], upper[:, i]) for i in range(lower.shape[1])]
    dimensions = Interval(*(np.array([getattr(b, f) for b in both[2:]]) for f in ("estimate", "low", "high")), probes)
    return both[0], both[1], dimensions


def widened(lower: np.ndarray, upper: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of a mean of which every value is known to lie between ``lower`` and ``upper`` (n,)."""
    n = len(lower)
    t = scipy.stats.t.ppf((1 + level) / 2, n - 1) / math.sqrt(n) if n > 1 else math.nan
    low, high = lower.mean() - t * lower.std(ddof=min(1, n - 1)), upper.mean() + t * upper.std(ddof=min(1, n - 1))
    return Interval(float((lower.mean() + upper.mean()) / 2), float(low), float(high), n)


def probe(product: Callable, z: np.ndarray, ridges: np.ndarray, steps: int) -> tuple[list[float], list[float]]:
    """Lower and upper values of zᵀGz, zᵀG²z and zᵀ G(G + ridge)⁻¹ z."""
    alpha, beta = tridiagonal(product, z, steps)
    scale = float(z @ z)
    square = alpha[0] ** 2 + (beta[0] ** 2 if len(beta) else 0)
    gauss = rule(alpha, beta[: len(alpha) - 1], ridges)
    radau = gauss
    if len(beta) == len(alpha):  # not ended early: the space is not exhausted
        last = np.zeros(len(alpha))
        last[-1] = beta[-1] ** 2
        inner = scipy.linalg.solve(np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1), last)
        radau = rule(np.append(alpha, inner[-1]), beta, ridges)
    moments = [scale * alpha[0], scale * square]
    return moments + list(scale * radau), moments + list(scale * gauss)


def rule(alpha: np.ndarray, beta: np.ndarray, ridges: np.ndarray) -> np.ndarray:
    """Quadrature of x/(x + ridge) by the nodes and weights of a tridiagonal matrix."""
    nodes, vectors = scipy.linalg.eigh_tridiagonal(alpha, beta)
    nodes = np.maximum(nodes, 0)
    return (vectors[0] ** 2) @ (nodes[:, None] / (nodes[:, None] + ridges))


def tridiagonal(product: Callable, z: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos' coefficients (k,), (k or k - 1,), re-orthogonalised; fewer than ``steps`` where space ends."""
    basis, alpha, beta = [z / np.linalg.norm(z)], [], []
    for _ in range(min(steps, len(z))):
        w = product(basis[-1])
        alpha.append(float(w @ basis[-1]))
        held = np.array(basis)
        for _ in range(2):
            w = w - held.T @ (held @ w)
        norm = float(np.linalg.norm(w))
        if norm <= 1e-10 * max(abs(alpha[0]), norm, max(beta, default=0.0)) or len(basis) == len(z):
            return np.array(alpha), np.array(beta)
        beta.append(norm)
        basis.append(w / norm)
    return np.array(alpha), np.array(beta)
