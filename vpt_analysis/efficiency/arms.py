"""The arms of a comparison: a method with its options, the number of its prompts, and where they start."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import baselines, prompts
from ..errors import unknown
from ..vit import VisionTransformer

STARTS = ("standard", "small", "prototypes", "tied")
SMALL = 0.01  # of the standard start


@dataclass(frozen=True)
class Arm:
    """A ``method``, a prompt mechanism or a baseline by name, as it enters a comparison.

    ``length`` is the number of prompts (a baseline has none), ``options`` are the method's own. ``start`` is where
    prompts begin: "standard", "small" (the standard start times 0.01), "prototypes" (k-means centres of the content
    tokens), or "tied", for untied keys and values only: those of VPT-Deep prompts that were trained for the first half
    of the steps, with the head that goes on. The arm's learning rates are those of a plan times ``scale``, so that all
    arms have as many trials. Raises ``ValueError`` on what no arm can have.
    """

    name: str
    method: str
    label: str = ""
    length: int = 10
    options: dict = field(default_factory=dict)
    start: str = "standard"
    scale: float = 1.0

    def __post_init__(self):
        if not isinstance(self.method, str) or self.method not in (*prompts.names(), *baselines.names()):
            raise unknown(f"method of arm {self.name!r}", self.method, sorted([*prompts.names(), *baselines.names()]))
        if self.start not in STARTS:
            raise unknown(f"start of arm {self.name!r}", self.start, STARTS)
        if not self.prompted and self.start != "standard":
            raise ValueError(f"arm {self.name!r}: {self.method} has no prompts, so it cannot start at {self.start!r}")
        if not isinstance(self.scale, int | float) or isinstance(self.scale, bool) or not 0 < self.scale < math.inf:
            raise ValueError(f"arm {self.name!r}: scale is {self.scale!r}; expected a positive number")
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def prompted(self) -> bool:
        return self.method in prompts.names()

    def plain(self) -> dict:
        """As JSON values; ``Arm(**arm.plain())`` is the arm."""
        return asdict(self)


FINE = 0.1  # weights of the backbone itself move far enough at smaller steps
# Untied keys and values enter raw, without the LayerNorm and the projections that multiply the gradient of tokens.
RAW = 3.0
RELEASED = "VAPT, released"
# What options of the released code add.
WITHOUT = {"norm": "norm", "residual": "residual", "zero_init": "zero-start"}

ARMS = {
    arm.name: arm
    for arm in (
        Arm("linear", "linear", "Linear probe"),
        Arm("full", "full", "Full fine-tuning", scale=FINE),
        Arm("bias", "bias", "Bias only"),
        Arm("lora", "lora", "LoRA", options={"rank": 2}),
        Arm("vpt-shallow", "vpt-shallow", "VPT-Shallow"),
        Arm("vpt-deep", "vpt-deep", "VPT-Deep"),
        Arm("vpt-deep-small", "vpt-deep", "VPT-Deep, start × 0.01", start="small"),
        Arm("vpt-deep-prototypes", "vpt-deep", "VPT-Deep, prototypes", start="prototypes"),
        Arm("vpt-deep-matched", "vpt-deep", "VPT-Deep, P = 6", length=6),
        Arm("vpt-projected", "vpt-projected", "Static with VAPT's extras", length=5),
        Arm("vapt", "vapt", "VAPT"),
        Arm("vapt-mean", "vapt", "VAPT, fed with means", options={"mean_fed": True}),
        Arm("vapt-released", "vapt-released", RELEASED),
        Arm("vapt-released-mean", "vapt-released", f"{RELEASED}, fed with means", options={"mean_fed": True}),
        *(Arm(f"vapt-released-no-{what}", "vapt-released", f"{RELEASED}, no {what}", options={option: False})
          for option, what in WITHOUT.items()),
        Arm("vapt-released-no-convolution", "vapt-released", f"{RELEASED}, no convolution", options={"kernel": 1}),
        Arm("norga", "norga", "NoRGa"),
        Arm("prefix", "prefix", "Prefix, untied", scale=RAW),
        Arm("prefix-scaled", "prefix-scaled", "Prefix, untied, scaled"),
        Arm("prefix-warm", "prefix", "Prefix, from tied", start="tied", scale=RAW),
    )
}  # fmt: skip


def arm(given: str | Mapping) -> Arm:
    """An arm by the name of one of ``ARMS``, by that of any mechanism or baseline, or from a table of its fields.

    Raises ``ValueError`` for an unknown name or field.

    >>> arm("vpt-deep").length, arm({"name": "longer", "method": "vpt-deep", "length": 50}).length
    (10, 50)
    """
    if isinstance(given, str):
        if given in ARMS:
            return ARMS[given]
        known = sorted({*ARMS, *prompts.names(), *baselines.names()})
        if given not in known:
            raise unknown("arm", given, known)
        return Arm(given, given)
    known = [f.name for f in fields(Arm)]
    for key in given:
        if key not in known:
            raise unknown("field of an arm", key, known)
    if "method" not in given:
        raise ValueError(f'an arm lacks its method: {dict(given)}; expected at least method = "vpt-deep" or another')
    return Arm(**{"name": given["method"], **given})


def tables(names: Iterable[str]) -> list[dict]:
    """Arms as JSON values: what a study keeps, for results are read by the arms they were computed with."""
    return [arm(name).plain() for name in names]


def load_modules(paths: Iterable[str | Path]) -> None:
    """Execute Python files of one's own, which register mechanisms; each once in a process. Raises
    ``FileNotFoundError`` where there is none."""
    for path in map(Path, paths):
        path = path.expanduser().resolve()
        name = f"vpt_analysis_own_{path.stem}_{abs(hash(str(path)))}"
        if name in sys.modules:
            continue
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; a plan's modules are Python files that register mechanisms")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:  # or the next call would take it for executed
            del sys.modules[name]
            raise


def create(arm: Arm, vit: VisionTransformer, images: Tensor, seed: int) -> nn.Module:
    """The method of an arm before its first step. ``images`` (n, C, h, w) are those it will be trained on; prototypes
    and means are taken from them. A start that is tied is left to ``runs``, for it takes training."""
    if not arm.prompted:
        return baselines.create(arm.method, vit, seed, **arm.options)
    if arm.start == "prototypes":
        method = prompts.from_prototypes(arm.method, vit, images, arm.length, seed, **arm.options)
    else:
        method = prompts.create(arm.method, vit.config, arm.length, seed, **arm.options).to(vit.patch.weight)
    if arm.start == "small":
        with torch.no_grad():
            for p in method.parameters():
                p.mul_(SMALL)
    method.prepare(vit, images)
    return method
