r"""Cost, gradient and Hessian of many least-squares problems at once, streamed over the samples.

With the predictors q, o of ``experts``, the gates g and the error r = f − y, the Jacobian of a sample is

.. math:: \partial f_e/\partial\theta = (m_{ce}\,\tilde x,\; w_k\delta_e)\,T, \qquad
          m_{ce} = \sum_l g_l\Big[(e_l - f)_e\,\partial_c s_l + \partial_c e_{le}\Big], \quad w_k = \sum_l g_l a_{kl},

from :math:`\partial f/\partial s_l = g_l(e_l - f)` and :math:`\partial f/\partial e_l = g_l`. So the matrix of the
normal equations needs no Jacobian: its block for two key predictors is
:math:`\sum_i W_{cc'}(i)\,\tilde x_i\tilde x_i^\top` with :math:`W_{cc'} = \sum_e m_{ce}m_{c'e}`, one product of weights
and monomials for all pairs. The Hessian has the same form, with :math:`r\cdot\partial^2 f` added to the weights. With
:math:`t_l = r\cdot(e_l - f)`, :math:`v_{cl} = r\cdot\partial_c e_l`, :math:`\alpha_c = \sum_l g_l\partial_c s_l` and
:math:`\delta_c = \sum_l g_l (t_l\partial_c s_l + v_{cl})`,

.. math:: r\cdot\partial_c\partial_{c'} f = \sum_l g_l\Big[t_l\,\partial_c s_l\,\partial_{c'} s_l
          + \partial_c s_l\,v_{c'l} + v_{cl}\,\partial_{c'} s_l
          + t_l\,\partial_{cc'} s_l + r\cdot\partial_{cc'}e_l\Big] - \alpha_c\delta_{c'} - \alpha_{c'}\delta_c .

The work hardly depends on E, and only a chunk of samples is held at a time: memory does not grow with n.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .experts import Derivatives
from .regression import Regression, Sample

CHUNK = 16_384  # samples held at a time, over all problems: what a core's cache likes


@dataclass
class Normal:
    """At theta, for R problems: ``cost`` ½Σ‖r‖² (R,), ``gradient`` (R, p) and ``matrix`` (R, p, p), JᵀJ or the
    Hessian."""

    cost: Tensor
    gradient: Tensor
    matrix: Tensor

    def put(self, index: Tensor, other: Normal) -> None:
        """Replace the problems at ``index``."""
        self.cost[index], self.gradient[index], self.matrix[index] = other.cost, other.gradient, other.matrix

    def of(self, index: Tensor) -> Normal:
        return Normal(self.cost[index], self.gradient[index], self.matrix[index])


class Equations:
    """Normal equations of a model on a sample. ``owner`` (problems,) names the data set of each problem, so that many
    starts share one."""

    def __init__(self, regression: Regression, sample: Sample):
        self.regression, self.sample = regression, sample
        prompts = regression.prompts
        self.pullback = prompts.pullback()
        d = prompts.known.d + 1
        self.monomial = _pair_index(d)

    def at(self, theta: Tensor, owner: Tensor, exact: Tensor | None = None) -> Normal:
        """``Normal`` at theta (R, p), for problems on the data sets ``owner`` (R,). ``exact`` (R,): whether a problem
        has the Hessian for a matrix, instead of JᵀJ; None for none."""
        bend = None if exact is None or not exact.any() else exact.to(theta.dtype).unsqueeze(1)
        step, everyone = max(1, CHUNK // len(theta)), torch.equal(owner, torch.arange(len(self.sample)))
        sums = None
        for start in range(0, self.sample.n, step):
            pieces = [t[..., start : start + step] for t in self.sample.tensors]
            found = self._chunk(theta, *(pieces if everyone else [t[owner] for t in pieces]), bend)
            sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
        return self._assembled(*sums)

    def _chunk(self, theta, x, y, lse, content, bend: Tensor | None) -> list[Tensor]:
        """Sums over a chunk: cost, gradient and second moments of the predictors."""
        prompts = self.regression.prompts
        keys, values = prompts.predictors(theta, x)
        scores, experts = prompts.experts(keys, values, x)
        gates = torch.softmax(torch.cat([lse.unsqueeze(1), scores], 1), 1)
        g = gates[:, 1:]
        f = gates[:, :1] * content + (g.unsqueeze(2) * experts).sum(1)
        error, excess = f - y, experts - f.unsqueeze(1)  # (R, E, n), (R, L, E, n)
        slopes = prompts.derivatives(keys, values, x)
        m, w = _multipliers(slopes, g, excess, keys.shape[1], values.shape[1])
        weights = [(m[:, c : c + 1] * m[:, c:]).sum(2) for c in range(m.shape[1])]  # (R, C − c, n) each
        crossed = m.unsqueeze(3) * w[:, None, None]  # (R, C, E, O, n)
        if bend is not None:
            _add_bends(weights, crossed, slopes, g, excess, error, w, bend)
        features = torch.cat([x, x.new_ones(len(x), 1, x.shape[-1])], 1)  # (R, D, n)
        monomials = _monomials(features)
        return [
            0.5 * error.square().sum((1, 2)),
            (m * error.unsqueeze(1)).sum(2) @ features.mT,  # (R, C, D)
            w @ error.mT,  # (R, O, E)
            torch.cat(weights, 1) @ monomials.mT,  # (R, C(C+1)/2, D(D+1)/2)
            crossed.flatten(1, 3) @ features.mT,  # (R, C·E·O, D)
            w @ w.mT,  # (R, O, O)
        ]

    def _assembled(self, cost, key_gradient, value_gradient, key_moments, cross_moments, value_moments) -> Normal:
        """The sums, placed and pulled back to theta."""
        count, d = key_gradient.shape[1:]
        others, outputs = value_gradient.shape[1:]
        pair = _pair_index(count)
        keys = key_moments[:, pair[:, None, :, None], self.monomial[None, :, None, :]].flatten(3).flatten(1, 2)
        cross = (
            cross_moments.unflatten(1, (count, outputs, others))
            .permute(0, 1, 4, 3, 2)
            .reshape(len(cost), count * d, others * outputs)
        )
        eye = torch.eye(outputs, dtype=cost.dtype)
        value = torch.einsum("rkl,ef->rkelf", value_moments, eye).flatten(3).flatten(1, 2)
        matrix = torch.cat([torch.cat([keys, cross], 2), torch.cat([cross.mT, value], 2)], 1)
        gradient = torch.cat([key_gradient.flatten(1), value_gradient.flatten(1)], 1)
        pullback = self.pullback
        return Normal(cost, gradient @ pullback, pullback.T @ matrix @ pullback)


def _pair_index(count: int) -> Tensor:
    """Where the pair (i, j), or (j, i), lies in a list of all pairs with i ≤ j: (count, count)."""
    rows, columns = torch.triu_indices(count, count)
    found = torch.empty(count, count, dtype=torch.long)
    found[rows, columns] = found[columns, rows] = torch.arange(len(rows))
    return found


def _monomials(features: Tensor) -> Tensor:
    """Products of all pairs of features (R, D, n): (R, D(D+1)/2, n). Written in place: this is a fifth of all work."""
    batch, d, n = features.shape
    found, start = features.new_empty(batch, d * (d + 1) // 2, n), 0
    for i in range(d):
        torch.mul(features[:, i : i + 1], features[:, i:], out=found[:, start : start + d - i])
        start += d - i
    return found


def _multipliers(slopes: Derivatives, g: Tensor, excess: Tensor, keys: int, values: int) -> tuple[Tensor, Tensor]:
    """m (R, C, E, n) and w (R, O, n)."""
    count, _, outputs, n = excess.shape
    m, w = g.new_zeros(count, keys, outputs, n), g.new_zeros(count, values, n)
    for (c, j), slope in slopes.score.items():
        m[:, c] += (slope * g[:, j]).unsqueeze(1) * excess[:, j]
    for (c, j), slope in slopes.expert.items():
        m[:, c] += slope * g[:, j, None]
    for (k, j), slope in slopes.value.items():
        w[:, k] += slope * g[:, j]
    return m, w


def _add_bends(weights, crossed, slopes: Derivatives, g, excess, error, w, bend) -> None:
    """Add r·∂²f to the weights of key predictors and to those of key and value predictors; ``bend`` (R, 1): 0 or 1."""
    t = (error.unsqueeze(1) * excess).sum(2)  # (R, L, n)
    v = {at: (error * slope).sum(1) for at, slope in slopes.expert.items()}
    keys, error = len(weights), error * bend.unsqueeze(1)
    alpha, delta = g.new_zeros(len(g), keys, g.shape[2]), g.new_zeros(len(g), keys, g.shape[2])
    for (c, j), slope in slopes.score.items():
        alpha[:, c] += g[:, j] * slope
        delta[:, c] += g[:, j] * (t[:, j] * slope + v.get((c, j), 0.0))
    for c in range(keys):
        weights[c] -= bend.unsqueeze(1) * (alpha[:, c : c + 1] * delta[:, c:] + alpha[:, c:] * delta[:, c : c + 1])
    for (c, j), one in slopes.score.items():
        for (d, k), two in slopes.score.items():
            if j == k and c <= d:
                shared = t[:, j] * one * two + one * v.get((d, j), 0.0) + v.get((c, j), 0.0) * two
                weights[c][:, d - c] += bend * g[:, j] * shared
    for (c, d, j), second in slopes.score_bends.items():
        weights[c][:, d - c] += bend * g[:, j] * t[:, j] * second
    for (c, d, j), second in slopes.expert_bends.items():
        weights[c][:, d - c] += g[:, j] * (error * second).sum(1)
    mixed = -alpha.unsqueeze(2) * w.unsqueeze(1)  # (R, C, O, n)
    for (c, j), slope in slopes.score.items():
        for (k, i), value in slopes.value.items():
            if j == i:
                mixed[:, c, k] += g[:, j] * slope * value
    for (c, k, j), second in slopes.mixed_bends.items():
        mixed[:, c, k] += g[:, j] * second
    crossed += mixed.unsqueeze(2) * error[:, None, :, None]
