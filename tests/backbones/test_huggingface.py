"""Outputs equal to transformers' on the same random weights, in both key layouts."""

from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from vpt_analysis import backbones

transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 24, "patch_size": 4,
    "num_labels": 5,
}  # fmt: skip
PEERS = {
    "ViT": ("ViTForImageClassification", {"intermediate_size": 40}),
    "DeiT": ("DeiTForImageClassification", {"intermediate_size": 40}),
    "Dinov2": ("Dinov2ForImageClassification", {}),
    "Dinov2WithRegisters": ("Dinov2WithRegistersForImageClassification", {"num_register_tokens": 3}),
}
NEW_TO_OLD = {
    r"(?<!encoder\.)layers?\.(\d+)\.": r"encoder.layer.\1.",
    r"attention\.q_proj": "attention.attention.query",
    r"attention\.k_proj": "attention.attention.key",
    r"attention\.v_proj": "attention.attention.value",
    r"attention\.o_proj": "attention.output.dense",
}
VIT_NEW_TO_OLD = {r"mlp\.fc1": "intermediate.dense", r"mlp\.fc2": "output.dense"}
INTERPOLATES_IN_FLOAT32 = ("Dinov2", "Dinov2WithRegisters")


def old_layout(state: dict, kind: str) -> dict:
    """Names from before transformers' refactoring (installed versions after it have the new ones)."""
    renamed = {}
    for name, tensor in state.items():
        for new, old in (NEW_TO_OLD | ({} if kind.startswith("Dino") else VIT_NEW_TO_OLD)).items():
            name = re.sub(new, old, name)
        renamed[name] = tensor
    return renamed


@pytest.fixture
def peer(randomise):
    def build(kind: str, dtype=torch.float32, cls: str | None = None, **options):
        name, extra = PEERS[kind]
        config = getattr(transformers, f"{kind}Config")(**{**SMALL, **extra, **options})
        return randomise(getattr(transformers, cls or name)(config), dtype)

    return build


def tokens(model, x: torch.Tensor) -> torch.Tensor:
    inner = getattr(model, model.base_model_prefix, model)
    interpolate = {} if "Dinov2" in type(model).__name__ else {"interpolate_pos_encoding": True}
    return inner(x, **interpolate).last_hidden_state


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("size", [(24, 24), (16, 16), (40, 40)], ids=str)
@torch.no_grad()
def test_object_equals_transformers(peer, peer_positions, images, agree, quietly, dtype, kind, size):
    model = peer(kind, dtype)
    vit = quietly(backbones.load_backbone, model)
    x = images(size[0], dtype)
    want = tokens(model, x)
    if size != (24, 24) and dtype == torch.float64 and kind in INTERPOLATES_IN_FLOAT32:
        agree(vit(x), want, tolerance=1e-6)
        vit = peer_positions(vit)
    agree(vit(x), want)
    interpolate = {} if "Dinov2" in kind else {"interpolate_pos_encoding": True}
    agree(vit.classify(x), model(x, **interpolate).logits)


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("prefix", ["with prefix", "bare"])
@pytest.mark.parametrize("layout", ["old", "new"])
def test_both_layouts_give_the_same_model(peer, quietly, kind, prefix, layout):
    model = peer(kind)
    state = model.state_dict()
    if prefix == "bare":
        state = {name.removeprefix(model.base_model_prefix + "."): tensor for name, tensor in state.items()}
    if layout == "old":
        renamed = old_layout(state, kind)
        assert renamed.keys() != state.keys() and any("attention.attention.query" in name for name in renamed)
        state = renamed
    want = quietly(backbones.load_backbone, model)
    got = quietly(backbones.load_backbone, state, heads=3)
    assert got.config == want.config
    assert all(torch.equal(tensor, got.state_dict()[name]) for name, tensor in want.state_dict().items())


@pytest.mark.parametrize("kind", PEERS)
@torch.no_grad()
def test_no_qkv_bias(peer, images, agree, quietly, kind):
    model = peer(kind, qkv_bias=False)
    x = images(24, torch.float32)
    agree(quietly(backbones.load_backbone, model)(x), tokens(model, x))


@pytest.mark.parametrize("act", ["gelu_new", "gelu_pytorch_tanh"])
@torch.no_grad()
def test_tanh_gelu(peer, images, agree, dtype, act):
    model = peer("ViT", dtype, hidden_act=act)
    vit = backbones.load_backbone(model)
    assert vit.config.gelu == "tanh"
    agree(vit(images(24, dtype)), tokens(model, images(24, dtype)))


def test_eps_is_read(peer):
    assert backbones.load_backbone(peer("ViT")).config.eps == 1e-12
    assert backbones.load_backbone(peer("ViT", layer_norm_eps=1e-5)).config.eps == 1e-5


@pytest.mark.parametrize(
    ("kind", "cls", "named"),
    [
        ("ViT", "ViTModel", "pooler.dense.weight"),
        ("DeiT", "DeiTModel", "pooler.dense.bias"),
        ("DeiT", "DeiTForImageClassificationWithTeacher", "distillation_classifier.weight"),
        ("ViT", "ViTForMaskedImageModeling", "decoder.0.weight"),
        ("Dinov2", "Dinov2Model", "embeddings.mask_token"),
        ("Dinov2WithRegisters", "Dinov2WithRegistersModel", "embeddings.mask_token"),
    ],
)
@torch.no_grad()
def test_what_follows_the_tokens_is_left_out_by_name(peer, images, agree, kind, cls, named):
    model = peer(kind, cls=cls, **({"encoder_stride": 4} if "Masked" in cls else {}))
    with pytest.warns(UserWarning, match=named.replace(".", r"\.")) as caught:
        vit = backbones.load_backbone(model)
    assert caught[0].filename == __file__, "the warning points at the caller's line"
    agree(vit(images(24, torch.float32)), tokens(model, images(24, torch.float32)))


@torch.no_grad()
def test_teacher_models_keep_the_classifier_on_cls(peer, images, agree, quietly):
    model = peer("DeiT", cls="DeiTForImageClassificationWithTeacher")
    x = images(24, torch.float32)
    agree(quietly(backbones.load_backbone, model).classify(x), model(x).cls_logits)


@pytest.mark.parametrize("kind", PEERS)
@torch.no_grad()
def test_folder(peer, images, agree, quietly, tmp_path, kind):
    model = peer(kind)
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    vit = quietly(backbones.load_backbone, tmp_path)
    assert vit.config.pixel_mean == (0.1, 0.1, 0.1) and vit.config.heads == 3
    agree(vit(images(24, torch.float32)), tokens(model, images(24, torch.float32)))
    same = quietly(backbones.load_backbone, tmp_path / "model.safetensors")  # its config.json lies beside it
    assert same.config == vit.config


def test_sharded_folder(peer, tmp_path):
    model = peer("ViT")
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    vit = backbones.load_backbone(tmp_path)
    assert torch.equal(vit.norm.weight, model.vit.layernorm.weight)


def test_pixel_statistics_by_family(peer, quietly):
    assert backbones.load_backbone(peer("ViT")).config.pixel_mean == (0.5, 0.5, 0.5)
    assert quietly(backbones.load_backbone, peer("Dinov2")).config.pixel_mean == (0.485, 0.456, 0.406)
    assert backbones.load_backbone(peer("ViT"), pixel_mean=(0, 0, 0)).config.pixel_mean == (0, 0, 0)


def test_hub_id(peer, tmp_path, monkeypatch):
    """A hub id is downloaded by huggingface_hub and read as a folder; without a network the error says what to do."""
    import huggingface_hub

    peer("ViT").save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path))
    assert backbones.load_backbone("google/vit-base-patch16-224").config.width == 24
    assert backbones.load_backbone("hf-hub:timm/some-model").config.width == 24
    assert asked == ["google/vit-base-patch16-224", "timm/some-model"]

    def offline(name, **_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(OSError, match="cannot download 'google/vit'.*no route to host.*pass its path"):
        backbones.load_backbone("google/vit")


@pytest.mark.network
@torch.no_grad()
def test_a_model_from_the_hub(images, agree):
    name = "hf-internal-testing/tiny-random-ViTModel"
    model = transformers.ViTModel.from_pretrained(name).eval()
    with pytest.warns(UserWarning, match="pooler"):
        vit = backbones.load_backbone(name)
    x = images(vit.config.image_size, torch.float32)
    agree(vit(x), model(x).last_hidden_state)


def test_safetensors_without_config(peer, tmp_path):
    """A lone file says no heads: they are asked for, and eps is Hugging Face's default for ViT."""
    model = peer("ViT")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="pass heads="):
        backbones.load_backbone(tmp_path / "weights.safetensors")
    vit = backbones.load_backbone(tmp_path / "weights.safetensors", heads=3)
    assert vit.config == backbones.load_backbone(model).config
