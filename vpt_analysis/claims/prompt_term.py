"""Claims about what prompts do to attention: C2, C3, C4, C5, C20. Each function applies one rule."""

from __future__ import annotations

import numpy as np

from ..stats import bootstrap, paired
from ..studies.arms import ARMS
from .base import INCONCLUSIVE, Case, Results, agreed, extremes, number, tally

DIVERGENCE = 0.01  # nat, C2
TOLERANCE = 1e-6  # of the first singular value, C3
FEWEST_IMAGES = 100  # C3
CONSTANT = 0.9  # share of the energy, C4
BETWEEN = 0.01  # share of the variance, C5
QUERIES = {"cls": "CLS query", "all": "all queries"}


def content_patterns(results: Results) -> list[Case]:
    """C2: the last layer's divergence, VPT-Deep."""
    cases = []
    for task in results.tasks:
        found = bootstrap(results.over_seeds(task, "vpt-deep", "divergence"))  # (L,)
        low, high = found.low[-1], found.high[-1]
        last = bootstrap(results.over_seeds(task, "vpt-deep", "divergence")[:, -1])
        figures = [number(f"KL in nats, last layer ({len(found.estimate)})", last)]
        figures += extremes("KL in nats", found, np.arange(1, len(found.estimate) + 1), judged=False)
        cases.append(Case(task, agreed(high < DIVERGENCE, low > DIVERGENCE), tuple(figures)))
    return cases


def rank(results: Results) -> list[Case]:
    """C3: the median over heads of the numerical rank, VAPT with P = 5, at every adaptive layer."""
    cases, bound = [], ARMS["vapt-p5"].length
    for task in results.tasks:
        found = bootstrap(median_rank(results, task, "vapt-p5"))
        layers = np.arange(1, len(found.estimate) + 1)
        supports, refutes = found.low > bound, found.high <= bound
        verdict = agreed(supports, refutes) if results.config["images"] >= FEWEST_IMAGES else INCONCLUSIVE
        figures = list(extremes(f"rank, P = {bound}", found, layers))
        for arm in ("vapt", "vapt-released", "vpt-deep"):
            first = 1 if arm == "vapt-released" else 0  # as released, layer 1 keeps static prompts
            other = bootstrap(median_rank(results, task, arm)[:, first:])
            what = f"rank of {arm}, P = {ARMS[arm].length}"
            figures += extremes(what, other, layers[first:], judged=False)
        cases.append(Case(task, verdict, tuple(figures), tally(supports, refutes)))
    return cases


def median_rank(results: Results, task: str, arm: str) -> np.ndarray:
    """Median over heads of the numerical rank: (S, L). ``singular`` is stored relative to the first; NaN where all are
    0, which is rank 0."""
    values = results.over_seeds(task, arm, "singular")  # (S, L, H, e)
    return np.median((values > TOLERANCE).sum(-1), axis=-1)


def constant_bias(results: Results) -> list[Case]:
    """C4: the constant share of the prompt term, VPT-Deep, for CLS and for all queries."""
    cases = []
    for task in results.tasks:
        for queries, label in QUERIES.items():
            found = bootstrap(results.over_seeds(task, "vpt-deep", f"spectrum/{queries}")[..., 0])  # (L,)
            supports, refutes = found.low >= CONSTANT, found.high < CONSTANT
            figures = extremes("constant share", found, np.arange(1, len(found.estimate) + 1))
            cases.append(Case(f"{task}, {label}", agreed(supports, refutes), figures, tally(supports, refutes)))
    return cases


def invariant_states(results: Results) -> list[Case]:
    """C5: the between-image share of the variance of VPT-Shallow's prompts as they enter the layers from the second."""
    cases = []
    for task in results.tasks:
        found = bootstrap(results.over_seeds(task, "vpt-shallow", "states")[:, 1:, 0])  # (L - 1,)
        supports, refutes = found.high < BETWEEN, found.low > BETWEEN
        figures = extremes("between-image share", found, np.arange(2, len(found.estimate) + 2))
        cases.append(Case(task, agreed(supports, refutes), figures, tally(supports, refutes)))
    return cases


def late_attention(results: Results) -> list[Case]:
    """C20: CLS's mass on trained prompts minus that on untrained and on random ones, last third of the layers."""
    cases = []
    for task in results.tasks:
        trained, initial, random = (
            results.over_seeds(task, "vpt-deep", f"mass/{which}").mean(-1) for which in ("trained", "initial", "random")
        )  # (S, L), means over heads
        depth = trained.shape[1]
        late = np.arange(depth - -(-depth // 3), depth)  # a third, rounded up
        gains = [paired(trained[:, late], other[:, late]) for other in (initial, random)]
        supports = np.all([g.low > 0 for g in gains], axis=0)
        refutes = np.any([g.high < 0 for g in gains], axis=0)
        figures = []
        for what, gain in zip(("trained − initial λ", "trained − random λ"), gains, strict=True):
            figures += extremes(what, gain, late + 1)
        figures += extremes("trained λ", bootstrap(trained[:, late]), late + 1, judged=False)
        cases.append(Case(task, agreed(supports, refutes), tuple(figures), tally(supports, refutes)))
    return cases
