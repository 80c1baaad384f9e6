r"""Mutual information of two discrete variables from few samples, with its bias seen to.

The plug-in estimate :math:`\hat I = \sum_{xy} \hat p_{xy} \log (\hat p_{xy} / \hat p_x \hat p_y)` is above 0 for
independent variables, by about (K_x − 1)(K_y − 1) / 2n nats. Its exact mean over all pairings of the two samples,
**chance** E, is scikit-learn's ``expected_mutual_information``. Estimated is

.. math:: I = H(y)\,\frac{\hat I - E}{H(y) - E},

0 on average for independent variables, whatever the numbers of cells, and H(y) where x determines y. Between the two no
estimator is without bias; ``bias_check`` says how large it is for a size like one's own. The estimate may be slightly
negative, and is not cut off, so that means of it stay honest.

Shapes: n samples, K_x and K_y values. All in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .over_images import FEW, centred, resample_weights


@dataclass(frozen=True)
class Information:
    """Mutual information of two discrete variables, in nats.

    ``estimate`` with its bounds ``low``, ``high``; ``share``, the estimate over H(y); ``plug_in``, ``chance`` (what the
    plug-in gives on average when the pairs are drawn anew) and ``miller_madow``, the plug-in with Miller's correction
    of each entropy; ``p_value`` of independence, by permutations of the labels, one-sided; ``n``.
    """

    estimate: float
    low: float
    high: float
    share: float
    plug_in: float
    chance: float
    miller_madow: float
    p_value: float
    n: int


def information(x: np.ndarray, y: np.ndarray, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Information:
    """Mutual information of codes x (n,) and labels y (n,), integers.

    The interval is a bootstrap over samples, moved to have its mean at the estimate, for a resample holds samples twice
    and shows more dependence than there is. Whether there is any dependence is said by ``p_value``, which is exact, not
    by the interval. Raises ``ValueError`` where the samples do not pair, or are too few: chance reaches H(y) when
    every x is another one.

    >>> y = np.arange(100) % 4
    >>> found = information(y, y)                                     # x determines y: log 4
    >>> print(f"{found.estimate:.6f} {found.share:.6f}")
    1.386294 1.000000

    Source: Vinh, Epps and Bailey, JMLR 11, 2010, for the adjustment for chance; Miller, 1955, for the correction.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    x, y = (np.asarray(v) for v in (x, y))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"x has shape {x.shape}, y {y.shape}; expected one code and one label a sample")
    if not all(np.issubdtype(v.dtype, np.integer) for v in (x, y)):
        raise ValueError(f"x is {x.dtype}, y is {y.dtype}; expected integers. Cluster continuous values first")
    x, y = (np.unique(v, return_inverse=True)[1] for v in (x, y))
    n, kx, ky = len(x), x.max() + 1, y.max() + 1
    table = np.bincount(x * ky + y, minlength=kx * ky).reshape(kx, ky)
    label_entropy, raw = entropy(table.sum(0)), plug_in(table)
    chance = float(expected_mutual_information(table, n)) if min(kx, ky) > 1 else 0.0
    if kx > 1 and label_entropy - chance < 1e-3 * label_entropy:
        raise ValueError(f"{kx} different x among {n} samples: chance alone determines y. Take fewer clusters")
    scale = label_entropy / (label_entropy - chance) if ky > 1 else 1.0
    estimate = float(scale * (raw - chance))
    cells = int((table > 0).sum())
    shift = (kx + ky - cells - 1) / (2 * n)
    drawn = scale * plug_in(recounted(x * ky + y, kx * ky, resamples, seed).reshape(-1, kx, ky))
    bounds = centred(np.float64(estimate), drawn, level, n)
    p_value = permutation_p(x, y, raw, resamples, seed)
    share = estimate / float(label_entropy) if ky > 1 else float("nan")
    return Information(estimate, bounds.low, bounds.high, share, float(raw), chance, float(raw + shift), p_value, n)


def entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy of counts (..., K), plug-in: (...).

    >>> print(f"{entropy(np.array([5, 5, 0])):.6f}")
    0.693147
    """
    p = counts / counts.sum(-1, keepdims=True)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def plug_in(table: np.ndarray) -> np.ndarray:
    """Mutual information of tables of counts (..., K_x, K_y), without any correction: (...)."""
    joint = table.reshape(*table.shape[:-2], -1)
    return entropy(table.sum(-1)) + entropy(table.sum(-2)) - entropy(joint)


def recounted(cells: np.ndarray, k: int, resamples: int, seed: int) -> np.ndarray:
    """Counts (resamples, k) of the ``cells`` (n,) of every sample, in the resamples that ``bootstrap`` draws."""
    n = len(cells)
    members = np.zeros((n, k))
    members[np.arange(n), cells] = 1
    return np.rint(n * resample_weights(n, resamples, seed) @ members)


def permutation_p(x: np.ndarray, y: np.ndarray, raw: float, permutations: int, seed: int) -> float:
    """Share of pairings at random, this one among them, whose plug-in information is at least ``raw``."""
    generator = np.random.default_rng([seed, 1])
    kx, ky = x.max() + 1, y.max() + 1
    few, reached, left = max(1, FEW // (kx * ky + len(x))), 1, permutations
    while left:
        some = min(few, left)
        pairs = x * ky + generator.permuted(np.broadcast_to(y, (some, len(y))), axis=1)  # (some, n)
        flat = np.bincount((pairs + kx * ky * np.arange(some)[:, None]).ravel(), minlength=some * kx * ky)
        reached += int((plug_in(flat.reshape(some, kx, ky)) >= raw - 1e-12).sum())
        left -= some
    return reached / (permutations + 1)


def clustered(x: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """Codes (n,) of real vectors x (n, D) by k-means; values that differ by rounding alone are one.

    A function of x has at most the information of x, so the information of the codes is a lower bound.
    """
    from sklearn.cluster import KMeans

    x = np.asarray(x, dtype=np.float64)
    if not 2 <= clusters <= len(x) // 2:
        raise ValueError(f"{clusters} clusters of {len(x)} samples; expected at least 2, and two samples a cluster")
    spread = x - x.mean(0)
    if np.abs(spread).max() <= 1e-6 * np.abs(x).max():
        return np.zeros(len(x), dtype=np.int64)
    distinct, codes = np.unique(x, axis=0, return_inverse=True)
    if len(distinct) <= clusters:
        return codes.ravel()
    scaled = spread / np.abs(spread).max()
    return KMeans(clusters, n_init=4, random_state=seed).fit_predict(scaled).astype(np.int64)
