"""The claim that prefixes elicit skills and teach no new ones: C17. Whole sequences right, by method and task.

What the rule leaves open was decided before any result of the full tier was seen:

- A case is a new task on one model: a task that it was not trained on and that no one calls a composition of such.
  Pretrained tasks, which a method has to elicit, and the composition "ascending, then add 1" are reported beside the
  cases of their model and not judged: the claim as printed lets prefixes do both.
- "Prefix" is untied prefix tuning (``prefix``), which holds every static prompt of its length that joins the content by
  one softmax; tied static prompts (``vpt-deep``) and the other arms are reported.
- Supported where the prefix's interval lies below 5 % and LoRA's above 50 %. Its mirror image, refuted: where the
  prefix's interval lies above 5 % and LoRA's above 50 %. Where LoRA's does not lie above 50 %, the task says nothing of
  prefixes.
- What a method has learned is a property of the steps it was given, the same for all; nothing is extrapolated.
"""

from __future__ import annotations

import numpy as np

from ..stats.intervals import Interval, bootstrap
from ..studies.skills import NEW, kind
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, exact, number

LITTLE, LEARNED = 5.0, 50.0  # per cent of whole sequences
COMPOSED = ("ascending-add-1",)
JUDGED = ("prefix", "lora")
RESAMPLES = 10_000


def right(results: Results, model: str, task: str, method: str, what: str = "whole") -> Interval:
    """Per cent of test sequences (or of single answers, "tokens") right, with the interval over seeds."""
    (values,) = results.finite(f"{model}:{task}:{method}/{what}")
    return bootstrap(100 * values, resamples=RESAMPLES)


def judged_tasks(results: Results) -> list[tuple[str, str]]:
    """Model and task of every case."""
    return [(m, t) for m, t, _ in results.config["tasks"] if t in NEW[m] and t not in COMPOSED]


def ruling(prefix: Interval, lora: Interval) -> str:
    """The verdict on one task; of a single seed, whose interval is NaN, always inconclusive."""
    if not lora.low > LEARNED:
        return INCONCLUSIVE
    return SUPPORTED if prefix.high < LITTLE else REFUTED if prefix.low > LITTLE else INCONCLUSIVE


def skills(results: Results) -> list[Case]:
    """C17: every new task on every model; what is elicited stands with the first case of its model."""
    cases, seen = [], set()
    for model, task in judged_tasks(results):
        found = {m: right(results, model, task, m) for m in results.config["methods"]}
        figures = [number(f"{m}, whole sequences (%)", found[m], m in JUDGED) for m in found]
        figures += token_figures(results, model, task)
        if model not in seen:
            figures += beside(results, model)
        seen.add(model)
        verdict = ruling(found["prefix"], found["lora"])
        cases.append(Case(f"{model}, {task}", verdict, tuple(figures), words(found)))
    return cases


def token_figures(results: Results, model: str, task: str) -> list[Figure]:
    """Single answers right, by method and before anything is trained; the rates that were chosen, and whether they are
    the last ones that were tried."""
    (before,) = results.finite(f"{model}:{task}:prefix/before")
    figures = [
        number(f"{m}, single answers (%)", right(results, model, task, m, "tokens"), judged=False)
        for m in results.config["methods"]
    ]
    for method in results.config["methods"]:
        (rate,) = results.finite(f"{model}:{task}:{method}/rate")
        ends = {max(results.config["rates"]): " (largest tried)", min(results.config["rates"]): " (smallest tried)"}
        figures.append(exact(f"{method}, rate chosen{ends.get(float(rate), '')}", rate, judged=False))
    return [*figures, exact("model alone, single answers (%)", 100 * before[1], judged=False)]


def beside(results: Results, model: str) -> list[Figure]:
    """Pretrained skills and compositions of them."""
    found = []
    for task in (task for other, task, _ in results.config["tasks"] if other == model):
        said = "elicited" if kind(model, task) == "elicited" else "composition" if task in COMPOSED else None
        if said:
            found += [
                number(f"{said}: {task} by {m} (%)", right(results, model, task, m), judged=False)
                for m in results.config["methods"]
            ]
    return found


def words(found: dict[str, Interval]) -> str:
    said = ", ".join(f"{method} {interval.estimate:.1f} %" for method, interval in found.items())
    return said + ("" if found["lora"].low > LEARNED else "; LoRA's interval does not lie above 50 %")


def published() -> list[dict]:
    """The papers' numbers that a task or method of ours stands beside, with ours named: ``model``, ``task``,
    ``method``; of model 02 and 03 the trained tasks stand for one of ours each, "add 2" and the lowest."""
    from ..studies.tables import read

    ours = {
        "sort descending": ("toy-sort", "descending"),
        "add 2, a pretrained task": ("toy-mixture", "add-2"),
        "ascending, then add 1": ("toy-mixture", "ascending-add-1"),
        "double histogram": ("toy-mixture", "histogram"),
    }
    methods = {"full fine-tuning": "full", "prefix of 1": "prefix", "prefix of 10": "prefix", "prefix of 12": "prefix"}
    methods["LoRA of rank 1 on the MLP"] = "lora"
    return [
        {"model": ours[row["task"]][0], "task": ours[row["task"]][1], "method": methods[row["method"]],
         "accuracy": float(row["accuracy"]), "printed": f"{row['method']}, {row['task']}"}
        for row in read("petrov_toys")
        if row["task"] in ours and row["method"] in methods and np.isfinite(row["accuracy"])
    ]  # fmt: skip


CLAIMS = (
    Claim(
        id="C17",
        statement="Prefixes elicit skills that a model has and teach it no new ones.",
        source="Petrov, Torr and Bibi, ICLR 2024, arXiv 2310.19698, and the outputs of its notebooks",
        rule="Methods of equal size, trained on tasks that the model was not trained on: share of whole sequences "
        "right. Supported where the interval of the static prefix lies below 5 % and that of LoRA above 50 %; refuted "
        "where that of the prefix lies above 5 % and that of LoRA above 50 %.",
        study="skills",
        cases=skills,
        notes=(
            "Adaptive prompts (vapt), a residual gate on static ones (norga) and full fine-tuning are reported and not "
            "judged. Whether the claim's other half holds, that prefixes elicit pretrained skills, is in the figures "
            "“elicited”.",
        ),
    ),
)
