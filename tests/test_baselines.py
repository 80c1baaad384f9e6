"""Baselines: the plain model at the start, peft and plainly written references later; nothing frozen moves."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import vpt_analysis as va
from tests.reference import random_images, random_vit, scatter
from vpt_analysis import backbones, baselines, storage
from vpt_analysis.baselines import registry
from vpt_analysis.vit import parameter_count

VIT_B = va.ViTConfig(image_size=224, patch_size=16, width=768, depth=12, heads=12, classes=10)
VARIANTS = [
    ("linear", {}),
    ("full", {}),
    ("bias", {}),
    ("bias", {"norms": False, "layer_scale": True}),
    ("lora", {}),
    ("lora", {"rank": 24, "alpha": 3.0, "targets": "ko"}),
    ("adapter", {}),
    ("adapter", {"width": 5, "placement": "both", "activation": "relu"}),
    ("adapter", {"placement": "attention"}),
]
every_variant = pytest.mark.parametrize("name, options", VARIANTS, ids=[f"{n}-{'-'.join(o)}" for n, o in VARIANTS])
trained_variants = pytest.mark.parametrize("name, options", VARIANTS[1:])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def scaled_vit(dtype=torch.float64, **changes):
    """Random weights with every kind of parameter: LayerScale, registers and a classifier too."""
    return random_vit(dtype, layer_scale=True, registers=2, classes=4, **changes)


def moved(vit, name, seed=3, **options):
    """A baseline away from its start."""
    return scatter(baselines.create(name, vit, **options), seed)


def test_every_baseline_is_tested():
    assert {name for name, _ in VARIANTS} == set(baselines.names())
    assert all(kind.name == name for name, kind in registry.BASELINES.items())


@every_variant
def test_at_the_start_it_is_the_plain_model(name, options, dtype):
    vit = scaled_vit(dtype)
    images = random_images(vit)
    got, want = baselines.create(name, vit, seed=5, **options).encode(vit, images), vit(images)
    assert got.dtype == dtype and (got - want).abs().max() <= TOLERANCE[dtype] / 10


@trained_variants
def test_every_parameter_counts_and_no_frozen_one_moves(name, options):
    vit = scaled_vit()
    images, before = random_images(vit), {k: v.clone() for k, v in vit.state_dict().items()}
    modules, plain = list(vit.named_modules()), vit(images).detach()
    baseline = moved(vit, name, **options)
    tokens = baseline.encode(vit, images)
    assert (tokens - plain).abs().max() > 1e-2
    tokens.square().mean().backward()
    assert all(p.grad is not None and p.grad.norm() > 1e-9 for p in baseline.parameters())
    assert all(p.grad is None and p.requires_grad for p in vit.parameters())
    assert all(torch.equal(before[k], v) for k, v in vit.state_dict().items())
    assert list(vit.named_modules()) == modules and torch.equal(vit(images), plain)


def test_a_linear_probe_trains_nothing_and_keeps_no_graph():
    vit = random_vit()
    probe = baselines.create("linear", vit)
    assert parameter_count(probe) == 0 and not probe.encode(vit, random_images(vit)).requires_grad


@trained_variants
def test_two_models_on_one_backbone_do_not_meet(name, options):
    """As two threads would: the plain model and another baseline run while the adapted model is half-way through."""
    vit = scaled_vit()
    images, first, second = random_images(vit), moved(vit, name, **options), moved(vit, name, seed=4, **options)
    plain, alone, other = vit(images), first.encode(vit, images), second.encode(vit, images)
    model = first.adapted(vit)
    half = model.encode(model.embed(images), stop=1)
    assert torch.equal(vit(images), plain) and (second.encode(vit, images) - other).abs().max() <= 1e-12
    for block in model.blocks[1:]:
        half = block(half)
    assert (model.norm(half) - alone).abs().max() <= 1e-12
    assert (alone - other).abs().max() > 1e-2


def test_the_split_takes_an_adapted_model():
    vit = random_vit()
    model = moved(vit, "lora").adapted(vit)
    prompt = va.prompts.create("vpt-deep", vit.config, 3).double()
    assert va.decompose(model, random_images(vit), prompt).residual < 1e-12


@pytest.mark.parametrize("name, options", VARIANTS[1:4])
def test_copies_equal_a_finetuned_backbone(name, options):
    """Outputs and gradients of a deep copy that holds the same values itself."""
    vit = scaled_vit()
    images, baseline = random_images(vit), moved(vit, name, **options)
    reference = copy.deepcopy(vit)
    with torch.no_grad():
        for key, value in baseline.tensors().items():
            reference.get_parameter(key).copy_(value)
    got, want = baseline.encode(vit, images), reference(images)
    assert (got - want).abs().max() <= 1e-12
    got.square().sum().backward()
    want.square().sum().backward()
    for key, value in baseline.tensors().items():
        assert (value.grad - reference.get_parameter(key).grad).abs().max() <= 1e-9, key


def test_bias_trains_just_the_biases():
    vit = scaled_vit()
    names = {name for name, _ in vit.named_parameters() if not name.startswith("head.")}
    biases = {name for name in names if name.endswith("bias")}
    norms = {name for name in biases if name.split(".")[-2] in ("ln1", "ln2", "norm")}
    scales = {name for name in names if "scale" in name}
    assert len(biases) == 1 + 3 * 6 + 1 and len(norms) == 7 and len(scales) == 6
    assert set(baselines.create("full", vit).tensors()) == names
    assert set(baselines.create("bias", vit).tensors()) == biases
    assert set(baselines.create("bias", vit, norms=False).tensors()) == biases - norms
    assert set(baselines.create("bias", vit, layer_scale=True).tensors()) == biases | scales


def peft_model(model, **options):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(**options))


@pytest.fixture
def huggingface_vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=24, patch_size=4, intermediate_size=40
    )
    return scatter(transformers.ViTModel(config, add_pooling_layer=False), 0).eval()


@pytest.mark.parametrize("targets, rank, alpha", [("qv", 4, 8.0), ("qkvo", 1, 3.0), ("o", 24, 24.0)])
def test_lora_equals_peft(huggingface_vit, targets, rank, alpha, dtype):
    """On transformers' ViT, whose queries, keys and values are projected apart: outputs, gradients of A and of B."""
    model = huggingface_vit.to(dtype)
    vit = va.load_backbone(model)
    images = random_images(vit)
    baseline = moved(vit, "lora", rank=rank, alpha=alpha, targets=targets)
    peer = peft_model(model, r=rank, lora_alpha=alpha, target_modules=[f"{t}_proj" for t in targets])
    theirs = {}
    for name, p in peer.named_parameters():
        for i, t in enumerate(baseline.targets):
            for layer in range(2):
                for part, ours in (("A", baseline.down), ("B", baseline.up)):
                    if f"layers.{layer}.attention.{t}_proj.lora_{part}" in name:
                        p.data.copy_(ours[layer, i])
                        theirs[part, layer, i] = p
    assert len(theirs) == 2 * 2 * len(targets)
    assert parameter_count(peer, trainable_only=True) == parameter_count(baseline)
    got, want = baseline.encode(vit, images), peer(images).last_hidden_state
    assert (got - want).abs().max() <= TOLERANCE[dtype] * want.abs().max()
    weight = torch.randn(want.shape, generator=torch.Generator().manual_seed(0)).to(want)
    (got * weight).mean().backward()
    (want * weight).mean().backward()
    for (part, layer, i), p in theirs.items():
        ours = (baseline.down if part == "A" else baseline.up).grad[layer, i]
        assert (ours - p.grad).abs().max() <= TOLERANCE[dtype] * p.grad.abs().max().clamp(min=1e-3), (part, layer, i)


def test_peft_moves_the_keys_of_a_fused_projection():
    """Why LoRA is ours: on our fused weight peft has one A for queries, keys and values, and a B for all 3 d rows."""
    peer = peft_model(random_vit(), r=4, target_modules=["qkv"])
    shapes = {name.split(".")[-3]: p.shape for name, p in peer.named_parameters() if "lora" in name}
    assert shapes == {"lora_A": (4, 24), "lora_B": (72, 4)}


def test_lora_moves_queries_and_values_but_no_keys():
    vit = random_vit()
    changed = moved(vit, "lora").adapted(vit).blocks[1].attention.qkv.weight - vit.blocks[1].attention.qkv.weight
    query, key, value = (part.abs().max() for part in changed.chunk(3))
    assert key == 0 and query > 0.1 and value > 0.1
    assert torch.linalg.matrix_rank(changed[:24]) == 8


def reference_adapted(vit, baseline, images, activation):
    """The blocks written out, an adapter wherever the baseline has one."""

    def after(adapters, place, y):
        if place not in adapters:
            return y
        p = dict(adapters[place].named_parameters())
        return y + activation(y @ p["down.weight"].T + p["down.bias"]) @ p["up.weight"].T + p["up.bias"]

    x = vit.embed(images)
    for block, adapters in zip(vit.blocks, baseline.layers, strict=True):
        y = va.attention.attend(*block.attention.project(block.ln1(x)))
        x = x + block.scale1 * after(adapters, "attention", block.attention.merge(y))
        x = x + block.scale2 * after(adapters, "mlp", block.fc2(F.gelu(block.fc1(block.ln2(x)))))
    return vit.norm(x)


@pytest.mark.parametrize("placement", ["mlp", "attention", "both"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_adapters_equal_the_plain_reference(placement, activation):
    vit = scaled_vit()
    images = random_images(vit)
    baseline = moved(vit, "adapter", width=5, placement=placement, activation=activation)
    want = reference_adapted(vit, baseline, images, getattr(F, activation))
    assert (baseline.encode(vit, images) - want).abs().max() <= 1e-12


@pytest.mark.parametrize(
    "name, options, count",
    [
        ("linear", {}, 0),
        ("full", {}, 85_798_656),  # ViT-B/16 without classifier
        ("bias", {}, 768 * (2 + 7 * 12) + 3072 * 12),
        ("bias", {"norms": False}, 768 * (1 + 5 * 12) + 3072 * 12),
        ("lora", {}, 12 * 2 * 2 * 8 * 768),
        ("lora", {"rank": 768, "targets": "o"}, 12 * 2 * 768 * 768),
        ("adapter", {}, 12 * (2 * 768 * 8 + 8 + 768)),
        ("adapter", {"width": 64, "placement": "both"}, 12 * 2 * (2 * 768 * 64 + 64 + 768)),
    ],
)
def test_parameter_counts(name, options, count):
    with torch.device("meta"):
        assert parameter_count(registry.build(name, VIT_B, **options)) == count


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_same_seed_same_values_in_every_dtype(name):
    a, b, c = (baselines.create(name, random_vit(), seed=s).state_dict() for s in (3, 3, 4))
    single = baselines.create(name, random_vit(torch.float32), seed=3).state_dict()
    assert all(torch.equal(a[k], b[k]) and torch.equal(a[k].float(), single[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
    down = torch.cat([v.flatten() for k, v in a.items() if "down" in k and "bias" not in k])
    assert 0.95 * 24**-0.5 < down.abs().max() <= 24**-0.5
    assert all(v.abs().max() == 0 for k, v in a.items() if "up" in k)


@every_variant
def test_saved_and_loaded_baselines_are_the_same(name, options, tmp_path, dtype):
    vit, path = scaled_vit(dtype), tmp_path / "b.safetensors"
    baseline = moved(vit, name, **options)
    baselines.save(baseline, path)
    loaded = baselines.load(path)
    assert type(loaded) is type(baseline) and loaded.options == baseline.options and not loaded.training
    assert all(torch.equal(v, baseline.state_dict()[k]) for k, v in loaded.state_dict().items())
    got, want = loaded.encode(vit, random_images(vit)), baseline.encode(vit, random_images(vit))
    assert (got - want).abs().max() <= TOLERANCE[dtype] / 10  # other addresses, other kernels


def test_refused_files(tmp_path):
    vit, path = random_vit(torch.float32), tmp_path / "x.safetensors"
    baselines.save(baselines.create("lora", vit, rank=2), path)
    with pytest.raises(ValueError, match="holds a baseline, not a prompt"):
        va.prompts.load(path)
    record = {"kind": "baseline", "version": 1, "mechanism": "lora", "config": vit.config.to_dict()}
    storage.write_tensors(path, load_file(path), record | {"options": {"rank": 3}})
    with pytest.raises(ValueError, match=r"does not fit baseline 'lora': down is \(3, 2, 2, 24\), expected \(3, 2, 3"):
        baselines.load(path)
    storage.write_tensors(path, load_file(path), record | {"options": {"rank": 2, "beta": 1}})
    with pytest.raises(ValueError, match="its baseline record cannot be used: unknown option of lora 'beta'"):
        baselines.load(path)
    backbones.save(vit, path)
    with pytest.raises(ValueError, match=r"holds a backbone, not a baseline; write it with baselines.save"):
        baselines.load(path)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("lorra", {}, "unknown baseline 'lorra'; did you mean 'lora'"),
        ("lora", {"rnk": 2}, "unknown option of lora 'rnk'; did you mean 'rank'"),
        ("full", {"rank": 2}, "unknown option of full 'rank'"),
        ("lora", {"rank": 0}, "rank is 0; expected an integer from 1 to the width 24"),
        ("lora", {"rank": 25}, "rank is 25"),
        ("lora", {"alpha": float("nan")}, "alpha is nan; expected a finite number"),
        ("lora", {"targets": "qx"}, "targets are 'qx'; expected some of the letters of 'qkvo', each once"),
        ("lora", {"targets": "qq"}, "targets are 'qq'"),
        ("lora", {"targets": ""}, "targets are ''"),
        ("adapter", {"width": 0}, "width is 0; expected an integer ≥ 1"),
        ("adapter", {"placement": "everywhere"}, "placement is 'everywhere'; expected one of mlp, attention, both"),
        ("adapter", {"activation": "tanh"}, "activation is 'tanh'; expected one of gelu, relu"),
        ("bias", {"layer_scale": True}, "this backbone has no LayerScale"),
    ],
)
def test_refused_baselines(name, options, message):
    with pytest.raises(ValueError, match=message):
        baselines.create(name, random_vit(), **options)


def test_a_config_is_no_backbone():
    with pytest.raises(TypeError, match="vit is ViTConfig; expected the VisionTransformer"):
        baselines.create("lora", random_vit().config)


@pytest.mark.parametrize("name", sorted(baselines.names()))
@pytest.mark.parametrize("field, value", [("width", 48), ("depth", 2), ("heads", 2)])
def test_a_baseline_of_another_backbone_is_refused(name, field, value):
    vit = random_vit()
    other = baselines.create(name, random_vit(**{field: value}))
    with pytest.raises(ValueError, match=f"this {name} baseline was made for a backbone of {field} {value}, this one"):
        other.encode(vit, random_images(vit))


def test_a_baseline_of_another_shape_or_dtype_is_refused():
    vit = random_vit()
    with pytest.raises(ValueError, match="backbone of registers 1, this one has 0"):
        baselines.create("full", random_vit(registers=1)).encode(vit, random_images(vit))
    with pytest.raises(ValueError, match="backbone of mlp_width 8, this one has 96"):
        baselines.create("bias", random_vit(mlp_width=8)).encode(vit, random_images(vit))
    with pytest.raises(ValueError, match="the baseline is torch.float32 on cpu, the backbone torch.float64"):
        baselines.create("lora", random_vit(torch.float32)).encode(vit, random_images(vit))


@every_variant
def test_the_trainer_takes_it(name, options):
    vit = scaled_vit(torch.float32)
    before = {k: v.clone() for k, v in vit.state_dict().items()}
    labels = torch.arange(16) % 2
    images = random_images(vit, 16) + 2 * labels.view(-1, 1, 1, 1)
    baseline = baselines.create(name, vit, **options)
    start = {k: v.clone() for k, v in baseline.state_dict().items()}
    trained = va.training.train(vit, baseline, images, labels, va.training.Training(steps=20, batch=16, lr=5e-3))
    assert trained.losses[-1] < 0.8 * trained.losses[0]
    assert all(torch.equal(before[k], v) for k, v in vit.state_dict().items())
    assert all(not torch.equal(start[k], v) for k, v in baseline.state_dict().items())


def test_a_baseline_in_the_place_of_a_prompt_is_refused_with_what_to_do():
    vit = random_vit()
    lora = va.baselines.create("lora", vit)
    with pytest.raises(TypeError, match="the method is str; expected a prompt or a baseline"):
        va.cost.cost(vit, "lora")
    for call in (vit, lambda images, method: va.decompose(vit, images, method)):
        with pytest.raises(TypeError, match=r"prompt is LoRA; expected a prompt.*baseline.encode\(vit, images\)"):
            call(random_images(vit), lora)
