"""A state dict that is consumed key by key: nothing is dropped, nothing is made up.

Every family of weights (``timm.py``, ``huggingface.py``, ...) takes the tensors it knows out of ``Keys`` and gives back
a config and the state of ``vit.VisionTransformer``. A missing key, a wrong shape, a NaN and a key that nobody took are
errors that name the tensor.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
import sys
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..vit import VisionTransformer, ViTConfig

# Heads of the published Vision Transformers: one for every 64 columns, except these widths (SO400m, H, g, G).
PUBLISHED_HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}


class Keys:
    """Named tensors of one source, each to be taken once."""

    def __init__(self, tensors: Mapping[str, Tensor | np.ndarray], source: str):
        self.source = source
        self.tensors = {name: as_tensor(name, value, source) for name, value in tensors.items()}
        self.left_out: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def any(self, pattern: str) -> bool:
        """Whether some key matches the regular expression from its start."""
        return any(re.match(pattern, name) for name in self.tensors)

    def count(self, pattern: str) -> int:
        """How many blocks: one more than the largest number that the pattern's group finds."""
        found = [int(m.group(1)) for name in self.tensors if (m := re.match(pattern, name))]
        return max(found, default=-1) + 1

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor ``name``, of this shape (None: any size there)."""
        if name not in self.tensors:
            near = difflib.get_close_matches(name, self.tensors, n=1)
            hint = f" (the nearest there is: {near[0]!r})" if near else ""
            raise ValueError(f"{self.source}: key {name!r} is missing{hint}; weights incomplete or of another model")
        tensor = self.tensors.pop(name)
        if len(shape) != tensor.ndim or any(s not in (None, n) for s, n in zip(shape, tensor.shape, strict=True)):
            want = " × ".join("any" if s is None else str(s) for s in shape)
            raise ValueError(f"{self.source}: {name!r} has shape {tuple(tensor.shape)}; expected {want}")
        if not tensor.is_floating_point():
            raise ValueError(f"{self.source}: {name!r} is {tensor.dtype}; expected floating point (quantised weights?)")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{self.source}: {name!r} has NaN or infinite values; damaged, or training diverged")
        return tensor

    def first_of(self, *names: str) -> str:
        """The one of several possible names that is there; the first where none is, for the error message."""
        return next((name for name in names if name in self.tensors), names[0])

    def pair(self, name: str, *shape: int | None, bias: bool = True) -> dict[str, Tensor]:
        """``name.weight`` and ``name.bias``; a layer made without bias has an exact equal with a bias of zero."""
        weight = self.take(f"{name}.weight", *shape)
        return {"weight": weight, "bias": self.take(f"{name}.bias", shape[0]) if bias else weight.new_zeros(shape[0])}

    def leave_out(self, pattern: str) -> list[str]:
        """Put aside keys that come after the tokens and do not influence them; ``finish`` warns about them."""
        names = [name for name in self.tensors if re.match(pattern, name)]
        for name in names:
            del self.tensors[name]
        self.left_out += names
        return names

    def finish(self) -> None:
        """Raise if a key was not used; warn if some were left out."""
        if self.tensors:
            raise ValueError(
                f"{self.source}: {len(self.tensors)} keys are not used by the minimal Vision Transformer: "
                f"{listed(self.tensors)}. It would not compute what these weights were made for."
            )
        if self.left_out:
            warnings.warn(
                f"{self.source}: left out {listed(self.left_out, limit=100)}, which the tokens do not depend on",
                UserWarning,
                stacklevel=caller_level(),
            )


def listed(names, limit: int = 12) -> str:
    names = sorted(names)
    return ", ".join(map(repr, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def caller_level() -> int:
    """The ``stacklevel`` of the first frame outside this package, so that a warning points at the user's line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        level, frame = level + 1, frame.f_back
    return level


def as_tensor(name: str, value: Tensor | np.ndarray, source: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(np.ascontiguousarray(value))
    raise ValueError(f"{source}: {name!r} is {type(value).__name__}, not a tensor; pass a state dict of tensors")


def strip(tensors: Mapping, *prefixes: str) -> dict:
    """Without a prefix that all keys share (``module.`` of DataParallel, ``_orig_mod.`` of torch.compile)."""
    tensors = dict(tensors)
    for prefix in prefixes:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors


def without_prefix(tensors: Mapping[str, Tensor], patch: str, source: str) -> dict[str, Tensor]:
    """Without what stands before the encoder's names (``vit.``, ``backbone.``), found by its patch embedding."""
    prefixes = [name[: -len(patch)] for name in tensors if name.endswith(patch)]
    if len(prefixes) != 1:
        raise ValueError(f"{source} holds {len(prefixes)} encoders {prefixes}; pass the state dict of one")
    bare = {name.removeprefix(prefixes[0]): tensor for name, tensor in tensors.items()}
    if len(bare) != len(tensors):
        raise ValueError(f"{source} has the same names with and without {prefixes[0]!r}; pass that of one model")
    return bare


def default_heads(width: int, source: str) -> int:
    """Heads of the published models of this width; weights alone do not say.

    >>> [default_heads(d, "weights") for d in (192, 384, 768, 1024, 1280)]
    [3, 6, 12, 16, 16]
    """
    if width in PUBLISHED_HEADS:
        return PUBLISHED_HEADS[width]
    if width % 64 or width < 192:
        raise ValueError(f"{source}: weights do not say how many heads a width of {width} is cut into; pass heads=")
    return width // 64


def square_side(patches: int, source: str) -> int:
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise ValueError(f"{source}: positions for {patches} patches make a non-square grid, which is not computed")
    return side


def square_patch(shape: torch.Size, source: str) -> int:
    if shape[-1] != shape[-2]:
        raise ValueError(f"{source}: patches of {shape[-2]} × {shape[-1]} pixels are non-square, which is not computed")
    return shape[-1]


def make_config(source: str, facts: Mapping, inferred: Mapping, defaults: Mapping) -> ViTConfig:
    """The config from what shapes say (``inferred``), what the object or the caller says (``facts``), and the rest.

    What shapes say cannot be overruled: a fact that contradicts it is an error.
    """
    for name in inferred.keys() & facts.keys():
        if facts[name] != inferred[name]:
            raise ValueError(f"{source}: {name} is {inferred[name]} in the weights, but {facts[name]} was stated")
    known = {**defaults, **facts, **inferred}
    if "heads" not in known:
        known["heads"] = default_heads(known["width"], source)
    return ViTConfig(**known)


def assemble(
    config: ViTConfig, state: Mapping[str, Tensor], dtype: torch.dtype | None, device, source: str
) -> VisionTransformer:
    """A model with these weights, copied. ``dtype`` None keeps the source's (the wider one where it has several)."""
    dtype = dtype or functools.reduce(torch.promote_types, (tensor.dtype for tensor in state.values()))
    if not dtype.is_floating_point:
        raise ValueError(f"dtype is {dtype}; expected a floating point dtype")
    copies = {}
    for name, tensor in state.items():
        copies[name] = tensor.to(device=device or tensor.device, dtype=dtype, copy=True).contiguous()
        if dtype.itemsize < tensor.dtype.itemsize and not torch.isfinite(copies[name]).all():
            raise ValueError(f"{source}: {name!r} has values too large for {dtype}; load it in a wider dtype")
    with torch.device("meta"):  # the initial values would be thrown away
        vit = VisionTransformer(config)
    vit.load_state_dict(copies, assign=True)
    return vit.eval()
