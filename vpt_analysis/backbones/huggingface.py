"""Hugging Face names: ViT, DeiT, DINOv2 and DINOv2 with registers, in both layouts.

transformers renamed its modules (``attention.attention.query`` became ``attention.q_proj``, ``intermediate.dense``
became ``mlp.fc1``, ...). Files keep the names of their day, so every part is looked for under each of its names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .features import check_names, refuse
from .keys import Keys, make_config, square_patch, square_side, without_prefix
from .timm import IMAGENET

PATCH = "embeddings.patch_embeddings.projection.weight"
MODEL_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers")
FOREIGN_TYPES = {
    "beit": "relative position bias (BEiT)",
    "data2vec-vision": "relative position bias (Data2Vec)",
    "clip": "CLIP (a norm before the blocks, QuickGELU)",
    "clip_vision_model": "CLIP (a norm before the blocks, QuickGELU)",
    "dinov3_vit": "rotary position embedding (RoPE, DINOv3)",
    "siglip": "no CLS token (SigLIP)",
    "siglip_vision_model": "no CLS token (SigLIP)",
    "swin": "windowed attention (Swin)",
    "swinv2": "windowed attention (Swin)",
    "ijepa": "no CLS token (I-JEPA)",
}
GELUS = {
    "gelu": "exact", "gelu_python": "exact",
    "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu_python_tanh": "tanh",
}  # fmt: skip
STEMS = ("encoder.layer.", "layers.", "encoder.layers.")
LAYERS = r"(?:encoder\.)?layers?\.(\d+)\."
# Names of each part inside a block, old layout first.
NAMES = {
    "ln1": ("layernorm_before", "norm1"),
    "ln2": ("layernorm_after", "norm2"),
    "query": ("attention.attention.query", "attention.q_proj"),
    "key": ("attention.attention.key", "attention.k_proj"),
    "value": ("attention.attention.value", "attention.v_proj"),
    "out": ("attention.output.dense", "attention.o_proj"),
    "fc1": ("intermediate.dense", "mlp.fc1"),
    "fc2": ("output.dense", "mlp.fc2"),
}


def recognise(names) -> bool:
    return any(name.endswith(PATCH) for name in names)


def convert(tensors: Mapping[str, Tensor], source: str, facts: Mapping) -> tuple[object, dict[str, Tensor]]:
    """Hugging Face state dict to (config, state of ``VisionTransformer``)."""
    check_names(tensors, source)
    keys = Keys(without_prefix(tensors, PATCH, source), source)
    for name, feature in (("cls_token", "no CLS token"), ("position_embeddings", "no learned position embedding")):
        if f"embeddings.{name}" not in keys:
            raise refuse(source, feature, f"no key 'embeddings.{name}'")
    patch = keys.take(PATCH, None, None, None, None)
    d, channels = patch.shape[:2]
    state = {"patch.weight": patch, "patch.bias": keys.take(PATCH.replace("weight", "bias"), d)}
    with_registers = "embeddings.register_tokens" in keys
    registers = tokens(keys, d, state)
    depth = keys.count(LAYERS)
    layer_scale = keys.any(LAYERS + r"layer_scale1\.")
    mlp_width = blocks(keys, depth, d, layer_scale, state)
    state |= {f"norm.{k}": v for k, v in keys.pair("layernorm", d).items()}
    classes, pool = head(keys, d, state)
    keys.leave_out(r"embeddings\.mask_token$|pooler\.dense\.|distillation_classifier\.|classifier\.|decoder\.")
    keys.finish()
    side = square_patch(patch.shape, source)
    inferred = {
        "image_size": side * square_side(state["position"].shape[1] - 1 - registers, source),
        "patch_size": side, "width": d, "depth": depth, "mlp_width": mlp_width, "channels": channels,
        "registers": registers, "layer_scale": layer_scale, "classes": classes, **({"pool": pool} if classes else {}),
    }  # fmt: skip
    defaults = {"eps": 1e-6 if layer_scale else 1e-12, "gelu": "exact", "antialias": with_registers}
    return make_config(source, facts, inferred, {**defaults, **(IMAGENET if layer_scale or registers else {})}), state


def tokens(keys: Keys, d: int, state: dict[str, Tensor]) -> int:
    """Take CLS, registers and positions; gives the number of registers.

    DeiT's distillation token has a position; DINOv2's registers are put in after positions were added, so theirs is 0.
    """
    prefix = keys.take("embeddings.cls_token", 1, 1, d)
    position = keys.take("embeddings.position_embeddings", 1, None, d)
    if "embeddings.distillation_token" in keys:
        prefix = torch.cat([prefix, keys.take("embeddings.distillation_token", 1, 1, d)], dim=1)
    elif "embeddings.register_tokens" in keys:
        registers = keys.take("embeddings.register_tokens", 1, None, d)
        prefix = torch.cat([prefix, registers], dim=1)
        position = torch.cat([position[:, :1], torch.zeros_like(registers), position[:, 1:]], dim=1)
    state |= {"prefix": prefix, "position": position}
    return prefix.shape[1] - 1


def blocks(keys: Keys, depth: int, d: int, layer_scale: bool, state: dict[str, Tensor]) -> int:
    """Take all blocks; gives the MLP width."""
    qkv_bias = keys.any(LAYERS + r"attention\.(attention\.query|q_proj)\.bias")
    m = None
    for i in range(depth):
        stem = next((s for s in STEMS if keys.any(rf"{s}{i}\.")), STEMS[0])
        path = {
            part: keys.first_of(*(f"{stem}{i}.{name}.weight" for name in names)).removesuffix(".weight")
            for part, names in NAMES.items()
        }
        m = m or (keys.tensors[path["fc1"] + ".weight"].shape[0] if path["fc1"] + ".weight" in keys else None)
        qkv = [keys.pair(path[part], d, d, bias=qkv_bias) for part in ("query", "key", "value")]
        parts = {
            "ln1": keys.pair(path["ln1"], d),
            "ln2": keys.pair(path["ln2"], d),
            "attention.qkv": {k: torch.cat([pair[k] for pair in qkv]) for k in ("weight", "bias")},
            "attention.out": keys.pair(path["out"], d, d),
            "fc1": keys.pair(path["fc1"], m, d),
            "fc2": keys.pair(path["fc2"], d, m),
        }
        state |= {f"blocks.{i}.{part}.{k}": v for part, pair in parts.items() for k, v in pair.items()}
        if layer_scale:
            for j in (1, 2):
                state[f"blocks.{i}.scale{j}"] = keys.take(f"{stem}{i}.layer_scale{j}.lambda1", d)
    return m


def head(keys: Keys, d: int, state: dict[str, Tensor]) -> tuple[int, str]:
    """Take a linear classifier: on CLS (ViT, DeiT), or on CLS and the patches' mean side by side (DINOv2)."""
    name = next((n for n in ("classifier", "cls_classifier") if f"{n}.weight" in keys), None)
    shape = keys.tensors[f"{name}.weight"].shape if name else ()
    if len(shape) != 2 or shape[1] not in (d, 2 * d):
        return 0, "cls"
    state |= {f"head.{k}": v for k, v in keys.pair(name, *shape).items()}
    return shape[0], "cls" if shape[1] == d else "cls+mean"


def facts_of(model: nn.Module) -> dict:
    """What a transformers object says beyond its weights."""
    source = f"the transformers model {type(model).__name__}"
    for name, module in model.named_modules():
        if getattr(module, "is_causal", False):
            raise refuse(source, "an attention mask (causal attention)", name)
    return facts_from_config(model.config.to_dict(), source)


def facts_from_config(config: Mapping, source: str) -> dict:
    """Facts from a ``config.json`` or a model's config; refuses model types and options that are not computed."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise refuse(source, FOREIGN_TYPES.get(kind, f"an architecture of its own, model_type {kind!r}"))
    if config.get("is_decoder"):
        raise refuse(source, "an attention mask (is_decoder)")
    if config.get("use_swiglu_ffn"):
        raise refuse(source, "a SwiGLU / gated MLP (use_swiglu_ffn)")
    act = config.get("hidden_act", "gelu")
    if act not in GELUS:
        raise refuse(source, f"the activation {act!r} instead of GELU", "hidden_act")
    heads, width = config.get("num_attention_heads", 12), config.get("hidden_size", 768)
    if config.get("head_dim") not in (None, width // heads):
        raise refuse(source, f"head_dim {config['head_dim']} other than width / heads")
    facts = {
        "heads": heads, "width": width, "depth": config.get("num_hidden_layers", 12), "gelu": GELUS[act],
        "eps": config.get("layer_norm_eps", 1e-6 if kind.startswith("dinov2") else 1e-12),
    }  # fmt: skip
    for name in ("image_size", "patch_size"):
        value = config.get(name, facts.get(name))
        if isinstance(value, (list, tuple)):
            if len(set(value)) > 1:
                raise refuse(source, f"a non-square {name} {tuple(value)}")
            value = value[0]
        if value is not None:
            facts[name] = value
    return facts
