"""Take every attention output of a prompted Vision Transformer apart, layer by layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attention import Joint, KeyGroup, Split, attend, groups, scores, split, wide
from .errors import unknown
from .prompts.base import Prompt
from .vit import VisionTransformer

KEEP = ("mass", "energy", "terms", "output", "gates", "prompt")
BOUND = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}
SAMPLED_QUERIES = 4


class SplitError(ArithmeticError):
    """The two terms do not add up to the attention output."""


@dataclass
class Energy:
    """Shares of ‖y‖² for each query: content ‖c‖², prompt ‖o‖² and inner product 2⟨c, o⟩; (B, H, N) each, sum 1."""

    content: Tensor
    prompt: Tensor
    inner: Tensor


@dataclass
class LayerSplit:
    """One layer's attention output y = content term + prompt term, for the N content queries.

    ``mass`` (B, H, N): weight of the prompt output, λ for a joint softmax. ``energy``: shares of ‖y‖². On request
    ``content_term``, ``prompt_term``, ``output`` (B, H, N, e); ``content_gates`` (B, H, N, N) and ``prompt_gates``
    (B, H, N, P), the weights of the experts in y; ``content_experts`` (B, H, N, e) and ``prompt_experts``
    (1 or B, H, P, e), the values. ``residual``: relative reconstruction error ‖Δ‖/‖y‖ against plain attention.
    Asking for what was not kept raises ``AttributeError`` that says what to keep.
    """

    layer: int
    residual: float
    kept: dict[str, Tensor | Energy] = field(repr=False)
    head_weights: Tensor = field(repr=False)
    layer_scale: Tensor | None = field(repr=False, default=None)

    def __getattr__(self, name: str):
        kept = self.__dict__.get("kept", {})
        if name in kept:
            return kept[name]
        for keep, fields in _FIELDS.items():
            if name in fields:
                raise AttributeError(f"{name!r} of layer {self.layer} was not kept; decompose(..., keep=({keep!r},))")
        raise AttributeError(f"LayerSplit has no attribute {name!r}")

    @property
    def gates(self) -> Tensor:
        """Gates of all experts, content first: (B, H, N, N+P). Of one query they are ≥ 0 and sum to 1 under one softmax
        (T11). Needs ``keep=("gates",)``."""
        return torch.cat([self.content_gates, self.prompt_gates], dim=-1)

    @property
    def experts(self) -> Tensor:
        """Outputs of all experts, content first: (B, H, N+P, e); ``gates @ experts`` is the output. Needs "gates"."""
        batch = len(self.content_experts)
        return torch.cat([self.content_experts, self.prompt_experts.expand(batch, -1, -1, -1)], dim=2)

    def residual_stream(self, term: str, per_head: bool = False) -> Tensor:
        """What a term ("content" or "prompt") adds to the residual stream: (B, N, d), or (B, H, N, d) for each head.

        Each head's term goes through its slice of W_O (and LayerScale where there is one). The two terms together,
        plus the output bias, are what the block adds. Needs ``keep=("terms",)``.
        """
        if term not in ("content", "prompt"):
            raise unknown("term", term, ("content", "prompt"))
        y = getattr(self, f"{term}_term")
        out = torch.einsum("bhne,hed->bhnd" if per_head else "bhne,hed->bnd", y, self.head_weights)
        return out if self.layer_scale is None else out * self.layer_scale


_FIELDS = {
    "mass": ("mass",),
    "energy": ("energy",),
    "terms": ("content_term", "prompt_term"),
    "output": ("output",),
    "gates": ("content_gates", "content_experts", "gates", "experts"),
    "prompt": ("prompt_gates", "prompt_experts"),
}


class Decomposition(tuple):
    """One ``LayerSplit`` per layer asked for, in order."""

    @property
    def mass(self) -> Tensor:
        """Prompt mass of all layers, (L, B, H, N)."""
        return torch.stack([s.mass for s in self])

    @property
    def residual(self) -> float:
        """The largest relative reconstruction error of any layer."""
        return max(s.residual for s in self)


def decompose(
    vit: VisionTransformer,
    images: Tensor,
    prompt: Prompt | None = None,
    layers: Iterable[int] | None = None,
    path: str = "fused",
    keep: Iterable[str] = ("mass", "energy"),
    check: str = "sample",
) -> Decomposition:
    """Split the attention output of every layer, head and content query into the prompt's term and the content's.

    ``images``: (B, C, h, w), normalised, as for ``vit``. ``layers``: indices from 0 (all by default; the others run
    plainly). ``path``: "fused" (fast, no maps, no gradient) or "naive" (explicit maps, differentiable). ``keep``: what
    is stored, of "mass", "energy", "terms", "output", "gates" (all gates and experts), "prompt" (the prompts' gates
    and experts only); the default stores nothing larger than (B, H, N) a layer. ``check``: "sample" compares a few
    queries of every image and head with plain attention on each call, "full" all of them.

    Raises ``SplitError`` where the relative error exceeds the bound of the dtype (float64 1e-12, float32 1e-5,
    float16 5e-3, bfloat16 2e-2) or is not finite, and ``ValueError`` for unknown arguments.

    Theorem T1; He et al., ICLR 2022, eqs. 7-9.
    """
    keep = _checked_keep(keep)
    if not isinstance(vit, VisionTransformer):
        raise TypeError(f"vit is {type(vit).__name__}; expected a VisionTransformer: load it with load_backbone(model)")
    if isinstance(prompt, torch.nn.Module) and _drops_out(prompt):
        raise ValueError("the prompt is in training mode with dropout, so every call would differ; prompt.eval() first")
    if path not in ("fused", "naive"):
        raise unknown("path", path, ("fused", "naive"))
    if check not in ("sample", "full"):
        raise unknown("check", check, ("sample", "full"))
    wanted = _checked_layers(layers, vit.config.depth)
    found: list[LayerSplit] = []

    def attend_at(layer: int) -> Callable:
        if layer not in wanted:
            return attend

        def look(query: Tensor, key: Tensor, value: Tensor, extra: KeyGroup | None) -> Tensor:
            part = split(query, key, value, n, extra, path)
            residual = _residual(part, query, key, value, n, extra, check)
            bound = BOUND[query.dtype]
            if not residual <= bound:
                raise SplitError(
                    f"layer {layer}: terms and plain attention differ by {residual:.2e} relative, more than "
                    f"{bound:.0e} for {query.dtype}. Weights or activations that are not finite, or scores beyond the "
                    f"dtype's range, do this; look at the layer in float64 with path='naive'."
                )
            block = vit.blocks[layer]
            kept, output = _store(part, query, key, value, n, extra, keep)
            weights, scale = block.attention.head_weights(), block.scale1
            if path == "fused":
                weights, scale = weights.detach(), None if scale is None else scale.detach()
            found.append(LayerSplit(layer, residual, kept, weights, scale))
            return output

        return look

    def embedded() -> Tensor:  # held by nobody here, so that the first block can free it
        nonlocal n
        x = vit.embed(images)
        n = x.shape[1]
        return x

    n = 0
    with torch.no_grad() if path == "fused" else contextlib.nullcontext():
        vit.encode(embedded(), prompt, attend_at, stop=max(wanted) + 1)
    return Decomposition(found)


def _checked_keep(keep: Iterable[str]) -> tuple[str, ...]:
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    for name in keep:
        if name not in KEEP:
            raise unknown("entry of keep", name, KEEP)
    return keep


def _drops_out(prompt: torch.nn.Module) -> bool:
    dropouts = (m for m in prompt.modules() if isinstance(m, torch.nn.Dropout | torch.nn.Dropout2d))
    return any(m.training and m.p > 0 for m in dropouts)


def _checked_layers(layers: Iterable[int] | None, depth: int) -> frozenset[int]:
    wanted = frozenset(range(depth) if layers is None else layers)
    bad = sorted(layer for layer in wanted if layer not in range(depth))
    if bad or not wanted:
        raise ValueError(f"layers {bad or '()'} asked for; this backbone has layers 0 to {depth - 1}")
    return wanted


def _store(
    part: Split, query: Tensor, key: Tensor, value: Tensor, n: int, extra: KeyGroup | None, keep: tuple[str, ...]
) -> tuple[dict, Tensor]:
    """What ``keep`` asks for, for the content queries; and the attention output of all queries."""
    kept: dict[str, Tensor | Energy] = {}
    content, prompt = part.content_term[:, :, :n], part.prompt_term[:, :, :n]
    if "mass" in keep:
        kept["mass"] = part.prompt_weight[:, :, :n].contiguous()  # a view would keep the riders' rows alive
    if "energy" in keep:
        kept["energy"] = energy(content, prompt)
    if "gates" in keep or "prompt" in keep:
        k, v, group = groups(key, value, n, extra)
        q = query[:, :, :n]
        kept["prompt_gates"] = _gates(scores(q, group.key, group.score), part.prompt_lse, part.prompt_weight)
        kept["prompt_experts"] = group.value
        if "gates" in keep:
            kept["content_gates"] = _gates(scores(q, k), part.content_lse, part.content_weight)
            kept["content_experts"] = v
    if "terms" in keep:
        kept["content_term"], kept["prompt_term"] = content, prompt
    if "terms" in keep or torch.is_grad_enabled():
        output = part.output
    else:  # nobody else holds the content term: add the prompt's where it lies
        output = part.content_term.add_(part.prompt_term)
    if "output" in keep:
        kept["output"] = output[:, :, :n]
    return kept, output


def _gates(s: Tensor, lse: Tensor, weight: Tensor) -> Tensor:
    """Attention weights of one group (B, H, N, K): its own softmax times the weight of its output in y."""
    n = s.shape[2]
    return weight[:, :, :n, None] * torch.exp(s - lse[:, :, :n, None])


def energy(content: Tensor, prompt: Tensor) -> Energy:
    """Energy shares of two terms (B, H, N, e) in their sum; all three are 0 where the sum is 0."""
    cc = torch.linalg.vector_norm(content, dim=-1, dtype=wide(content)).square()
    pp = torch.linalg.vector_norm(prompt, dim=-1, dtype=wide(prompt)).square()
    cp = 2 * torch.linalg.vecdot(content.to(wide(content)), prompt.to(wide(prompt)))
    total = cc + pp + cp
    share = torch.where(total > 0, total, torch.inf).reciprocal()
    return Energy(cc * share, pp * share, cp * share)


@torch.no_grad()
def _residual(
    part: Split, query: Tensor, key: Tensor, value: Tensor, n: int, extra: KeyGroup | None, check: str
) -> float:
    """‖Δ‖/‖y‖ against attention over all keys at once: of a few content queries, or of all in blocks."""
    rows = torch.arange(n) if check == "full" else torch.linspace(0, n - 1, min(n, SAMPLED_QUERIES)).long()
    error = total = 0.0
    for block in rows.to(query.device).split(64):
        reference = _plain(query[:, :, block], key, value, n, extra)
        y = part.content_term[:, :, block] + part.prompt_term[:, :, block]
        error += (y.to(reference.dtype) - reference).square().sum().item()
        total += reference.square().sum().item()
    return (error / total) ** 0.5 if total else (0.0 if error == 0 else float("inf"))


def _plain(query: Tensor, key: Tensor, value: Tensor, n: int, extra: KeyGroup | None) -> Tensor:
    """Attention of a few queries by its definition, in float32 at least; the yardstick of the split."""
    dtype = wide(query)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if extra is None:
        return torch.softmax(scores(query, key), dim=-1) @ value
    k, v = extra.key.to(dtype), extra.value.to(dtype)
    s, s_extra = scores(query, key), scores(query, k, extra.score)
    if isinstance(extra.combine, Joint):
        gates = torch.softmax(torch.cat([s, s_extra], dim=-1), dim=-1)
        return gates[..., : s.shape[-1]] @ value + gates[..., s.shape[-1] :] @ v
    w_content, w_prompt = extra.combine(torch.logsumexp(s, -1), torch.logsumexp(s_extra, -1))
    content, prompt = torch.softmax(s, dim=-1) @ value, torch.softmax(s_extra, dim=-1) @ v
    return w_content[..., None] * content + w_prompt[..., None] * prompt
