r"""How fast is one prompt expert learned beside a frozen one? Maximum likelihood in two set-ups, against n.

In the softmax-contaminated mixture (``theory.contaminated``) with d = 8 and τ* = 1:

- ``distinguishable``: f₀ is a Laplace density, the prompt a Gaussian with another direction, η* = e₂;
- ``near``: f₀ is Gaussian too, and the prompt comes nearer with n,
  :math:`\eta^* = e_1 + c \sqrt{\nu_0}\, n^{-1/8} e_2`, :math:`\nu^* = \nu_0 (1 + c\, n^{-1/8})`, c = 3.

From the published simulations we have, as we understand them, d, X, the expert, η₀ = e₁, ν₀ = 0.001, τ*, n and the
number of replicates; β* = (1, …, 1)/√d in one place, /d in another. Ours are the rest: η*, ν* and c, that Laplace noise
has the variance ν₀, sizes equally spaced in log n, Newton's method. c counts the distance in units of the noise, so
that the two experts overlap. It was chosen by the expected information (with 1 the estimates at n = 1e3 would be off
by more than the parameters, with 10 the experts lie apart and slopes are nearly those of the other set-up) and by pilot
fits of other samples: at n = 1e3 a third of them ran off with 2, a seventh with 3.

Arrays of a part ``<set-up>:<n>``, R replicates: ``beta``, ``tau``, ``eta``, ``nu`` (R,), distances of the estimates
from the truth; ``converged``, ``iterations``, ``gradient``, ``curvature``, ``step`` (R,), the certificate of
``theory.likelihood``; ``restart`` (R,), log-likelihood from the truth as another start less that reported, nats;
``predicted`` (4,), medians of the four distances under the normal limit law with the expected information. Parts
``information:<gate>``: the latter alone, ``predicted`` (N, 4), for the set-up ``near`` at sizes that nobody has, with
β* as above (``varying``) and 0 (``constant``).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from . import tables

QUANTITIES = ("beta", "tau", "eta", "nu")
PAPER, OTHERS = "2505.18455", "2405.13997"
BLOCK = 10  # replicates at a time, so that their data are few
START = 0.1  # displacement of the start; of η, in standard deviations of the noise


def config(tier: str) -> dict:
    common = {
        "setups": ["distinguishable", "near"], "d": 8, "nu0": 0.001, "tau": 1.0, "c": 3.0, "draws": 100_000,
        "published": published(PAPER), "others": published(OTHERS),
    }  # fmt: skip
    if tier == "quick":
        return common | {"sizes": spaced(2e3, 1e4, 4), "seeds": list(range(20)), "decades": list(range(3, 17, 2))}
    return common | {"sizes": spaced(1e3, 1e5, 20), "seeds": list(range(40)), "decades": list(range(3, 17))}


def spaced(low: float, high: float, count: int) -> list[int]:
    """
    >>> spaced(10, 1000, 3)
    [10, 100, 1000]
    """
    return [round(n) for n in np.geomspace(low, high, count)]


def published(arxiv: str) -> list[dict]:
    """Printed slopes of one paper: ``experiment``, ``quantity``, ``slope``, ``theory`` (None where none is noted)."""
    rows = [row for row in tables.read("slopes") if row["arxiv"] == arxiv]
    words = [{name: row[name] for name in ("experiment", "quantity")} for row in rows]
    numbers = [{name: None if math.isnan(row[name]) else row[name] for name in ("slope", "theory")} for row in rows]
    return [w | n for w, n in zip(words, numbers, strict=True)]


def inputs(config: dict) -> dict[str, Path]:
    """None: printed slopes come in through the config, and no fit depends on them."""
    return {}


def parts(config: dict) -> list[dict]:
    """The largest first, so that what runs beside it ends at about the same time."""
    shared = {name: config[name] for name in ("d", "nu0", "tau", "c", "draws")}
    fits = [
        {"name": f"{setup}:{n}", "setup": setup, "gate": "varying", "n": n, "seeds": config["seeds"], **shared}
        for n in sorted(config["sizes"], reverse=True)
        for setup in config["setups"]
    ]
    gates = [{"name": f"information:{gate}", "gate": gate} for gate in ("varying", "constant")]
    return fits + [gate | {"setup": "near", "decades": config["decades"], **shared} for gate in gates]


def compute(part: dict) -> dict[str, np.ndarray]:
    if "decades" in part:
        sizes = [10.0**k for k in part["decades"]]
        return {"predicted": np.stack([predicted(*model(part, n), n, part["draws"]) for n in sizes])}
    truth, frozen = model(part, part["n"])
    blocks = [part["seeds"][i : i + BLOCK] for i in range(0, len(part["seeds"]), BLOCK)]
    fits = [fitted(truth, frozen, part["n"], seeds) for seeds in blocks]
    found = {name: np.concatenate([fit[name] for fit in fits]) for name in fits[0]}
    return found | {"predicted": predicted(truth, frozen, part["n"], part["draws"])}


def model(part: dict, n: float):
    """The truth and the frozen expert of a part at n points. Raises ``ValueError`` for an unknown set-up or gate."""
    import torch

    from ..errors import unknown
    from ..theory.contaminated import Frozen, Prompt

    gates = {"varying": 1 / math.sqrt(part["d"]), "constant": 0.0}
    if part["gate"] not in gates:
        raise unknown("gate", part["gate"], gates)
    axes, nu, distance = torch.eye(part["d"], dtype=torch.float64), part["nu0"], part["c"] * n**-0.125
    if part["setup"] == "distinguishable":
        frozen, eta = Frozen("laplace", axes[0], nu), axes[1]
    elif part["setup"] == "near":
        frozen, eta = Frozen("gaussian", axes[0], nu), axes[0] + distance * math.sqrt(nu) * axes[1]
        nu = nu * (1 + distance)
    else:
        raise unknown("set-up", part["setup"], ("distinguishable", "near"))
    tau, log_nu = (torch.tensor(value, dtype=torch.float64) for value in (part["tau"], math.log(nu)))
    return Prompt(torch.full_like(eta, gates[part["gate"]]), tau, eta, log_nu), frozen


def fitted(truth, frozen, n: int, seeds: list[int]) -> dict[str, np.ndarray]:
    """Errors and certificates of the replicates ``seeds``, started near the truth, and once more from the truth."""
    from ..theory import likelihood
    from ..theory.contaminated import Prompt, sample

    x, y = sample(truth, frozen, n, [[seed, n] for seed in seeds])
    fit = likelihood.fit(near(truth, frozen, seeds), frozen, x, y)
    again = likelihood.fit(Prompt.of(truth.vector.repeat(len(seeds), 1)), frozen, x, y)
    found = fit.prompt.errors(truth) | {"converged": fit.converged, "iterations": fit.iterations}
    found |= {name: getattr(fit.certificate, name) for name in ("gradient", "curvature", "step")}
    found["restart"] = again.log_likelihood - fit.log_likelihood
    return {name: value.numpy() for name, value in found.items()}


def near(truth, frozen, seeds: list[int]):
    """A start for each seed: the truth, every parameter displaced by a normal number of standard deviation ``START``,
    in η times the frozen expert's standard deviation."""
    import torch

    from ..theory.contaminated import Prompt

    units = torch.ones_like(truth.vector)
    units[len(truth.beta) + 1 : -1] = math.sqrt(frozen.variance)
    moved = [np.random.default_rng([seed, 1]).standard_normal(len(units)) for seed in seeds]
    return Prompt.of(truth.vector + START * units * torch.from_numpy(np.stack(moved)))


def predicted(truth, frozen, n: float, draws: int) -> np.ndarray:
    """Medians of the errors (4,) where the estimate is normal about the truth with covariance (n I)⁻¹. All n share
    their draws, so that chance hardly enters slopes."""
    import torch

    from ..theory import likelihood

    information = likelihood.information(truth, frozen, draws, seed=0)
    root = torch.linalg.cholesky(torch.linalg.inv(n * information))
    moved = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, len(root)))) @ root.T
    d = len(truth.beta)
    errors = [moved[:, :d].norm(dim=1), moved[:, d].abs(), moved[:, d + 1 : -1].norm(dim=1)]
    errors.append(moved[:, -1].abs() * truth.log_nu.exp())
    return np.array([error.median().item() for error in errors])
