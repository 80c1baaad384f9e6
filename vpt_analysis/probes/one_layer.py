"""One block on fixed tokens: what its heads give the content, what they would have to give, and how it is run."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..attention import KeyGroup, attend, naive
from ..errors import unknown
from ..vit import Block
from .certificates import Ball, SharedQuery

LEVELS = ("heads", "residual", "block")
GELU_SLOPE = 1.13  # the steepest slope of GELU, exact or by tanh, is below this
CONDITION = 1e8  # of W_O, beyond which a target does not determine the heads' outputs


class OneLayer:
    """A block on fixed tokens: content outputs, log-sum-exps and queries of the (input, query) pairs, n·Q items."""

    def __init__(self, block: Block, tokens: Tensor, queries: tuple[int, ...]):
        if tokens.ndim != 3 or tokens.dtype != torch.float64 or block.attention.out.weight.dtype != torch.float64:
            raise ValueError(
                f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, the block is "
                f"{block.attention.out.weight.dtype}; expected float64 (n, N, d): block.double(), tokens.double()"
            )
        n_tokens = tokens.shape[1]
        if not queries or any(i not in range(n_tokens) for i in queries):
            raise ValueError(f"queries {queries}; expected positions from 0 to {n_tokens - 1}")
        self.block, self.tokens, self.rows = block, tokens, list(queries)
        query, key, value = block.attention.project(block.ln1(tokens))
        self.e, self.heads = query.shape[-1], query.shape[1]
        content, lse = naive(query[:, :, self.rows], key, value)
        self.content = content.transpose(1, 2).flatten(0, 1)  # (nQ, H, e)
        self.lse = lse.transpose(1, 2).flatten(0, 1)  # (nQ, H)
        self.query = query[:, :, self.rows].transpose(1, 2).flatten(0, 1) * self.e**-0.5  # (nQ, H, e)
        out, scale = block.attention.out, block.scale1
        scale = torch.ones_like(out.bias) if scale is None else scale
        self.out = scale[:, None] * out.weight  # (d, H e)
        self.base = (tokens[:, self.rows] + scale * out.bias).flatten(0, 1)  # (nQ, d)
        self.folded = False

    def groups(self) -> list[list[int]]:
        """Items with equal queries, in order of appearance."""
        flat = self.query.flatten(1)
        left, found = list(range(len(flat))), []
        while left:
            far = (flat[left] - flat[left[0]]).abs().amax(1) > 1e-13 * flat[left[0]].abs().max()
            found.append([i for i, differs in zip(left, far.tolist(), strict=True) if not differs])
            left = [i for i, differs in zip(left, far.tolist(), strict=True) if differs]
        return found

    def head_targets(self, targets: Tensor, at: str) -> tuple[Tensor, float, float]:
        """Targets of the heads (nQ, H, e), or (nQ, 1, d) where one head is folded into W_O; and (slack, factor): errors
        at the level are at least factor · errors here − slack."""
        if at not in LEVELS:
            raise unknown("level", at, LEVELS)
        n, q, d = len(self.tokens), len(self.rows), self.tokens.shape[-1]
        shape = (n, self.heads, q, self.e) if at == "heads" else (n, q, d)
        if tuple(targets.shape) != shape or targets.dtype != torch.float64 or not torch.isfinite(targets).all():
            raise ValueError(
                f"targets are {targets.dtype} of shape {tuple(targets.shape)}; expected finite float64 {shape} "
                f"for at={at!r}"
            )
        if not targets.any():
            raise ValueError("all targets are zero, and errors are measured relative to them")
        if at == "heads":
            return targets.transpose(1, 2).flatten(0, 1), 0.0, 1.0
        singular = torch.linalg.svdvals(self.out)
        if not singular[-1] * CONDITION > singular[0]:
            raise ValueError(
                "W_O (with LayerScale) is singular, so a target in the residual stream does not determine what the "
                "heads must give; ask at='heads'"
            )
        residual, slack, factor = targets.flatten(0, 1), 0.0, 1.0
        if at == "block":
            residual, slack, factor = before_mlp(self.block, residual)
        moved = residual - self.base
        if self.heads == 1:  # errors are measured where they are asked for
            self.folded = True
            return moved[:, None], slack, factor
        heads = torch.linalg.solve(self.out, moved.T).T.unflatten(1, (self.heads, self.e))
        return heads, slack, factor * float(singular[-1])

    def problem(self, head: int, items: list[int], wanted: Tensor, ball: bool, additive: bool) -> SharedQuery:
        fold = self.out.numpy() if self.folded else np.eye(self.e)
        content = self.content[items, head].numpy() @ fold.T
        values = None
        if ball and isinstance(self.block.ln1, nn.LayerNorm):
            values = ball_of(self.block, head, self.query[items[0], head].numpy(), fold)
        return SharedQuery(content, self.lse[items, head].numpy(), wanted[items, head].numpy(), values, additive)

    def error(self, prompt: KeyGroup | None, targets: Tensor, at: str) -> float:
        """‖Δ‖ of a run through the block."""
        seen = []

        def look(*call):
            seen.append(attend(*call))
            return seen[-1]

        output = self.block(self.tokens, prompt, look)[:, self.rows]
        if at == "heads":
            output = seen[0][:, :, self.rows]
        elif at == "residual":
            merged = seen[0][:, :, self.rows].transpose(1, 2).flatten(2) @ self.out.T
            output = merged + self.base.unflatten(0, merged.shape[:2])
        return float((output - targets).norm())


def ball_of(block: Block, head: int, query: np.ndarray, fold: np.ndarray) -> Ball:
    """Values and scores of prompt tokens in one head, for a query already divided by √e; values mapped by ``fold``."""
    ln, qkv = block.ln1, block.attention.qkv
    d, e = qkv.in_features, len(query)
    gamma, beta = ln.weight.detach().numpy(), ln.bias.detach().numpy()
    weight, bias = qkv.weight.detach().numpy(), qkv.bias.detach().numpy()
    key, value = (slice(part * d + head * e, part * d + (head + 1) * e) for part in (1, 2))
    matrix = fold @ (weight[value] * gamma)
    score = (query @ weight[key]) * gamma
    offset = fold @ (weight[value] @ beta + bias[value])
    shift = float(query @ (weight[key] @ beta + bias[key]))
    return Ball(matrix - matrix.mean(1, keepdims=True), offset, score - score.mean(), shift, math.sqrt(d))


def mlp_slope(block: Block) -> float:
    """A bound on the Lipschitz constant of the block's MLP part, r → γ₂ MLP(LN2(r))."""
    norms = [float(torch.linalg.matrix_norm(fc.weight, 2)) for fc in (block.fc1, block.fc2)]
    slope = GELU_SLOPE * norms[0] * norms[1]
    if isinstance(block.ln2, nn.LayerNorm):
        slope *= float(block.ln2.weight.abs().max()) / math.sqrt(block.ln2.eps)
    return slope if block.scale2 is None else slope * float(block.scale2.abs().max())


def before_mlp(block: Block, target: Tensor) -> tuple[Tensor, float, float]:
    """The residual stream (m, d) that the MLP part takes to ``target``, with slack and factor as ``head_targets``.

    Where the slope κ is below 1, r → r + MLP(r) keeps distances to a factor 1 − κ, and r ← target − MLP(r) converges.
    """
    slope = mlp_slope(block)
    if not slope < 1:
        raise ValueError(
            f"the slope of the MLP part is only known to be below {slope:.3g}; from 1 on a block output may have "
            f"several preimages, and nothing is proved about it. Ask at='residual'"
        )

    def mlp(r: Tensor) -> Tensor:
        h = block.fc2(torch.nn.functional.gelu(block.fc1(block.ln2(r)), approximate=block.gelu))
        return h if block.scale2 is None else block.scale2 * h

    r = target
    for _ in range(10_000):
        new = target - mlp(r)
        moved = float((new - r).norm())
        r = new
        if moved <= 1e-15 * float(r.norm()):
            break
    slack = float((r + mlp(r) - target).norm())
    return r, slack, 1 - slope
