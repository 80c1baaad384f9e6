"""What the tests of the regression share: small problems, and the model's formula in plain loops."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vpt_analysis.theory import regression
from vpt_analysis.theory.frozen import Frozen, frozen
from vpt_analysis.theory.regression import Regression, Sample

# Family, hidden units and options: every family, every activation, NoRGa's gate with constants that differ from 1.
KINDS = {
    "tied": ("tied", 1, {}),
    "untied": ("untied", 1, {}),
    "norga": ("norga", 1, {}),
    "norga-other": ("norga", 1, {"alpha": 0.7, "tau": 1.6}),
    "linear": ("linear", 2, {}),
    "nonlinear": ("nonlinear", 2, {}),
    "nonlinear-gelu": ("nonlinear", 2, {"activation_name": "gelu"}),
    "nonlinear-relu": ("nonlinear", 2, {"activation_name": "relu"}),
}
NAMES = ("tied", "untied", "norga", "linear", "nonlinear")
SIGMA = {
    "tanh": math.tanh,
    "gelu": lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2))),
    "relu": lambda z: max(z, 0.0),
}


@dataclass(frozen=True)
class Problem:
    truth: Regression
    theta: Tensor
    student: Regression
    data: Sample

    def elsewhere(self, spread: float = 0.3, problems: int | None = None, seed: int = 5) -> Tensor:
        """Parameters (R, p) of the student that are nowhere in particular."""
        draw = torch.Generator().manual_seed(seed)
        count = len(self.data) if problems is None else problems
        return spread * torch.randn(count, self.student.parameters, generator=draw, dtype=torch.float64)


def problem(kind: str, count: int = 2, extra: int = 0, d: int = 3, outputs: int = 2, experts: int = 3, n: int = 40,
            replicates: int = 2, seed: int = 0, noise: float = 0.1, hidden: int | None = None) -> Problem:  # fmt: skip
    name, units, options = KINDS[kind]
    known = frozen(d, outputs, experts, hidden or min(units, d), seed)
    truth = regression.model(name, known, count, **options)
    theta = regression.teacher(truth, seed + 1)
    data = regression.sample(truth, theta, n, replicates, seed + 2, noise)
    return Problem(truth, theta, regression.model(name, known, count + extra, **options), data)


def dot(a, b) -> float:
    return math.fsum(p * q for p, q in zip(a, b, strict=True))


def image(matrix, vector) -> list[float]:
    return [dot(row, vector) for row in matrix]


def pieces(model: Regression, theta: Tensor, x: list[float]) -> tuple[list[float], list[list[float]]]:
    """Scores with log-masses and outputs of all N₀ + L experts at one input, from the definitions; theta (p,)."""
    prompts = model.prompts
    found, known = model.atoms(theta[None]), numbers(model.known)
    scores, outputs = [], []
    for A, a, H in zip(known["quadratic"], known["offset"], known["expert"], strict=True):
        scores.append(dot(x, image(A, x)) + a)
        outputs.append(image(H, x))
    blocks = {k: block[0].tolist() for k, block in found.blocks.items()}
    for atom, mass in enumerate(found.log_mass[0].tolist()):
        own = {k: block[atom] for k, block in blocks.items()}
        if "key" in own:
            score, output = dot(own["key"], x), own["value"]
            if prompts.name == "norga":
                score += prompts.alpha * math.tanh(prompts.tau * score)
        else:
            prompt = own["prompt"] if "prompt" in own else generated(prompts, own, known, x)
            score, output = dot(image(known["key"], prompt), x), image(known["value"], prompt)
        scores.append(score + mass)
        outputs.append(output)
    return scores, outputs


def generated(prompts, own: dict, known: dict, x: list[float]) -> list[float]:
    """U W x or U σ(W x)."""
    inner = image(own["weight"], x)
    if prompts.name == "linear":
        return image(known["out"], inner)
    return image(own["out"], [SIGMA[prompts.activation_name](z) for z in inner])


def numbers(known: Frozen) -> dict:
    return {k: v.tolist() for k, v in vars(known).items()}


def plain_predict(model: Regression, theta: Tensor, x: Tensor) -> Tensor:
    """f at inputs x (d, n): both sums of the formula, term by term; (E, n)."""
    columns = []
    for one in x.T.tolist():
        scores, outputs = pieces(model, theta, one)
        weights = [math.exp(s) for s in scores]
        total = math.fsum(weights)
        columns.append([dot(weights, [o[e] for o in outputs]) / total for e in range(model.known.outputs)])
    return torch.tensor(columns, dtype=torch.float64).T


def permuted(model: Regression, theta: Tensor, order: list[int]) -> Tensor:
    atoms = model.atoms(theta)
    blocks = {k: block[:, order] for k, block in atoms.blocks.items()}
    return model.pack(replace(atoms, log_mass=atoms.log_mass[:, order], blocks=blocks))
