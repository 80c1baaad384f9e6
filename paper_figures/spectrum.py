"""How input-dependent is the prompt term? The adaptivity spectrum by layer, and what it says about C4 and C5.

C4, "VPT adds a constant bias": supported where the constant share of the energy has a 95 % interval ≥ 0.9, refuted
where it lies below. C5, "VPT prompts are input-invariant": a theorem for VPT-Deep; for VPT-Shallow refuted at layers
≥ 2 where the between-image share of the variance of prompt states has an interval above 0.01.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vpt_analysis.studies import tasks

TITLE = "Adaptivity spectrum of VPT-Shallow and VPT-Deep by layer"
MECHANISMS = {"vpt-shallow": "VPT-Shallow", "vpt-deep": "VPT-Deep"}
QUERIES = {"cls": "CLS query", "all": "all queries"}
PARTS = ("constant", "gate", "expert", "remainder")
RESAMPLES = 2000


def config(tier: str) -> dict:
    common = {"backbone": "vit-micro", "length": 10, "lr": 0.05}
    if tier == "quick":
        return common | {
            "data": ["digits"], "seeds": [0], "steps": 100, "batch": 32, "train_images": 1200, "images": 128,
        }  # fmt: skip
    return common | {
        "data": ["cifar100", "caltech101"], "seeds": [0, 1, 2], "steps": 200, "batch": 32, "train_images": 3000,
        "images": 404,
    }  # fmt: skip


def inputs(config: dict) -> dict[str, Path]:
    return {"weights": tasks.weights(config["backbone"])} | tasks.files(config["data"])


def parts(config: dict) -> list[dict]:
    shared = {k: v for k, v in config.items() if k not in ("data", "seeds")}
    return [
        {"name": f"{data}-{mechanism}-{seed}", "data": data, "mechanism": mechanism, "seed": seed, **shared}
        for data in config["data"]
        for mechanism in MECHANISMS
        for seed in config["seeds"]
    ]


def compute(part: dict) -> dict[str, np.ndarray]:
    """Shares (L, 4) and intervals (L, 4, 2) for each kind of query, and the variance share of prompt states (L, 3)."""
    from vpt_analysis import load_backbone, moe
    from vpt_analysis.probes import states

    vit = load_backbone(part["backbone"])
    prompt, test, top1 = tasks.trained(vit, part)
    images = test.normalised(vit.config)
    found = {"top1": np.array(top1), "states": states.state_variance(vit, images, prompt, RESAMPLES)}
    for queries in QUERIES:
        spectra = moe.adaptivity_spectrum(vit, images, prompt, queries=queries, resamples=RESAMPLES)
        found[f"{queries}/shares"] = np.stack([s.shares for s in spectra])
        found[f"{queries}/intervals"] = np.stack([s.intervals for s in spectra])
    return found


def draw_panel(ax, shares: np.ndarray, intervals: np.ndarray) -> None:
    """Shares (L, 4) with intervals (L, 4, 2); each series a little beside the next, so that bars do not hide bars."""
    from vpt_analysis import plotting

    layer = np.arange(1, len(shares) + 1)
    for i, name in enumerate(PARTS):
        plotting.interval(ax, layer + 0.12 * (i - 1.5), shares[:, i], *intervals[:, i].T, series=i, label=name)
    ax.axhline(0.9, color=plotting.QUIET, linewidth=0.7, linestyle=(0, (2, 2)))
    ax.set_xticks(layer)


def draw(arrays: dict[str, np.ndarray], config: dict):
    from vpt_analysis import plotting

    columns = [(data, queries) for data in config["data"] for queries in QUERIES]
    width = plotting.PAGE if len(columns) > 2 else 5.2
    figure = plotting.figure(width, 4.2)
    axes = figure.subplots(2, len(columns), sharex=True, sharey=True, squeeze=False)
    for row, (mechanism, label) in zip(axes, MECHANISMS.items(), strict=True):
        for ax, (data, queries) in zip(row, columns, strict=True):
            draw_panel(ax, *pooled(arrays, config, data, mechanism, queries))
            ax.set_title(f"{label}\n{data}, {QUERIES[queries]}")
    for ax in axes[-1]:
        ax.set_xlabel("layer")
    figure.supylabel("share of the prompt term's energy E‖t‖²", fontsize=7.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def pooled(arrays: dict, config: dict, data: str, mechanism: str, queries: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean share over seeds (L, 4), and the smallest interval that holds the interval of every seed (L, 4, 2)."""
    names = [f"{data}-{mechanism}-{seed}/{queries}" for seed in config["seeds"]]
    shares = np.stack([arrays[f"{name}/shares"] for name in names])
    intervals = np.stack([arrays[f"{name}/intervals"] for name in names])
    return shares.mean(0), np.stack([intervals[..., 0].min(0), intervals[..., 1].max(0)], axis=-1)


def caption(arrays: dict[str, np.ndarray], config: dict) -> str:
    seeds = len(config["seeds"])
    what = (
        f"The prompt term t = Σ g′ⱼ v′ⱼ of a frozen {config['backbone']}, split into a constant, a part through the "
        f"gates alone, a part through the experts alone, and the remainder; shares of E‖t‖², heads taken together. "
        f"Prompts (P = {config['length']}) were trained with a linear head for {config['steps']} steps of "
        f"{config['batch']} images (learning rate {config['lr']}) on {config['train_images']} images. "
        f"n = {config['images']} test images a data set, {seeds} seed{'s' if seeds > 1 else ''}; bars are 95 % "
        f"bootstrap intervals over images"
        f"{', widened to hold those of all seeds' if seeds > 1 else ''}. Dashed: 0.9, the bound of C4. "
        f"Test accuracy: {'; '.join(accuracies(arrays, config, data) for data in config['data'])}."
    )
    return "\n\n".join([what, *(verdicts(arrays, config, data) for data in config["data"])])


def accuracies(arrays: dict[str, np.ndarray], config: dict, data: str) -> str:
    words = []
    for mechanism, label in MECHANISMS.items():
        top1 = [float(arrays[f"{data}-{mechanism}-{seed}/top1"]) for seed in config["seeds"]]
        words.append(f"{label} {np.mean(top1):.3f}")
    return f"{data} {', '.join(words)}"


def verdicts(arrays: dict[str, np.ndarray], config: dict, data: str) -> str:
    """C4 and C5 by their rules, in the scope of one data set."""
    lines = []
    for queries, label in QUERIES.items():
        shares, intervals = pooled(arrays, config, data, "vpt-deep", queries)
        constant, low, high = shares[:, 0], intervals[:, 0, 0], intervals[:, 0, 1]
        lines.append(
            f"{label}: {judge(low >= 0.9, high < 0.9)} (constant share {constant.min():.2f} to {constant.max():.2f}; "
            f"interval ≥ 0.9 in {int((low >= 0.9).sum())} and < 0.9 in {int((high < 0.9).sum())} of {len(low)} layers)"
        )
    states = np.stack([arrays[f"{data}-vpt-shallow-{seed}/states"] for seed in config["seeds"]])[:, 1:]
    share, low = states[..., 0].mean(0), states[..., 1].min(0)
    return (
        f"Verdicts on {data}. C4, “VPT adds a constant bias” (VPT-Deep, P = {config['length']}): {'; '.join(lines)}. "
        f"C5, “prompts do not depend on the input”: true of VPT-Deep by construction; VPT-Shallow, layers 2 to "
        f"{len(low) + 1}: {judge(np.zeros(len(low), bool), low > 0.01)} (between-image share of the variance of prompt "
        f"states {share.min():.3f} to {share.max():.3f}, lowest interval bound {low.min():.3f}, rule > 0.01)."
    )


def judge(supported: np.ndarray, refuted: np.ndarray) -> str:
    """One word for all layers together: a verdict needs every layer.

    >>> judge(np.array([True, True]), np.array([False, False])), judge(np.array([True, False]), np.array([False, True]))
    ('supported', 'inconclusive')
    """
    return "supported" if supported.all() else "refuted" if refuted.all() else "inconclusive"
