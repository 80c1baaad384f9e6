"""Prompts made to order: given what one head's queries shall find, keys and values, or tokens, that give it."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import lambertw

from .certificates import Ball

SPREAD = 1e-3  # the share of a query's prompt mass that is on prompts that belong to the others


def untied(queries: np.ndarray, outputs: np.ndarray, log_mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Keys and values (P, e), P = m, that give each of m queries (m, e) an output (m, e) and a log-mass (m,) of its
    own.

    Of linearly independent queries the scores can be chosen freely: :math:`S_{ij} = L_i + \log B_{ij}` with a matrix B
    whose rows sum to 1, so that query i has the log-mass :math:`L_i` and the output :math:`\sum_j B_{ij} v_j`, and
    :math:`V = B^{-1} O`. ``queries`` already divided by √e. Raises ``ValueError`` for queries that are not linearly
    independent.

    >>> key, value = untied(np.array([[2.0, 0.0]]), np.array([[5.0, 6.0]]), np.array([3.0]))
    >>> key.tolist(), value.tolist()
    ([[1.5, 0.0]], [[5.0, 6.0]])
    """
    m = len(queries)
    if np.linalg.matrix_rank(queries, rtol=1e-9) < m:
        raise ValueError(
            f"the {m} different queries of {queries.shape[1]} dimensions are linearly dependent, so that no key gives "
            f"each the score it needs"
        )
    mixing = (1 - SPREAD) * np.eye(m) + SPREAD / m
    scores = log_mass[:, None] + np.log(mixing)
    return (np.linalg.pinv(queries) @ scores).T, np.linalg.solve(mixing, outputs)


def tied(ball: Ball, token: np.ndarray, log_mass: float, longest: int = 1000) -> np.ndarray:
    r"""Normalised tokens z (P, d) in the ball with the weighted mean ``token`` and the log-mass ``log_mass``.

    A prompt at :math:`\bar z` has the mass :math:`e^{\bar s}`. P prompts are needed for P − 1 < r ≤ P, r being the mass
    wanted over that. Some of them, k, move towards lower scores, by Δ, and the others up, by κΔ, so that the mean
    stays: with :math:`\kappa\Delta = W(\Delta e^{-\Delta} k/(P-k))`, W Lambert's function, the mass falls from P to
    little more than P − k as Δ grows. Raises ``ValueError`` where the ball leaves no room for that.
    """
    token = token * min(1.0, (1 - 1e-9) * ball.radius / max(float(np.linalg.norm(token)), 1e-300))
    score = float(ball.score @ token) + ball.shift
    ratio = math.exp(min(log_mass - score, 50.0))
    if ratio < 1 - 1e-9:
        raise ValueError(f"a log-mass of {log_mass:.6g} is below {score:.6g}, the score of one prompt with that output")
    length = max(1, math.ceil(ratio - 1e-9))
    if length > longest:
        raise ValueError(f"that mass takes {ratio:.3g} prompts; at most {longest} are built")
    if abs(ratio - length) <= 1e-9 or length > 1e6:
        return np.repeat(token[None], length, axis=0)
    low = -(1 - 1e-9) * ball.radius * ball.score / np.linalg.norm(ball.score)
    room = score - (float(ball.score @ low) + ball.shift)
    few = next((k for k in range(1, length) if _shares(room, length - k, k)[1] <= ratio), 0)
    if not few:
        raise ValueError(f"{ratio:.6g} times the mass of one prompt lies in a gap between one prompt and two")
    many = length - few
    delta = brentq(lambda x: _shares(x, many, few)[1] - ratio, 0.0, room, xtol=1e-15, rtol=1e-14)
    step = (low - token) / room
    light, heavy = token + delta * step, token - _shares(delta, many, few)[0] * step
    if np.linalg.norm(heavy) >= ball.radius:
        raise ValueError("the mean token lies so near to the edge of the ball that the others cannot move against it")
    return np.repeat(np.stack([heavy, light]), [many, few], axis=0)


def _shares(delta: float, many: int, few: int) -> tuple[float, float]:
    """κΔ, and the total mass over that of one prompt at the mean, of ``few`` prompts lower by Δ and ``many`` higher."""
    pull = float(lambertw(few * delta * math.exp(-delta) / many).real)
    return pull, many * math.exp(pull) + few * math.exp(-delta)


def before_norm(z: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    r"""Tokens p (P, d) whose LayerNorm is ``weight`` · z + ``bias``, z centred: :math:`p = z\sqrt{\varepsilon / (1 -
    \|z\|^2/d)}`. Raises ``ValueError`` for ε = 0, where a LayerNorm leaves the sphere only.

    >>> p = before_norm(np.array([[1.0, -1.0, 0.0]]), np.ones(3), np.zeros(3), 1e-2)
    >>> np.allclose(p / np.sqrt(p.var() + 1e-2), [[1.0, -1.0, 0.0]])
    True
    """
    if eps <= 0:
        raise ValueError("the LayerNorm has ε = 0: normalised tokens lie on a sphere and no prompts are built there")
    d = z.shape[-1]
    return z * np.sqrt(eps / (1 - (z**2).sum(-1, keepdims=True) / d))
