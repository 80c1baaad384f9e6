r"""How well a kernel on images fits their labels: centred kernel-target alignment, one class against the rest.

With the centring H = I − 11ᵀ/n and the indicator y of a class,

.. math:: A_c = \frac{\langle HKH, yy^\top\rangle_F}{\|HKH\|_F\,\|Hyy^\top H\|_F}
    = \frac{y^\top HKH y}{\|HKH\|_F\;y^\top H y} \in [-1, 1] .

Sources: Cristianini et al., On kernel-target alignment, NeurIPS 2001; Cortes, Mohri and Rostamizadeh, Algorithms for
learning kernels based on centered alignment, JMLR 13, 2012, as we understand them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.stats
from torch import Tensor

from ..stats.intervals import Interval


def indicators(labels: Tensor | np.ndarray, n: int) -> np.ndarray:
    """Centred indicators of the classes, in the order of their labels: (K, n). ``ValueError`` for fewer than two."""
    labels = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels have shape {labels.shape} and are {labels.dtype}; expected one integer for each of {n}"
        )
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("all images are of one class; alignment with labels needs at least two")
    return (codes == np.arange(len(classes))[:, None]) - np.bincount(codes)[:, None] / n


def centred(kernels: np.ndarray) -> np.ndarray:
    """HKH for kernels (..., n, n)."""
    kernels = kernels - kernels.mean(-1, keepdims=True)
    return kernels - kernels.mean(-2, keepdims=True)


def kernel_alignment(kernel: np.ndarray, labels: Tensor | np.ndarray) -> np.ndarray:
    """Alignment of ``kernel`` (n, n) with each class, (K,) in the order of the labels; NaN for a constant kernel.

    >>> y = np.array([0, 0, 1, 1])
    >>> kernel_alignment((y[:, None] == y).astype(float), y)
    array([1., 1.])
    """
    kernel = np.asarray(kernel, dtype=np.float64)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or not np.isfinite(kernel).all():
        raise ValueError(f"the kernel has shape {kernel.shape}; expected a finite square matrix (n, n)")
    y, k = indicators(labels, len(kernel)), centred(kernel)
    norm = np.linalg.norm(k)
    if norm <= 1e-12 * np.linalg.norm(kernel):
        return np.full(len(y), math.nan)
    return np.einsum("cn,nm,cm->c", y, k, y) / np.square(y).sum(1) / norm


def estimated_alignment(kernels: np.ndarray, labels: Tensor | np.ndarray) -> Interval:
    """Alignment (K,) of the expectation of independent unbiased ``kernels`` (m, n, n), with a jackknife interval.

    The squared norm is the mean over pairs of different kernels, which has no bias, where the norm of a mean would be
    too large.
    """
    y, k = indicators(labels, kernels.shape[-1]), centred(kernels)
    fits = np.einsum("cn,mnl,cl->mc", y, k, y) / np.square(y).sum(1)
    flat = k.reshape(len(k), -1)
    pairs = flat @ flat.T

    def statistic(index: np.ndarray) -> np.ndarray:
        return fits[index].mean(0) / np.sqrt(np.maximum(off_diagonal(pairs[np.ix_(index, index)]), 1e-300))

    return jackknife(statistic, len(k))


def off_diagonal(x: np.ndarray) -> float:
    """Mean of the entries (m, m) of different indices."""
    return float((x.sum() - np.trace(x)) / (len(x) * (len(x) - 1)))


def jackknife(statistic: Callable[[np.ndarray], np.ndarray], m: int, level: float = 0.95) -> Interval:
    """``statistic`` of all m indices, with Student's t times the jackknife's standard error; m ≥ 3.

    Source: Efron, The jackknife, the bootstrap and other resampling plans, SIAM 1982.
    """
    if m < 3:
        raise ValueError(f"{m} functionals; an interval over functionals needs at least 3")
    every = np.arange(m)
    left_out = np.array([statistic(np.delete(every, k)) for k in every])
    error = np.sqrt((m - 1) / m * np.square(left_out - left_out.mean(0)).sum(0))
    half, estimate = scipy.stats.t.ppf((1 + level) / 2, m - 1) * error, np.asarray(statistic(every))
    plain = (lambda x: x.item()) if estimate.ndim == 0 else (lambda x: x)
    return Interval(plain(estimate), plain(estimate - half), plain(estimate + half), m)
