r"""Fits of prompts and baselines to Wang pairs: many starts, many pairs in one pass, longer prompts from shorter ones.

What P prompts reach, P + 1 reach too where a prompt can be given no mass, or share that of another. Then a solution of
fewer prompts is, grown to the next length, a start whose error is the one already attained, so that errors cannot rise
with the length:

- untied keys ("prefix"): n copies of a prompt, their keys moved along the query so that each score is lower by log n,
  are that prompt;
- tied tokens ("vpt-deep"): added tokens have the score −c of all tokens along :math:`-W_K^\top q`; without a LayerNorm
  their mass :math:`e^{-c}` is nothing to float64. Behind a LayerNorm the score is bounded (``wang.tied_floor``), and
  errors may rise;
- others start at copies, which have more mass together than the prompt had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .. import baselines, prompts
from ..attention import KeyGroup, split
from ..baselines.base import Baseline
from ..prompts.prefix import Prefix
from ..prompts.vpt_deep import VPTDeep
from ..vit import VisionTransformer
from .one_layer import OneLayer
from .restarts import minimise

if TYPE_CHECKING:
    from .wang import Pair

OPTIONS = {
    "vapt": {"kernel": 1},
    "vapt-released": {"kernel": 1, "static_first": False},
    "lora": {"rank": 1, "alpha": 1.0},
}
NOISE = (0.0, 0.3, 1.0, 3.0)  # added to the initial parameters of every fourth start
FIT = 1e-6  # relative errors below are all fits
OFF = 40.0  # score of a tied prompt that is switched off: e^-40 is nothing to float64
KEPT = 2  # solutions of a length that the next one starts from


@dataclass(frozen=True, eq=False)
class Arm:
    """A method fitted to a pair: relative errors ‖ŷ − y‖/‖y‖ of all starts (K,), ascending; ``parameters`` trained;
    ``reached``: starts within 1 % of the best (or below 1e-6, where all are fits). ``length``: 0 for baselines."""

    method: str
    length: int
    parameters: int
    errors: np.ndarray
    reached: int

    @property
    def best(self) -> float:
        return float(self.errors[0])


def fit(
    pairs: Sequence[Pair],
    method: str,
    lengths: Sequence[int] = (0,),
    restarts: int | Sequence[int] = 32,
    steps: int = 200,
    seed: int = 0,
    tolerance: float = 1e-6,
    **options,
) -> list[list[Arm]]:
    """Fit one method to every pair by least squares: arms by pair and length.

    ``lengths`` ascend; ``restarts`` starts of each (or a number a length) are drawn from seeds of their own, and two
    more are solutions of the length before, grown. ``options`` of the mechanism or baseline. Pairs must have layers of
    one shape. Raises ``ValueError`` for lengths that do not ascend and pairs that cannot be fitted together.
    """
    options = OPTIONS.get(method, {}) | options
    counts = [restarts] * len(lengths) if isinstance(restarts, int) else list(restarts)
    if not pairs or list(lengths) != sorted(set(lengths)) or len(counts) != len(lengths) or min(counts) < 1:
        raise ValueError(f"{len(pairs)} pairs, lengths {lengths}, restarts {counts}; expected ascending lengths, each "
                         f"with at least one start")  # fmt: skip
    if len({(p.vit.config, type(p.vit.blocks[0].ln1), type(p.vit.blocks[0].ln2)) for p in pairs}) > 1:
        raise ValueError("the pairs' layers differ in shape or in their LayerNorms; fit each kind in a call of its own")
    arms: list[list[Arm]] = [[] for _ in pairs]
    before: list[list[nn.Module]] = [[] for _ in pairs]
    for length, count in zip(lengths, counts, strict=True):
        fresh = [[_scattered(p.vit, method, length, seed, k, options) for k in range(count)] for p in pairs]
        starts = [
            new + [grown(old, new[0], p, k) for k, old in enumerate(kept)]
            for p, new, kept in zip(pairs, fresh, before, strict=True)
        ]
        found = _fitted(pairs, starts, steps, tolerance)
        for mine, kept, members, errors in zip(arms, before, *found, strict=True):
            order = np.argsort(errors, kind="stable")
            reached = int((errors <= max(1.01 * errors.min(), FIT)).sum())
            mine.append(Arm(method, length, vector(members[0]).numel(), errors[order], reached))
            kept[:] = [members[i] for i in order[:KEPT]]
    return arms


def _fitted(pairs: Sequence[Pair], starts: list[list[nn.Module]], steps: int, tolerance: float) -> tuple:
    """Members at their solutions, and relative errors (K,), by pair."""
    answer = _Answer(pairs[0].vit, starts[0][0])
    shapes = {f"method.{name}": p.shape for name, p in starts[0][0].named_parameters()}
    which = torch.tensor([i for i, members in enumerate(starts) for _ in members])
    layers = [dict(p.vit.named_parameters()) for p in pairs]
    data = {f"vit.{name}": torch.stack([layer[name] for layer in layers])[which] for name in layers[0]}
    sizes = torch.stack([p.targets.norm() for p in pairs])
    data["tokens"] = torch.stack([p.tokens for p in pairs])[which]
    data["targets"] = torch.stack([p.targets[:, 0] / size for p, size in zip(pairs, sizes, strict=True)])[which]
    data["scale"] = sizes[which]

    def residual(theta: Tensor, known: dict[str, Tensor]) -> Tensor:
        pieces = theta.split([math.prod(s) for s in shapes.values()])
        state = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        state |= {name: value for name, value in known.items() if name.startswith("vit.")}
        output = torch.func.functional_call(answer, state, (known["tokens"],))
        return (output / known["scale"] - known["targets"]).flatten()

    theta = torch.stack([vector(m) for members in starts for m in members])
    found = minimise(residual, theta, steps, tolerance, zero=1e-10, data=data)
    solved = iter(found.theta)
    for members in starts:
        for member in members:
            _fill(member, next(solved))
    errors = [found.norm[which == i].numpy() for i in range(len(pairs))]
    return starts, errors


def created(vit: VisionTransformer, method: str, length: int, seed: int, options: dict) -> nn.Module:
    if method in baselines.names():
        return baselines.create(method, vit, seed=seed, **options)
    return prompts.create(method, vit.config, length, seed=seed, **options).double().eval()


def vector(method: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in method.parameters()])


@torch.no_grad()
def _fill(method: nn.Module, theta: Tensor) -> nn.Module:
    for p, piece in zip(method.parameters(), theta.split([p.numel() for p in method.parameters()]), strict=True):
        p.copy_(piece.view_as(p))
    return method


def _scattered(vit: VisionTransformer, method: str, length: int, seed: int, k: int, options: dict) -> nn.Module:
    """Start k: the method at its initialisation, with noise of a size that differs from start to start."""
    made = created(vit, method, length, seed + k, options)
    theta = vector(made)
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + k)
    return _fill(made, theta + NOISE[k % len(NOISE)] * torch.randn(theta.shape, generator=generator, dtype=theta.dtype))


@torch.no_grad()
def grown(short: nn.Module, like: nn.Module, made: Pair, k: int = 0) -> nn.Module:
    """A prompt as long as ``like`` that begins as ``short``. Tied tokens are copied where ``k`` is odd."""
    more, length, old = created(made.vit, like.name, like.length, 0, like.options), like.length, short.length
    rows = torch.arange(length) % old
    for p, mine in zip(more.parameters(), short.parameters(), strict=True):
        axes = [a for a, (n, m) in enumerate(zip(p.shape, mine.shape, strict=True)) if n != m]
        p.copy_(mine.index_select(axes[0], rows) if axes else mine)
    layer = OneLayer(made.vit.blocks[0], made.tokens, (0,))
    query = layer.query[0]  # (H, e), divided by √e
    if type(more) is Prefix:
        copies = torch.bincount(rows, minlength=old)[rows].double().log()  # (P,)
        along = query / query.square().sum(1, keepdim=True)
        more.key[0] -= (copies[:, None, None] * along).flatten(1)
    elif type(more) is VPTDeep and k % 2 == 0:
        weight = layer.block.attention.qkv.weight.chunk(3)[1]
        low = query.flatten() @ weight
        if isinstance(layer.block.ln1, nn.LayerNorm):
            low = low * layer.block.ln1.weight
        more.tokens[0, old:] = -OFF * low / low.square().sum()
    return more


class _Answer(nn.Module):
    """Tokens (2, 2, d) to the method's outputs at x₀ (2, d), with the maps written out, so that vmap can batch them."""

    def __init__(self, vit: VisionTransformer, method: nn.Module):
        super().__init__()
        self.vit, self.method = vit, method

    def forward(self, tokens: Tensor) -> Tensor:
        def at(layer: int):
            return lambda query, key, value, extra: _attend(query, key, value, tokens.shape[1], extra)

        if isinstance(self.method, Baseline):
            return self.method.adapted(self.vit).encode(tokens, None, at)[:, 0]
        return self.vit.encode(tokens, self.method, at)[:, 0]


def _attend(query: Tensor, key: Tensor, value: Tensor, content: int, extra: KeyGroup | None) -> Tensor:
    with torch.enable_grad():  # without, the split works in place, which vmap cannot batch
        return split(query, key, value, content, extra, path="naive").output
