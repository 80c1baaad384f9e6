"""DINOv2-type encoders exported to ONNX from Hugging Face's modules (old layout).

The exporter keeps the names of biases, norms and LayerScale, but stores the transpose of every linear weight, and the
positions of CLS and of the patches apart, under names of its own (``onnx::MatMul_1966``). Those are found by
following the graph to the node that reads them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .features import refuse

BIAS = re.compile(r"(.*)\.bias$")
GELU_PARTS = {"Add", "Cast", "Constant", "Div", "Identity", "Mul", "Pow"}  # what Erf or Tanh make a GELU with
NORM_BIAS = r"encoder\.layer\.0\.norm1\.bias$"


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors under Hugging Face names, facts: heads, eps, gelu, antialias) of an exported encoder."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError("reading .onnx files needs the onnx package: pip install 'vpt-analysis[onnx]'") from error
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        graph = Graph(onnx.load(str(path)).graph, str(path))
    except Exception as error:  # protobuf's DecodeError is not importable without it, and onnx adds its own
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is not a whole ONNX file ({error}); download or export it again") from error
    return graph.tensors(), graph.facts()


class Graph:
    """Initialisers, constants, and who makes and reads every value."""

    def __init__(self, graph, source: str):
        from onnx import numpy_helper

        self.source, self.nodes = source, list(graph.node)
        self.weights = {t.name: np.array(numpy_helper.to_array(t)) for t in graph.initializer}
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {
            node.output[0]: numpy_helper.to_array(a.t)
            for node in self.nodes if node.op_type == "Constant" for a in node.attribute if a.name == "value"
        }  # fmt: skip

    def named(self, pattern: str) -> str:
        found = [name for name in self.weights if re.search(pattern, name)]
        if len(found) != 1:
            raise ValueError(
                f"{self.source}: found {len(found)} initialisers {pattern!r}; expected a DINOv2-type encoder, exported "
                f"from Hugging Face's modules with parameter names kept"
            )
        return found[0]

    def tensors(self) -> dict[str, Tensor]:
        """Every initialiser once, anonymous ones under the name that the graph gives away."""
        self.check_structure()
        named = {}
        position: dict[str, np.ndarray] = {}
        for name, array in self.weights.items():
            if not name.startswith("onnx::"):
                named[name] = array
                continue
            (reader, *others) = self.readers.get(name, [None])
            if reader is None or others:
                raise ValueError(f"{self.source}: initialiser {name!r} is not read by exactly one node")
            if reader.op_type in ("MatMul", "Gemm"):
                named[self.weight_name(reader, name)] = array.T
            elif array.ndim == 3 and reader.op_type in ("Concat", "Reshape", "Add"):
                position[reader.op_type] = array
            else:
                raise ValueError(f"{self.source}: {name!r} is read by {reader.op_type}; its role is unknown")
        prefix = self.named(r"embeddings\.cls_token$").removesuffix("cls_token")
        if position:
            order = [position[kind] for kind in ("Concat", "Reshape", "Add") if kind in position]
            named[prefix + "position_embeddings"] = np.concatenate(order, axis=1)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in named.items()}

    def weight_name(self, reader, name: str) -> str:
        """A MatMul's weight is called after the bias that is added to its output."""
        for following in self.readers.get(reader.output[0], []):
            for bias in following.input:
                if bias in self.weights and (m := BIAS.match(bias)):
                    return m.group(1) + ".weight"
        raise ValueError(f"{self.source}: cannot tell the layer of {name!r}: no named bias is added to {reader.name!r}")

    def check_structure(self) -> None:
        """One plain softmax of scores in every block, nothing added to them."""
        depth = len([name for name in self.weights if re.search(r"encoder\.layer\.\d+\.norm1\.bias$", name)])
        softmaxes = [node for node in self.nodes if node.op_type == "Softmax"]
        if len(softmaxes) != depth:
            raise refuse(self.source, f"{len(softmaxes)} softmaxes in {depth} blocks, attention that is not plain")
        for node in softmaxes:
            before = self.maker.get(node.input[0])
            if before is None or before.op_type not in ("MatMul", "Mul", "Div"):
                raise refuse(self.source, "an attention mask", f"an operator before {node.name!r}")

    def facts(self) -> dict:
        """What constants of the graph say."""
        return {"heads": self.heads(), "eps": self.eps(), "gelu": self.gelu(), **self.resampling()}

    def heads(self) -> int:
        """From the shape that the first block's queries are cut into."""
        bias = self.named(r"encoder\.layer\.0\.attention\.(attention\.query|q_proj)\.bias$")
        (added,) = self.readers[bias]
        for node in self.readers[added.output[0]]:
            if node.op_type == "Reshape":
                shape = self.shape_constants(node.input[1])
                width = shape[-1] if shape and shape[-1] and shape[-1] > 0 else None
                if width:
                    return len(self.weights[bias]) // width
        raise ValueError(f"{self.source}: the graph does not show how many heads it has; pass heads=")

    def shape_constants(self, name: str) -> list[int | None]:
        """The entries of a shape, None where they are computed from the input."""
        if name in self.constants or name in self.weights:
            return [int(n) for n in np.atleast_1d(self.constants.get(name, self.weights.get(name)))]
        node = self.maker.get(name)
        if node is None or node.op_type != "Concat":
            return [None]
        return [n for part in node.input for n in self.shape_constants(part)]

    def eps(self) -> float:
        """From the first LayerNorm: the attribute of the operator, or the constant added to the variance."""
        bias = self.named(NORM_BIAS)
        (node,) = self.readers[bias]
        if node.op_type == "LayerNormalization":
            return rounded(next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5))
        scope = node.output[0].rsplit("/", 1)[0] + "/"
        for other in self.nodes:
            if other.op_type == "Sqrt" and other.output[0].startswith(scope):
                added = self.maker[other.input[0]]
                for name in added.input:
                    if name in self.constants:
                        return rounded(float(self.constants[name]))
        raise ValueError(f"{self.source}: the graph does not show LayerNorm's eps; pass eps=")

    def gelu(self) -> str:
        """From the operators between the two linear layers of every MLP."""
        kinds = {self.activation(name) for name in self.weights if name.endswith(".mlp.fc1.bias")}
        if len(kinds) != 1 or None in kinds:
            raise refuse(self.source, "an activation other than GELU")
        return kinds.pop()

    def activation(self, fc1_bias: str) -> str | None:
        """ "exact" or "tanh" GELU of one MLP, None for anything else."""
        (start,) = self.readers[fc1_bias]
        (added,) = self.readers[fc1_bias.replace("fc1", "fc2")]
        linear = next(self.maker[name] for name in added.input if name in self.maker)
        found, waiting = [], [linear.input[0]]
        while waiting:  # from the second linear layer back to the first
            node = self.maker.get(waiting.pop())
            if node is not None and node is not start:
                found.append(node)
                waiting += node.input
        kinds = {node.op_type for node in found} - GELU_PARTS
        if kinds == {"Gelu"}:
            return "tanh" if any(a.s == b"tanh" for node in found for a in node.attribute) else "exact"
        return {frozenset({"Erf"}): "exact", frozenset({"Tanh"}): "tanh"}.get(frozenset(kinds))

    def resampling(self) -> dict:
        """How positions are brought to the grid of the images."""
        resize = next((n for n in self.nodes if n.op_type == "Resize" and "embeddings" in n.name), None)
        if resize is None:
            return {}
        said = {a.name: a.s.decode() if a.s else (a.f or a.i) for a in resize.attribute}
        mode, centres = said.get("mode"), said.get("coordinate_transformation_mode", "half_pixel")
        if mode != "cubic" or centres not in ("half_pixel", "pytorch_half_pixel"):
            raise refuse(self.source, f"positions resampled by {mode!r} ({centres!r}) instead of bicubic, half-pixel")
        return {"antialias": bool(said.get("antialias", 0))}


def rounded(eps: float) -> float:
    """A constant stored in single precision, as the decimal number it was written as."""
    return float(f"{eps:.3g}")
