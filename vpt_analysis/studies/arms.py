"""The arms of the family study: every mechanism, and the controls that a claim needs beside it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Arm:
    """A mechanism with its options, the number of its prompts, and how figures call it."""

    mechanism: str
    label: str
    length: int = 10
    options: dict = field(default_factory=dict)


ARMS = {
    "vpt-shallow": Arm("vpt-shallow", "VPT-Shallow"),
    "vpt-deep": Arm("vpt-deep", "VPT-Deep"),
    "vapt": Arm("vapt", "VAPT"),
    "vapt-released": Arm("vapt-released", "VAPT, released"),
    "vapt-p5": Arm("vapt", "VAPT, P = 5", length=5),
    "norga": Arm("norga", "NoRGa"),
    "norga-control": Arm("norga", "NoRGa control", options={"activation": "identity"}),
    "gated": Arm("gated", "Gated", options={"gate_init": 5.0}),
    "vfpt": Arm("vfpt", "VFPT"),
    "prefix": Arm("prefix", "Prefix"),
    "prefix-norga": Arm("norga", "Prefix + NoRGa", options={"on": "prefix"}),
    "prefix-norga-control": Arm("norga", "Prefix + control", options={"on": "prefix", "activation": "identity"}),
    "prefix-shared": Arm("prefix-shared", "Prefix, shared"),
    "prefix-scaled": Arm("prefix-scaled", "Prefix, scaled"),
    "e2vpt": Arm("e2vpt", "E²VPT"),
    "zero-init": Arm("zero-init", "Zero-init"),
    "cross": Arm("cross", "Cross"),
}
