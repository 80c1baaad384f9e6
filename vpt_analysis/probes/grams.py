"""Rows of a Jacobian put together: whole where they fit, else in Gram matrices, accumulated in parts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .jacobian import Jacobian

HELD = 2**25  # entries of J that are held at a time


def held(jacobian: Jacobian, functionals: Tensor | None = None, names: list[str] | None = None) -> Tensor:
    """Rows in one piece, (n, m, columns), on the CPU, of the model's dtype."""
    found = None
    for start, rows in jacobian.rows(functionals, names):
        if found is None:
            found = torch.empty(jacobian.inputs, *rows.shape[1:], dtype=rows.dtype)
        found[start : start + len(rows)] = rows.cpu()
    return found


def row_gram(jacobian: Jacobian) -> np.ndarray:
    """J Jᵀ (nE, nE), float64, by groups of parameters."""
    rows = jacobian.inputs * jacobian.outputs
    gram = torch.zeros(rows, rows, dtype=torch.float64)
    for names in jacobian.groups(max(1, HELD // rows)):
        part = held(jacobian, names=names).double().flatten(0, 1)
        gram.addmm_(part, part.T)
    return gram.numpy()


def column_gram(jacobian: Jacobian) -> np.ndarray:
    """JᵀJ (p, p), float64, by batches of images."""
    gram = torch.zeros(jacobian.parameters, jacobian.parameters, dtype=torch.float64)
    for _, rows in jacobian.rows():
        part = rows.cpu().double().flatten(0, 1)
        gram.addmm_(part.T, part)
    return gram.numpy()


def functional_kernels(jacobian: Jacobian, functionals: Tensor) -> np.ndarray:
    """Kernels (m, n, n) of single functionals, float64; their mean has the tangent kernel as its expectation."""
    n, m = jacobian.inputs, len(functionals)
    kernels = torch.zeros(m, n, n, dtype=torch.float64)
    for names in jacobian.groups(max(1, HELD // (n * m))):
        part = held(jacobian, functionals, names).double().transpose(0, 1)
        kernels += part @ part.transpose(1, 2)
    return kernels.numpy()
