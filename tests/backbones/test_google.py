"""Google's .npz files: against timm's own reader of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vpt_analysis import backbones

D, H, M, DEPTH, GRID, PATCH, CLASSES = 24, 3, 40, 2, 6, 4, 5


def flax(big_vision: bool = False, classes: int = CLASSES) -> dict[str, np.ndarray]:
    """Random arrays under Flax names: modules counted through a block (original code), or each kind by itself."""
    rng = np.random.default_rng(0)
    attention, second, mlp = (0, 1, 0) if big_vision else (1, 2, 3)
    shapes = {
        "cls": (1, 1, D),
        "embedding/kernel": (PATCH, PATCH, 3, D),
        "embedding/bias": (D,),
        "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding": (1, 1 + GRID**2, D),
        "Transformer/encoder_norm/scale": (D,),
        "Transformer/encoder_norm/bias": (D,),
    }
    if classes:
        shapes |= {"head/kernel": (D, classes), "head/bias": (classes,)}
    for i in range(DEPTH):
        b = f"Transformer/encoderblock_{i}/"
        a = f"{b}MultiHeadDotProductAttention_{attention}/"
        for norm in ("LayerNorm_0", f"LayerNorm_{second}"):
            shapes |= {f"{b}{norm}/scale": (D,), f"{b}{norm}/bias": (D,)}
        for part in ("query", "key", "value"):
            shapes |= {f"{a}{part}/kernel": (D, H, D // H), f"{a}{part}/bias": (H, D // H)}
        shapes |= {f"{a}out/kernel": (H, D // H, D), f"{a}out/bias": (D,)}
        dense = f"{b}MlpBlock_{mlp}/Dense_"
        shapes |= {dense + "0/kernel": (D, M), dense + "0/bias": (M,)}
        shapes |= {dense + "1/kernel": (M, D), dense + "1/bias": (D,)}
    return {name: (0.2 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


# timm takes the prefix params/ for big_vision's
@pytest.mark.parametrize(
    ("big_vision", "prefix"),
    [(False, ""), (False, "opt/target/"), (True, ""), (True, "opt/target/"), (True, "params/")],
)
@torch.no_grad()
def test_equals_timms_reader(tmp_path, images, agree, dtype, big_vision, prefix):
    timm = pytest.importorskip("timm")
    path = tmp_path / "vit.npz"
    np.savez(path, **{prefix + name: array for name, array in flax(big_vision).items()})
    model = timm.models.VisionTransformer(
        img_size=GRID * PATCH, patch_size=PATCH, embed_dim=D, depth=DEPTH, num_heads=H, num_classes=CLASSES,
        mlp_ratio=M / D,
    ).eval()  # fmt: skip
    model.load_pretrained(str(path))
    vit = backbones.load_backbone(path, dtype=dtype)
    x = images(GRID * PATCH, dtype)
    agree(vit(x), model.to(dtype).forward_features(x))
    agree(vit.classify(x), model(x))
    assert vit.config.heads == H, "heads are read from the query kernels' shape"


def test_scanned_blocks_are_taken_apart(tmp_path):
    arrays = flax(big_vision=True)
    path = tmp_path / "scanned.npz"
    stacked = {name: array for name, array in arrays.items() if "encoderblock_" not in name}
    for name in [name for name in arrays if "encoderblock_0/" in name]:
        blocks = [arrays[name.replace("encoderblock_0/", f"encoderblock_{i}/")] for i in range(DEPTH)]
        stacked[name.replace("encoderblock_0/", "encoderblock/")] = np.stack(blocks)
    np.savez(path, **stacked)
    got = backbones.load_backbone(path).state_dict()
    np.savez(tmp_path / "plain.npz", **arrays)
    want = backbones.load_backbone(tmp_path / "plain.npz").state_dict()
    assert all(torch.equal(tensor, got[name]) for name, tensor in want.items())


def test_pre_logits_and_the_head_on_them_are_left_out(tmp_path):
    arrays = flax() | {"pre_logits/kernel": np.ones((D, D), np.float32), "pre_logits/bias": np.ones(D, np.float32)}
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.warns(UserWarning, match="'head/kernel', 'pre_logits/bias', 'pre_logits/kernel'"):
        assert backbones.load_backbone(tmp_path / "vit.npz").head is None


def test_a_missing_array_is_named(tmp_path):
    arrays = flax()
    del arrays["Transformer/encoderblock_1/LayerNorm_2/bias"]
    np.savez(tmp_path / "vit.npz", **arrays)
    with pytest.raises(ValueError, match="'Transformer/encoderblock_1/LayerNorm_2/bias' is missing"):
        backbones.load_backbone(tmp_path / "vit.npz")
