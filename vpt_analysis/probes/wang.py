r"""The Wang pair: two inputs that share a query token, to be given different outputs by one layer. (C16)

Two sequences of length two, :math:`[x_1, x_0]` and :math:`[x_2, x_0]`, through one encoder layer; what counts is the
output at :math:`x_0`. As we understand the construction (we have not read the paper's assumptions in full): keys,
queries and values have full rank, and the width d is at least 2 plus the dimension of the space that the targets'
preimages under the MLP, less :math:`x_0`, span. Static prompts add the same direction to both inputs, so targets can
be chosen that no prompts of any length memorise. Here the layer is this package's own block, with or without its
LayerNorms; :math:`x_0` is the CLS token and :math:`x_a` the only patch, so that every registered mechanism fits it.

Source: Wang, Chauhan, Wang and Hsieh, Universality and Limitations of Prompt Tuning, NeurIPS 2023, arXiv 2305.18787.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .. import baselines
from ..errors import unknown
from ..vit import Block, VisionTransformer, ViTConfig
from .nearest import nearest
from .one_layer import OneLayer, mlp_slope
from .reachable import Reachable, reachable
from .wang_fits import Arm, fit

KINDS = ("line", "free", "swap", "static")
LENGTHS = (1, 2, 5, 10, 50, 200)


@dataclass(frozen=True, eq=False)
class Pair:
    """A layer (``vit`` of one block and one patch), ``tokens`` (2, 2, d) with x₀ first, ``targets`` (2, 1, d) of the
    block's output at x₀, and the numbers that the construction assumes something about."""

    vit: VisionTransformer
    tokens: Tensor
    targets: Tensor
    kind: str
    assumptions: Mapping[str, float]


@torch.no_grad()
def pair(
    width: int = 8,
    heads: int = 1,
    seed: int = 0,
    norm: bool = True,
    mlp: float = 0.0,
    kind: str = "line",
    shift: float = 1.0,
) -> Pair:
    r"""A random layer, a random pair and targets for it, float64.

    ``norm``: whether the block has its LayerNorms. ``mlp``: the bound on the slope of its MLP part, in [0, 1), by which
    its weights are scaled; 0 is a layer of attention and residual alone. Targets are what the block makes of
    :math:`r_a = x_0 + b_O + W_O(c_a + \delta_a)`, with content outputs :math:`c_a`. ``kind`` of :math:`W_O\delta_a`:
    "line", +b and −b with one random direction b (which a rank-1 change of W_V can do); "free", two random directions;
    "swap", each input gets the attention output of the other; "static", what one random static prompt does (reachable
    by construction). Lengths are ``shift`` times the mean of :math:`\|W_O c_a + b_O\|`; directions are drawn among
    those that W_O W_V makes of normalised tokens: behind a LayerNorm one dimension is lost, to every kind of prompt.
    """
    if kind not in KINDS:
        raise unknown("kind of targets", kind, KINDS)
    if not 0 <= mlp < 1:
        raise ValueError(f"mlp is {mlp!r}; expected a bound on its slope in [0, 1), for which the block is invertible")
    config = ViTConfig(image_size=4, patch_size=4, width=width, depth=1, heads=heads, mlp_width=2 * width)
    generator = torch.Generator().manual_seed(seed)
    vit = VisionTransformer(config).double().eval().requires_grad_(False)
    block = vit.blocks[0]
    for p in block.parameters():
        gain = 1 / math.sqrt(p.shape[1]) if p.ndim > 1 else 0.1
        p.add_(gain * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    if not norm:
        block.ln1 = block.ln2 = nn.Identity()
    shrink = mlp / mlp_slope(block)
    block.fc1.weight *= math.sqrt(shrink)
    block.fc2.weight *= math.sqrt(shrink)
    x0, x1, x2 = torch.randn(3, width, generator=generator, dtype=torch.float64)
    tokens = torch.stack([torch.stack([x0, x1]), torch.stack([x0, x2])])
    layer = OneLayer(block, tokens, (0,))
    plain = layer.content.flatten(1) @ layer.out.T  # (2, d)
    size = shift * float((plain + layer.base - x0).norm(dim=1).mean())
    b, other, o = _directions(block, layer.out, torch.randn(3, width, generator=generator, dtype=torch.float64))
    weight = torch.sigmoid(1 - layer.lse.mean(1, keepdim=True))  # of static prompts with a log-mass of 1
    moved = {
        "line": plain + size * torch.stack([b, -b]),
        "free": plain + size * torch.stack([b, other]),
        "swap": plain.flip(0),
        "static": plain + weight * (plain.mean(0) + size * o - plain),
    }[kind]
    if kind == "static" and heads > 1:
        raise ValueError("targets that a static prompt makes are built for one head; choose heads=1 or another kind")
    r = layer.base + moved
    h = block.fc2(torch.nn.functional.gelu(block.fc1(block.ln2(r))))
    targets = (r + h)[:, None]
    return Pair(vit, tokens, targets, kind, assumptions(layer, r, x0))


def _directions(block: Block, out: Tensor, z: Tensor) -> Tensor:
    """Unit vectors of the residual stream, in which values of normalised tokens differ by multiples of z (3, d)."""
    if isinstance(block.ln1, nn.LayerNorm):
        z = block.ln1.weight * (z - z.mean(-1, keepdim=True))
    value = block.attention.qkv.weight.chunk(3)[2]
    return torch.nn.functional.normalize(z @ value.T @ out.T, dim=-1)


def assumptions(layer: OneLayer, r: Tensor, x0: Tensor) -> dict[str, float]:
    """What the construction needs, as numbers: the ratio of smallest to largest singular value of W_Q, W_K, W_V and W_O
    (> 0: full rank); ``query_gap`` between the two queries at x₀ (0); ``preimages``, the dimension that the targets'
    preimages less x₀ span, and ``spare`` = d − 2 − that (≥ 0); ``mlp_slope`` (< 1: one preimage each);
    ``target_gap``, the distance of the two preimages relative to their norm (> 0)."""
    weights = dict(zip("QKV", layer.block.attention.qkv.weight.chunk(3), strict=True)) | {"O": layer.out}
    found = {
        f"rank_{name}": float(s[-1] / s[0]) for name, s in ((n, torch.linalg.svdvals(w)) for n, w in weights.items())
    }
    spanned = int(torch.linalg.matrix_rank(r - x0, rtol=1e-9))
    return found | {
        "query_gap": float((layer.query[0] - layer.query[1]).abs().max()),
        "preimages": spanned,
        "spare": len(x0) - 2 - spanned,
        "mlp_slope": mlp_slope(layer.block),
        "target_gap": float((r[0] - r[1]).norm() / r.norm()),
    }


@dataclass(frozen=True, eq=False)
class Wang:
    """``plain``: relative error without a prompt. ``static``: for "prefix" (which holds every static prompt that joins
    by one softmax) and "vpt-deep", what is proved of any length; ``arms``: what was fitted, a method after the other,
    by length."""

    plain: float
    static: Mapping[str, Reachable]
    arms: tuple[Arm, ...]


def wang_pair(
    made: Pair,
    methods: Sequence[str] = ("prefix", "vpt-deep", "vapt", "lora"),
    lengths: Sequence[int] = LENGTHS,
    restarts: int = 32,
    steps: int = 200,
    seed: int = 0,
    **options,
) -> Wang:
    """What static prompts of any length cannot do for a pair, and what each method does from many starts.

    ``methods``: names of prompt mechanisms (each at every length) or of baselines; ``options`` of them all, in place of
    those of ``wang_fits.OPTIONS``. Same arguments, same values.
    """
    static = {name: proved(made, name) for name in ("prefix", "vpt-deep")}
    arms = []
    for method in methods:
        at = (0,) if method in baselines.names() else lengths
        arms += fit([made], method, at, restarts, steps, seed, **options)[0]
    return Wang(static["prefix"].plain, static, tuple(arms))


def proved(made: Pair, mechanism: str) -> Reachable:
    """What is proved of a static mechanism, of any length; also those whose gate reads the input, such as "norga":
    inputs with a common query have common prompt scores."""
    return reachable(made.vit.blocks[0], made.tokens, made.targets, mechanism, at="block")


@torch.no_grad()
def tied_floor(made: Pair, length: int) -> tuple[float, Tensor]:
    r"""What ``length`` tied prompts, or more, cannot do: the relative error that they do not come below, as proved, and
    the prompt masses λ (2,) that they have at least at :math:`x_0`.

    Behind a LayerNorm the score of a prompt is at least :math:`s_{\min} = q\cdot(W_K\beta + b_K)/\sqrt e - \sqrt d\,
    \|\bar a\|`, :math:`\bar a` the centred :math:`\gamma\odot W_K^\top q/\sqrt e`. So
    :math:`\lambda_a \ge \sigma(\log P + s_{\min} - \mathrm{lse}_a)`, which goes to 1: what P prompts reach, P + 1 need
    not reach, and long prompts make the two outputs equal. [Own derivation.] Raises ``ValueError`` without a LayerNorm,
    where a prompt can be switched off, for several heads and for no prompt.
    """
    layer = OneLayer(made.vit.blocks[0], made.tokens, (0,))
    if layer.heads > 1 or not isinstance(layer.block.ln1, nn.LayerNorm) or length < 1:
        raise ValueError(
            f"{length} prompts, {layer.heads} heads, {type(layer.block.ln1).__name__}; expected at least 1, 1 and "
            f"LayerNorm: without it a prompt's score has no bound"
        )
    wanted, slack, factor = layer.head_targets(made.targets, "block")
    problem = layer.problem(0, list(range(len(made.tokens))), wanted, ball=True, additive=False)
    problem = replace(problem, values=replace(problem.values, prompts=length))
    bound = (factor * nearest(problem).bound - slack) / float(made.targets.norm())
    return max(0.0, bound), torch.sigmoid(problem.values.least - layer.lse[:, 0])
