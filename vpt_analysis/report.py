"""``vpt-analysis decompose``: where a prompt's mass goes on somebody's own images, as pictures and a table."""

from __future__ import annotations

import csv
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np

from . import plotting
from .errors import unknown
from .progress import progress

COLUMNS = ("image", "layer", "head", "mass_cls", "mass_patches", "energy_content", "energy_prompt", "energy_inner")
WEIGHTS = Path(__file__).parent / "weights"


def run(images: list[str], backbone: str, prompt: str, length: int, seed: int, out: Path) -> int:
    """Write ``out/<image>.png`` for each image and ``out/table.csv`` for all; print each image's means by layer."""
    from .backbones import load_backbone
    from .data import pictures
    from .decomposition import decompose

    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file; --out names a folder")
    vit = load_backbone(backbone)
    chosen = find_prompt(prompt, vit.config, length, seed).to(vit.patch.weight).eval()
    chosen.check_fits(vit)
    found = pictures(images, size=vit.config.image_size)
    pixels = found.normalised(vit.config)
    rows, stems = [], unique([Path(f).stem for f in found.files])
    for i, stem in enumerate(progress(stems, "decompose")):
        layers = measure(decompose(vit, pixels[i : i + 1], chosen))
        rows += table(stem, layers, vit.config.prefix)
        title = f"{stem} · {chosen.name}, {chosen.length} prompts · {Path(backbone).name}"
        with plotting.style():
            drawn = draw(found.images[i].permute(1, 2, 0).numpy(), layers, vit.config.prefix, title)
        plotting.save(drawn, out / f"{stem}.png")
    write_table(out / "table.csv", rows)
    print(summary(rows))
    print(f"\n{len(stems)} picture{'s' if len(stems) > 1 else ''} and table.csv in {out}")
    return 0


def find_prompt(source: str, config, length: int, seed: int):
    """A prompt from a file, or a fresh one of a mechanism by name."""
    from . import prompts

    if source in prompts.names():
        return prompts.create(source, config, length, seed=seed)
    if Path(source).exists() or Path(source).suffix or Path(source).name != source:
        return prompts.load(source)
    raise unknown("prompt mechanism (and no file of that name)", source, prompts.names())


def unique(names: list[str]) -> list[str]:
    """File names that cannot overwrite each other.

    >>> unique(["cat", "dog", "cat"])
    ['cat-1', 'dog', 'cat-2']
    >>> unique(["cat", "cat", "cat-1"])
    ['cat-2', 'cat-3', 'cat-1']
    """
    counts = Counter(names)
    taken = {name for name, n in counts.items() if n == 1}
    numbered = []
    for name in names:
        if counts[name] > 1:
            name = next(f"{name}-{i}" for i in itertools.count(1) if f"{name}-{i}" not in taken)
            taken.add(name)
        numbered.append(name)
    return numbered


def measure(split) -> list[dict[str, np.ndarray]]:
    """Of one image, each layer's mass (H, N), and energy shares content, prompt, inner (H,), means over queries."""
    terms = ("content", "prompt", "inner")
    return [
        {"mass": layer.mass[0].double().numpy()}
        | {term: getattr(layer.energy, term)[0].double().mean(-1).numpy() for term in terms}
        for layer in split
    ]


def table(name: str, layers: list[dict[str, np.ndarray]], prefix: int) -> list[dict]:
    """One row a layer and head. Layers and heads count from 1, as in the papers; masses and shares are in [0, 1] (the
    inner product's share may be negative, the others then add up to more than 1)."""
    return [
        {
            "image": name,
            "layer": i + 1,
            "head": h + 1,
            "mass_cls": layer["mass"][h, 0],
            "mass_patches": layer["mass"][h, prefix:].mean(),
            "energy_content": layer["content"][h],
            "energy_prompt": layer["prompt"][h],
            "energy_inner": layer["inner"][h],
        }
        for i, layer in enumerate(layers)
        for h in range(len(layer["mass"]))
    ]


def write_table(path: Path, rows: list[dict]) -> None:
    from .storage import atomic

    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def summary(rows: list[dict]) -> str:
    """Means over heads, a line for each image and layer."""
    lines = [f"{'image':<20} layer  mass CLS  mass patches  energy: content  offset   inner"]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["image"], row["layer"]), []).append(row)
    for (image, layer), group in groups.items():
        mass_cls, mass_patches, content, prompt, inner = (
            float(np.mean([row[column] for row in group])) for column in COLUMNS[3:]
        )
        lines.append(
            f"{image[:20]:<20} {layer:>5}  {mass_cls:>8.3f}  {mass_patches:>12.3f}  {content:>15.3f}  {prompt:>6.3f}  "
            f"{inner:>6.3f}"
        )
    return "\n".join(lines)


def draw(picture: np.ndarray, layers: list[dict[str, np.ndarray]], prefix: int, title: str):
    """The picture, the offset share of each layer and head, and the prompt mass over patches at each layer.

    ``picture``: uint8 (h, w, 3).
    """
    depth = len(layers)
    columns = 4 if depth <= 8 else 6
    rows = -(-depth // columns)
    size = plotting.PAGE / columns
    drawn = plotting.figure(plotting.PAGE, 0.3 + size * (rows + 1.15))
    drawn.suptitle(title, fontsize=8)
    top, below = drawn.subfigures(2, 1, height_ratios=[1.15, rows])
    first, heat = top.subplots(1, 2, width_ratios=[1, columns - 1])
    first.imshow(picture)
    plotting.bare(first, "image")
    shares = np.stack([layer["prompt"] for layer in layers], axis=1)  # (H, L)
    draw_shares(heat, shares, top, "energy share of the offset term")
    maps = np.stack([layer["mass"][:, prefix:].mean(0) for layer in layers])  # (L, patches), mean over heads
    side = round(maps.shape[1] ** 0.5)
    axes = np.atleast_1d(below.subplots(rows, columns)).ravel()
    for ax in axes[depth:]:
        ax.set_visible(False)
    for layer, ax in enumerate(axes[:depth]):
        mass = maps[layer].reshape(side, -1)
        artist = plotting.overlay(ax, picture, mass, 0, maps.max(), f"layer {layer + 1}")
    below.colorbar(artist, ax=list(axes), label="prompt mass λ of the patch, mean over heads", fraction=0.03, pad=0.01)
    return drawn


def draw_shares(ax, shares: np.ndarray, holder, title: str) -> None:
    """A heat map of (H, L) shares, layers and heads counted from 1."""
    heads, depth = shares.shape
    artist = ax.imshow(shares, vmin=0, vmax=float(shares.max()), aspect="auto", cmap=plotting.MASS)
    ax.set(xticks=range(depth), yticks=range(heads), xlabel="layer", ylabel="head", title=title)
    ax.set_xticklabels(range(1, depth + 1))
    ax.set_yticklabels(range(1, heads + 1))
    ax.grid(False)
    holder.colorbar(artist, ax=ax, label="share of ‖y‖²", fraction=0.05, pad=0.02)


def bundled_table(folder: Path = WEIGHTS) -> str:
    """The bundled backbones: name, parameters, file size, accuracy and digest, from the cards beside the weights."""
    from .storage import digest_file

    lines = [f"{'name':<14}{'parameters':>12}{'size':>10}{'top-1':>8}  sha256        trained on"]
    for path in sorted(folder.glob("*.safetensors")):
        card = path.with_suffix(".json")
        facts = json.loads(card.read_text(encoding="utf-8")) if card.exists() else {}
        parameters = facts.get("parameters")
        top1 = facts.get("top1")
        lines.append(
            f"{path.stem:<14}{'?' if parameters is None else f'{parameters:,}':>12}"
            f"{path.stat().st_size / 2**20:>6.1f} MiB{'?' if top1 is None else f'{top1:.3f}':>8}  "
            f"{digest_file(path)[:12]}  {facts.get('data', '?')}"
        )
    if len(lines) == 1:
        raise FileNotFoundError(f"no weights in {folder}; install the package again")
    return "\n".join(lines)
