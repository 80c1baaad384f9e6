"""The claim that one layer cannot memorise two inputs with a common query by prompts of any length: C16.

What the rule leaves open was decided before any result of the full tier was seen:

- Errors are relative, ‖ŷ − y‖/‖y‖ of the block's outputs at the common token, both inputs together. A number over pairs
  is a mean, with the percentile bootstrap over pairs.
- "Static stays > 0.05" takes two intervals: that of the certified distance, which holds for any length, and that of the
  best static error found, over all static methods fitted, all lengths up to 200, prompts made to order and no prompt.
- Judged are the layers of the study's ``judged`` settings, each a case: what we take for the construction's layer, and
  one behind a LayerNorm. Their targets are those that a change of rank 1 can make, since otherwise LoRA of rank 1 says
  nothing of memorising. Other targets and two heads are reported beside.
- LoRA is that on W_Q and W_V, the usual one; on W_V alone it is reported.
- Errors below 1e-6 are fits and count as 0.
- Refuted where static prompts get there: their best error's interval lies below 0.01.
"""

from __future__ import annotations

import numpy as np

from ..stats.intervals import Interval, bootstrap
from ..studies.reachable import BASELINES, SHIFTS, STATIC
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, exact, number

RESAMPLES = 10_000
STAYS, FITS = 0.05, 0.01
FITTED = 1e-6  # errors below are rounding, as in ``probes.wang_fits``
LAYERS = {"mlp": "no LayerNorm, MLP", "norm": "LayerNorm", "heads": "LayerNorm, 2 heads"}
TARGETS = {"line": "line targets", "free": "free targets", "swap": "swapped targets"}
NAMES = {"prefix": "prefix", "vpt-deep": "VPT-Deep", "norga": "NoRGa", "vapt": "VAPT", "lora": "LoRA",
         "lora-v": "LoRA of W_V"}  # fmt: skip


def mean(values: np.ndarray) -> Interval:
    """Mean over pairs (K,)."""
    return bootstrap(values, np.mean, RESAMPLES)


def errors(results: Results, setting: str, method: str) -> np.ndarray:
    """Best error by length and pair, (S, K); 0 where the pair is fitted."""
    found = results.finite(f"{setting}:{method}/errors")[0]
    return np.where(found < FITTED, 0.0, found)


def best_static(results: Results, setting: str) -> np.ndarray:
    """The smallest error that static prompts were found to have, by pair: fitted, made to order, or none; (K,)."""
    fitted = [errors(results, setting, m) for m in STATIC if f"{setting}:{m}/errors" in results.arrays]
    others = results.finite(*(f"{setting}:certificate/{name}" for name in ("plain", "built")))
    return np.concatenate([*fitted, others]).min(0)


def memorised(results: Results) -> list[Case]:
    """C16: a case a judged setting; settings with the same layer, and others, beside."""
    return [_case(results, layer, target) for layer, target in results.config["judged"]]


def _case(results: Results, layer: str, target: str) -> Case:
    setting = f"{layer}:{target}"
    bound, proved = results.finite(*(f"{setting}:certificate/{name}" for name in ("bound", "proved")))
    floor, static, lora = (mean(v) for v in (bound, best_static(results, setting), errors(results, setting, "lora")[0]))
    verdict = INCONCLUSIVE
    if static.high < FITS:
        verdict = REFUTED
    elif floor.low > STAYS and static.low > STAYS and lora.high < FITS:
        verdict = SUPPORTED
    figures = [
        number("static, any length: certified", floor),
        number("static: best found", static),
        number("LoRA, rank 1", lora),
        *_beside(results, layer, target),
    ]
    words = f"{int(proved.sum())} of {len(proved)} pairs certified out of reach"
    return Case(LAYERS[layer], verdict, tuple(figures), words)


def _beside(results: Results, layer: str, target: str) -> list[Figure]:
    """What is reported: no prompt, every method at its lengths, other shifts, other targets."""
    setting, lengths = f"{layer}:{target}", results.config["lengths"]
    found = [number("no prompt", mean(results.finite(f"{setting}:certificate/plain")[0]), judged=False)]
    for method in (m for m in results.config["methods"] if m not in BASELINES):
        curve = errors(results, setting, method)
        shown = {0: lengths[0], len(lengths) - 1: lengths[-1]}
        found += [number(f"{NAMES[method]}, P = {n}", mean(curve[i]), judged=False) for i, n in shown.items()]
    vapt = errors(results, setting, "vapt").min(0)
    found.append(exact("VAPT: share of pairs below 0.01 (%)", 100 * np.mean(vapt < FITS), judged=False))
    found.append(number("LoRA of W_V alone", mean(errors(results, setting, "lora-v")[0]), judged=False))
    bounds = results.finite(f"{setting}:certificate/shift_bounds")[0]
    found += [
        number(f"certified at shift {shift:g}", mean(bounds[:, i]), judged=False) for i, shift in enumerate(SHIFTS)
    ]
    for other, targets in results.config["beside"]:
        mine = other == layer or (other == "heads" and layer == "norm")
        if mine:
            found += _other(results, other, targets, TARGETS[targets] if other == layer else "two heads")
    return found


def _other(results: Results, layer: str, target: str, words: str) -> list[Figure]:
    setting = f"{layer}:{target}"
    bound = results.finite(f"{setting}:certificate/bound")[0]
    return [
        number(f"{words}: certified", mean(bound), judged=False),
        number(f"{words}: static, best found", mean(best_static(results, setting)), judged=False),
        number(f"{words}: VAPT, best", mean(errors(results, setting, "vapt").min(0)), judged=False),
        number(f"{words}: LoRA, rank 1", mean(errors(results, setting, "lora")[0]), judged=False),
    ]


CLAIMS = (
    Claim(
        id="C16",
        statement="One layer: two inputs with a common query token cannot be memorised by prompts of any length.",
        source="Wang et al., arXiv 2305.18787, second-hand",
        rule="Relative errors of static prompts, of any length by certificate and fitted up to P = 200, and of LoRA of "
        "rank 1, means over pairs. Supported where the static ones stay above 0.05 (both intervals) and LoRA is below "
        "0.01; refuted where static prompts get below 0.01. Adaptive prompts are reported.",
        study="reachable",
        cases=memorised,
        notes=(
            "Adaptive prompts (VAPT) make another prompt of each input's own patch, and are not held by the "
            "certificate. NoRGa's gate is a function of the score, which a common query has in common, so it is.",
            "Behind a LayerNorm a tied prompt cannot be switched off: its score is bounded, so that P of them have a "
            "mass that grows with P, and more prompts may do worse.",
        ),
    ),
)
