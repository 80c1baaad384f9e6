"""Outputs equal to timm's on the same random weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vpt_analysis import backbones

timm = pytest.importorskip("timm")
SMALL = {"img_size": 24, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
VARIANTS = {
    "plain": {},
    "layer scale": {"init_values": 0.1},
    "registers with positions": {"reg_tokens": 2},
    "registers without positions": {"reg_tokens": 3, "no_embed_class": True, "init_values": 0.1},
    "positions of patches only": {"no_embed_class": True},
    "no biases": {"qkv_bias": False, "proj_bias": False},
    "tanh gelu": {"act_layer": "gelu_tanh"},
    "mean pooling": {"global_pool": "avg", "fc_norm": False, "reg_tokens": 2},
    "one channel": {"in_chans": 1},
    "narrow mlp": {"mlp_ratio": 1.5},
    "no classifier": {"num_classes": 0},
}


@pytest.fixture
def peer(randomise):
    def build(dtype=torch.float32, cls=timm.models.VisionTransformer, **options):
        return randomise(cls(**{**SMALL, **options}), dtype)

    return build


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_object_equals_timm(peer, images, agree, dtype, options):
    model = peer(dtype, **options)
    vit = backbones.load_backbone(model)
    x = images(24, dtype)[:, : options.get("in_chans", 3)]
    agree(vit(x), model.forward_features(x))
    if vit.head is not None:
        agree(vit.classify(x), model(x))
    assert (vit.head is None) == (options.get("num_classes", 7) == 0)


@pytest.mark.parametrize("size", [(24, 24), (16, 16), (40, 40), (32, 20)], ids=str)
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2, "no_embed_class": True}], ids=["plain", "registers"])
@torch.no_grad()
def test_positions_at_another_grid(peer, peer_positions, images, agree, dtype, options, size):
    model = peer(dtype, dynamic_img_size=True, **options)
    vit = backbones.load_backbone(model)
    x = images(size[0], dtype, size[1])
    want = model.forward_features(x)
    if size == (24, 24) or dtype == torch.float32:
        agree(vit(x), want)
    else:
        agree(vit(x), want, tolerance=1e-6)
        agree(peer_positions(vit)(x), want)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_state_dict_equals_object(peer, options):
    model = peer(**options)
    given = {"gelu": "tanh"} if "act_layer" in options else {}
    given |= {"pool": "mean"} if "global_pool" in options else {}
    from_dict = backbones.load_backbone(model.state_dict(), heads=3, **given)
    from_object = backbones.load_backbone(model)
    assert from_dict.config == from_object.config
    for name, tensor in from_object.state_dict().items():
        assert torch.equal(tensor, from_dict.state_dict()[name]), name


@torch.no_grad()
def test_distilled_deit(peer, images, agree, dtype):
    model = peer(dtype, cls=timm.models.deit.VisionTransformerDistilled)
    with pytest.warns(UserWarning, match="head_dist.weight"):
        vit = backbones.load_backbone(model)
    x = images(24, dtype)
    agree(vit(x), model.forward_features(x))
    agree(vit.classify(x), model.head(model.forward_features(x)[:, 0]))
    assert vit.config.registers == 1


@torch.no_grad()
def test_official_dinov2_names(peer, images, agree):
    """DINOv2's own code says ``register_tokens``, gives CLS a position but not them, and has a mask token."""
    model = peer(reg_tokens=4, no_embed_class=True, init_values=0.1, num_classes=0)
    state = dict(model.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([torch.full((1, 1, 24), 0.3), state["pos_embed"]], dim=1)
    state["mask_token"] = torch.zeros(1, 24)
    with pytest.warns(UserWarning, match="mask_token"):
        vit = backbones.load_backbone(state, heads=3)
    model.cls_token += 0.3
    agree(vit(images(24, torch.float32)), model.forward_features(images(24, torch.float32)))


@torch.no_grad()
def test_encoder_inside_a_larger_training_state(peer, images, agree):
    """DINO's teacher has ``backbone.`` before the encoder and a projection head beside it; MAE has a decoder."""
    model = peer(num_classes=0)
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    extra = {"head.mlp.0.weight": torch.ones(4, 24), "decoder_embed.weight": torch.ones(4, 24)}
    with pytest.warns(UserWarning, match="left out 'decoder_embed.weight', 'head.mlp.0.weight'"):
        vit = backbones.load_backbone({"model": state | extra}, heads=3)
    agree(vit(images(24, torch.float32)), model.forward_features(images(24, torch.float32)))
    two = state | {f"momentum.{name}": tensor for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"holds 2 encoders \['backbone.', 'momentum.'\]"):
        backbones.load_backbone(two, heads=3)
    with pytest.raises(ValueError, match="the same names with and without 'backbone.'"):
        backbones.load_backbone(state | {"norm.weight": torch.ones(24)}, heads=3)


@torch.no_grad()
def test_attention_pooling_is_left_out_by_name(peer, images, agree):
    model = peer(global_pool="map")
    with pytest.warns(UserWarning, match="attn_pool.*'head.weight'"):
        vit = backbones.load_backbone(model)
    assert vit.head is None
    agree(vit(images(24, torch.float32)), model.forward_features(images(24, torch.float32)))


def test_source_keeps_its_own_weights(peer):
    model = peer()
    vit = backbones.load_backbone(model)
    with torch.no_grad():
        vit.norm.weight.zero_()
    assert model.norm.weight.abs().min() > 0


def test_float64_is_exact_and_dtypes_convert(peer):
    model = peer(torch.float64)
    vit = backbones.load_backbone(model)
    assert torch.equal(vit.blocks[1].fc1.weight, model.blocks[1].mlp.fc1.weight)
    assert backbones.load_backbone(model, dtype=torch.bfloat16).patch.weight.dtype == torch.bfloat16
    mixed = {k: v.half() if "mlp" in k else v for k, v in model.state_dict().items()}
    assert backbones.load_backbone(mixed, heads=3).patch.weight.dtype == torch.float64


def test_ambiguous_positions_need_the_image_size(peer):
    """9 positions are a 3 × 3 grid without positions for prefix tokens, or a 2 × 2 grid with 5 prefix tokens."""
    state = peer(img_size=8, reg_tokens=4).state_dict()
    with pytest.raises(ValueError, match="pass image_size="):
        backbones.load_backbone(state, heads=3)
    assert backbones.load_backbone(state, heads=3, image_size=8).config.grid == 2


@torch.no_grad()
def test_timm_folder(tmp_path, randomise, images, agree, quietly):
    """The hub's layout of timm: heads (32 columns each here) and pixel statistics come from config.json."""
    model = randomise(timm.create_model("test_vit", num_classes=3))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    card = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": card}))
    vit = backbones.load_backbone(tmp_path)
    assert vit.config.heads == 2 and vit.config.pixel_std == (0.4, 0.5, 0.6)
    x = images(160, torch.float32)
    agree(vit(x), model.forward_features(x))
