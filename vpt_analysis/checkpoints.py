"""Checkpoints of training runs: written whole or not at all, and read by no other run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .members import Member
from .storage import atomic, digest_arrays
from .vit import VisionTransformer

if TYPE_CHECKING:
    from .training import Training


def describe(vit: VisionTransformer, members: Sequence[Member], trainings: Sequence[Training], classes: int) -> dict:
    """What a checkpoint belongs to, part by part, each as text; runs resume only from a file of the same."""
    digests: dict[tuple, str] = {}

    def digest(pair: tuple[Tensor, Tensor] | None) -> str | None:
        if pair is None:
            return None
        key = tuple(map(id, pair))
        if key not in digests:  # shared data are read once
            digests[key] = digest_arrays(dict(zip(("images", "labels"), pair, strict=True)))
        return digests[key]

    methods = [m.method for m in members]
    parts = {
        "training": [asdict(t) for t in trainings],
        "method": [
            {"name": m.name, "options": m.options, "shapes": {n: tuple(p.shape) for n, p in m.state_dict().items()}}
            for m in methods
        ],
        "length": [getattr(m, "length", None) for m in methods],
        "start of the method": [digest_arrays(m.state_dict()) for m in methods],
        "number of classes": classes,
        "head": [{"trained": m.trains_head, "start": digest_arrays(m.head.state_dict())} for m in members],
        "set of images and labels": [digest((m.images, m.labels)) for m in members],
        "set of validation images and labels": [digest(m.validation) for m in members],
        "device or version of torch": [vit.patch.weight.device.type, torch.__version__],
        "backbone": {"config": vit.config.to_dict(), "weights": digest_arrays(vit.state_dict())},
    }
    return {part: json.dumps(value, sort_keys=True, default=str) for part, value in parts.items()}


@dataclass(frozen=True)
class Checkpoint:
    """The file that a run, or a bank of runs, resumes from: where, every how many steps, and whose (``describe``)."""

    path: Path
    every: int
    identity: dict[str, str]

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"checkpoint_every is {self.every}; expected at least 1 step")

    def due(self, done: int) -> bool:
        return done % self.every == 0

    def save(self, done: int, members: Sequence[Member], optimiser: torch.optim.Optimizer, losses: Tensor) -> None:
        """Write the state after ``done`` steps: all that changes as a run goes on, the global random state included."""
        cuda = losses.device.type == "cuda"
        state = {
            "identity": self.identity,
            "done": done,
            "members": [m.state_dict() for m in members],
            "optimiser": optimiser.state_dict(),
            "losses": losses,
            "random": [torch.get_rng_state(), *([torch.cuda.get_rng_state(losses.device)] if cuda else [])],
        }
        with atomic(self.path) as part:
            torch.save(state, part)

    def restore(self, members: Sequence[Member], optimiser: torch.optim.Optimizer, losses: Tensor) -> int:
        """Put back what the same run left and say how many steps were done; 0 where there is no file.

        Executes nothing. Raises ``ValueError`` where the file is no checkpoint, or another run's; the error says in
        what they differ.
        """
        if not self.path.exists():
            return 0
        state = read(self.path)
        if state["identity"] != self.identity:
            other = [part for part, text in self.identity.items() if state["identity"].get(part) != text]
            raise ValueError(
                f"{self.path} belongs to a run with another {', another '.join(other)}; a run resumes with exactly "
                f"what it began with, its method created anew. Choose another path, or remove the file to begin again"
            )
        for member, own in zip(members, state["members"], strict=True):
            member.load_state_dict(own)
        optimiser.load_state_dict(state["optimiser"])
        losses.copy_(state["losses"])
        torch.set_rng_state(state["random"][0])
        if losses.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"][1], losses.device)
        return state["done"]


def read(path: Path) -> dict:
    """The content of a checkpoint file, on the CPU."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint of a training run ({error}); choose another path") from error
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise ValueError(f"{path} is no checkpoint of a training run; choose another path")
    return state
