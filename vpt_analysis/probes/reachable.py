"""Which outputs of one layer can static prompts of any length reach? Decided by geometry, proved both ways."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..attention import KeyGroup
from ..errors import unknown
from ..prompts.base import KeyPrompt, Prompt, TokenPrompt
from ..prompts.prefix import Prefix
from ..prompts.registry import MECHANISMS
from ..vit import Block
from .certificates import SharedQuery
from .constructions import before_norm, tied, untied
from .nearest import Nearest, nearest
from .one_layer import OneLayer


@dataclass(frozen=True, eq=False)
class Proof:
    """One head and one group of (input, query) pairs that share a query: ``items`` (rows of the flattened (n, Q))."""

    head: int
    items: tuple[int, ...]
    problem: SharedQuery
    nearest: Nearest


@dataclass(frozen=True, eq=False)
class Reachable:
    """Whether static prompts of any length reach the targets.

    ``verdict``: "reachable", "unreachable" or "undecided", with the ``reason``. ``bound``: relative distance
    ‖ŷ − y‖/‖y‖ that no static prompts of any length come below, proved by the certificates in ``proofs``; ``error``:
    that of the ``prompt`` built, from a run through the block, NaN where none was built; ``plain``: that of no prompt.
    ``prompt`` (keys and values, P of them); ``tokens`` (P, d) where they are those of prompt tokens.
    """

    verdict: str
    reason: str
    bound: float
    error: float
    plain: float
    prompt: KeyGroup | None
    tokens: Tensor | None
    proofs: tuple[Proof, ...]

    @property
    def length(self) -> int:
        return 0 if self.prompt is None else self.prompt.key.shape[2]


@dataclass(frozen=True)
class Family:
    """What is known of a mechanism: prompt values in a ``ball`` behind LN1 or free; joined by one softmax or
    ``additive``; and whether prompts are built for it (``builds``)."""

    ball: bool
    additive: bool
    builds: bool


def family(mechanism: str) -> Family:
    """The family that holds all static prompts of a registered mechanism; for most it is larger than the mechanism.

    Raises ``ValueError`` where prompts differ between inputs, so that inputs with a common query share nothing.
    """
    if mechanism not in MECHANISMS:
        raise unknown("prompt mechanism", mechanism, MECHANISMS)
    kind = MECHANISMS[mechanism]
    if not kind.experts.startswith("static") or not issubclass(kind, KeyPrompt):
        raise ValueError(
            f"{mechanism} prompts are {kind.experts}: inputs with a common query do not get the same prompt output, so "
            f"nothing is decided about them. What they reach has to be fitted"
        )
    if kind.combine != Prompt.combine:
        return Family(ball=False, additive=True, builds=False)
    ball = issubclass(kind, TokenPrompt) and _inherits(kind, KeyPrompt, "keys_values", "score")
    tokens = ball and _inherits(kind, TokenPrompt, "prompt_tokens")
    untied = issubclass(kind, Prefix) and _inherits(kind, Prefix, "keys_values", "score")
    return Family(ball, additive=False, builds=tokens or untied)


def _inherits(kind: type, base: type, *methods: str) -> bool:
    return all(getattr(kind, m) is getattr(base, m) for m in methods)


@torch.no_grad()
def reachable(
    block: Block,
    tokens: Tensor,
    targets: Tensor,
    mechanism: str = "prefix",
    queries: tuple[int, ...] = (0,),
    at: str = "residual",
    tolerance: float = 1e-9,
    gap: float = 1e-3,
) -> Reachable:
    r"""Can static prompts of any length make the outputs of ``block`` on ``tokens`` (n, N, d) those of ``targets``?

    Targets are of the tokens ``queries``: ``at`` "heads", the attention outputs (n, H, Q, e); "residual", the residual
    stream after attention (n, Q, d); "block", the block's output (n, Q, d). "residual" needs an invertible
    W_O; "block" a residual MLP whose slope is proved to be below 1, so that a target has one preimage.

    Inputs whose queries differ are bound by nothing that is decided here. For untied keys and values ("prefix") this
    is exact: with linearly independent queries every group of inputs with a common query is a problem of its own, and
    as many prompts as there are groups reach all that is reachable. Tokens behind LN1 ("vpt-deep") are certified by a
    larger set (each head and group for itself) and built for one head and one group. Other static mechanisms are
    certified as free ones and never built, so they end unreachable or undecided.

    ``tolerance``: relative error that counts as reached; ``gap``: how near the certified distance of a group shall come
    to the attained one. Raises ``ValueError`` for mechanisms whose prompts depend on the input, shapes that do not fit,
    a dtype other than float64, and levels that cannot be traced back. Source of the split: He et al., ICLR 2022, eqs.
    7-9; the certificates are our own.
    """
    kind = family(mechanism)
    layer = OneLayer(block, tokens, queries)
    wanted, slack, factor = layer.head_targets(targets, at)
    proofs = _proofs(layer, wanted, kind, gap)
    size = float(targets.norm())
    distance = math.sqrt(sum(p.nearest.bound**2 for p in proofs))
    plain = layer.error(None, targets, at) / size
    bound = min(plain, max(0.0, (factor * distance - slack) / size))
    prompt, built, reason = _built(layer, proofs, kind, mechanism)
    error = math.nan if prompt is None else layer.error(prompt, targets, at) / size
    if error <= tolerance or plain <= tolerance:
        verdict, reason = "reachable", "the prompt built was run" if error <= tolerance else "without any prompt"
    elif bound > tolerance:
        verdict, reason = "unreachable", "certified for any number of static prompts"
    else:
        verdict = "undecided"
        reason = reason or f"the prompt built errs by {error:.1e}, and no distance above {bound:.1e} is proved"
    return Reachable(verdict, reason, bound, error, plain, prompt, built, proofs)


def _proofs(layer: OneLayer, wanted: Tensor, kind: Family, gap: float) -> tuple[Proof, ...]:
    found = []
    for items in layer.groups():
        for head in range(wanted.shape[1]):
            problem = layer.problem(head, items, wanted, kind.ball, kind.additive)
            found.append(Proof(head, tuple(items), problem, nearest(problem, gap)))
    return tuple(found)


def _built(layer: OneLayer, proofs: tuple[Proof, ...], kind: Family, mechanism: str) -> tuple:
    """Keys and values that give every group its nearest outputs, the tokens they come from, or the reason for none."""
    heads = 1 + max(p.head for p in proofs)
    firsts = [p.items[0] for p in proofs if p.head == 0]
    if not kind.builds:
        return None, None, f"nothing is proved, and no prompts of {mechanism} are built"
    try:
        if not kind.ball:
            return _untied(layer, proofs, heads, firsts), None, ""
        if heads > 1 or len(firsts) > 1 or not isinstance(layer.block.ln1, nn.LayerNorm):
            return None, None, (
                f"{mechanism} prompts are built for one head, one common query and an LN1; here are {heads} heads, "
                f"{len(firsts)} different queries and {type(layer.block.ln1).__name__}"
            )  # fmt: skip
        ln, found = layer.block.ln1, proofs[0].nearest
        z = tied(proofs[0].problem.values, found.token, found.log_mass)
        tokens = torch.from_numpy(before_norm(z, *(p.detach().numpy() for p in (ln.weight, ln.bias)), ln.eps))
        return KeyGroup(*layer.block.keys_values(tokens[None])), tokens, ""
    except ValueError as error:
        return None, None, str(error)


def _untied(layer: OneLayer, proofs: tuple[Proof, ...], heads: int, firsts: list[int]) -> KeyGroup:
    keys, values = [], []
    for head in range(heads):
        mine = [p.nearest for p in proofs if p.head == head]
        outputs = np.stack([near.output for near in mine])
        if layer.folded:
            outputs = np.linalg.solve(layer.out.numpy(), outputs.T).T
        log_mass = np.array([near.log_mass for near in mine])
        key, value = untied(layer.query[firsts, head].numpy(), outputs, log_mass)
        keys.append(key)
        values.append(value)
    key, value = (torch.from_numpy(np.stack(x))[None] for x in (keys, values))  # (1, H, P, e)
    return KeyGroup(key, value)
