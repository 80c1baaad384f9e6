"""timm's names: timm itself and the official code of ViT in PyTorch, DeiT, DINO, MAE and DINOv2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .features import check_names, refuse
from .keys import Keys, make_config, square_patch, square_side, without_prefix

IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
DEFAULTS = {"eps": 1e-6, "gelu": "exact", "antialias": True}
PATCH = "patch_embed.proj.weight"
COMPUTED = ("VisionTransformer", "VisionTransformerDistilled")
FOREIGN_CLASSES = {
    "Beit": "relative position bias (BEiT)",
    "Eva": "rotary position embedding (RoPE)",
    "SwinTransformer": "windowed attention (Swin)",
    "SwinTransformerV2": "windowed attention (Swin)",
    "VisionTransformerRelPos": "relative position bias",
    "VisionTransformerSAM": "windowed attention and relative position bias (SAM)",
}


def recognise(names) -> bool:
    return any(name.endswith(PATCH) for name in names) and any("blocks.0." in name for name in names)


def convert(
    tensors: Mapping[str, Tensor], source: str, facts: Mapping, no_embed_class: bool | None = None
) -> tuple[object, dict[str, Tensor]]:
    """timm state dict to (config, state of ``VisionTransformer``)."""
    check_names(tensors, source)
    keys = Keys(without_prefix(tensors, PATCH, source), source)
    if "cls_token" not in keys:
        raise refuse(source, "no CLS token", "no key 'cls_token'")
    if "pos_embed" not in keys:
        raise refuse(source, "no learned position embedding", "no key 'pos_embed'")
    patch = keys.take(PATCH, None, None, None, None)
    d, channels = patch.shape[:2]
    bias = keys.take("patch_embed.proj.bias", d) if "patch_embed.proj.bias" in keys else patch.new_zeros(d)
    registers = [keys.take(n, 1, None, d) for n in ("dist_token", "reg_token", "register_tokens") if n in keys]
    prefix = torch.cat([keys.take("cls_token", 1, 1, d), *registers], dim=1)
    side = square_patch(patch.shape, source)
    position = full_position(
        keys.take("pos_embed", 1, None, d), prefix.shape[1] - 1, no_embed_class, facts.get("image_size"), side, source
    )
    state = {"patch.weight": patch, "patch.bias": bias, "prefix": prefix, "position": position}
    depth = keys.count(r"blocks\.(\d+)\.")
    layer_scale = keys.any(r"blocks\.\d+\.ls1\.gamma")
    mlp_width = blocks(keys, depth, d, layer_scale, state)
    state |= {f"norm.{k}": v for k, v in keys.pair("norm", d).items()}
    classes = head(keys, d, facts.get("pool", "cls"), state)
    keys.leave_out(r"mask_token$|head\.|head_dist\.|pre_logits\.|attn_pool\.|decoder_")
    keys.finish()
    image_size = side * square_side(position.shape[1] - prefix.shape[1], source)
    inferred = {
        "image_size": image_size, "patch_size": side, "width": d, "depth": depth, "mlp_width": mlp_width,
        "channels": channels, "registers": prefix.shape[1] - 1, "layer_scale": layer_scale, "classes": classes,
    }  # fmt: skip
    pixels = IMAGENET if registers or layer_scale else {}
    return make_config(source, facts, inferred, {**DEFAULTS, **pixels}), state


def blocks(keys: Keys, depth: int, d: int, layer_scale: bool, state: dict[str, Tensor]) -> int:
    """Take all blocks; gives the MLP width. A bias is absent from all blocks (then it is zero) or from none."""
    qkv_bias = keys.any(r"blocks\.\d+\.attn\.qkv\.bias")
    proj_bias = keys.any(r"blocks\.\d+\.(attn\.proj|mlp\.fc\d)\.bias")
    m = keys.tensors["blocks.0.mlp.fc1.weight"].shape[0] if "blocks.0.mlp.fc1.weight" in keys else None
    for i in range(depth):
        b, ours = f"blocks.{i}.", f"blocks.{i}."
        parts = {
            "ln1": keys.pair(b + "norm1", d),
            "ln2": keys.pair(b + "norm2", d),
            "attention.qkv": keys.pair(b + "attn.qkv", 3 * d, d, bias=qkv_bias),
            "attention.out": keys.pair(b + "attn.proj", d, d, bias=proj_bias),
            "fc1": keys.pair(b + "mlp.fc1", m, d, bias=proj_bias),
            "fc2": keys.pair(b + "mlp.fc2", d, m, bias=proj_bias),
        }
        state |= {f"{ours}{part}.{k}": v for part, pair in parts.items() for k, v in pair.items()}
        if layer_scale:
            state[ours + "scale1"] = keys.take(b + "ls1.gamma", d)
            state[ours + "scale2"] = keys.take(b + "ls2.gamma", d)
    return m


def head(keys: Keys, d: int, pool: str, state: dict[str, Tensor]) -> int:
    """Take the classifier where it is linear on the pooled feature; gives the number of classes."""
    if pool is None or "head.weight" not in keys or keys.any(r"pre_logits\.|attn_pool\."):
        return 0
    classes = keys.tensors["head.weight"].shape[0]
    features = 2 * d if pool == "cls+mean" else d
    state |= {f"head.{k}": v for k, v in keys.pair("head", classes, features).items()}
    return classes


def full_position(
    position: Tensor, registers: int, no_embed_class: bool | None, image_size: int | None, patch: int, source: str
) -> Tensor:
    """Positions (1, 1 + R + grid², d) from those of patches only, of CLS and patches, or of all tokens."""
    n, d = position.shape[1:]
    lacking = {"patches": 1 + registers, "CLS and patches": registers, "all": 0}
    patches = {layout: n - (1 + registers - lack) for layout, lack in lacking.items()}
    if no_embed_class is not None:
        patches = {layout: p for layout, p in patches.items() if (layout == "patches") == no_embed_class}
    fitting = {layout: p for layout, p in patches.items() if p > 0 and square_or_none(p)}
    if image_size is not None:
        fitting = {layout: p for layout, p in fitting.items() if p == (image_size // patch) ** 2}
    if not fitting:
        stated = "" if image_size is None else f" at the stated image size {image_size}"
        raise ValueError(
            f"{source}: 'pos_embed' has {n} positions, which do not fit 1 CLS token, {registers} registers and a "
            f"square grid{stated}; a non-square grid is not computed"
        )
    if len(set(fitting.values())) > 1:
        raise ValueError(f"{source}: 'pos_embed' with {n} positions can be read as {fitting} patches; pass image_size=")
    layout = next(iter(fitting))
    if layout == "patches":
        return torch.cat([position.new_zeros(1, 1 + registers, d), position], dim=1)
    if layout == "CLS and patches" and registers:
        return torch.cat([position[:, :1], position.new_zeros(1, registers, d), position[:, 1:]], dim=1)
    return position


def square_or_none(n: int) -> int | None:
    side = int(n**0.5 + 0.5)
    return side if side * side == n else None


def facts_of(model: nn.Module) -> tuple[dict, dict]:
    """What a timm object says beyond its weights: (facts, arguments of ``convert``). Refuses what is not computed."""
    kind, source = type(model).__name__, f"the timm model {type(model).__name__}"
    if kind in FOREIGN_CLASSES:
        raise refuse(source, FOREIGN_CLASSES[kind])
    if kind not in COMPUTED:
        raise refuse(source, f"an architecture of its own, class {kind!r}")
    check_names(model.state_dict(), source)
    if type(model.patch_embed).__name__ != "PatchEmbed":
        raise refuse(source, f"a convolutional stem (hybrid), {type(model.patch_embed).__name__}")
    if getattr(model.patch_embed, "dynamic_img_pad", False):
        raise refuse(source, "padding of images to whole patches (dynamic_img_pad)")
    rows, columns = model.patch_embed.img_size or (None, None)
    if rows != columns:
        raise refuse(source, f"a non-square image size {rows} × {columns}")
    if not isinstance(model.norm, nn.LayerNorm):
        kind = type(model.norm).__name__
        raise refuse(source, "no final LayerNorm" if kind == "Identity" else f"the norm {kind} instead of LayerNorm")
    activations = {block_activation(block, source, i) for i, block in enumerate(model.blocks)}
    norms = [model.norm, *(norm for block in model.blocks for norm in (block.norm1, block.norm2))]
    if len(activations) > 1 or len({norm.eps for norm in norms}) > 1:
        raise refuse(source, "different activations or LayerNorm eps in different blocks")
    first = model.blocks[0].attn
    facts = {"heads": first.num_heads, "eps": norms[0].eps, "gelu": activations.pop(), "depth": len(model.blocks)}
    facts |= {"pool": pooling(model)}
    if rows is not None:
        facts["image_size"] = rows
    card = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    facts |= {f"pixel_{k}": tuple(card[k]) for k in ("mean", "std") if card.get(k)}
    return facts, {"no_embed_class": bool(model.no_embed_class)}


def pooling(model: nn.Module) -> str | None:
    """ "cls" or "mean"; None for a pooling whose head is left out."""
    if model.global_pool == "token":
        return "cls"
    return "mean" if model.global_pool == "avg" and not getattr(model, "pool_include_prefix", False) else None


def block_activation(block: nn.Module, source: str, i: int) -> str:
    """ "exact" or "tanh", after making sure that the block is an ordinary one."""
    where = f"block {i}"
    if type(block).__name__ != "Block":
        parallel = "parallel blocks" if "Parallel" in type(block).__name__ else "a block that is not pre-norm"
        raise refuse(source, f"{parallel}, {type(block).__name__}", where)
    attention, mlp = block.attn, block.mlp
    if type(attention).__name__ != "Attention":
        rope = "rotary position embedding (RoPE), " if "Rope" in type(attention).__name__ else "other attention, "
        raise refuse(source, rope + type(attention).__name__, where)
    if getattr(attention, "is_causal", False) or getattr(attention, "attn_mask", None) is not None:
        raise refuse(source, "an attention mask", where)
    if attention.head_dim * attention.num_heads != block.norm1.normalized_shape[0]:
        raise refuse(source, f"attn_head_dim {attention.head_dim} other than width / heads", where)
    if type(mlp).__name__ != "Mlp":
        raise refuse(source, f"a SwiGLU / gated MLP, {type(mlp).__name__}", where)
    for norm in (block.norm1, block.norm2):
        if not isinstance(norm, nn.LayerNorm):
            raise refuse(source, f"the norm {type(norm).__name__} instead of LayerNorm", where)
    act = mlp.act
    if type(act).__name__ == "GELUTanh" or (isinstance(act, nn.GELU) and act.approximate == "tanh"):
        return "tanh"
    if type(act).__name__ == "GELU":
        return "exact"
    raise refuse(source, f"the activation {type(act).__name__} instead of GELU", where)


def facts_from_config(config: Mapping) -> dict:
    """Facts from the ``config.json`` of a timm repository, whose architecture is built (empty) if timm is installed."""
    try:
        import timm
    except (ImportError, RuntimeError):  # RuntimeError: a torchvision that does not fit this torch
        return {}
    with torch.device("meta"):
        model = timm.create_model(config["architecture"], num_classes=0, **config.get("model_args") or {})
    facts, _ = facts_of(model)
    return {k: v for k, v in facts.items() if k in ("heads", "eps", "gelu", "depth", "pool") and v is not None}
