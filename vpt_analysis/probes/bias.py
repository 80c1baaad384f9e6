"""How far is an estimate of mutual information from the truth at a sample size like one's own? Known cases say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .mutual_information import clustered, information


@dataclass(frozen=True)
class KnownCase:
    """Estimates where the information is known, in nats: the ``truth``, the ``mean`` of the estimates with its standard
    ``error``, and their standard deviation ``spread``."""

    truth: float
    mean: float
    error: float
    spread: float


def bias_check(
    n: int, classes: int, clusters: int, repeats: int = 30, correlation: float = 0.9, seed: int = 0
) -> dict[str, KnownCase]:
    r"""Estimates of ``information`` from n samples of ``classes`` even classes, x in ``clusters``, on known cases.

    "independent": x normal, whatever the class; 0. "deterministic": x is another number for each class; log K, or less
    where there are fewer clusters. "gaussian": x and z normal with ``correlation`` ρ, the class being that of the K
    equally likely intervals in which z lies; the truth is that of x before it is clustered (clusters lose some), and
    grows to :math:`-\frac12\log(1-\rho^2)` with K. Raises ``ValueError`` where ``information`` or ``clustered`` do.

    >>> case = bias_check(200, classes=4, clusters=4, repeats=5)["deterministic"]
    >>> print(f"{case.truth:.2f} {case.mean:.1f}")
    1.39 1.4
    """
    if not -1 < correlation < 1:
        raise ValueError(f"correlation is {correlation}; expected a number between -1 and 1")
    if classes < 2 or repeats < 2:
        raise ValueError(f"{classes} classes and {repeats} repeats; expected at least 2 of both")

    def pair(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x, z = generator.normal(size=(2, n))
        z = correlation * x + (1 - correlation**2) ** 0.5 * z
        return x, np.searchsorted(cuts(classes), z)

    def independent(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return generator.normal(size=n), generator.integers(classes, size=n)

    def deterministic(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        y = generator.integers(classes, size=n)
        return y.astype(float), y

    def case(draw: Callable, truth: float) -> KnownCase:
        found = []
        for repeat in range(repeats):
            x, y = draw(np.random.default_rng([seed, repeat]))
            found.append(information(clustered(x[:, None], clusters, repeat), y, resamples=1, seed=repeat).estimate)
        spread = float(np.std(found, ddof=1))
        return KnownCase(truth, float(np.mean(found)), spread / repeats**0.5, spread)

    return {
        "independent": case(independent, 0.0),
        "deterministic": case(deterministic, float(np.log(min(classes, clusters)))),
        "gaussian": case(pair, gaussian_information(correlation, classes)),
    }


def cuts(classes: int) -> np.ndarray:
    """The K − 1 points that cut the normal distribution into equally likely intervals."""
    from scipy.special import ndtri

    return ndtri(np.arange(1, classes) / classes)


def gaussian_information(correlation: float, classes: int) -> float:
    r"""Information of x about which of K equally likely intervals z is in; x, z normal with correlation ρ. In nats.

    :math:`\log K - \mathrm E_x H(p(\cdot \mid x))`, with the intervals' probabilities under
    :math:`z \mid x \sim N(\rho x, 1 - \rho^2)`; the mean over x is a sum over equidistant points in ±10, which is exact
    to rounding for smooth integrands that vanish at the ends.

    >>> print(f"{gaussian_information(0.6, 300):.3f} {-0.5 * np.log(1 - 0.6**2):.3f}")
    0.223 0.223
    """
    from scipy.special import ndtr

    x = np.linspace(-10, 10, 1001)
    weight = np.exp(-(x**2) / 2)
    ends = np.concatenate([[-np.inf], cuts(classes), [np.inf]])
    p = np.diff(ndtr((ends - correlation * x[:, None]) / (1 - correlation**2) ** 0.5), axis=1)
    given = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    return float(np.log(classes) - (weight * given).sum() / weight.sum())
