"""Damaged, malicious, incomplete and contradictory sources, each with its own message."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vpt_analysis import VisionTransformer, ViTConfig, backbones, prompts

CONFIG = ViTConfig(image_size=16, patch_size=4, width=24, depth=2, heads=3, mlp_width=40, registers=2, layer_scale=True)


@pytest.fixture
def vit(randomise) -> VisionTransformer:
    return randomise(VisionTransformer(CONFIG))


def timm_state() -> dict[str, torch.Tensor]:
    """Names and shapes of a small timm ViT; no package needed."""
    d, m = 24, 40
    shapes = {
        "cls_token": (1, 1, d), "pos_embed": (1, 17, d), "patch_embed.proj.weight": (d, 3, 4, 4),
        "patch_embed.proj.bias": (d,), "norm.weight": (d,), "norm.bias": (d,),
    }  # fmt: skip
    for i in range(2):
        b = f"blocks.{i}."
        for name, shape in {
            "norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d),
            "mlp.fc1": (m, d), "mlp.fc2": (d, m),
        }.items():  # fmt: skip
            shapes |= {f"{b}{name}.weight": shape, f"{b}{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def edited(**changes) -> dict[str, torch.Tensor]:
    """The state with some keys replaced (a tensor) or removed (None); ``__`` stands for a dot."""
    state = timm_state()
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        state.pop(name, None) if tensor is None else state.__setitem__(name, tensor)
    return state


def test_the_state_itself_is_good():
    assert backbones.load_backbone(timm_state(), heads=3).config.depth == 2


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"blocks__1__mlp__fc2__weight": None}, {}, "'blocks.1.mlp.fc2.weight' is missing"),
        ({"blocks__1__attn__qkv__bias": None}, {}, "'blocks.1.attn.qkv.bias' is missing"),
        ({"blocks__0__norm1__weight": None}, {}, "'blocks.0.norm1.weight' is missing"),
        ({"extra__thing": torch.ones(3)}, {}, "1 keys are not used.*'extra.thing'"),
        ({"blocks__7__norm1__weight": torch.ones(24)}, {}, "'blocks.2.norm1.weight' is missing"),
        ({"norm__weight": torch.ones(25)}, {}, r"'norm.weight' has shape \(25,\); expected 24"),
        ({"blocks__1__mlp__fc1__weight": torch.ones(41, 24)}, {}, "'blocks.1.mlp.fc1.weight' has.*expected 40 × 24"),
        ({"cls_token": torch.ones(24)}, {}, r"'cls_token' has shape \(24,\); expected 1 × 1 × 24"),
        ({"norm__bias": torch.full((24,), torch.nan)}, {}, "'norm.bias' has NaN or infinite"),
        ({"blocks__0__attn__proj__bias": torch.full((24,), torch.inf)}, {}, "'blocks.0.attn.proj.bias' has NaN or inf"),
        ({"norm__bias": torch.ones(24, dtype=torch.int8)}, {}, "'norm.bias' is torch.int8; expected floating point"),
        ({"pos_embed": torch.ones(1, 13, 24)}, {}, "13 positions.*non-square"),
        ({"patch_embed__proj__weight": torch.ones(24, 3, 4, 2)}, {}, "non-square"),
        ({}, {"heads": None}, "how many heads a width of 24 is cut into; pass heads="),
        ({}, {"heads": 5}, "width 24 is not a multiple of heads 5"),
        ({}, {"image_size": 32}, "17 positions.*stated image size 32"),
        ({}, {"gelu": "sigmoid"}, "gelu is 'sigmoid'; expected one of"),
        ({}, {"pool": "max"}, "pool is 'max'; expected one of"),
        ({}, {"dtype": torch.int64}, "dtype is torch.int64; expected a floating point dtype"),
        ({"norm__bias": torch.full((24,), 1e6)}, {"dtype": torch.float16}, "'norm.bias'.*too large for torch.float16"),
    ],
)
def test_bad_state_dicts(changes, given, message):
    with pytest.raises(ValueError, match=message):
        backbones.load_backbone(edited(**changes), **{"heads": 3, **given})


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "from int; expected a name, a path, a hub id"),
        ({}, ValueError, "holds no weights"),
        ({"weights": torch.ones(2)}, ValueError, "of no known family; expected those of timm, Hugging Face, Google"),
        ({"norm.weight": "text"}, ValueError, "of no known family|not a tensor"),
        ({"teacher": {"a": torch.ones(1)}, "student": {"a": torch.ones(1)}}, ValueError, "several sets of weights"),
        ({"ema": {"a": torch.ones(1)}}, ValueError, "holds weights under 'ema'"),
        ("vit-micor", ValueError, "unknown backbone 'vit-micor'"),
        ("./absent.pth", FileNotFoundError, "no weights at absent.pth"),
        ("folder/absent.safetensors", FileNotFoundError, "no weights at folder/absent.safetensors"),
    ],
)
def test_sources_that_are_none(source, error, message):
    with pytest.raises(error, match=message):
        backbones.load_backbone(source)


def test_unknown_name_suggests_the_nearest(monkeypatch):
    monkeypatch.setattr("vpt_analysis.backbones.load.names", lambda: ["vit-micro"])
    with pytest.raises(ValueError, match="did you mean 'vit-micro'"):
        backbones.load_backbone("vit-micor")


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_torch_files_and_their_wrappers(tmp_path, wrapper, prefix, suffix):
    state = {prefix + name: tensor for name, tensor in timm_state().items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / f"weights{suffix}")
    vit = backbones.load_backbone(tmp_path / f"weights{suffix}", heads=3)
    assert torch.equal(vit.blocks[1].fc2.weight, state[f"{prefix}blocks.1.mlp.fc2.weight"])


class Bomb:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["BOMB"])),)


def test_a_pickle_with_code_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    torch.save({"model": timm_state(), "epoch": Bomb()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth holds Python objects.*nothing of it was executed"):
        backbones.load_backbone(tmp_path / "evil.pth", heads=3)
    assert not (tmp_path / "exploded").exists()


def test_an_npz_with_objects_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    np.savez(tmp_path / "evil.npz", **{"embedding/kernel": np.array([Bomb()], dtype=object)})
    with pytest.raises(ValueError, match="evil.npz holds Python objects, which could run code"):
        backbones.load_backbone(tmp_path / "evil.npz")
    assert not (tmp_path / "exploded").exists()


def write(path: Path, kind: str) -> None:
    if kind == ".safetensors":
        save_file(timm_state(), path)
    elif kind == ".npz":
        np.savez(path, **{"embedding/kernel": np.ones((40, 40, 3, 4), np.float32)})
    else:
        torch.save(timm_state(), path)


@pytest.mark.parametrize("kind", [".safetensors", ".pth", ".npz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 0.99])
def test_truncated_files(tmp_path, kind, share):
    path = tmp_path / f"half{kind}"
    write(path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"half{kind}"):
        backbones.load_backbone(path, heads=3)


@pytest.mark.parametrize("kind", [".safetensors", ".pth", ".npz", ".onnx"])
def test_files_of_something_else(tmp_path, kind):
    path = tmp_path / f"text{kind}"
    path.write_text("not weights at all, " * 40)
    with pytest.raises(ValueError, match=f"text{kind}"):
        backbones.load_backbone(path)


def test_other_files(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"HDF")
    with pytest.raises(ValueError, match="unknown kind of file '.h5'; expected one of .safetensors"):
        backbones.load_backbone(tmp_path / "weights.h5")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="list.pth holds list; expected a state dict"):
        backbones.load_backbone(tmp_path / "list.pth")
    np.savez(tmp_path / "ints.npz", **{"embedding/kernel": np.ones((2, 2, 3, 4), np.int64)})
    with pytest.raises(ValueError, match="ints.npz: array 'embedding/kernel' is int64"):
        backbones.load_backbone(tmp_path / "ints.npz")


def test_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        backbones.load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        backbones.load_backbone(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(FileNotFoundError, match="neither of .*model.safetensors"):
        backbones.load_backbone(tmp_path)
    save_file(timm_state(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model_type 'bert'"):
        backbones.load_backbone(tmp_path)


def test_native_round_trip(tmp_path, vit, dtype):
    vit = vit.to(dtype)
    backbones.save(vit, tmp_path / "vit.safetensors")
    again = backbones.load_backbone(tmp_path / "vit.safetensors")
    assert again.config == vit.config
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in vit.state_dict().items())
    copy = backbones.load_backbone(vit)
    assert torch.equal(copy.position, vit.position) and copy.position is not vit.position


def test_bundled_backbones_come_in_float32(tmp_path, vit, monkeypatch):
    monkeypatch.setattr("vpt_analysis.backbones.load.WEIGHTS", tmp_path)
    backbones.save(vit.half(), tmp_path / "tiny.safetensors")
    assert backbones.names() == ["tiny"]
    assert backbones.load_backbone("tiny").norm.weight.dtype == torch.float32
    assert backbones.load_backbone("tiny", dtype=torch.float16).norm.weight.dtype == torch.float16


@pytest.mark.parametrize("name", backbones.names())
@torch.no_grad()
def test_backbones_in_the_package_load(name):
    vit = backbones.load_backbone(name)
    tokens = vit(torch.zeros(1, vit.config.channels, vit.config.image_size, vit.config.image_size))
    assert tokens.shape == (1, vit.config.tokens, vit.config.width) and torch.isfinite(tokens).all()


def test_native_files_that_do_not_fit(tmp_path, vit):
    def record(**fields):
        return {"vpt_analysis": json.dumps({"kind": "backbone", "config": CONFIG.to_dict()} | fields)}

    good = record()
    cases = {
        "no metadata": (vit.state_dict(), None, "no backbone record in its metadata"),
        "broken record": (vit.state_dict(), {"vpt_analysis": "{"}, "its metadata cannot be read"),
        "unknown field": (vit.state_dict(), record(config={"widht": 3}), "cannot read the config"),
        "another kind": (vit.state_dict(), record(kind="head"), "holds a head, not a backbone"),
        "missing": ({k: v for k, v in vit.state_dict().items() if k != "norm.bias"}, good, "'norm.bias' is missing"),
        "unused": (vit.state_dict() | {"more": torch.ones(1)}, good, "does not ask for: 'more'"),
        "shape": (vit.state_dict() | {"norm.bias": torch.ones(3)}, good, r"'norm.bias' has shape \(3,\)"),
    }
    for name, (tensors, metadata, message) in cases.items():
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=metadata)
        with pytest.raises(ValueError, match=message):
            backbones.load_backbone(tmp_path / f"{name}.safetensors")
    prompts.save(prompts.create("vpt-deep", CONFIG, 2), tmp_path / "prompt.safetensors")
    with pytest.raises(ValueError, match="holds a prompt, not a backbone"):
        backbones.load_backbone(tmp_path / "prompt.safetensors")
    with pytest.raises(ValueError, match="no config"):
        backbones.load_backbone(vit.state_dict())


def test_contradictions(tmp_path, vit):
    backbones.save(vit, tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match="heads=4 was given, but the source says 3"):
        backbones.load_backbone(tmp_path / "vit.safetensors", heads=4)
    with pytest.raises(ValueError, match="eps=0.1 was given, but the source says 1e-06"):
        backbones.load_backbone(vit, eps=0.1)


def test_saving_into_a_file_that_is_no_folder(tmp_path, vit):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write vit.safetensors into"):
        backbones.save(vit, tmp_path / "file" / "vit.safetensors")
