r"""Prompts as unknown experts in a mixture-of-experts regression, the model that theory argues with.

Inputs :math:`X\in\mathbb R^d`, outputs :math:`Y = f(X) + \varepsilon \in \mathbb R^E` with Gaussian noise, and

.. math::
    f(x) = \frac{\sum_{j\le N_0} e^{x^\top A_j x + a_j} H_j x + \sum_{l\le L} e^{s_l(x) + b_l}\, e_l(x)}
                {\sum_{j\le N_0} e^{x^\top A_j x + a_j} + \sum_{l\le L} e^{s_l(x) + b_l}} .

The :math:`N_0` experts with quadratic scores are the pre-trained ones: frozen and known. The L prompt experts are
unknown, up to their family (``families``). The split of attention is used as it stands: all frozen experts together are
one expert with the score :math:`\mathrm{lse}(x)` and the output :math:`c(x)`, which are computed once a sample.

Source: the set-up of Le et al., arXiv 2405.14124 (NoRGa), section 4, also used by arXiv 2410.02200 and 2501.18936. How
large the experts, scores and noise are is our choice (``frozen``, ``teacher``): of order 1, prompts with about half of
the mass.

Samples lie last in memory: x (R, d, n), y (R, E, n) for R independent data sets of n samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .atoms import Atoms
from .families import Family, family
from .frozen import Frozen, normal_draws

INPUTS = ("gaussian", "uniform")


@dataclass(frozen=True)
class Sample:
    """R data sets of n samples: ``x`` (R, d, n), ``y`` (R, E, n), and the frozen experts' ``lse`` (R, n) and output
    ``content`` (R, E, n) at x. Contiguous, float64."""

    x: Tensor
    y: Tensor
    lse: Tensor
    content: Tensor

    @property
    def n(self) -> int:
        return self.x.shape[-1]

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.x, self.y, self.lse, self.content

    def __len__(self) -> int:
        return self.x.shape[0]

    def first(self, n: int) -> Sample:
        """The first n samples of every data set."""
        return Sample(*(t[..., :n].contiguous() for t in self.tensors))

    def of(self, index: Tensor) -> Sample:
        """The data sets that ``index`` (any number) names."""
        return Sample(*(t[index] for t in self.tensors))


@dataclass(frozen=True)
class Regression:
    """A model of the mixture: frozen experts, and prompt experts of a family."""

    prompts: Family

    @property
    def known(self) -> Frozen:
        return self.prompts.known

    @property
    def parameters(self) -> int:
        """p, how many numbers are estimated."""
        return self.prompts.size

    def predict(self, theta: Tensor, x: Tensor) -> Tensor:
        """f(x): (R, E, n) for parameters ``theta`` (R, p) and inputs ``x`` (R or 1, d, n). Differentiable."""
        return self.mix(theta, x, *self.known.content(x))

    def mix(self, theta: Tensor, x: Tensor, lse: Tensor, content: Tensor) -> Tensor:
        """``predict`` where the frozen experts' log-sum-exp (R or 1, n) and output (R or 1, E, n) at x are known."""
        scores, experts = self.prompts.experts(*self.prompts.predictors(theta, x), x)
        gates = torch.softmax(torch.cat([lse.expand(len(scores), -1).unsqueeze(1), scores], 1), 1)
        return gates[:, :1] * content + (gates[:, 1:].unsqueeze(2) * experts).sum(1)

    def pack(self, atoms: Atoms) -> Tensor:
        """Parameters theta (R, p) of atoms (R, L)."""
        return self.prompts.pack(atoms)

    def atoms(self, theta: Tensor) -> Atoms:
        """The mixing measure of parameters theta (R, p)."""
        return self.prompts.unpack(theta)


def model(name: str, known: Frozen, count: int, **options) -> Regression:
    """A regression with ``count`` prompt experts of the family of that name, see ``families.family``."""
    return Regression(family(name, known, count, **options))


def teacher(regression: Regression, seed: int = 0) -> Tensor:
    """True parameters (1, p): well separated atoms whose prompts take about half of the mass.

    Directions of neighbouring atoms are drawn orthogonal where d allows it, so that no two of them are nearly one.
    """
    known, count = regression.known, regression.prompts.count
    normal = normal_draws(seed)
    directions = torch.cat([torch.linalg.qr(normal(known.d, known.d))[0].T for _ in range(-(-count // known.d))])
    strengths = 1.5 + 0.5 * torch.rand(count, generator=normal.keywords["generator"], dtype=torch.float64)
    blocks = regression.prompts.draw(directions[:count] * strengths[:, None], normal)
    # At x = 0 the frozen experts have the mass Σ exp(a); the prompts share as much.
    log_mass = torch.logsumexp(known.offset, 0) - math.log(count) + 0.25 * normal(count)
    return regression.pack(Atoms(log_mass[None], {name: block[None] for name, block in blocks.items()}))


def sample(regression: Regression, theta: Tensor, n: int, replicates: int, seed: int, noise: float = 0.1,
           inputs: str = "gaussian") -> Sample:  # fmt: skip
    """Independent data sets from the model at ``theta`` (1, p): Y = f(X) + ``noise`` · N(0, I).

    ``inputs``: "gaussian", N(0, I), or "uniform" on the box [−√3, √3]^d; both have unit variance. The first replicates
    of a larger draw are those of a smaller one with the same seed.
    """
    if inputs not in INPUTS:
        raise ValueError(f"inputs are {inputs!r}; expected one of {', '.join(INPUTS)}")
    if n < 1 or replicates < 1 or not noise >= 0:
        raise ValueError(
            f"n = {n}, replicates = {replicates}, noise = {noise}; expected n, replicates ≥ 1 and noise ≥ 0"
        )
    known, found = regression.known, []
    for replicate in range(replicates):
        generator = torch.Generator().manual_seed(hash_seed(seed, replicate))
        shape = {"generator": generator, "dtype": torch.float64}
        if inputs == "gaussian":
            x = torch.randn(1, known.d, n, **shape)
        else:
            x = math.sqrt(3) * (2 * torch.rand(1, known.d, n, **shape) - 1)
        lse, content = known.content(x)
        y = regression.mix(theta, x, lse, content) + noise * torch.randn(1, known.outputs, n, **shape)
        found.append((x, y, lse, content))
    return Sample(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def hash_seed(*parts: int) -> int:
    """One seed from several, so that streams of neighbouring seeds share nothing."""
    return int(np.random.SeedSequence([int(p) for p in parts]).generate_state(1, np.uint64)[0] >> 1)


def function_error(
    regression: Regression, theta: Tensor, truth: Regression, true_theta: Tensor, fresh: Sample
) -> Tensor:
    r"""L² distance between predictions and the true regression function, and its Monte-Carlo error: (R, 2).

    :math:`\left(E\|f_\theta(X) - f_*(X)\|^2\right)^{1/2}` over the ``fresh`` inputs, one data set (1, d, m) that
    no fit has seen; the error is one standard deviation of the estimate (delta method).
    """
    x, lse, content = fresh.x, fresh.lse, fresh.content
    target = truth.mix(true_theta, x, lse, content)
    found = []
    for one in theta:
        squared = (regression.mix(one[None], x, lse, content) - target).square().sum(1)[0]
        risk = squared.mean()
        spread = squared.std() / math.sqrt(len(squared))
        found.append(torch.stack([risk.sqrt(), spread / (2 * risk.sqrt()).clamp_min(1e-300)]))
    return torch.stack(found)
