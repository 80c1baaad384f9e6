r"""A constructed head for which a static prompt approximates a function on the sphere :math:`S^m`.

What a head can be made to do depends on the head. Here its weights are chosen: tokens of width d = 2(m + 1) + D hold
(query part, key part, value part); W_Q, W_K and W_V read one part each, into e = d coordinates of one head, and
:math:`W_Q = \beta\sqrt e` on its part. The content is the input alone, (x, 0, 0): its key and value are 0, its score is
0. Prompt tokens are (0, z_j, v_j), with z_j on the sphere, the same for every input: a static, tied prompt. Then

.. math:: \hat f(x) = \frac{\sum_j e^{\beta\, x\cdot z_j}\, v_j}{1 + \sum_j e^{\beta\, x\cdot z_j}},

a smoother with von Mises-Fisher kernels, in which the 1 is the content.

**Bound** (values v_j = f(z_j), f of Lipschitz constant Λ in the chord, |f| ≤ B). Let every x have a point within the
chord h, the covering radius. As :math:`x\cdot z = 1 - |x-z|^2/2`, the points at chords above r have at most the weight
:math:`P e^{-\beta(r^2-h^2)/2}`, and the content at most :math:`e^{-\beta(1-h^2/2)}`; a point at chord s errs by at most
min(Λ s, 2B). So for every r ≥ h

.. math:: |\hat f(x) - f(x)| \le \Lambda r + \min(2\Lambda, 2B)\, P\, e^{-\beta(r^2-h^2)/2} + B\, e^{-\beta(1-h^2/2)},

and with :math:`\beta \sim h^{-2}`, :math:`h \sim P^{-1/m}` this is of order :math:`P^{-1/m}\sqrt{\log P}`. The smoother
itself errs less on smooth functions: its bias is of order :math:`1/\beta \sim P^{-2/m}`, and what the sum over points
misses of the integral is, at β = 1/(2 h²), a factor of about exp(−π²) of the function's slope. [Own derivation.]

That a head and a prefix can do this for any continuous function on the sphere is due, as we understand it (we know the
abstract only), to Petrov, Torr and Bibi, ICML 2024, arXiv 2402.14753; the construction here is our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import ConvexHull
from torch import Tensor

from ..attention import KeyGroup, attend
from ..vit import Attention

GOLDEN = math.pi * (3 - math.sqrt(5))


def sphere_points(m: int, length: int) -> np.ndarray:
    """``length`` points spread over S^m, (P, m + 1): equally spaced for m = 1, Fibonacci's spiral for m = 2.

    >>> sphere_points(1, 4).round(6).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-0.0, -1.0]]
    """
    if m not in (1, 2) or length < m + 2:
        raise ValueError(
            f"{length} points on S^{m}; expected m = 1 or 2, and at least {m + 2} points, which surround 0"
        )
    j = np.arange(length)
    if m == 1:
        angle = 2 * np.pi * j / length
        return np.stack([np.cos(angle), np.sin(angle)], axis=1)
    z = 1 - (2 * j + 1) / length
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(GOLDEN * j), r * np.sin(GOLDEN * j), z], axis=1)


def covering_radius(points: np.ndarray) -> float:
    """The largest chord from a point of the sphere to the nearest of ``points`` (P, m + 1): exact, for the farthest
    ones are the centres of the convex hull's facets. Raises ``ValueError`` where 0 is not inside the hull.

    >>> square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])     # 45° from the nearest corner at most: 2 sin 22.5°
    >>> round(covering_radius(square), 6)
    0.765367
    """
    height = -ConvexHull(points).equations[:, -1]  # of each facet above 0, the cosine of its angular radius
    if not height.min() > 0:
        raise ValueError("the points do not surround 0, so the sphere is not covered by caps around facets; add points")
    return math.sqrt(2 - 2 * float(height.min()))


@dataclass(frozen=True, eq=False)
class Waves:
    """A smooth function :math:`f(x) = \\sum_k a_k \\cos(\\omega_k\\cdot x + \\phi_k)` on the sphere, scalar.

    ``amplitude`` (K,), ``frequency`` (K, m + 1), ``phase`` (K,).
    """

    amplitude: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.cos(x @ self.frequency.T + self.phase) @ self.amplitude

    @property
    def lipschitz(self) -> float:
        """A bound on its Lipschitz constant in the chord, Σ |a| ‖ω‖."""
        return float(np.abs(self.amplitude) @ np.linalg.norm(self.frequency, axis=1))

    @property
    def size(self) -> float:
        """A bound on |f|, Σ |a|."""
        return float(np.abs(self.amplitude).sum())


def random_waves(m: int, seed: int, count: int = 6, frequency: float = 2.0) -> Waves:
    """Amplitudes N(0, 1/count), frequencies N(0, ``frequency``² I), phases uniform."""
    rng = np.random.default_rng(seed)
    return Waves(
        rng.standard_normal(count) / math.sqrt(count),
        frequency * rng.standard_normal((count, m + 1)),
        rng.uniform(0, 2 * np.pi, count),
    )


@torch.no_grad()
def head(m: int, beta: float, values: int = 1) -> Attention:
    """The constructed head: this package's attention with one head of width 2(m + 1) + ``values``, float64."""
    k = m + 1
    d = 2 * k + values
    made = Attention(d, 1).double().requires_grad_(False)
    weight = torch.zeros(3, d, d, dtype=torch.float64)
    weight[0, range(k), range(k)] = beta * math.sqrt(d)  # the query: β√e x
    weight[1, range(k), range(k, 2 * k)] = 1.0  # the key: z, into the coordinates that the query has
    weight[2, range(2 * k, d), range(2 * k, d)] = 1.0
    made.qkv.weight.copy_(weight.flatten(0, 1))
    made.qkv.bias.zero_()
    made.out.weight.copy_(torch.eye(d))
    made.out.bias.zero_()
    return made


@torch.no_grad()
def prompt_tokens(points: np.ndarray, values: np.ndarray) -> Tensor:
    """Prompt tokens (P, d) = (0, z_j, v_j) of ``points`` (P, m + 1) and ``values`` (P, D)."""
    return torch.from_numpy(np.concatenate([np.zeros_like(points), points, values], axis=1))


@torch.no_grad()
def answer(attention: Attention, tokens: Tensor, x: np.ndarray) -> np.ndarray:
    """What the head makes of inputs ``x`` (n, m + 1) with the prompt ``tokens`` (P, d): f̂(x), (n, D).

    Every input is a sequence of one token; the prompt joins it as extra keys and values, in one softmax.
    """
    d, k = tokens.shape[1], x.shape[1]
    sequence = torch.zeros(len(x), 1, d, dtype=torch.float64)
    sequence[:, 0, :k] = torch.from_numpy(x)
    extra = KeyGroup(*attention.keys_values(tokens[None]))
    return attention.merge(attend(*attention.project(sequence), extra))[:, 0, 2 * k :].numpy()


@torch.no_grad()
def gates(attention: Attention, points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The weight of each prompt's value in the output, (n, P): outputs for unit values; the content's value is 0."""
    p, k = points.shape
    sequence = torch.zeros(len(x), 1, attention.qkv.in_features, dtype=torch.float64)
    sequence[:, 0, :k] = torch.from_numpy(x)
    query, key, _ = attention.project(sequence)
    width = attention.qkv.in_features - 2 * k
    extra, _ = attention.keys_values(prompt_tokens(points, np.zeros((p, width)))[None])
    unit = torch.eye(p, dtype=torch.float64)[None, None]
    return attend(query, key, torch.zeros(len(x), 1, 1, p, dtype=torch.float64), KeyGroup(extra, unit))[:, 0, 0].numpy()


def bound(f: Waves, points: np.ndarray, beta: float) -> float:
    """The docstring's bound on the largest error with values f(z_j), at the best of 200 radii r; |f̂ − f| ≤ 2B too."""
    h, p = covering_radius(points), len(points)
    r = np.linspace(h, 2.0, 200)
    far = min(2 * f.lipschitz, 2 * f.size) * np.minimum(1.0, p * np.exp(-beta * (r**2 - h**2) / 2))
    return float(min(2 * f.size, (f.lipschitz * r + far).min() + f.size * math.exp(-beta * (1 - h**2 / 2))))


@dataclass(frozen=True)
class Approximation:
    """Of one function and P prompts: ``sampled`` and ``fitted``, root-mean-square errors over fresh inputs relative to
    the function's root mean square, with values f(z_j) and with the best ones; ``largest`` error of the sampled values,
    absolute; ``bound`` on it; ``beta``."""

    sampled: float
    fitted: float
    largest: float
    bound: float
    beta: float


def approximate(
    m: int, length: int, functions: Sequence[Waves], inputs: int = 4000, seed: int = 0, width: float = 0.5
) -> list[Approximation]:
    """Static prompts of ``length`` tokens against functions on S^m, at β = ``width`` / h², h the covering radius.

    Inputs are uniform on the sphere; the best values are fitted by least squares to as many other inputs, on the head's
    own gates, so that they are exact given the keys. Raises ``ValueError`` for fewer than 4 inputs a prompt.
    """
    if inputs < 4 * length:
        raise ValueError(
            f"{inputs} inputs for {length} prompts; expected at least 4 a prompt, or values are not fitted"
        )
    rng = np.random.default_rng(seed)
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, inputs, m + 1)))
    points = sphere_points(m, length)
    beta = width / covering_radius(points) ** 2
    attention = head(m, beta)
    taught = np.stack([f(train) for f in functions], axis=1)
    values = np.linalg.lstsq(gates(attention, points, train), taught, rcond=1e-12)[0]
    found = []
    for k, f in enumerate(functions):
        wanted = f(test)
        errors = [
            answer(attention, prompt_tokens(points, v[:, None]), test)[:, 0] - wanted for v in (f(points), values[:, k])
        ]
        sampled, fitted = (float(np.sqrt(np.mean(e**2) / np.mean(wanted**2))) for e in errors)
        found.append(Approximation(sampled, fitted, float(np.abs(errors[0]).max()), bound(f, points, beta), beta))
    return found
