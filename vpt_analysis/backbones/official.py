"""Checkpoints of the official code of VPT (Jia et al., ECCV 2022) and VAPT (Le et al., arXiv 2501.18936)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import prompts
from ..vit import VisionTransformer
from .features import check_names
from .keys import Keys, assemble, make_config, square_patch, square_side, strip
from .timm import IMAGENET

PATCH = "embeddings.patch_embeddings.weight"
# The official code normalises all images with ImageNet's statistics.
DEFAULTS = {"eps": 1e-6, "gelu": "exact", **IMAGENET}
LAYERS = r"encoder\.layer\.(\d+)\."


def recognise(names) -> bool:
    return any(n.endswith(PATCH) for n in names) and any("attn.query." in n for n in names)


def from_official(
    state_dict: Mapping[str, Tensor], heads: int | None = None, *, dtype: torch.dtype | None = None, device=None
) -> tuple[VisionTransformer, prompts.Prompt | None]:
    """Backbone and prompt from a state dict of the official VPT or VAPT code; prompt None where it holds none.

    Names may start with ``transformer.`` or ``enc.transformer.``; a linear classifier (``head``) is kept as the
    backbone's. ``heads`` are not in the weights: by default those of the published models of this width. VPT's
    ``prompt_proj`` is folded into the prompts. VAPT as released: static layer 1, ReLU; its other options are errors.
    """
    source = "the official state dict"
    keys = official_keys(state_dict, source)
    config, state = backbone(keys, source, {} if heads is None else {"heads": heads})
    name, length, options, prompt_state = prompt_parts(keys, config)
    keys.finish()
    vit = assemble(config, state, dtype, device, source)
    if name is None:
        return vit, None
    prompt = prompts.create(name, config, length, **options).to(vit.patch.weight)
    prompt.load_state_dict(prompt_state)
    return vit, prompt.eval()


def convert(tensors: Mapping[str, Tensor], source: str, facts: Mapping) -> tuple[object, dict[str, Tensor]]:
    """A backbone with the official code's names and without prompts to (config, state of ``VisionTransformer``)."""
    keys = official_keys(tensors, source)
    if keys.any("prompt_embeddings"):
        raise ValueError(f"{source} holds prompts beside the backbone; use backbones.from_official(state_dict)")
    config, state = backbone(keys, source, facts)
    keys.finish()
    return config, state


def official_keys(state_dict: Mapping[str, Tensor], source: str) -> Keys:
    tensors = strip(state_dict, "module.")
    check_names(tensors, source)
    prefix = next((name[: -len(PATCH)] for name in tensors if name.endswith(PATCH)), None)
    if prefix not in ("", "transformer.", "enc.transformer."):
        raise ValueError(
            f"{source}: no {PATCH!r}, bare or after 'transformer.' or 'enc.transformer.'; is it of the official code?"
        )
    return Keys({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, source)


def backbone(keys: Keys, source: str, facts: Mapping) -> tuple[object, dict[str, Tensor]]:
    patch = keys.take(PATCH, None, None, None, None)
    d, channels = patch.shape[:2]
    position = keys.take("embeddings.position_embeddings", 1, None, d)
    state = {
        "patch.weight": patch,
        "patch.bias": keys.take("embeddings.patch_embeddings.bias", d),
        "prefix": keys.take("embeddings.cls_token", 1, 1, d),
        "position": position,
    }
    depth, m = keys.count(LAYERS), None
    for i in range(depth):
        b = f"encoder.layer.{i}."
        m = m or (keys.tensors[b + "ffn.fc1.weight"].shape[0] if b + "ffn.fc1.weight" in keys else None)
        qkv = [keys.pair(f"{b}attn.{part}", d, d) for part in ("query", "key", "value")]
        parts = {
            "ln1": keys.pair(b + "attention_norm", d),
            "ln2": keys.pair(b + "ffn_norm", d),
            "attention.qkv": {k: torch.cat([pair[k] for pair in qkv]) for k in ("weight", "bias")},
            "attention.out": keys.pair(b + "attn.out", d, d),
            "fc1": keys.pair(b + "ffn.fc1", m, d),
            "fc2": keys.pair(b + "ffn.fc2", d, m),
        }
        state |= {f"blocks.{i}.{part}.{k}": v for part, pair in parts.items() for k, v in pair.items()}
    state |= {f"norm.{k}": v for k, v in keys.pair("encoder.encoder_norm", d).items()}
    classes = classifier(keys, d, state)
    side = square_patch(patch.shape, source)
    inferred = {
        "image_size": side * square_side(position.shape[1] - 1, source), "patch_size": side, "width": d, "depth": depth,
        "mlp_width": m, "channels": channels, "registers": 0, "layer_scale": False, "classes": classes,
    }  # fmt: skip
    return make_config(source, facts, inferred, DEFAULTS), state


def classifier(keys: Keys, d: int, state: dict[str, Tensor]) -> int:
    """A linear head on CLS becomes the backbone's; heads with hidden layers are left out, with a warning."""
    name = next((n for n in ("head", "head.last_layer", "enc.head") if f"{n}.weight" in keys), None)
    classes = 0
    if name and not keys.any(r"head\.projection\."):
        classes = keys.tensors[f"{name}.weight"].shape[0]
        state |= {f"head.{k}": v for k, v in keys.pair(name, classes, d).items()}
    keys.leave_out(r"(enc\.)?head\.")
    return classes


def prompt_parts(keys: Keys, config) -> tuple[str | None, int, dict, dict[str, Tensor]]:
    """(mechanism, length, options, state) of the prompt among these keys."""
    if "prompt_embeddings" not in keys:
        return None, 0, {}, {}
    project = projection(keys, config.width)
    first = project(keys.take("prompt_embeddings", 1, None, None))
    length = first.shape[1]
    if keys.any("deep_prompt_downsample|deep_prompt_norm"):
        return vapt_parts(keys, config, first[0])
    if "deep_prompt_embeddings" in keys:
        deep = project(keys.take("deep_prompt_embeddings", config.depth - 1, length, None))
        return "vpt-deep", length, {}, {"tokens": torch.cat([first, deep])}
    return "vpt-shallow", length, {}, {"tokens": first}


def projection(keys: Keys, d: int):
    """VPT's optional linear map from a narrower prompt to the width; without dropout it folds into the prompts."""
    if "prompt_proj.weight" in keys:
        pair = keys.pair("prompt_proj", d, None)
        return lambda tokens: F.linear(tokens, pair["weight"], pair["bias"])
    return lambda tokens: tokens


def vapt_parts(keys: Keys, config, first: Tensor) -> tuple[str, int, dict, dict[str, Tensor]]:
    length, d = first.shape
    if "deep_prompt_embeddings" in keys:
        raise ValueError(f"{keys.source}: VAPT with more than one static layer (VPT_DEPTH > 1) is not supported")
    if "deep_prompt_downsample.0.conv.kernel" not in keys or "deep_prompt_embeddings_mlp.block.0.weight" not in keys:
        raise ValueError(
            f"{keys.source}: VAPT without its convolution (CONV) or without a shared feature projector "
            f"(FEAT_PROJECTOR, SHARE_PROJECTOR) is not the released configuration and is not supported"
        )
    down = keys.take("deep_prompt_embeddings_mlp.block.0.weight", None, d)
    rank = len(down)
    up = keys.take("deep_prompt_embeddings_mlp.block.2.weight", d, rank)
    state = {"first": first, "down.weight": down, "up.weight": up}
    size = keys.tensors["deep_prompt_downsample.0.conv.kernel"].shape[-1]
    positions = (config.grid - size + 1) ** 2  # the released code does not pad
    for i in range(config.depth - 1):
        state |= {f"norms.{i}.{k}": v for k, v in keys.pair(f"deep_prompt_norm.{i}", d).items()}
        state[f"kernels.{i}"] = keys.take(f"deep_prompt_downsample.{i}.conv.kernel", 1, 1, size, size)[0, 0]
        linear = keys.pair(f"deep_prompt_downsample.{i}.linear", length, positions)
        state |= {f"projectors.{i}.{k}": v for k, v in linear.items()}
    return "vapt-released", length, {"kernel": size, "rank": rank}, state
