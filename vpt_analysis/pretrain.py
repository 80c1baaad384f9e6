"""Train the bundled backbone, ``vit-micro``: a small Vision Transformer on TinyImageNet at 32 pixels.

The recipe is an ordinary one (AdamW, cosine with warm-up, label smoothing, random resized crops and flips) with one
economy for machines without a GPU: the first epochs see crops of ``early_size`` pixels, whose shorter sequences cost
about half, and the positions are interpolated (progressive resizing). A run is seeded step by step, so that an
interrupted and resumed run ends in the same bits as an uninterrupted one on the same machine and thread count.
"""

from __future__ import annotations

import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backbones
from .data import ImageSet, normalise, packed
from .progress import progress
from .storage import atomic, digest_file, write_text
from .training import accuracy, learning_rate
from .vit import VisionTransformer, ViTConfig, parameter_count

PIXEL_MEAN, PIXEL_STD = (0.480, 0.448, 0.398), (0.277, 0.269, 0.282)  # TinyImageNet, train split


@dataclass(frozen=True)
class Recipe:
    """How the bundled backbone is trained. Sizes in pixels, lengths in epochs, ``lr`` at its peak."""

    epochs: int = 9
    early_epochs: int = 6
    early_size: int = 24
    batch: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.5
    label_smoothing: float = 0.1
    crop_scale: tuple[float, float] = (0.4, 1.0)
    clip: float = 1.0
    seed: int = 0
    stop: int = 0  # end after so many steps, before the schedule does
    limit: int = 0  # use only the first images of each split; for tests and rehearsals

    def __post_init__(self):
        least = {"epochs": 1, "early_epochs": 0, "early_size": 4, "batch": 1, "limit": 0, "stop": 0, "lr": 0, "clip": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not value >= bound:
                raise ValueError(f"recipe: {name} is {value}; expected at least {bound}")


def micro_config(classes: int) -> ViTConfig:
    return ViTConfig(
        image_size=32, patch_size=4, width=128, depth=8, heads=4, classes=classes,
        pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD,
    )  # fmt: skip


def augment(images: Tensor, size: int, scale: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Random resized crop to ``size`` pixels (area share in ``scale``, aspect 3/4 to 4/3) and horizontal flip.

    ``images``: float (B, C, h, w). One bilinear resampling does all of it.
    """
    b = len(images)
    u = torch.rand(b, 5, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * u[:, 0]
    aspect = torch.exp((2 * u[:, 1] - 1) * math.log(4 / 3))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    flip = torch.where(u[:, 4] < 0.5, -1.0, 1.0)
    theta = torch.zeros(b, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = width * flip, (1 - width) * (2 * u[:, 2] - 1)
    theta[:, 1, 1], theta[:, 1, 2] = height, (1 - height) * (2 * u[:, 3] - 1)
    grid = F.affine_grid(theta, (b, images.shape[1], size, size), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def optimiser(vit: VisionTransformer, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    decayed = [p for n, p in vit.named_parameters() if p.ndim > 1 and n not in ("position", "prefix")]
    rest = [p for n, p in vit.named_parameters() if not (p.ndim > 1 and n not in ("position", "prefix"))]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))


def pretrain(
    data: str | Path,
    out: str | Path,
    recipe: Recipe = Recipe(),
    device: str = "cpu",
    start: str | Path | None = None,
) -> dict:
    """Train, resuming from ``out/checkpoint.pt`` where it lies; write weights, log and model card into ``out``.

    ``data``: a packed npz with splits "train" and "test". ``start``: the ``out`` of an earlier run, whose weights this
    one begins with instead of random ones; its card becomes part of this one's. Returns the model card, also written to
    ``out/card.json``: recipe, accuracy on the test split, minutes, digests of data and weights, log. The weights are
    ``out/vit.safetensors`` (float16); ``out/log.jsonl`` grows by a line an epoch.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asked for, and there is no CUDA here; use 'cpu'")
    out = Path(out)
    train, test = (packed(data, split, limit=recipe.limit) for split in ("train", "test"))
    per_epoch = len(train.labels) // recipe.batch
    if per_epoch == 0:
        raise ValueError(f"{len(train.labels)} training images do not fill one batch of {recipe.batch}")
    vit, start_card = _begin(micro_config(len(train.class_names)), recipe.seed, start)
    vit.to(device)
    test_pixels, test_labels = test.normalised(vit.config).to(device), test.labels.to(device)
    opt = optimiser(vit, recipe)
    identity = _identity(recipe, data, start_card)
    state = _restore(out / "checkpoint.pt", vit, opt, identity)
    total, started = per_epoch * recipe.epochs, time.monotonic() - state["seconds"]
    last = min(recipe.stop or total, total)
    for step in progress(range(state["step"], last), "pretrain", last, done=state["step"]):
        epoch, position = divmod(step, per_epoch)
        x, y = _batch(train, vit.config, recipe, epoch, position, step)
        for group in opt.param_groups:
            group["lr"] = learning_rate(step, total, int(recipe.warmup * per_epoch), recipe.lr)
        loss = F.cross_entropy(vit.classify(x.to(device)), y.to(device), label_smoothing=recipe.label_smoothing)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vit.parameters(), recipe.clip)
        opt.step()
        state["loss"] += loss.item() / per_epoch
        end_of_epoch = position + 1 == per_epoch
        if end_of_epoch:
            top1 = accuracy(vit, None, vit.head, test_pixels, test_labels)
            minutes = round((time.monotonic() - started) / 60, 2)
            state["log"].append({"epoch": epoch + 1, "loss": state["loss"], "top1": top1, "minutes": minutes})
            state["loss"] = 0.0
        if end_of_epoch or step % 200 == 199 or step + 1 == last:
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            _save(out, vit, opt, state, identity)
    backbones.save(vit.half(), out / "vit.safetensors")
    top1 = accuracy(vit.float(), None, vit.head, test_pixels, test_labels)
    card = _card(out / "vit.safetensors", data, vit, recipe, state, top1, device, start_card)
    write_text(out / "card.json", json.dumps(card, indent=1) + "\n")
    return card


def _begin(config: ViTConfig, seed: int, start: str | Path | None) -> tuple[VisionTransformer, dict | None]:
    """A model with random weights, or with those of an earlier run and that run's card."""
    if start is None:
        return VisionTransformer(config, seed=seed), None
    vit = backbones.load_backbone(Path(start) / "vit.safetensors", dtype=torch.float32)
    if vit.config != config:
        raise ValueError(f"{start} holds {vit.config}; expected {config}")
    return vit, json.loads((Path(start) / "card.json").read_text(encoding="utf-8"))


def _batch(
    train: ImageSet, config: ViTConfig, recipe: Recipe, epoch: int, position: int, step: int
) -> tuple[Tensor, Tensor]:
    """Augmented images and labels of one step; a function of the recipe and the step alone."""
    order = torch.randperm(len(train.labels), generator=_seeded(recipe.seed, 1, epoch))
    index = order[position * recipe.batch : (position + 1) * recipe.batch]
    size = recipe.early_size if epoch < recipe.early_epochs else config.image_size
    images = normalise(train.images[index], config)
    return augment(images, size, recipe.crop_scale, _seeded(recipe.seed, 2, step)), train.labels[index]


def _identity(recipe: Recipe, data: str | Path, start: dict | None) -> str:
    """What a checkpoint belongs to; a run resumes only with the same."""
    began = start and start["weights_sha256"]
    return json.dumps({"recipe": asdict(recipe), "data": digest_file(data), "start": began})


def _restore(path: Path, vit: VisionTransformer, opt: torch.optim.Optimizer, identity: str) -> dict:
    """State of an interrupted run, loaded into model and optimiser; or that of a new one."""
    if not path.exists():
        return {"step": 0, "seconds": 0.0, "log": [], "loss": 0.0}
    saved = torch.load(path, weights_only=True, map_location=vit.patch.weight.device)
    if saved["identity"] != identity:
        raise ValueError(f"{path} belongs to a run with another recipe, data or start; choose another folder")
    vit.load_state_dict(saved["vit"])
    opt.load_state_dict(saved["opt"])
    return saved["state"]


def _save(out: Path, vit: VisionTransformer, opt: torch.optim.Optimizer, state: dict, identity: str) -> None:
    everything = {
        "identity": identity,
        "vit": vit.state_dict(),
        "opt": opt.state_dict(),
        "state": state,
    }
    with atomic(out / "checkpoint.pt") as part:
        torch.save(everything, part)
    write_text(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in state["log"]))


def _card(
    weights: Path,
    data: str | Path,
    vit: VisionTransformer,
    recipe: Recipe,
    state: dict,
    top1: float,
    device: str,
    start: dict | None,
) -> dict:
    begun = " --start START" if start else ""
    return {
        "command": f"vpt-analysis pretrain --data {Path(data).name} --out DIR{begun}{_flags(recipe)}",
        "config": vit.config.to_dict(),
        "parameters": parameter_count(vit),
        "top1": top1,
        "recipe": asdict(recipe),
        "minutes": round(state["seconds"] / 60, 1),
        "data": Path(data).name,
        "data_sha256": digest_file(data),
        "weights_sha256": digest_file(weights),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
        "log": state["log"],
        "start": start,
    }


def _flags(recipe: Recipe) -> str:
    """The command's flags for what differs from the standard recipe."""
    changed = {k: v for k, v in asdict(recipe).items() if v != getattr(Recipe(), k)}
    words = {k: " ".join(map(str, v)) if isinstance(v, tuple) else str(v) for k, v in changed.items()}
    return "".join(f" --{k.replace('_', '-')} {v}" for k, v in words.items())


def _seeded(*parts: int) -> torch.Generator:
    """A generator of its own for each purpose and step, so that resuming needs no random state."""
    seed = 0
    for part in parts:
        seed = (seed * 1_000_003 + part + 1) % (2**63)
    return torch.Generator().manual_seed(seed)
