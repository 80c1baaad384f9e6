"""Train the two small Transformers of sequences that come with the package, ``toy-sort`` and ``toy-mixture``.

    python -m vpt_analysis.pretrain_sequences toy-sort --out DIR

A model's loss is the mean of the cross-entropies of its tasks on the same fresh sequences: the expectation of what a
model is trained with whose sequences each have one of the tasks, drawn at random, with less noise. It is not told which
task is meant, so for several tasks the least loss is the entropy of their answers (``floor``). Nothing but the
sequences is drawn after the start; the same recipe gives the same bits on one machine and thread count.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import backbones
from .data import sequences
from .errors import unknown
from .probes.sequence_training import measure, scores
from .progress import progress
from .storage import digest_file, write_text
from .training import learning_rate
from .vit import VisionTransformer, ViTConfig, parameter_count

KINDS, SIDE = 8, 3  # symbols, and positions a side of the square that a sequence is laid out in
FIRST = 20  # steps whose losses the card keeps, so that a test can compute them again


@dataclass(frozen=True)
class Recipe:
    """Tasks and sizes of a model and how it is trained: Adam, warm-up and cosine, gradients clipped to norm 1."""

    tasks: tuple[str, ...]
    width: int
    depth: int
    heads: int
    mlp_width: int
    steps: int
    batch: int = 64
    lr: float = 2e-3
    warmup: float = 0.05
    seed: int = 0

    def config(self) -> ViTConfig:
        return ViTConfig(
            image_size=SIDE, patch_size=1, width=self.width, depth=self.depth, heads=self.heads,
            mlp_width=self.mlp_width, channels=KINDS, classes=KINDS, pool="mean", pixel_mean=(0.0,) * KINDS,
            pixel_std=(1.0,) * KINDS,
        )  # fmt: skip


RECIPES = {
    "toy-sort": Recipe(("ascending",), width=96, depth=1, heads=1, mlp_width=192, steps=3_000),
    "toy-mixture": Recipe(sequences.MIXTURE, width=64, depth=3, heads=4, mlp_width=128, steps=4_000),
}


def mixture_loss(vit: VisionTransformer, x: Tensor, tasks: tuple[str, ...]) -> Tensor:
    """Mean cross-entropy of the tasks' answers on sequences x (B, n), in nats."""
    found = scores(vit, None, x).log_softmax(-1)
    return -(target(x, tasks) * found).sum(-1).mean()


def target(x: Tensor, tasks: tuple[str, ...]) -> Tensor:
    """Share of the tasks that answer with each symbol, (B, n, kinds)."""
    each = [F.one_hot(sequences.answers(task, x, KINDS), KINDS).float() for task in tasks]
    return torch.stack(each).mean(0)


def floor(x: Tensor, tasks: tuple[str, ...]) -> float:
    """The least loss on sequences x: the mean entropy of the tasks' answers, in nats."""
    return float(torch.special.entr(target(x, tasks).double()).sum(-1).mean())


def train(recipe: Recipe, stop: int | None = None) -> tuple[VisionTransformer, np.ndarray]:
    """The model after ``stop`` steps of its schedule (None: all), and the loss of each, (steps,)."""
    vit = VisionTransformer(recipe.config(), seed=recipe.seed)
    optimiser = torch.optim.Adam(vit.parameters(), lr=recipe.lr)
    generator = torch.Generator().manual_seed(recipe.seed)
    losses = []
    for step in progress(range(stop or recipe.steps), "pretrain", stop or recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, recipe.steps, int(recipe.warmup * recipe.steps), recipe.lr)
        x = sequences.draw(recipe.batch, SIDE**2, KINDS, generator)
        loss = mixture_loss(vit, x, recipe.tasks)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return vit.eval(), np.array(losses)


def pretrain(name: str, out: str | Path) -> dict:
    """Train a model of ``RECIPES``; write ``NAME.safetensors`` (float32) and its card ``NAME.json`` into ``out``."""
    if name not in RECIPES:
        raise unknown("model of sequences", name, RECIPES)
    recipe, began = RECIPES[name], time.process_time()
    vit, losses = train(recipe)
    weights = Path(out) / f"{name}.safetensors"
    backbones.save(vit, weights)
    card = {
        "command": f"python -m vpt_analysis.pretrain_sequences {name} --out DIR", "recipe": asdict(recipe),
        "config": vit.config.to_dict(), "parameters": parameter_count(vit), "data": "sequences, drawn",
        **measured(vit, recipe.tasks), "first_losses": losses[:FIRST].tolist(),
        "losses": [float(part.mean()) for part in np.array_split(losses, min(100, len(losses)))],
        "core_seconds": round(time.process_time() - began), "weights_sha256": digest_file(weights),
        "torch": torch.__version__, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
    }  # fmt: skip
    write_text(Path(out) / f"{name}.json", json.dumps(card, indent=1) + "\n")
    return card


@torch.no_grad()
def measured(vit: VisionTransformer, tasks: tuple[str, ...], n: int = 10_000, seed: int = 1_000) -> dict:
    """Loss, its floor, and the shares of right answers by task, on ``n`` sequences of a seed of their own."""
    x = sequences.draw(n, SIDE**2, KINDS, torch.Generator().manual_seed(seed))
    loss = np.mean([mixture_loss(vit, part, tasks).item() for part in x.split(n // 10)])
    return {
        "sequences": n, "loss": float(loss), "floor": floor(x, tasks),
        "accuracy": {task: asdict(measure(vit, None, task, x)) for task in tasks},
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m vpt_analysis.pretrain_sequences", description=pretrain.__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", required=True, type=Path, help="folder for weights and card")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # models this small gain nothing by more, and one gives the same bits on every machine
    card = pretrain(args.name, args.out)
    print(f"{args.name}: loss {card['loss']:.4f} nats, floor {card['floor']:.4f}; {card['accuracy']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
