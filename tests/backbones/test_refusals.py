"""What the minimal Vision Transformer does not compute is refused by name, one test a feature."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vpt_analysis import backbones
from vpt_analysis.backbones import huggingface

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
SMALL = {"img_size": 24, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
layers, models = timm.layers, timm.models.vision_transformer

TIMM = {
    "QK-norm": {"qk_norm": True},
    r"norm inside attention \(scale_norm\)": {"scale_attn_norm": True},
    "norm inside the MLP": {"scale_mlp_norm": True},
    r"norm before the blocks \(pre_norm": {"pre_norm": True},
    r"norm after pooling \(fc_norm\)": {"global_pool": "avg"},
    "no final LayerNorm": {"final_norm": False},
    "no CLS token": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "no learned position embedding": {"pos_embed": "none"},
    "activation ReLU": {"act_layer": nn.ReLU},
    "activation QuickGELU": {"act_layer": layers.QuickGELU},
    "parallel blocks.*blocks.0.attns": {"block_fn": models.ParallelThingsBlock},
    "parallel blocks.*blocks.0.in_": {"block_fn": models.ParallelScalingBlock},
    "not pre-norm, ResPostBlock": {"block_fn": models.ResPostBlock, "init_values": 0.1},
    "SwiGLU / gated MLP": {"mlp_layer": layers.SwiGLU},
    "gated MLP, GluMlp": {"mlp_layer": layers.GluMlp},
    "norm RmsNorm instead of LayerNorm": {"norm_layer": layers.RmsNorm},
    "norm in the patch embedding": {"embed_norm_layer": nn.LayerNorm},
    "non-square image size 24 × 16": {"img_size": (24, 16)},
    "padding of images": {"dynamic_img_pad": True},
}


@pytest.mark.parametrize(("feature", "options"), TIMM.items(), ids=[key[:30] for key in TIMM])
def test_timm_options(feature, options):
    model = timm.models.VisionTransformer(**{**SMALL, **options})
    with pytest.raises(ValueError, match=feature):
        backbones.load_backbone(model)


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("vit_tiny_r_s16_p8_224", "convolutional stem"),
        ("eva02_tiny_patch14_224", "rotary position embedding"),
        ("beit_base_patch16_224", "relative position bias"),
        ("swin_tiny_patch4_window7_224", "windowed attention"),
        ("vit_relpos_small_patch16_224", "relative position bias"),
        ("vit_small_patch16_dinov3", "rotary position embedding"),
        ("vit_base_patch32_clip_224", "norm before the blocks"),
        ("resnet18", "architecture of its own, class 'ResNet'"),
    ],
)
def test_timm_architectures(name, feature):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=feature):
        backbones.load_backbone(model)
    with pytest.raises(ValueError, match="convolutional stem" if name == "resnet18" else "has .*does not compute"):
        backbones.load_backbone(model.state_dict())


@pytest.mark.parametrize(
    ("options", "feature"),
    [({"gated": True}, "gated attention"), ({"attn_head_dim": 4}, "attn_head_dim 4 other than width / heads.*block 1")],
)
def test_timm_attention_options(options, feature):
    model = timm.models.VisionTransformer(**SMALL)
    model.blocks[1].attn = layers.Attention(24, num_heads=3, qkv_bias=True, **options)
    with pytest.raises(ValueError, match=feature):
        backbones.load_backbone(model)


def test_causal_attention_in_timm():
    model = timm.models.VisionTransformer(**SMALL)
    model.blocks[1].attn.is_causal = True
    with pytest.raises(ValueError, match="attention mask.*block 1"):
        backbones.load_backbone(model)


def test_different_eps_in_timm():
    model = timm.models.VisionTransformer(**SMALL)
    model.blocks[0].norm1.eps = 1e-3
    with pytest.raises(ValueError, match="different activations or LayerNorm eps"):
        backbones.load_backbone(model)


HF = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 24, "patch_size": 4}


@pytest.mark.parametrize(
    ("cls", "options", "feature"),
    [
        ("ViTModel", {"hidden_act": "relu"}, "activation 'relu' instead of GELU"),
        ("ViTModel", {"hidden_act": "quick_gelu"}, "activation 'quick_gelu'"),
        ("ViTModel", {"image_size": (24, 16)}, "non-square image_size"),
        ("ViTModel", {"image_size": (24, 32), "patch_size": (3, 4)}, "non-square"),
        ("Dinov2Model", {"use_swiglu_ffn": True}, "SwiGLU"),
        ("CLIPVisionModel", {"intermediate_size": 40}, "CLIP"),
        ("BeitModel", {"intermediate_size": 40}, "relative position bias"),
        ("SiglipVisionModel", {"intermediate_size": 40}, "no CLS token"),
        ("DINOv3ViTModel", {"intermediate_size": 40}, "rotary position embedding"),
        ("ViTMAEModel", {"intermediate_size": 40}, "architecture of its own, model_type 'vit_mae'"),
        ("SwinModel", {"embed_dim": 24, "depths": [1], "num_heads": [3], "window_size": 3}, "windowed attention"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_transformers_models(cls, options, feature):
    config_name = cls.removesuffix("Model") + "Config"
    small = {"image_size": 24, "patch_size": 4} if cls == "SwinModel" else HF
    model = getattr(transformers, cls)(getattr(transformers, config_name)(**{**small, **options}))
    with pytest.raises(ValueError, match=feature):
        backbones.load_backbone(model)


@pytest.mark.parametrize(
    ("cls", "options", "feature"),
    [
        ("CLIPVisionModel", {"intermediate_size": 40}, "CLIP"),
        ("CLIPModel", {}, "CLIP"),
        ("BeitModel", {"intermediate_size": 40, "use_relative_position_bias": True}, "relative position bias"),
        ("SwinModel", {"embed_dim": 24, "depths": [1], "num_heads": [3], "window_size": 3}, "windowed attention"),
        ("DINOv3ViTModel", {"intermediate_size": 40}, "rotary position embedding"),
        ("Dinov2Model", {"use_swiglu_ffn": True}, "SwiGLU"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_transformers_state_dicts(cls, options, feature):
    config_name = cls.removesuffix("Model") + "Config"
    small = {"image_size": 24, "patch_size": 4} if cls == "SwinModel" else {} if cls == "CLIPModel" else HF
    with torch.device("meta"):
        model = getattr(transformers, cls)(getattr(transformers, config_name)(**{**small, **options}))
    with pytest.raises(ValueError, match=feature):
        backbones.load_backbone(model.state_dict(), heads=3)


def test_causal_attention_in_transformers():
    model = transformers.ViTModel(transformers.ViTConfig(**HF))
    next(m for m in model.modules() if hasattr(m, "is_causal")).is_causal = True
    with pytest.raises(ValueError, match="causal"):
        backbones.load_backbone(model)


@pytest.mark.parametrize(
    ("entry", "feature"),
    [({"is_decoder": True}, "attention mask"), ({"head_dim": 4}, "head_dim 4 other than width / heads")],
)
def test_transformers_configs(entry, feature):
    with pytest.raises(ValueError, match=feature):
        huggingface.facts_from_config({"model_type": "vit", **HF, **entry}, "config")


@pytest.mark.parametrize(
    ("extra", "feature"),
    [
        ("blocks.0.attn.q_norm.weight", "QK-norm"),
        ("blocks.1.attn.gate.weight", "gated attention"),
        ("blocks.1.attn.rope.freqs", "rotary position embedding"),
        ("blocks.0.attn.norm.weight", "norm inside attention"),
        ("blocks.0.mlp.norm.weight", "norm inside the MLP"),
        ("blocks.0.mlp.w12.weight", "SwiGLU"),
        ("norm_pre.weight", "norm before the blocks"),
        ("fc_norm.weight", "norm after pooling"),
        ("blocks.0.attn.relative_position_bias_table", "relative position bias"),
        ("patch_embed.backbone.conv1.weight", "convolutional stem"),
        ("blocks.0.attns.1.qkv.weight", "parallel blocks"),
        ("blocks.0.attn.qkv.lora_A.weight", "LoRA"),
        ("blocks.0.attn.qkv.parametrizations.weight.original0", "parametrised weights"),
        ("layers.0.blocks.1.attn_mask", "windowed attention"),
        ("visual.transformer.resblocks.0.ln_1.weight", "CLIP"),
    ],
)
def test_names_in_state_dicts(extra, feature):
    state = timm.models.VisionTransformer(**SMALL).state_dict() | {extra: torch.ones(24)}
    with pytest.raises(ValueError, match=f"{feature}.*does not compute.*found in"):
        backbones.load_backbone(state, heads=3)


def test_torchvision_vit_state_dict():
    state = {"class_token": torch.ones(1, 1, 8), "conv_proj.weight": torch.ones(8, 3, 4, 4)}
    with pytest.raises(ValueError, match="torchvision's ViT"):
        backbones.load_backbone(state)


def test_unknown_modules_are_not_trusted():
    """A module of another package may compute anything with the same names."""
    with pytest.raises(TypeError, match="Sequential is neither a timm nor a transformers model.*pass its state dict"):
        backbones.load_backbone(nn.Sequential(nn.Linear(2, 2)))
