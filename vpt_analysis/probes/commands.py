"""The probes that ``vpt-analysis probe`` knows: one adapter and one entry of ``PROBES`` each.

An adapter takes a ``Task`` and, by keyword, the settings that a user may change; it returns a ``Table``. Probes are
imported when they run.
"""

from __future__ import annotations

import numpy as np

from .tables import Probe, Table, Task

OVER_IMAGES = "95 % bootstrap over images"


def tangent(task: Task, *, how: str = "auto", tolerance: float = 1e-6) -> Table:
    from .tangent import tangent_dimension

    found = tangent_dimension(
        task.vit, task.method, task.images, task.labels, how=how, tolerance=tolerance, seed=task.seed
    )
    table = Table(("quantity", "unit"), {"value": ""}, found.inputs, "95 %, of the computation alone: no other images")
    s, rank = found.singular_values, found.rank
    table.add(("parameters", "scalars"), value=found.parameters)
    table.add(("outputs", "rows of J"), value=found.inputs * found.outputs)
    if rank is not None:
        table.add(("rank", "directions"), value=rank.value)
        table.add(("threshold of the rank", "share of the first"), value=rank.threshold / s[0] if s[0] else np.nan)
        table.add(("gap at the threshold", "ratio"), value=rank.gap)
    table.add(("largest singular value", ""), value=s[0])
    table.add(("energy", "sum of squares"), value=found.energy)
    table.add(("participation", "directions"), value=found.participation)
    for i, share in enumerate((1e-2, 1e-4, 1e-6)):
        values = (np.atleast_1d(getattr(found.effective, side))[i] for side in ("estimate", "low", "high"))
        table.rows.append((("effective dimension", f"ridge {share:g} s₁²"), {"value": tuple(map(float, values))}))
    if found.alignment is not None:
        table.add(("kernel alignment", "mean over classes"), value=float(np.mean(found.alignment.estimate)))
    if rank is None:
        table.notes.append("By Lanczos: no rank, only the largest singular values and what traces say.")
    elif found.certified:
        table.notes.append(f"The rank is certified: no other output adds to it ({found.how}).")
    else:
        table.notes.append(
            f"The rank is not certified ({found.how}): no gap at the threshold, so that it moves with the tolerance."
        )
    return table


def usage(task: Task, *, queries: str = "all", dead: float = 0.01) -> Table:
    from .usage import gate_usage

    units = {"mass": "share", "entropy": "nats", "routing": "nats", "effective": "prompts", "dead": "prompts"}
    table = Table(("layer", "head"), units, len(task.images), OVER_IMAGES)
    for layer in gate_usage(task.vit, task.images, task.method, queries, dead=dead, seed=task.seed):
        table.add_array((layer.layer + 1,), **{name: getattr(layer, name) for name in units})
    return table


def spectrum(task: Task, *, queries: str = "all") -> Table:
    from ..moe import PARTS, adaptivity_spectrum
    from ..stats.intervals import Interval

    table = Table(("layer",), dict.fromkeys(PARTS, "share of E‖t‖²"), len(task.images), OVER_IMAGES)
    for layer in adaptivity_spectrum(task.vit, task.images, task.method, queries, seed=task.seed):
        bounds = zip(PARTS, layer.shares, layer.intervals, strict=True)
        table.add((layer.layer + 1,), **{p: Interval(s, low, high, layer.images) for p, s, (low, high) in bounds})
    return table


def mass(task: Task) -> Table:
    from ..prompts.base import TokenPrompt
    from ..stats.intervals import bootstrap
    from .mass import cls_mass, norm_matched

    own = bootstrap(cls_mass(task.vit, task.images, task.method), seed=task.seed, resamples=2000)
    units, columns = {"mass": "share"}, {"mass": own}
    if isinstance(task.method, TokenPrompt):
        units["random"] = "share"
        other = cls_mass(task.vit, task.images, norm_matched(task.method, task.seed))
        columns["random"] = bootstrap(other, seed=task.seed, resamples=2000)
    table = Table(("layer", "head"), units, len(task.images), OVER_IMAGES)
    for layer in range(len(own.estimate)):
        table.add_array((layer + 1,), **{name: at(value, layer) for name, value in columns.items()})
    if "random" in units:
        table.notes.append("random: one draw of tokens of the same norms in random directions.")
    return table


def divergence(task: Task) -> Table:
    from ..stats.intervals import bootstrap
    from .patterns import content_divergence

    found = bootstrap(content_divergence(task.vit, task.images, task.method), seed=task.seed, resamples=2000)
    table = Table(("layer",), {"divergence": "nats"}, len(task.images), OVER_IMAGES)
    table.add_array((), divergence=found)
    return table


def states(task: Task) -> Table:
    from ..stats.intervals import Interval
    from .states import state_variance

    found = state_variance(task.vit, task.images, task.method, seed=task.seed)
    table = Table(("layer",), {"between images": "share"}, len(task.images), OVER_IMAGES)
    for layer, (share, low, high) in enumerate(found):
        table.add((layer + 1,), **{"between images": Interval(share, low, high, len(task.images))})
    if not found.any():
        table.notes.append(f"{task.mechanism} prompts do not travel, so their states are the same for every image.")
    return table


def information(task: Task, *, of: str = "gates", queries: str = "all") -> Table:
    from ..stats.intervals import Interval
    from .information import expert_information

    units = {"prompts": "nats", "p": "", "content": "nats", "p of content": ""}
    table = Table(("layer", "head"), units, len(task.images), "95 % bootstrap over images, centred")
    for layer in expert_information(task.vit, task.images, task.labels, task.method, of, queries, seed=task.seed):
        for head, (a, b) in enumerate(zip(layer.prompt, layer.content, strict=True)):
            own, other = (Interval(i.estimate, i.low, i.high, i.n) for i in (a, b))
            p_values = {"p": a.p_value, "p of content": b.p_value}
            table.add((layer.layer + 1, head + 1), prompts=own, content=other, **p_values)
    table.notes.append(
        "Lower bounds, with chance taken off; p is exact, of independence. No correction for many heads."
    )
    return table


def specialisation(task: Task, *, of: str = "gates", queries: str = "all") -> Table:
    from .information import specialisation as measure

    units = dict.fromkeys(("prompts", "content", "difference"), "share")
    table = Table(("layer", "head"), units, len(task.images), OVER_IMAGES)
    for layer in measure(task.vit, task.images, task.labels, task.method, of, queries, seed=task.seed):
        table.add_array((layer.layer + 1,), prompts=layer.prompt, content=layer.content, difference=layer.difference)
    return table


def overlap(task: Task, *, energy: float = 0.9) -> Table:
    from .overlap import value_overlap

    units = {"overlap": "share", "chance": "share"}
    table = Table(("layer", "prompt"), units, len(task.images), OVER_IMAGES)
    for layer in value_overlap(task.vit, task.images, task.method, energy, seed=task.seed):
        chance = np.full(len(layer.pooled.estimate), layer.chance.mean())
        table.add_array((layer.layer + 1,), overlap=layer.pooled, chance=chance)
    return table


def ablation(task: Task) -> Table:
    from .ablation import ablation as measure

    found = measure(task.vit, task.images, task.method, seed=task.seed)
    table = Table(("layer", "prompt"), {"effect": "‖z − z₀‖ / ‖z₀‖"}, len(task.images), OVER_IMAGES)
    for i, layer in enumerate(found.layers):
        table.add_array((layer + 1,), effect=at(found.mean, i))
    return table


def overlap_effect(task: Task, *, energy: float = 0.9) -> Table:
    from .overlap_effect import overlap_effect as measure

    found = measure(task.vit, task.images, task.method, energy=energy, seed=task.seed)
    table = Table(("layer",), {"correlation": "Spearman"}, len(task.images), OVER_IMAGES)
    for layer, value in zip(found.ablation.layers, (at(found.by_layer, i) for i in range(1000)), strict=False):
        table.add((layer + 1,), correlation=value)
    c = found.correlation
    table.notes.append(
        f"Mean over layers {c.estimate:.3f} [{c.low:.3f}, {c.high:.3f}], p = {found.p_value:.3g} of no relation."
    )
    return table


def memorisation(
    task: Task, *, kind: str = "labels", outputs: int = 16, steps: int = 200, lr: float = 0.05, restarts: int = 2,
    enough: float = 0.95,
) -> Table:  # fmt: skip
    from ..training import Training
    from .memorisation import memorisation as measure

    sizes = [2**k for k in range(1, 31) if 2**k <= len(task.images)]
    if not sizes:
        raise ValueError("1 image; memorisation takes sizes 2, 4, 8, … up to the number of images: give at least 2")
    plan = Training(steps=steps, lr=lr, batch=min(64, sizes[-1]), enough=enough, evaluate_every=max(1, steps // 8))
    found = measure(
        task.vit, task.mechanism, task.length, sizes, plan, kind=kind, outputs=outputs, restarts=restarts,
        images=task.images, options=task.options, seed=task.seed,
    )  # fmt: skip
    table = Table(("images n",), {"best start": "share", "worst start": "share"}, restarts, "none")
    for n, shares in zip(found.sizes, found.shares, strict=True):
        table.add((int(n),), **{"best start": shares.max(), "worst start": shares.min()})
    said = "at least, all sizes were fitted" if found.censored else f"{found.failed} was not"
    table.notes += [
        f"Largest n fitted to {enough:g} by one start: {found.fitted} ({said}), with {found.parameters:,} parameters: "
        f"{found.bits:.1f} bits.",
        "A lower bound of what can be represented: more steps or another rate may fit more.",
    ]
    return table


def wang(task: Task, *, kind: str = "line", width: int = 8, restarts: int = 32, steps: int = 200) -> Table:
    from .wang import pair, wang_pair

    found = wang_pair(
        pair(width, seed=task.seed, kind=kind), (task.mechanism,), (task.length,), restarts, steps, task.seed,
        **task.options,
    )  # fmt: skip
    table = Table(
        ("what", "how"), {"error": "‖ŷ − y‖ / ‖y‖"}, restarts, "none: certificates are bounds, fits are the best"
    )
    table.add(("no prompt", "run"), error=found.plain)
    for name, proof in found.static.items():
        table.add((f"static prompts as {name}, any length", "certified, at least"), error=proof.bound)
    for arm in found.arms:
        table.add((f"{arm.method}, {arm.parameters} parameters", f"best of {restarts} starts"), error=arm.best)
    table.notes.append(
        f"A random layer of width {width}, not the backbone, and a pair of inputs with a common query; targets "
        f"{kind!r}; unless set, LoRA has rank 1 and VAPT a kernel of 1. A fit that stays above the certificate proves "
        f"nothing."
    )
    return table


def reachable(task: Task) -> Table:
    from .first_layer import swapped

    found = swapped(task.vit, task.mechanism, task.images)
    table = Table(("what",), {"error": "‖ŷ − y‖ / ‖y‖"}, 2, "none: bounds are certified")
    table.add(("no prompt",), error=found.plain)
    table.add(("any static prompts, at least",), error=found.bound)
    table.add(("the prompts built",), error=found.error)
    table.notes += [
        f"Verdict: {found.verdict} ({found.reason}).",
        "Layer 1 of the backbone, whose CLS query is that of every image, on the first two images; each shall get the "
        "attention output of the other.",
    ]
    return table


def at(value, index: int):
    """Entry of an interval of arrays."""
    from ..stats.intervals import Interval

    return Interval(value.estimate[index], value.low[index], value.high[index], value.n)


PROBES = {
    "ablation": Probe(ablation, "What does each prompt do to the feature that a classifier reads?"),
    "divergence": Probe(divergence, "How far do prompts change which content a query attends to?"),
    "information": Probe(
        information, "What do gates, or terms, of prompts and content know of the class?", labels=True
    ),
    "mass": Probe(mass, "How much of the CLS token's attention do the prompts take?"),
    "memorisation": Probe(
        memorisation, "How many random labels, or targets, can the prompts be trained to give?", fresh=True
    ),
    "overlap": Probe(overlap, "Do the prompts' values say what the content's values say already?"),
    "overlap-effect": Probe(overlap_effect, "Do prompts that overlap less with the content matter more?"),
    "reachable": Probe(
        reachable, "Can static prompts of any length swap two images' outputs of the first layer?", fresh=True
    ),
    "specialisation": Probe(specialisation, "How class-specific are prompt and content experts?", labels=True),
    "spectrum": Probe(spectrum, "How much of the prompt term is constant, and what makes the rest vary?"),
    "states": Probe(states, "Do prompts that travel through the layers depend on the image?"),
    "tangent": Probe(tangent, "How many independent directions do the parameters have?", baselines=True),
    "usage": Probe(usage, "Which prompts are attended to, how evenly, and does it depend on the query?"),
    "wang": Probe(
        wang, "Can it give two inputs with a common query different outputs?", baselines=True, images=False, fresh=True
    ),
}
