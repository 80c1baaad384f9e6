"""The registry, the official initialisation and dropout, and prompt files."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import load_file

import vpt_analysis as va
from tests.reference import MECHANISMS, TokenForm, random_images, random_prompt, random_vit
from vpt_analysis import prompts, storage
from vpt_analysis.prompts import Prompt, registry

CONFIG = va.ViTConfig(image_size=32, patch_size=8, width=24, depth=3, heads=3)
every_mechanism = pytest.mark.parametrize("name", MECHANISMS)


def test_all_mechanisms_are_registered_and_name_their_axes():
    assert {"vpt-shallow", "vpt-deep", "vapt-released"} <= set(prompts.names())
    for name in prompts.names():
        mechanism = registry.MECHANISMS[name]
        assert mechanism.name == name and mechanism.experts and mechanism.gate and mechanism.combine


@pytest.mark.parametrize("name", ["vpt-shallow", "vpt-deep"])
def test_the_official_initialisation_is_uniform_within_its_bound(name):
    config = va.ViTConfig(image_size=224, patch_size=16, width=768, depth=12, heads=12)
    tokens = prompts.create(name, config, 50).tokens
    assert 0.0622 < tokens.abs().max() <= 0.0625
    assert abs(tokens.std() - 0.0625 / 3**0.5) < 1e-3


def test_vapt_starts_with_adaptive_prompts_at_zero():
    prompt = prompts.create("vapt-released", CONFIG, 4)
    assert prompt.generate(0, torch.randn(2, 17, 24)).abs().max() == 0


@every_mechanism
def test_same_seed_same_values(name):
    a, b, c = (prompts.create(name, CONFIG, 4, seed=s).state_dict() for s in (3, 3, 4))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_dropout_in_the_prefix_form_is_dropout_of_the_tokens():
    vit, images = random_vit(), random_images(random_vit())
    deep = random_prompt(vit, "vpt-deep", 6, dropout=0.3).train()

    class DroppedTokens(TokenForm):
        def forward(self, layer, block, x, before):
            return deep.dropout(self.tokens[layer].expand(len(x), -1, -1)), None

    torch.manual_seed(5)
    prefix = vit(images, deep)
    torch.manual_seed(5)
    assert (prefix - vit(images, DroppedTokens(deep))).abs().max() <= 1e-12


def test_keys_and_values_are_computed_once_a_layer_not_once_an_image():
    vit, prompt = random_vit(), random_prompt(random_vit(), "vpt-deep", 6)
    _, extra = prompt(1, vit.blocks[1], torch.zeros(5, 17, 24, dtype=torch.float64), None)
    assert extra.key.shape == extra.value.shape == (1, 3, 6, 8)


@every_mechanism
@pytest.mark.parametrize("length", [0, 5])
def test_saved_and_loaded_prompts_are_the_same(name, length, tmp_path, dtype):
    vit = random_vit(dtype)
    prompt = random_prompt(vit, name, length)
    prompts.save(prompt, tmp_path / "p.safetensors")
    loaded = prompts.load(tmp_path / "p.safetensors")
    assert not loaded.training
    assert type(loaded) is type(prompt) and loaded.options == prompt.options and loaded.length == length
    assert all(torch.equal(v, prompt.state_dict()[k]) for k, v in loaded.state_dict().items())
    bound = 1e-5 if dtype == torch.float32 else 1e-12  # the same values at other addresses: sums in another order
    assert (vit(random_images(vit), loaded) - vit(random_images(vit), prompt)).abs().max() <= bound
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]


def test_same_prompt_same_bytes(tmp_path):
    for n in range(6):
        prompts.save(prompts.create("vpt-deep", CONFIG, 3, dropout=0.1), tmp_path / f"{n}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_mechanism_of_ones_own_takes_part_everywhere(tmp_path):
    class Mean(Prompt):
        name, experts = "mean-token", "adaptive"

        def __init__(self, config, length):
            super().__init__(config, length)
            self.scale = torch.nn.Parameter(torch.ones(length, 1))

        def initialise(self, generator):
            self.scale.data.uniform_(0.5, 2, generator=generator)

        def forward(self, layer, block, x, before):
            return None, va.attention.KeyGroup(*block.keys_values(x.mean(1, keepdim=True) + self.scale))

    prompts.register(Mean)
    try:
        vit = random_vit()
        prompt = prompts.create("mean-token", vit.config, 3).double()
        prompts.save(prompt, tmp_path / "mean.safetensors")
        prompt = prompts.load(tmp_path / "mean.safetensors")
        assert va.decompose(vit, random_images(vit), prompt).residual < 1e-12
        with pytest.raises(ValueError, match="registered already"):
            prompts.register(type("Other", (Mean,), {}))
    finally:
        del registry.MECHANISMS["mean-token"]


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: prompts.create("vpt-deap", CONFIG, 5), ValueError, "did you mean 'vpt-deep'"),
        (lambda: prompts.create("vpt-deep", CONFIG, -1), ValueError, "prompt length is -1; expected an integer ≥ 0"),
        (lambda: prompts.create("vpt-deep", CONFIG, 2.5), ValueError, "prompt length is 2.5"),
        (lambda: prompts.create("vpt-deep", CONFIG, 2, dropuot=0.1), ValueError, "did you mean 'dropout'"),
        (lambda: prompts.create("vpt-deep", CONFIG, 2, dropout=1.0), ValueError, r"expected a share in \[0, 1\)"),
        (lambda: prompts.create("vapt-released", CONFIG, 2, kernel=9), ValueError, "kernel 9 is larger than the 4×4"),
    ],
)
def test_refused_prompts(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("field, value", [("width", 48), ("depth", 2), ("heads", 2)])
@every_mechanism
def test_a_prompt_of_another_backbone_is_refused(name, field, value):
    vit = random_vit(torch.float32)
    other = prompts.create(name, random_vit(torch.float32, **{field: value}).config, 3)
    with pytest.raises(ValueError, match=f"made for a backbone of {field} {value}, this one has"):
        vit(random_images(vit), other)


def test_a_prompt_of_another_dtype_or_grid_is_refused():
    vit = random_vit(torch.float64)
    with pytest.raises(ValueError, match=r"the prompt is torch.float32 on cpu, the backbone torch.float64"):
        vit(random_images(vit), prompts.create("vpt-deep", vit.config, 3))
    with pytest.raises(ValueError, match="reads 4×4 patches, these images have 9"):
        vit(random_images(vit)[..., :24, :24], random_prompt(vit, "vapt-released", 3))


def rewritten(tmp_path, change):
    """A good prompt file with its tensors or metadata changed."""
    prompts.save(random_prompt(random_vit(torch.float32), "vpt-deep", 3), tmp_path / "good.safetensors")
    tensors = load_file(tmp_path / "good.safetensors")
    record = {
        "kind": "prompt", "version": 1, "mechanism": "vpt-deep", "length": 3, "options": {}, "config": CONFIG.to_dict(),
    }  # fmt: skip
    change(tensors, record)
    storage.write_tensors(tmp_path / "bad.safetensors", tensors, record)
    return tmp_path / "bad.safetensors"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, m: m.update(kind="backbone"), "holds a backbone, not a prompt"),
        (lambda t, m: m.update(version=9), "prompt file version 9; this release reads 1"),
        (lambda t, m: m.update(mechanism="vpt-dep"), "did you mean 'vpt-deep'"),
        (lambda t, m: m.update(length=4), r"tokens is \(3, 3, 24\), expected \(3, 4, 24\)"),
        (lambda t, m: m.pop("options"), "bad.safetensors: its prompt record lacks 'options'"),
        (lambda t, m: m["config"].pop("width"), "cannot be used: .*width"),
        (lambda t, m: m.update(options="abc"), "bad.safetensors: its prompt record cannot be used"),
        (lambda t, m: m.update(length=-1), "cannot be used: prompt length is -1"),
        (lambda t, m: m.update(length=10**13), r"tokens is \(3, 3, 24\), expected \(3, 10000000000000, 24\)"),
        (lambda t, m: t.update(more=torch.zeros(1)), "more is .*expected no such tensor"),
        (lambda t, m: t["tokens"].fill_(float("nan")), "tensor 'tokens' has NaN or infinite values"),
    ],
)
def test_refused_prompt_files(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        prompts.load(rewritten(tmp_path, change))


def test_truncated_missing_and_malicious_prompt_files(tmp_path):
    path = rewritten(tmp_path, lambda t, m: None)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        prompts.load(path)
    with pytest.raises(FileNotFoundError, match="no prompt file at"):
        prompts.load(tmp_path / "none.safetensors")

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        prompts.load(path)
    assert not (tmp_path / "ran").exists()


def test_an_interrupted_or_impossible_save_leaves_the_old_file(tmp_path, monkeypatch):
    prompt, path = random_prompt(random_vit(), "vpt-deep", 3), tmp_path / "p.safetensors"
    prompts.save(prompt, path)
    before = path.read_bytes()

    def stopped(tensors, part, metadata):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        prompts.save(prompt, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write p.safetensors into"):
        prompts.save(prompt, tmp_path / "file" / "p.safetensors")
