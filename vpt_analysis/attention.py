r"""Attention over two groups of keys, taken apart exactly.

One head with queries :math:`q_i`, content keys and values :math:`k_j, v_j` and prompt keys and values
:math:`k'_j, v'_j`. With :math:`s_{ij} = q_i\cdot k_j/\sqrt e` and :math:`s'_{ij} = q_i\cdot k'_j/\sqrt e`,

.. math::
    c_i = \mathrm{softmax}(s_i) V, \quad o_i = \mathrm{softmax}(s'_i) V', \quad
    y_i = w^c_i c_i + w^o_i o_i .

The combine rule gives the weights from the two log-sum-exps. For the joint softmax of ordinary attention
:math:`w^o_i = \lambda_i = \sigma(\mathrm{lse}'_i - \mathrm{lse}_i)` and :math:`w^c_i = 1 - \lambda_i`, and the
identity is exact (He et al., ICLR 2022, eqs. 7-9). ``naive`` writes the attention maps out; it is differentiable,
works in every dtype and is what the fast path is tested against. ``fused`` joins two fused attention calls by their
log-sum-exps and never holds a map; it has no gradient.

Shapes: B images, H heads, Q queries, K keys, N content tokens, P prompts, e head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Combine:
    """How the content output and the prompt output of a head join: weights from their log-sum-exps, (B, H, Q) each.

    ``needs_lse`` is False for rules whose weights do not depend on them; plain attention is then cheaper.
    """

    needs_lse = True

    def __call__(self, lse_content: Tensor, lse_prompt: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class Joint(Combine):
    r"""One softmax over all keys: weights :math:`(1-\lambda, \lambda)`, each from its own sigmoid so that neither
    loses digits when the other is near 1.

    >>> w_content, w_prompt = joint(torch.tensor(0.), torch.tensor(0.))
    >>> float(w_content), float(w_prompt)
    (0.5, 0.5)
    """

    def __call__(self, lse_content: Tensor, lse_prompt: Tensor) -> tuple[Tensor, Tensor]:
        return torch.sigmoid(lse_content - lse_prompt), torch.sigmoid(lse_prompt - lse_content)


@dataclass(frozen=True)
class Separate(Combine):
    r"""Two softmaxes, the prompt's scaled by :math:`\tanh\alpha`: weights :math:`(1, \tanh\alpha)`.

    Zero-initialised attention (Zhang et al., LLaMA-Adapter, 2023). ``alpha`` broadcasts over (B, H, Q).
    """

    alpha: Tensor
    needs_lse = False

    def __call__(self, lse_content: Tensor, lse_prompt: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(lse_content), torch.tanh(self.alpha).to(lse_content.dtype) * _any_keys(lse_prompt)


class Additive(Combine):
    """Two softmaxes, added: weights (1, 1). Cross-attention prompts (Huang et al., CVPT, ICCV 2025)."""

    needs_lse = False

    def __call__(self, lse_content: Tensor, lse_prompt: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(lse_content), _any_keys(lse_prompt)


def _any_keys(lse: Tensor) -> Tensor:
    """1 where there are keys at all, 0 where there are none (log-sum-exp -∞)."""
    return torch.isfinite(lse).to(lse.dtype)


joint, additive = Joint(), Additive()


@dataclass(frozen=True)
class KeyGroup:
    """Extra keys and values that a block attends to beside its own tokens.

    ``key``, ``value``: (B or 1, H, P, e); a leading 1 means the same for every image. ``score`` maps the scaled
    prompt scores (B, H, Q, P) to new ones, for gates that are more than a dot product. ``combine`` says how the two
    outputs join. ``temperature`` divides all scores of the block, content's too; the block applies it to its queries.

    Where ``score`` and ``combine`` hold tensors they are dataclasses, so that many prompts can be folded into one
    batch; their tensors broadcast over (B, H, Q, P) and (B, H, Q), ``temperature`` over (B, H, Q, e).
    """

    key: Tensor
    value: Tensor
    score: Callable[[Tensor], Tensor] | None = None
    combine: Combine = joint
    temperature: Tensor | None = None


@dataclass
class Split:
    """The two weighted terms of one attention call; ``content_term + prompt_term`` is the attention output.

    ``content_term``, ``prompt_term``: (B, H, Q, e). ``content_weight``, ``prompt_weight``: (B, H, Q), the factors
    :math:`w^c, w^o`; ``content_lse``, ``prompt_lse``: (B, H, Q), in nats.
    """

    content_term: Tensor
    prompt_term: Tensor
    content_weight: Tensor
    prompt_weight: Tensor
    content_lse: Tensor
    prompt_lse: Tensor

    @property
    def output(self) -> Tensor:
        return self.content_term + self.prompt_term


def attend(query: Tensor, key: Tensor, value: Tensor, extra: KeyGroup | None = None) -> Tensor:
    """Plain attention of ``query`` (B, H, Q, e) over its own keys and, joined by the rule they name, the extra ones.

    Differentiable, with the fused kernel of torch wherever the rule is one softmax over all keys.
    """
    if extra is None or extra.key.shape[2] == 0:
        return F.scaled_dot_product_attention(query, key, value)
    if isinstance(extra.combine, Joint) and extra.score is None:
        batch = query.shape[0]
        key = torch.cat([key, extra.key.expand(batch, -1, -1, -1)], dim=2)  # (B, H, K+P, e)
        value = torch.cat([value, extra.value.expand(batch, -1, -1, -1)], dim=2)
        return F.scaled_dot_product_attention(query, key, value)
    if extra.combine.needs_lse:
        return split(query, key, value, key.shape[2], extra, path="naive").output
    content = F.scaled_dot_product_attention(query, key, value)
    prompt, _ = naive(query, extra.key, extra.value, extra.score)
    w_content, w_prompt = extra.combine(*[content.new_zeros(content.shape[:3])] * 2)
    return w_content.unsqueeze(-1) * content + w_prompt.unsqueeze(-1) * prompt


def groups(key: Tensor, value: Tensor, n_content: int, extra: KeyGroup | None) -> tuple[Tensor, Tensor, KeyGroup]:
    """Sort the keys of one call by origin: content first, then all prompts (riding in the sequence or extra)."""
    content, rider = key[:, :, :n_content], key[:, :, n_content:]
    content_value, rider_value = value[:, :, :n_content], value[:, :, n_content:]
    if extra is None:
        return content, content_value, KeyGroup(rider, rider_value)
    if rider.shape[2] == 0:
        return content, content_value, extra
    if extra.score is not None or not isinstance(extra.combine, Joint):
        raise ValueError(
            "prompts that travel in the sequence join by one softmax; they cannot be mixed with extra keys that use "
            "another gate or combine rule. Give all prompts of this layer as extra keys and values."
        )
    batch = key.shape[0]
    return (
        content,
        content_value,
        KeyGroup(
            torch.cat([rider, extra.key.expand(batch, -1, -1, -1)], dim=2),
            torch.cat([rider_value, extra.value.expand(batch, -1, -1, -1)], dim=2),
        ),
    )


def split(
    query: Tensor, key: Tensor, value: Tensor, n_content: int, extra: KeyGroup | None = None, path: str = "fused"
) -> Split:
    """Take one attention call apart into its content term and its prompt term.

    ``query``, ``key``, ``value``: (B, H, Q or K, e), the first ``n_content`` keys are content, the others prompts that
    travel in the sequence. ``path`` is "fused" (no gradient, no maps) or "naive" (differentiable).

    >>> q = torch.zeros(1, 1, 1, 2); k = torch.zeros(1, 1, 4, 2); v = torch.ones(1, 1, 4, 2)
    >>> split(q, k, v, n_content=3, path="naive").prompt_weight   # four equal scores, one of them a prompt
    tensor([[[0.2500]]])
    """
    if path not in ("fused", "naive"):
        raise ValueError(f"path is {path!r}; expected 'fused' or 'naive'")
    content, content_value, prompt = groups(key, value, n_content, extra)
    attention = fused if path == "fused" else naive
    c, lse_c = attention(query, content, content_value)
    gate_path = attention if prompt.score is None else functools.partial(naive, score=prompt.score)
    o, lse_p = gate_path(query, prompt.key, prompt.value)
    w_c, w_o = prompt.combine(lse_c, lse_p)
    w_c, w_o = torch.broadcast_tensors(w_c, w_o)
    if torch.is_grad_enabled():
        c, o = c * w_c.unsqueeze(-1).to(c.dtype), o * w_o.unsqueeze(-1).to(o.dtype)
    else:  # the outputs of the attention calls are ours alone: scale them where they lie
        c, o = c.mul_(w_c.unsqueeze(-1)), o.mul_(w_o.unsqueeze(-1))
    return Split(c, o, w_c, w_o, lse_c, lse_p)


def wide(x: Tensor) -> torch.dtype:
    """The dtype in which sums over x are taken: its own, but float32 at least. Scores of ±80 need the digits."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def scores(query: Tensor, key: Tensor, score: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Scaled scores (B, H, Q, K), float32 at least: query · key / √e, passed through ``score`` where one is given."""
    dtype = wide(query)
    with torch.autocast(query.device.type, enabled=False):  # autocast would round the scores to half precision again
        s = query.to(dtype) @ key.to(dtype).transpose(-1, -2) * query.shape[-1] ** -0.5
        return s if score is None else score(s)


def naive(query: Tensor, key: Tensor, value: Tensor, score: Callable | None = None) -> tuple[Tensor, Tensor]:
    """Attention with its maps written out: output (B, H, Q, e) and log-sum-exp (B, H, Q). The reference."""
    if key.shape[2] == 0:
        return _empty(query)
    s = scores(query, key, score)
    with torch.autocast(query.device.type, enabled=False):
        lse = torch.logsumexp(s, dim=-1)
        output = torch.exp(s - lse.unsqueeze(-1)) @ value.to(s.dtype)
    return output.to(value.dtype), lse


def fused(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention by the device's fused kernel: output (B, H, Q, e) and log-sum-exp (B, H, Q), natural logarithm.

    The operators are private to torch, so the first use on each device and dtype is checked against ``naive``; where
    there is no operator that returns the log-sum-exp (or it fails that check), ``naive`` is used. No gradient.
    """
    if key.shape[2] == 0:
        return _empty(query)
    with torch.no_grad():
        batch = query.shape[0]
        key, value = key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1)
        aligned = query.device.type == "cpu" or query.shape[-1] % 8 == 0  # CUDA's kernels read in blocks of 16 bytes
        if aligned and fused_is_sound(query.device.type, query.dtype):
            return _kernel(query, key, value)
        return naive(query, key, value)


def _empty(query: Tensor) -> tuple[Tensor, Tensor]:
    """No keys at all: output 0 and log-sum-exp -∞."""
    return torch.zeros_like(query), query.new_full(query.shape[:3], -torch.inf, dtype=wide(query))


def _kernel(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    aten = torch.ops.aten
    if query.device.type == "cpu":
        return aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    # CUDA: the flash kernel for half precision, the memory-efficient one otherwise. Its log-sum-exp is padded to a
    # multiple of 32 queries, so it is cut back to Q.
    n = query.shape[2]
    if query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256:
        out, lse, *_ = aten._scaled_dot_product_flash_attention(query, key, value)
    else:
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(query, key, value, None, True)
    return out, lse[..., :n]


LSE_BOUND = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}


@functools.cache
def fused_is_sound(device: str, dtype: torch.dtype) -> bool:
    """Whether the fused kernel of this device agrees with ``naive`` in output and log-sum-exp; measured once."""
    if dtype not in LSE_BOUND or (device == "cuda" and dtype == torch.float64) or device not in ("cpu", "cuda"):
        return False
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 16, generator=generator, dtype=torch.float64) for n in (37, 53, 53))
    try:
        out, lse = _kernel(*(t.to(device, dtype) for t in (q, k, v)))
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    want_out, want_lse = naive(*(t.to(dtype).double() for t in (q, k, v)))
    if lse.shape != want_lse.shape:
        return False
    error = max((out.double().cpu() - want_out).abs().max(), (lse.double().cpu() - want_lse).abs().max())
    return bool(error <= LSE_BOUND[dtype])
