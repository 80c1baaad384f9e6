r"""Rows for a few random combinations of the outputs, in place of rows for all, and when they are enough for the rank.

Of each image's E outputs m combinations :math:`f_{ik} \in \mathbb R^E` with standard normal entries are taken, so n·m
rows :math:`f_{ik}^\top J_i`. Let W be their span. The combinations f whose row :math:`f^\top J_i` lies in W form a
subspace of :math:`\mathbb R^E`; one more f, drawn independently of W, lies in it with probability 0 unless it is
everything. So where the rows of one more combination of each image lie in W, all of J does, and **the rank of the
sketch is that of J with probability 1**. It is never larger. Combinations that differ between images tell more than
shared ones where the images' outputs move alike; a few are shared, as products of rows of two images need it.

Numerically, with G the mean Gram matrix of the m combinations, F the rows of one more and threshold τ, let

.. math:: \theta = \|F (G + \tau^2)^{-1} F^\top\|_2 / m, \qquad F^\top F \preceq m\theta\,(G + \tau^2).

So with the rows of one more no more singular values, those of :math:`G + F^\top F / m`, exceed
:math:`\tau\sqrt{1 + 2\theta}` than of G exceed τ. A new direction of size s has θ near s²/(m τ²); old ones of an
oversampled sketch have at most some tens.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor


def gaussian(m: int, e: int, generator: torch.Generator) -> Tensor:
    """m functionals of E outputs with independent standard normal entries: (m, E), float64."""
    return torch.randn(m, e, generator=generator, dtype=torch.float64)


def sketched_gram(rows: Tensor) -> np.ndarray:
    """Mean over functionals of YᵀY, (p, p), float64, for rows Y (m, n, p)."""
    gram = torch.zeros(rows.shape[-1], rows.shape[-1], dtype=torch.float64)
    for part in rows:
        part = part.double()
        gram.addmm_(part.T, part)
    return gram.div_(len(rows)).numpy()


def closure(gram: np.ndarray, fresh: Tensor, threshold: float, m: int) -> float:
    r"""θ = ‖F (G + τ²)⁻¹ Fᵀ‖₂ / m for fresh rows F (n, p), threshold τ and the mean Gram matrix G of m functionals."""
    shifted = gram.copy()
    shifted[np.diag_indices_from(shifted)] += threshold**2
    lower = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
    half = scipy.linalg.solve_triangular(lower, fresh.double().numpy().T, lower=True, check_finite=False)
    return float(np.linalg.norm(half.T @ half, 2)) / m


def pair_energies(rows: Tensor) -> np.ndarray:
    """‖Y_k Y_lᵀ‖²_F of all pairs of functionals, (m, m), for rows Y (m, n, p); the diagonal is left 0."""
    m = len(rows)
    found = np.zeros((m, m))
    for k in range(m - 1):
        cross = rows[k] @ rows[k + 1 :].flatten(0, 1).T  # (n, (m - k - 1) n)
        found[k, k + 1 :] = cross.double().square().unflatten(1, (m - k - 1, -1)).sum((0, 2)).numpy()
    return found + found.T
