"""Many prompts of one mechanism as one: K of them folded into the batch of a single frozen backbone."""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .attention import Combine, KeyGroup
from .prompts.base import Prompt
from .vit import Block, Riders, VisionTransformer

# What the tensors of an answer broadcast over, counted in dimensions: (B, P, d), (B, H, P, e), (B, H, Q, P), (B, H, Q).
RANKS = {"riders": 3, "key": 4, "value": 4, "score": 4, "combine": 3, "temperature": 4}


class Bank(nn.Module):
    """K prompts of one mechanism, length and options, usable wherever one prompt is: ``vit(images, bank)``.

    Member k answers for rows k·B to (k+1)·B of a batch of K·B images. The answers of all members are computed together,
    by ``torch.vmap`` over their stacked parameters and buffers, and are folded into the batch; the backbone runs once.
    The parameters stay the members' own: gradients arrive there, and an ordinary optimiser steps them. With dropout,
    masks differ between members.

    Nothing here knows a mechanism. What differs between members must be a parameter or a buffer; ``score`` and
    ``combine`` of their ``KeyGroup`` must be dataclasses where they hold tensors. Layers are asked in order, as the
    backbone does. Raises ``ValueError`` where members do not belong together, and with torch's reason where
    ``torch.vmap`` cannot batch the mechanism; ``TypeError`` for what is no prompt.
    """

    def __init__(self, members: Sequence[Prompt]):
        super().__init__()
        check_alike(members)
        self.members = nn.ModuleList(members)
        self.stacked: dict[str, Tensor] | None = None  # of the pass that is under way

    @property
    def name(self) -> str:
        return self.members[0].name

    @property
    def length(self) -> int:
        return self.members[0].length

    def check_fits(self, vit: VisionTransformer) -> None:
        for member in self.members:
            member.check_fits(vit)

    def encode(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Content tokens (K·B, N, d)."""
        return vit(images, self)

    def forward(
        self, layer: int, block: Block, x: Tensor, before: Riders | None
    ) -> tuple[Tensor | None, KeyGroup | None]:
        k = len(self.members)
        if len(x) % k:
            raise ValueError(f"{len(x)} images for a bank of {k} prompts; expected as many for each, K·B rows in all")
        state = self.state_of(layer)
        answers = []

        def ask(state: dict[str, Tensor], x: Tensor, before: Riders | None) -> dict[str, Tensor]:
            answers.append(named(functional_call(self.members[0], state, (layer, block, x, before))))
            return tensors_in(answers[-1], self.name)

        cut = None if before is None else Riders(*(t.unflatten(0, (k, -1)) for t in before))
        together = torch.vmap(ask, in_dims=(0, 0, None if cut is None else 0), randomness="different")
        try:
            tensors = together(state, x.unflatten(0, (k, -1)), cut)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(
                f"torch.vmap cannot batch {self.name} prompts: {error}\nTrain them one by one, or write the mechanism "
                f"in operations that it can"
            ) from error
        folded = {path: fold(t, RANKS[path.split(".")[0]], len(x) // k, path) for path, t in tensors.items()}
        answer = rebuilt(answers[-1], folded)
        return answer.pop("riders"), KeyGroup(**answer) if answer else None

    def state_of(self, layer: int) -> dict[str, Tensor]:
        """Parameters and buffers (K, …) of all members; stacked once a pass, so that each gets its gradient in one."""
        state = self.stacked
        if layer == 0 or state is None:
            named_tensors = [dict([*m.named_parameters(), *m.named_buffers()]) for m in self.members]
            state = {name: torch.stack([t[name] for t in named_tensors]) for name in named_tensors[0]}
        self.stacked = None if layer + 1 == self.members[0].config.depth else state
        return state


def check_alike(members: Sequence[Prompt]) -> None:
    """Raise where ``members`` cannot be folded into one batch."""
    if not members:
        raise ValueError("a bank of no prompts; expected at least one")
    for member in members:
        if not isinstance(member, Prompt) or type(member).encode is not Prompt.encode:
            kind = getattr(member, "name", type(member).__name__)
            raise TypeError(f"{kind} is no prompt mechanism, and only prompts fold into one batch; train it by itself")
    if len({id(m) for m in members}) < len(members):
        raise ValueError("one prompt stands twice in a bank; create one for each run")
    described = [description(m) for m in members]
    for k, other in enumerate(described):
        for what, value in described[0].items():
            if other[what] != value:
                raise ValueError(
                    f"prompts of a bank agree in {', '.join(described[0])}; number {k} has {what} "
                    f"{other[what]}, number 0 has {value}. Train them in a bank of its own each"
                )


def description(prompt: Prompt) -> dict:
    """What the members of a bank share."""
    tensors = [*prompt.named_parameters(), *prompt.named_buffers()]
    return {
        "mechanism": prompt.name, "length": prompt.length, "options": prompt.options, "config": prompt.config,
        "shapes": {name: tuple(t.shape) for name, t in tensors}, "dtypes": {t.dtype for _, t in tensors},
        "devices": {t.device for _, t in tensors},
    }  # fmt: skip


def named(answer: tuple[Tensor | None, KeyGroup | None]) -> dict[str, object]:
    """Riders and the fields of the key group, by name."""
    riders, group = answer
    return {"riders": riders} | ({} if group is None else {f.name: getattr(group, f.name) for f in fields(group)})


def tensors_in(answer: dict[str, object], mechanism: str) -> dict[str, Tensor]:
    """All tensors of an answer by path ("key", "score.alpha"); those inside dataclasses are found at any depth."""
    found = {}

    def visit(path: str, value: object) -> None:
        if isinstance(value, Tensor):
            found[path] = value
        elif is_dataclass(value):
            for f in fields(value):
                visit(f"{path}.{f.name}", getattr(value, f.name))
        elif callable(value) and not stateless(value):
            raise ValueError(
                f"{path} of {mechanism} is a {type(value).__name__} that may hold tensors out of sight, so its prompts "
                f"cannot be folded into one batch; make it a dataclass with the tensors as fields"
            )

    for path, value in answer.items():
        visit(path, value)
    return found


def stateless(value: object) -> bool:
    """Whether a callable has nothing of its own: a function without closure, or a rule without attributes."""
    if isinstance(value, types.FunctionType):
        return value.__closure__ is None
    return isinstance(value, types.BuiltinFunctionType) or (isinstance(value, Combine) and not vars(value))


def fold(t: Tensor, rank: int, batch: int, path: str) -> Tensor:
    """Every member's tensor (K, …), which broadcasts over ``rank`` dimensions, as that of the folded batch (K·B, …)."""
    k, *shape = t.shape
    if len(shape) > rank or (len(shape) == rank and shape[0] not in (1, batch)):
        raise ValueError(f"{path} has shape {tuple(shape)}; expected at most {rank} dimensions, the first 1 or {batch}")
    t = t.reshape(k, *[1] * (rank - len(shape)), *shape)
    return t.expand(k, batch, *t.shape[2:]).flatten(0, 1)


def rebuilt(answer: dict[str, object], tensors: dict[str, Tensor]) -> dict[str, object]:
    """The answer with every tensor replaced by the one of its path."""

    def visit(path: str, value: object) -> object:
        if isinstance(value, Tensor):
            return tensors[path]
        if is_dataclass(value):
            return replace(value, **{f.name: visit(f"{path}.{f.name}", getattr(value, f.name)) for f in fields(value)})
        return value

    return {path: visit(path, value) for path, value in answer.items()}


def gather(tensors: list[Tensor], indices: Sequence[Tensor]) -> Tensor:
    """The rows of every member's batch, one after the other; in one go where all have the same tensor."""
    if all(t is tensors[0] for t in tensors):
        return tensors[0][torch.cat(list(indices))]
    return torch.cat([t[index] for t, index in zip(tensors, indices, strict=True)])
