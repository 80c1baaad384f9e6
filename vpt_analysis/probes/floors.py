r"""Error floors of a prompted layer, exact given the gates: the best prompt values are a linear least-squares problem.

With prompt keys given, and so the gates, one head's output is linear in what the values are made of. For item i, an
(image, query) pair, with the weights :math:`g_{ij}` that the combine rule gives to prompt j and :math:`w_i` to the
content,

.. math:: y_i = w_i\,c_i + \sum_j g_{ij} v'_j(X), \qquad
          v'_j(X) = v_j \;(\text{static}), \quad v'_j(X) = v_j + U G_j(X) \;(\text{adaptive, linear in the input}) .

So the smallest error over a population (an exact sum, no sample) is the residual of :math:`c_i + \Delta_i - w_i c_i`
on the columns :math:`g_{ij}` and, for adaptive values, :math:`\sum_j g_{ij} G_j(X)`. No optimiser is in it: what is
left is what those gates cannot express. Floors are shares of the change's energy :math:`\sum\|\Delta\|^2` over all
heads: 1 is the plain frozen layer, 0 reaches the teacher. With U and the projector :math:`G_j = \sum_k \alpha_{jk} u_k`
the adaptive form is VAPT's with r = d and no activation (Le et al., arXiv 2501.18936, as ``prompts.vapt`` has it), but
for the LayerNorm between, and with the keys free.

Shapes: M = nQ items, H heads, P prompts, C columns, e head width, d width. float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import KeyGroup
from ..prompts.base import Prompt
from .one_layer import OneLayer

CUT = 1e-12  # columns that depend on each other up to this are one: rounding would decide about the rest


@dataclass(frozen=True, eq=False)
class Gates:
    """``prompt`` (M, H, P): the weight of each prompt's value in the output; ``content`` (M, H): that of c."""

    prompt: Tensor
    content: Tensor

    def wanted(self, layer: OneLayer, change: Tensor) -> Tensor:
        """What the prompt term has to be, (M, H, e)."""
        return change + (1 - self.content)[..., None] * layer.content


def gates(layer: OneLayer, group: KeyGroup) -> Gates:
    """The gates of extra keys: any score and any rule, keys (1 or n, H, P, e). Raises ``ValueError`` for a temperature,
    which changes the content's pattern too, and for keys that do not fit."""
    n, q = len(layer.tokens), len(layer.rows)
    key = group.key
    if group.temperature is not None:
        raise ValueError(
            "the gates of a prompt with a temperature are not decided here: it moves the content's pattern"
        )
    if key.ndim != 4 or key.shape[0] not in (1, n) or key.shape[1] != layer.heads or key.shape[3] != layer.e:
        raise ValueError(f"keys have shape {tuple(key.shape)}; expected (1 or {n}, {layer.heads}, P, {layer.e})")
    if key.dtype != torch.float64 or not torch.isfinite(key).all():
        raise ValueError(
            f"keys are {key.dtype}, {int((~torch.isfinite(key)).sum())} not finite; expected finite float64"
        )
    query = layer.query.unflatten(0, (n, q)).transpose(1, 2)  # (n, H, Q, e), divided by √e
    scores = query @ key.mT
    scores = scores if group.score is None else group.score(scores)
    lse = torch.logsumexp(scores, dim=-1)
    content, weight = group.combine(layer.lse.unflatten(0, (n, q)).transpose(1, 2), lse)
    content, weight = torch.broadcast_tensors(content, weight)
    prompt = weight[..., None] * torch.exp(scores - lse[..., None])
    return Gates(prompt.transpose(1, 2).flatten(0, 1), content.expand(lse.shape).transpose(1, 2).flatten(0, 1))


def prompt_group(layer: OneLayer, prompt: Prompt, index: int) -> KeyGroup:
    """The extra keys and values of any mechanism's prompt in block ``index`` of its backbone, on the layer's tokens.

    Raises ``ValueError`` where the prompts travel in the sequence: they are queries and keys of each other, and their
    values are no parameters.
    """
    riders, group = prompt(index, layer.block, layer.tokens, None)
    if riders is not None or group is None:
        raise ValueError(
            f"{prompt.name} prompts travel in the sequence, so their values in a layer are no free parameters; floors "
            f"are of prompts that act as extra keys and values"
        )
    return group


def outputs(layer: OneLayer, group: KeyGroup) -> Tensor:
    """The heads' outputs (M, H, e) with these extra keys and values, differentiable."""
    found = gates(layer, group)
    n, q = len(layer.tokens), len(layer.rows)
    weights = found.prompt.unflatten(0, (n, q)).transpose(1, 2)  # (n, H, Q, P)
    term = (weights @ group.value).transpose(1, 2).flatten(0, 1)
    return found.content[..., None] * layer.content + term


def readout(found: Gates, read: Tensor) -> Tensor:
    """Columns of adaptive values v_j + U G_j(X): the gates, and Σ_j g_ij G_j(X): (M, H, P + r).

    ``read`` (n, P, r): what prompt j reads of image X, G_j(X).
    """
    m, _, p = found.prompt.shape
    if read.ndim != 3 or read.shape[1] != p or m % len(read):
        raise ValueError(f"what is read has shape {tuple(read.shape)}; expected (n, {p}, r) for {m} items")
    n = len(read)
    seen = torch.einsum("nqhp,npr->nqhr", found.prompt.unflatten(0, (n, m // n)), read).flatten(0, 1)
    return torch.cat([found.prompt, seen], dim=-1)


def cells(layer: OneLayer, length: int, first: int = 1) -> Tensor:
    """LN1 outputs averaged over cells, (n, P, d): the patches (tokens from ``first`` on) in order, cut into
    min(P, patches) runs of nearly equal size; further prompts read the runs again. One prompt reads the mean patch."""
    u = layer.block.ln1(layer.tokens)[:, first:]
    runs = torch.stack([part.mean(1) for part in u.tensor_split(min(length, u.shape[1]), dim=1)], dim=1)
    return runs[:, torch.arange(length) % runs.shape[1]]


def copies(layer: OneLayer, chosen: Tensor) -> tuple[KeyGroup, Tensor]:
    """Prompts that copy content tokens ``chosen`` (P,): the keys they have there (values zero), and what they read, LN1
    outputs (n, P, d). VAPT's projector makes copies of patches with one-hot rows α.

    With a copy of every token, gates are half the content's, and values v_j + U u_j make any linear value update.
    """
    u = layer.block.ln1(layer.tokens)[:, chosen]
    key, _ = layer.block.attention.keys_values(u)
    return KeyGroup(key, torch.zeros_like(key)), u


@dataclass(frozen=True, eq=False)
class Floor:
    """``share``: Σ‖residual‖² over Σ‖Δ‖²; ``heads`` (H,) the same, each head's part of it; ``coefficients`` (H, C, e):
    the best ones; ``slack``: what a second fit to the residual would take off the share, 0 up to rounding."""

    share: float
    heads: Tensor
    coefficients: Tensor
    slack: float


@torch.no_grad()
def floor(columns: Tensor, wanted: Tensor, energy: float) -> Floor:
    """Least squares of ``wanted`` (M, H, e) on ``columns`` (M, H, C), head by head: the exact floor and where it is.

    ``energy``: what shares are of. By singular value decomposition of the columns, each scaled to length 1; the
    residual is computed from the coefficients, so ``share`` is attained by them. Columns of zero are left out. Raises
    ``ValueError`` for shapes that do not fit, fewer items than columns (no floor of a population: it could be met by
    counting), numbers that are not finite, and an energy that is not positive.
    """
    m, heads, c = columns.shape
    if wanted.ndim != 3 or wanted.shape[:2] != (m, heads):
        raise ValueError(f"wanted has shape {tuple(wanted.shape)}; expected ({m}, {heads}, e)")
    if m < c:
        raise ValueError(f"{m} items, but {c} columns: any targets could be met. Give more images or queries")
    if not (torch.isfinite(columns).all() and torch.isfinite(wanted).all()):
        raise ValueError("columns or targets hold numbers that are not finite")
    if not energy > 0:
        raise ValueError(
            f"the change has energy {energy}; shares of it mean nothing. Draw a teacher that changes the layer"
        )
    found, squares, slack = [], [], 0.0
    for h in range(heads):
        length = columns[:, h].norm(dim=0)
        scale = torch.where(length > 0, 1 / length, 0.0)
        q, r = torch.linalg.qr(columns[:, h] * scale)
        left, singular, right = torch.linalg.svd(r)
        kept = int((singular > CUT * singular[0]).sum())
        basis = q @ left[:, :kept]
        solved = right[:kept].mT @ ((basis.mT @ wanted[:, h]) / singular[:kept, None]) * scale[:, None]
        residual = wanted[:, h] - columns[:, h] @ solved
        slack += float((basis.mT @ residual).square().sum()) / energy
        found.append(solved)
        squares.append(residual.square().sum() / energy)
    per_head = torch.stack(squares)
    return Floor(float(per_head.sum()), per_head, torch.stack(found), slack)


def error(columns: Tensor, wanted: Tensor, coefficients: Tensor, energy: float) -> float:
    """The share of these coefficients on another population."""
    return float((wanted - torch.einsum("mhc,hce->mhe", columns, coefficients)).square().sum()) / energy


def constant_floor(change: Tensor) -> float:
    """The floor of one constant vector a head, y = c + δ: what the additive rule with one prompt makes, exactly.

    >>> round(constant_floor(torch.tensor([[[1.0]], [[3.0]]])), 6)     # mean 2: (1 + 1) of (1 + 9)
    0.2
    """
    return float((change - change.mean(0)).square().sum() / change.square().sum())
