"""What the minimal Vision Transformer does not compute, recognised by the names of weights."""

from __future__ import annotations

import re
from collections.abc import Iterable

# (pattern in a key, what it is). The first that matches is named.
FOREIGN = (
    (r"(^|\.)(visual|vision_model|text_model)\.|class_embedding|resblocks", "CLIP (norm before the blocks, QuickGELU)"),
    (r"layers\.\d+\.blocks\.\d+\.|attn_mask$|(^|\.)swin\.", "windowed attention (Swin)"),
    (r"relative_position_bias|rel_pos|relative_position", "relative position bias (BEiT, Swin)"),
    (r"attn\.q_bias|lambda_1|(^|\.)gamma_1", "BEiT's attention (relative position bias, biases without keys)"),
    (r"(?<!encoder\.)\blayer\.\d+\.attention\.q_proj", "rotary position embedding (RoPE, DINOv3)"),
    (r"rope|rotary|inv_freq|(^|\.)freqs", "rotary position embedding (RoPE)"),
    (r"(q_norm|k_norm|q_layernorm|k_layernorm|query_norm|key_norm)\.", "QK-norm"),
    (r"(attn|attention)\.gate", "gated attention"),
    (r"(attn|attention)\.(norm|inner_attn_ln|layernorm)\.", "a norm inside attention (scale_norm)"),
    (r"mlp\.(norm|ffn_layernorm)\.", "a norm inside the MLP"),
    (r"mlp\.(w12|w1|w2|w3|fc1_g|fc1_x|weights_in|weights_out|gate_proj|up_proj|gate)\b", "a SwiGLU / gated MLP"),
    (r"norm_pre\.|pre_layrnorm|pre_layernorm|ln_pre", "a norm before the blocks (pre_norm, as in CLIP)"),
    (r"(^|\.)fc_norm\.", "a norm after pooling (fc_norm)"),
    (r"patch_embed\.norm\.", "a norm in the patch embedding"),
    (r"patch_embed\.(backbone|conv|proj\.\d)|conv_root|/unit\d|(^|\.)conv1\.weight", "a convolutional stem (hybrid)"),
    (r"blocks\.\d+\.(attns|ffns|in_proj|mlp_in|in_norm|attn_out_proj|mlp_out_proj)", "parallel blocks"),
    (r"(^|\.)(lambda_q1|lambda_k1|sub_norm)", "differential attention"),
    (r"(^|\.)lora_|\.base_layer\.", "LoRA layers (merge them into the weights first)"),
    (r"parametrizations\.|weight_(g|v)$", "parametrised weights (remove the parametrisation first)"),
    (r"(^|\.)conv_proj\.|encoder_layer_\d", "torchvision's ViT"),
)


def refuse(source: str, feature: str, where: str = "") -> ValueError:
    found = f" (found in {where})" if where else ""
    return ValueError(
        f"{source} has {feature}, which the minimal Vision Transformer does not compute{found}. "
        f"It computes pre-LN encoders with learned positions: ViT, DeiT and DINOv2."
    )


def check_names(names: Iterable[str], source: str) -> None:
    """Raise ``ValueError`` naming the first feature among these keys that is not computed.

    >>> try:
    ...     check_names(["blocks.0.attn.q_norm.weight"], "weights")
    ... except ValueError as error:
    ...     print(str(error).partition(",")[0])
    weights has QK-norm
    """
    names = list(names)
    for pattern, feature in FOREIGN:
        hit = next((name for name in names if re.search(pattern, name)), None)
        if hit is not None:
            raise refuse(source, feature, repr(hit))
