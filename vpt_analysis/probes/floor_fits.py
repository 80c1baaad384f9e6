"""Upper bounds on the floor of any mechanism: its prompt in one layer, fitted to a teacher by gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from .. import prompts
from ..prompts.base import Prompt
from ..vit import VisionTransformer
from .floors import outputs, prompt_group
from .one_layer import OneLayer


@dataclass(frozen=True, eq=False)
class Fit:
    """``shares`` (K,): where each start ended, as shares of the change's energy; ``initial`` (K,): where it began;
    ``prompt``: the best one."""

    shares: np.ndarray
    initial: np.ndarray
    prompt: Prompt

    @property
    def best(self) -> float:
        return float(self.shares.min())


def fit(
    vit: VisionTransformer,
    index: int,
    layer: OneLayer,
    change: Tensor,
    mechanism: str,
    length: int,
    steps: int = 100,
    starts: int = 2,
    seed: int = 0,
    **options,
) -> Fit:
    """Fit a registered mechanism's prompt in block ``index`` of ``vit`` to ``layer.content + change`` (M, H, e).

    L-BFGS on all items at once, from ``starts`` initialisations (seeds ``seed``, ``seed`` + 1, ...), at most ``steps``
    iterations each. An upper bound on the mechanism's floor: optimisation is in it, unlike in ``floors.floor``.
    ``layer`` holds a block of the shape of ``vit``'s, and its tokens. Raises ``ValueError`` for prompts that travel in
    the sequence, and for settings out of range.
    """
    if not 0 <= index < vit.config.depth or steps < 1 or starts < 1 or length < 1:
        raise ValueError(
            f"block {index}, {steps} steps, {starts} starts, length {length}; expected a block from 0 to "
            f"{vit.config.depth - 1}, and at least one step, start and prompt"
        )
    energy, target = float(change.square().sum()), layer.content + change
    found = []
    for k in range(starts):
        prompt = prompts.create(mechanism, vit.config, length, seed=seed + k, **options).double().eval()
        found.append((*_descend(prompt, index, layer, target, energy, steps), prompt))
    best = min(found, key=lambda one: one[0])
    return Fit(np.array([f[0] for f in found]), np.array([f[1] for f in found]), best[2])


def _descend(
    prompt: Prompt, index: int, layer: OneLayer, target: Tensor, energy: float, steps: int
) -> tuple[float, float]:
    """Where the prompt ends, which is left in it, and where it began."""
    parameters = list(prompt.parameters())

    def cost() -> Tensor:
        return (outputs(layer, prompt_group(layer, prompt, index)) - target).square().sum() / energy

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        torch.nn.utils.vector_to_parameters(torch.from_numpy(x), parameters)
        with torch.enable_grad():
            now = cost()
            slopes = torch.autograd.grad(now, parameters, allow_unused=True)  # of other layers there is none
        slopes = [torch.zeros_like(p) if s is None else s for p, s in zip(parameters, slopes, strict=True)]
        return now.item(), torch.cat([s.flatten() for s in slopes]).numpy()

    with torch.no_grad():
        x = torch.cat([p.detach().flatten() for p in parameters]).numpy().copy()
        begun = float(cost())
        solved = minimize(objective, x, jac=True, method="L-BFGS-B", options={"maxiter": steps})
        torch.nn.utils.vector_to_parameters(torch.from_numpy(solved.x), parameters)
        return float(cost()), begun
