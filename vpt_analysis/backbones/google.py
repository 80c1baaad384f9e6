"""Google's ``.npz`` files: Flax names of the original ViT code and of big_vision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .features import check_names, refuse
from .keys import Keys, make_config, square_patch, square_side

PREFIXES = ("opt/target/", "params/img/", "params/")
DEFAULTS = {"eps": 1e-6, "gelu": "exact", "antialias": True}
SCANNED = "Transformer/encoderblock/"


def recognise(names) -> bool:
    return any(name.endswith("embedding/kernel") for name in names)


def unscanned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of the training state, and blocks stored as one stack taken apart."""
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in tensors)), "")
    flat = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(prefix)
        if name.startswith(SCANNED):
            flat |= {name.replace(SCANNED, f"Transformer/encoderblock_{i}/"): t for i, t in enumerate(tensor)}
        else:
            flat[name] = tensor
    return flat


def convert(tensors: Mapping[str, Tensor], source: str, facts: Mapping) -> tuple[object, dict[str, Tensor]]:
    """Flax arrays to (config, state of ``VisionTransformer``). Heads are read from the query kernels' shape."""
    tensors = unscanned(tensors)
    check_names(tensors, source)
    keys = Keys(tensors, source)
    if "cls" not in keys:
        raise refuse(source, "no CLS token", "no key 'cls'")
    kernel = keys.take("embedding/kernel", None, None, None, None)  # (h, w, C, d)
    channels, d = kernel.shape[2:]
    position = keys.take(keys.first_of("Transformer/posembed_input/pos_embedding", "pos_embedding"), 1, None, d)
    state = {
        "patch.weight": kernel.permute(3, 2, 0, 1),
        "patch.bias": keys.take("embedding/bias", d),
        "prefix": keys.take("cls", 1, 1, d),
        "position": position,
    }
    depth = keys.count(r"Transformer/encoderblock_(\d+)/")
    heads, mlp_width = blocks(keys, depth, d, state)
    state |= norm(keys, "Transformer/encoder_norm", "norm", d)
    classes = 0
    if "head/kernel" in keys and not keys.any("pre_logits/|MAPHead"):
        weight = keys.take("head/kernel", d, None).T
        classes = len(weight)
        state |= {"head.weight": weight, "head.bias": keys.take("head/bias", classes)}
    keys.leave_out(r"pre_logits/|head/|MAPHead_0/")
    keys.finish()
    side = square_patch(state["patch.weight"].shape, source)
    inferred = {
        "image_size": side * square_side(position.shape[1] - 1, source), "patch_size": side, "width": d, "depth": depth,
        "heads": heads, "mlp_width": mlp_width, "channels": channels, "registers": 0, "layer_scale": False,
        "classes": classes,
    }  # fmt: skip
    return make_config(source, facts, inferred, DEFAULTS), state


def blocks(keys: Keys, depth: int, d: int, state: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """Take all blocks; gives heads and MLP width.

    The original code counts the modules of a block through (LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2,
    MlpBlock_3); big_vision counts each kind by itself.
    """
    original = keys.any(r"Transformer/encoderblock_\d+/MultiHeadDotProductAttention_1/")
    attention, second_norm, mlp = (1, 2, 3) if original else (0, 1, 0)
    heads = mlp_width = None
    for i in range(depth):
        b, ours = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        a = f"{b}MultiHeadDotProductAttention_{attention}/"
        kernels, biases = [], []
        for part in ("query", "key", "value"):
            kernel = keys.take(f"{a}{part}/kernel", d, heads, None)  # (d, H, e)
            heads, e = kernel.shape[1:]
            if heads * e != d:
                raise refuse(keys.source, f"attn_head_dim {e} other than width / heads", f"{a}{part}/kernel")
            kernels.append(kernel.flatten(1).T)
            biases.append(keys.take(f"{a}{part}/bias", heads, e).flatten())
        state[ours + "attention.qkv.weight"], state[ours + "attention.qkv.bias"] = torch.cat(kernels), torch.cat(biases)
        state[ours + "attention.out.weight"] = keys.take(f"{a}out/kernel", heads, d // heads, d).flatten(0, 1).T
        state[ours + "attention.out.bias"] = keys.take(f"{a}out/bias", d)
        state |= norm(keys, b + "LayerNorm_0", ours + "ln1", d)
        state |= norm(keys, f"{b}LayerNorm_{second_norm}", ours + "ln2", d)
        dense = f"{b}MlpBlock_{mlp}/Dense_"
        state[ours + "fc1.weight"] = keys.take(dense + "0/kernel", d, mlp_width).T
        mlp_width = len(state[ours + "fc1.weight"])
        state[ours + "fc1.bias"] = keys.take(dense + "0/bias", mlp_width)
        state[ours + "fc2.weight"] = keys.take(dense + "1/kernel", mlp_width, d).T
        state[ours + "fc2.bias"] = keys.take(dense + "1/bias", d)
    return heads, mlp_width


def norm(keys: Keys, theirs: str, ours: str, d: int) -> dict[str, Tensor]:
    return {f"{ours}.weight": keys.take(f"{theirs}/scale", d), f"{ours}.bias": keys.take(f"{theirs}/bias", d)}
