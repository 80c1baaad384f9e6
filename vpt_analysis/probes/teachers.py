r"""Teachers: what a layer's heads would give if the layer had been changed, from a constant to a new pattern.

One block on fixed tokens, with LN1 outputs u, content pattern :math:`a_{ij}`, values :math:`v_j` and content outputs
:math:`c_i = \sum_j a_{ij} v_j` a head. Each teacher gives the change :math:`\Delta_i` of :math:`c_i`, at strength t:

==============  =====================================================================================================
"constant"      :math:`t\,\delta`, one vector for all images and queries
"gate"          :math:`\lambda_i\,(t\,o - c_i)`, one static prompt: value t o, λ about a tenth
"linear-value"  :math:`t\,A \sum_j a_{ij} u_j`, values moved by a full-rank A u
"rotation"      :math:`(e^{tS} - I)\,c_i`, S antisymmetric of spectral norm 1: values rotated
"class"         :math:`t\,\delta_y`, one vector a class y of the image
"lora-v"        :math:`t\,B A \sum_j a_{ij} u_j`, a low-rank update of W_V
"lora-q"        :math:`\sum_j (a'_{ij} - a_{ij})\,v_j`, pattern a' of queries :math:`q_i + t\,B A u_i`: one of W_Q
==============  =====================================================================================================

A teacher is drawn and scaled on one population and can be asked about another, which is then taught by the same
function. Shapes: n images, Q queries, H heads, e head width, d width, N tokens. float64. [Own choice of teachers; the
LoRA updates are those of Hu et al., ICLR 2022, eq. 3.]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from scipy.optimize import brentq
from torch import Tensor

from ..errors import unknown
from .one_layer import OneLayer


class Maps:
    """What teachers read of a layer: ``u`` (n, N, d), ``query``, ``key`` and ``value`` of the heads, the content
    ``pattern`` (n, H, Q, N) and ``attended`` tokens Σ a u (nQ, H, d)."""

    def __init__(self, layer: OneLayer):
        self.u = layer.block.ln1(layer.tokens)
        query, self.key, self.value = layer.block.attention.project(self.u)
        self.rows = layer.rows
        self.query = query[:, :, layer.rows]  # (n, H, Q, e)
        self.pattern = self.attend(self.query)
        self.attended = self.flat(self.pattern @ self.u[:, None])

    def attend(self, query: Tensor) -> Tensor:
        return torch.softmax(query @ self.key.mT * query.shape[-1] ** -0.5, dim=-1)

    @staticmethod
    def flat(x: Tensor) -> Tensor:
        """(n, H, Q, ·) to (nQ, H, ·), the order of ``OneLayer``."""
        return x.transpose(1, 2).flatten(0, 1)


# Each takes the layer, what was drawn, the strength, labels, and the layer's Maps (None where it needs none).
def _constant(layer, p: Mapping[str, Tensor], t: float, labels, maps) -> Tensor:
    return (t * p["shift"]).expand_as(layer.content)


def _gate(layer, p: Mapping[str, Tensor], t: float, labels, maps) -> Tensor:
    score = torch.einsum("mhe,he->mh", layer.query, p["key"])
    return torch.sigmoid(score - layer.lse)[..., None] * (t * p["value"] - layer.content)


def _linear(layer, p: Mapping[str, Tensor], t: float, labels, maps) -> Tensor:
    return t * torch.einsum("mhd,hed->mhe", maps.attended, p["update"])


def _rotation(layer, p: Mapping[str, Tensor], t: float, labels, maps) -> Tensor:
    turned = torch.linalg.matrix_exp(t * p["generator"])
    return torch.einsum("mhe,hfe->mhf", layer.content, turned) - layer.content


def _class(layer, p: Mapping[str, Tensor], t: float, labels, maps) -> Tensor:
    return t * p["shifts"][checked_labels(layer, labels, len(p["shifts"]))].repeat_interleave(len(layer.rows), 0)


def _lora_q(layer, p: Mapping[str, Tensor], t: float, labels, maps) -> Tensor:
    moved = torch.einsum("nqd,hed->nhqe", maps.u[:, layer.rows], p["update"])
    return maps.flat((maps.attend(maps.query + t * moved) - maps.pattern) @ maps.value)


CHANGES: dict[str, Callable] = {
    "constant": _constant,
    "gate": _gate,
    "linear-value": _linear,
    "rotation": _rotation,
    "class": _class,
    "lora-v": _linear,
    "lora-q": _lora_q,
}
NAMES = tuple(CHANGES)
PROPORTIONAL = ("constant", "linear-value", "class", "lora-v")  # their change is t times that at t = 1
SHRUNK = 0.01  # the "gate" teacher's Σ λ²‖c‖², of Σ‖c‖²
LEVELS = tuple(0.25 * k for k in range(60, -161, -1))
READ_MAPS = ("linear-value", "lora-v", "lora-q")


def checked_labels(layer: OneLayer, labels: Tensor | None, classes: int | None = None) -> Tensor:
    n = len(layer.tokens)
    if labels is None:
        raise ValueError("the teacher shifts by class: give labels, one integer an image")
    labels = torch.as_tensor(labels)
    if labels.shape != (n,) or labels.dtype != torch.int64 or int(labels.min()) < 0:
        raise ValueError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}; expected int64 ({n},), from 0 on")
    if classes is not None and int(labels.max()) >= classes:
        raise ValueError(f"label {int(labels.max())}, but the teacher was drawn for the classes 0 … {classes - 1}")
    return labels


@dataclass(frozen=True, eq=False)
class Teacher:
    """A change of a layer's heads: what was drawn (``parameters``), and how strong it is."""

    name: str
    parameters: Mapping[str, Tensor]
    strength: float

    @torch.no_grad()
    def change(self, layer: OneLayer, labels: Tensor | None = None) -> Tensor:
        """Δ (nQ, H, e) on the tokens of ``layer``; ``labels`` int64 (n,) are read by "class" alone, and needed there.

        The targets are ``layer.content + change``.
        """
        return self.at(self.strength, layer, labels, Maps(layer) if self.name in READ_MAPS else None)

    def at(self, strength: float, layer: OneLayer, labels: Tensor | None, maps: Maps | None) -> Tensor:
        return CHANGES[self.name](layer, self.parameters, strength, labels, maps)


@torch.no_grad()
def draw(
    name: str, layer: OneLayer, seed: int = 0, energy: float = 0.1, labels: Tensor | None = None, rank: int = 4
) -> Teacher:
    """A random teacher, as strong that Σ‖Δ‖² = ``energy`` · Σ‖c‖² over the population of ``layer`` and all its heads.

    ``labels`` int64 (n,) for "class"; ``rank`` of "lora-v" and "lora-q". Raises ``ValueError`` for an unknown name,
    parameters out of range, and an energy that the teacher does not have at any strength.
    """
    if name not in CHANGES:
        raise unknown("teacher", name, NAMES)
    d = layer.tokens.shape[-1]
    if not isinstance(rank, int) or not 1 <= rank <= d:
        raise ValueError(f"rank is {rank!r}; expected an integer from 1 to the width {d}")
    if not (isinstance(energy, float) and 0 < energy < math.inf):
        raise ValueError(f"energy is {energy!r}; expected a positive share of the content's, such as 0.1")
    wanted = energy * float(layer.content.square().sum())
    generator = torch.Generator().manual_seed(seed)
    start = Teacher(name, _drawn(name, layer, generator, labels, rank), 1.0)
    if name in PROPORTIONAL:
        return replace(start, strength=math.sqrt(wanted / float(start.change(layer, labels).square().sum())))
    return replace(start, strength=_strength(start, layer, wanted, energy))


def _drawn(name: str, layer: OneLayer, generator: torch.Generator, labels: Tensor | None, rank: int) -> dict:
    heads, e, d = layer.heads, layer.e, layer.tokens.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if name == "constant":
        return {"shift": normal(heads, e)}
    if name == "class":
        return {"shifts": normal(int(checked_labels(layer, labels).max()) + 1, heads, e)}
    if name == "rotation":
        s = normal(heads, e, e)
        s = s - s.mT
        return {"generator": s / torch.linalg.matrix_norm(s, 2)[:, None, None]}
    if name == "linear-value":
        return {"update": normal(heads, e, d)}
    if name in ("lora-v", "lora-q"):
        down, up = normal(rank, d), normal(heads, e, rank)  # one down-projection for all heads, as LoRA has it
        return {"update": up @ down / math.sqrt(rank * d)}
    value = normal(heads, e) * layer.content.square().mean((0, 2)).sqrt()[:, None]
    return {"key": _gate_key(layer, normal(heads, e)), "value": value}


def _gate_key(layer: OneLayer, key: Tensor) -> Tensor:
    """Keys (H, e) whose scores have standard deviation 1 over the population (0 where all queries are equal), moved
    along the direction in which queries have as nearly constant scores as least squares makes, to the highest level
    with Σ λ²‖c‖² ≤ ``SHRUNK`` Σ‖c‖²."""
    query = layer.query.transpose(0, 1)  # (H, M, e)
    scores = (query @ key[..., None])[..., 0]
    spread = scores.std(1, keepdim=True)
    key = key / torch.where(spread > 1e-9 * scores.abs().amax(1, keepdim=True), spread, torch.inf)
    level = torch.linalg.lstsq(query, torch.ones_like(query[..., :1]), driver="gelsd").solution[..., 0]
    energy, keys = layer.content.square().sum(-1), []
    for h in range(layer.heads):
        relative, step = query[h] @ key[h] - layer.lse[:, h], query[h] @ level[h]
        shrunk = [
            float((torch.sigmoid(relative + a * step).square() * energy[:, h]).sum() / energy[:, h].sum())
            for a in LEVELS
        ]
        a = next((a for a, s in zip(LEVELS, shrunk, strict=True) if s <= SHRUNK), LEVELS[-1])
        keys.append(key[h] + a * level[h])
    return torch.stack(keys)


def _strength(teacher: Teacher, layer: OneLayer, wanted: float, energy: float) -> float:
    """A strength at which the change has the energy, by Brent's method between one too small and one too large."""

    maps = Maps(layer) if teacher.name in READ_MAPS else None

    def excess(t: float) -> float:
        return float(teacher.at(t, layer, None, maps).square().sum()) - wanted

    if teacher.name == "rotation":  # beyond π it turns back
        tries = [math.pi * k / 16 for k in range(1, 17)]
    else:
        tries = [0.01 * 4.0**k for k in range(10)]
    high = next((t for t in tries if excess(t) >= 0), None)
    if high is None or excess(0.0) > 0:
        raise ValueError(
            f"no strength of the {teacher.name} teacher moves {energy:g} of the content's energy on these tokens; ask "
            f"for another energy, or draw it with another seed"
        )
    return brentq(excess, max((t for t in tries if t < high), default=0.0), high, rtol=1e-14)
