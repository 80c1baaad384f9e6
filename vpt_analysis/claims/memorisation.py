"""The claim that memory grows at most linearly in the length of prompts: C18.

What the rule leaves open was decided before any result of the full tier was seen:

- A case is a backbone, a mechanism and a kind of what is memorised. The curve of a case is the largest fitted n against
  P, its slope that of least squares of log n on log P; its interval is a percentile bootstrap over seeds, which draw
  images, answers, heads and starts together. All lengths share the seeds, so they are drawn together, and the statistic
  is the **mean over seeds of log n**: fitted n are small integers, and medians of three would jump between them.
- Supported where the interval's upper end is at most 1; refuted, as the mirror image, where its lower end is above 1.
- A length where some seed fitted nothing, or fitted the largest size that was tried (censored), has no logarithm, or
  one that is only bounded: it is left out and named. With fewer than 4 lengths left, or lengths that span less than a
  factor of 8, the case is inconclusive.
- Slopes against trained parameters, bits stored a parameter and what twice the steps change are reported beside.
"""

from __future__ import annotations

import numpy as np

from ..stats.intervals import Interval, bootstrap
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, number

RESAMPLES = 10_000
LENGTHS, SPAN = 4, 8  # least number of lengths with a finite n, and least factor between them
NAMES = {"vpt-deep": "VPT-Deep (static)", "prefix": "prefix (static, untied)", "vapt": "VAPT (adaptive)"}


def values(results: Results, key: tuple, name: str) -> np.ndarray:
    """An array of one backbone, mechanism, kind, length and steps, over seeds: (S,)."""
    from ..studies.memorisation import part_name

    names = [f"{part_name(*key, seed)}/{name}" for seed in results.config["seeds"]]
    return np.stack(results.finite(*names))


def curve(results: Results, backbone: str, mechanism: str, kind: str, name: str = "fitted") -> np.ndarray:
    """One number of each length and seed, (P, S)."""
    steps = results.config["steps"][backbone]
    lengths = results.config["lengths"][backbone]
    return np.stack([values(results, (backbone, mechanism, kind, length, steps), name) for length in lengths])


def usable(results: Results, backbone: str, mechanism: str, kind: str) -> np.ndarray:
    """Which lengths have a finite, known n with every seed, (P,)."""
    fitted, failed = (curve(results, backbone, mechanism, kind, name) for name in ("fitted", "failed"))
    return ((fitted > 0) & (failed > 0)).all(1)


def slope(x: np.ndarray, y: np.ndarray) -> Interval:
    """Slope of the mean of log y (P, S) against that of log x (P, S), columns drawn together."""

    def fitted(rows: np.ndarray, axis: int) -> np.ndarray:  # (..., S, 2, P), over seeds
        u, v = np.moveaxis(rows.mean(axis), -2, 0)
        u = u - u.mean(-1, keepdims=True)
        return (u * v).sum(-1) / (u * u).sum(-1)

    pairs = np.stack([np.log(x).T, np.log(y).T], axis=1)  # (S, 2, P)
    return bootstrap(pairs, fitted, RESAMPLES)


def enough(lengths: np.ndarray) -> bool:
    return len(lengths) >= LENGTHS and lengths[-1] >= SPAN * lengths[0]


def judged(found: Interval | None) -> str:
    if found is None or np.isnan(found.low):
        return INCONCLUSIVE
    return SUPPORTED if found.high <= 1 else REFUTED if found.low > 1 else INCONCLUSIVE


def against(results: Results, backbone: str, mechanism: str, kind: str, what: str) -> Interval | None:
    """Slope of the fitted n against "length" or "parameters"; None where too few lengths are usable."""
    lengths = np.array(results.config["lengths"][backbone], dtype=float)
    keep = usable(results, backbone, mechanism, kind)
    if not enough(lengths[keep]):
        return None
    y = curve(results, backbone, mechanism, kind)
    x = np.broadcast_to(lengths[:, None], y.shape)
    if what == "parameters":
        x = curve(results, backbone, mechanism, kind, "parameters")
    return slope(x[keep], y[keep])


def cases(results: Results) -> list[Case]:
    """C18: every backbone, mechanism and kind."""
    config = results.config
    return [
        case(results, backbone, mechanism, kind)
        for backbone in config["lengths"]
        for kind, mechanisms in config["curves"][backbone].items()
        for mechanism in mechanisms
    ]


def case(results: Results, backbone: str, mechanism: str, kind: str) -> Case:
    which = (backbone, mechanism, kind)
    lengths = results.config["lengths"][backbone]
    found = against(results, *which, "length")
    left_out = [p for p, keep in zip(lengths, usable(results, *which), strict=True) if not keep]
    figures: list[Figure] = []
    if found is not None:
        figures.append(number("slope against P", found))
        figures.append(number("slope against parameters", against(results, *which, "parameters"), judged=False))
    fitted, bits, parameters = (curve(results, *which, name) for name in ("fitted", "bits", "parameters"))
    for i, length in enumerate(lengths):
        bounded = " (at least)" if not (curve(results, *which, "failed")[i] > 0).all() else ""
        figures.append(number(f"largest n, P = {length}{bounded}", bootstrap(fitted[i], np.mean, RESAMPLES), False))
    for i in (0, -1):
        per = bootstrap(bits[i] / parameters[i], np.mean, RESAMPLES)
        figures.append(number(f"bits a parameter, P = {lengths[i]}", per, judged=False))
    if kind == "labels" and mechanism in results.config["twice"].get(backbone, ()):
        figures.append(number(f"gain by twice the steps, P = {lengths[-1]}", gain(results, backbone, mechanism), False))
    said = f"left out, nothing or all fitted by some seed: P = {', '.join(map(str, left_out))}" if left_out else ""
    said = said or ("" if found is not None else f"fewer than {LENGTHS} lengths or a span below {SPAN}")
    return Case(f"{backbone}, {NAMES.get(mechanism, mechanism)}, {kind}", judged(found), tuple(figures), said)


def gain(results: Results, backbone: str, mechanism: str) -> Interval:
    """Factor on the largest n at the largest P that twice the steps give: geometric mean over seeds."""
    steps, length = results.config["steps"][backbone], results.config["lengths"][backbone][-1]
    once, twice = (values(results, (backbone, mechanism, "labels", length, s), "fitted") for s in (steps, 2 * steps))
    ratio = np.maximum(twice, 1) / np.maximum(once, 1)
    return bootstrap(ratio, lambda r, axis: np.exp(np.log(r).mean(axis)), RESAMPLES)


CLAIMS = (
    Claim(
        id="C18",
        statement="What prompts can memorise grows at most linearly in their length.",
        source="Meyer et al., arXiv 2509.00421, as we understand it",
        rule="Largest n of random labels (or targets) that a trained prompt fits to at least 99 %, against P: "
        "supported where the interval of the log-log slope ends at or below 1, refuted where it begins above 1. "
        "Lengths where a seed fits nothing, or all that was tried, are left out; 4 lengths over a factor of 8 are "
        "needed.",
        study="memorisation",
        cases=cases,
        notes=(
            "A found n is a lower bound: training from a few starts in a fixed number of steps did not fit more. "
            "Longer prompts that would need more steps make slopes too small, which favours support; what twice the "
            "steps change at the largest P says how much.",
            "A length where a seed fits not even one image has no logarithm and is left out: where those are the "
            "shortest prompts, the curve may begin more steeply than the slope of the rest says.",
        ),
    ),
)
