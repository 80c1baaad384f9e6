"""Options of every mechanism: what they change, what is refused, what a file keeps; and parameter counts."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, random_images, random_prompt, random_vit
from vpt_analysis import prompts
from vpt_analysis.prompts import registry

CONFIG = random_vit().config
VIT_B16 = va.ViTConfig(image_size=224, patch_size=16, width=768, depth=12, heads=12)

# Every option of every mechanism, none at its default.
OTHER = {
    "cross": {"dropout": 0.1},
    "e2vpt": {"key_values": 2, "share": False, "dropout": 0.1},
    "gated": {"gate_init": 1.5, "dropout": 0.1},
    "norga": {"on": "e2vpt", "activation": "gelu", "dropout": 0.1},
    "prefix": {},
    "prefix-scaled": {},
    "prefix-shared": {"rank": 5},
    "vapt": {
        "kernel": 3, "padding": True, "rank": 3, "activation": "tanh", "static_first": True, "norm": True,
        "residual": True, "bias": True, "zero_init": True, "mean_fed": True, "dropout": 0.1,
    },
    "vapt-released": {
        "kernel": 3, "padding": True, "rank": 3, "activation": "gelu", "static_first": False, "norm": False,
        "residual": False, "bias": False, "zero_init": False, "mean_fed": True, "dropout": 0.1,
    },
    "vfpt": {"share": 0.8, "dropout": 0.1},
    "vpt-deep": {"dropout": 0.1},
    "vpt-projected": {"rank": 5, "dropout": 0.1},
    "vpt-shallow": {"dropout": 0.1},
    "zero-init": {"dropout": 0.1},
}  # fmt: skip


@pytest.mark.parametrize("name", MECHANISMS)
def test_files_keep_every_option(name, tmp_path):
    signature = inspect.signature(registry.MECHANISMS[name])
    parameters = [p for p in list(signature.parameters.values())[2:] if p.kind is not p.VAR_KEYWORD]
    assert {p.name for p in parameters} == set(OTHER.get(name, {})), "an option without a value here is not tested"
    assert all(p.default != OTHER[name][p.name] for p in parameters)
    vit = random_vit()
    images, prompt = random_images(vit, 2), random_prompt(vit, name, 4, **OTHER[name])
    prompts.save(prompt, tmp_path / "p.safetensors")
    loaded = prompts.load(tmp_path / "p.safetensors")
    assert loaded.options == prompt.options == OTHER[name]
    assert all(torch.equal(v, prompt.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert (vit(images, loaded) - vit(images, prompt)).abs().max() <= 1e-12


LENGTHS = (1, 10, 50)
COUNTS = {  # trained scalars on ViT-B/16: d 768, L 12, H 12, 14×14 patches
    "vpt-shallow": lambda p: 768 * p,
    "vpt-deep": lambda p: 9216 * p,
    "vapt": lambda p: 2028 * p + 12_336,  # L·P·M' + L·K² + 2·r·d, the paper's formula
    "vapt-released": lambda p: 2638 * p + 29_228,  # of the released code
    "norga": lambda p: 9216 * p + 2 * 12,  # and a pair a layer
    "gated": lambda p: 768 * p + 11 + 12,  # gates between layers, a temperature in each
    "vfpt": lambda p: 9216 * p,  # the transform has no parameters
    "prefix": lambda p: 2 * 9216 * p,
    "prefix-scaled": lambda p: 2 * 9216 * p,
    "prefix-shared": lambda p: 9216 * p + 12 * (48 * 769 + 2 * 768 * 49),
    "e2vpt": lambda p: 9216 * p + 12 * 5 * 768,  # keys and values are shared
    "zero-init": lambda p: 9216 * p + 12 * 12,  # an α for every layer and head
    "cross": lambda p: 9216 * p,
    "vpt-projected": lambda p: 9216 * p + 2 * 12 * 768 + 2 * 8 * 768,
}


def count(name, length, **options):
    with torch.device("meta"):
        return va.vit.parameter_count(registry.build(name, VIT_B16, length, **options))


@pytest.mark.parametrize("name", MECHANISMS)
def test_parameter_counts(name):
    assert name in COUNTS, "a mechanism without a formula here has its count untested"
    assert [count(name, p) for p in LENGTHS] == [COUNTS[name](p) for p in LENGTHS]


@pytest.mark.parametrize("name, options, want", [
    ("e2vpt", {"share": False, "key_values": 3}, 92_160 + 2 * 12 * 3 * 768),
    ("norga", {"on": "prefix"}, 2 * 92_160 + 24),
    ("prefix-shared", {"rank": 8}, 92_160 + 12 * (8 * 769 + 2 * 768 * 9)),
    ("vapt", {"rank": 64, "kernel": 3}, 12 * 10 * 144 + 12 * 9 + 2 * 64 * 768),
    ("vapt", {"kernel": 3, "padding": True}, 12 * 10 * 196 + 12 * 9 + 2 * 8 * 768),
    ("vapt", {"bias": True}, 32_616 + 12 * 10),
    ("vapt", {"norm": True}, 32_616 + 12 * 2 * 768),
    ("vapt", {"static_first": True}, 32_616 + 10 * 768 - 10 * 169 - 4),
    ("vapt", {"residual": True, "zero_init": True}, 32_616),
    ("vapt-released", {"norm": False}, 55_608 - 11 * 2 * 768),
])  # fmt: skip
def test_parameter_counts_of_ten_prompts_with_options(name, options, want):
    assert count(name, 10, **options) == want


def test_vapt_has_fewer_parameters_than_vpt_deep_from_five_prompts_as_released_and_two_as_written():
    for name, first in (("vapt-released", 5), ("vapt", 2)):
        fewer = [p for p in range(1, 8) if count(name, p) < count("vpt-deep", p)]
        assert fewer == list(range(first, 8))


def wrong_options():
    """(mechanism, options, what the error says)"""
    for name in MECHANISMS:
        yield name, {"lenght": 3}, f"unknown option of {name} 'lenght'"
        yield name, {"options": 3}, f"unknown option of {name} 'options'"
        if "dropout" not in OTHER.get(name, {}):
            yield name, {"dropout": 0.1}, f"unknown option of {name} 'dropout'"
            continue
        for value in (1.0, -0.1, float("nan"), "half"):
            yield name, {"dropout": value}, f"prompt dropout is {value!r}; expected a share in [0, 1)"
    for value in (0, 2.5, True):
        yield "e2vpt", {"key_values": value}, f"number of key-value prompts is {value}; expected an integer ≥ 1"
        yield "prefix-shared", {"rank": value}, f"rank of the shared latent is {value}; expected an integer ≥ 1"
    yield "e2vpt", {"share": 1}, "share of e2vpt is 1; expected True or False"
    for value in ("5", float("inf"), None):
        yield "gated", {"gate_init": value}, f"gate_init of gated is {value!r}; expected a finite number"
    for value in (1.1, -1, "all", True):
        yield "vfpt", {"share": value}, f"share of Fourier prompts is {value!r}; expected a number in [0, 1]"


def wrong_options_of_norga():
    yield "norga", {"activation": "tahn"}, "unknown activation of the gate 'tahn'; did you mean 'tanh'"
    yield "norga", {"on": "prefixed"}, "unknown prompt mechanism 'prefixed'; did you mean 'prefix'"
    yield "norga", {"on": None}, "unknown prompt mechanism None"
    yield "norga", {"on": "prefix", "dropout": 0.1}, "unknown option of prefix 'dropout'"
    for on in ("norga", "vapt", "vapt-released", "vpt-shallow", "gated", "zero-init", "cross"):
        yield "norga", {"on": on}, f"norga on {on!r}: expected a mechanism of static keys and values"


def wrong_options_of_vapt():
    for name in ("vapt", "vapt-released"):
        for value in (0, 1.5, True):
            yield name, {"kernel": value}, f"kernel of {name} is {value}; expected an integer ≥ 1"
            yield name, {"rank": value}, f"rank of {name} is {value}; expected an integer ≥ 1"
        for flag in ("padding", "static_first", "norm", "residual", "bias", "zero_init"):
            yield name, {flag: 2}, f"{flag} of {name} is 2; expected True or False"
        yield name, {"kernel": 5}, "kernel 5 is larger than the 4×4 patch grid"
        yield name, {"activation": "rel"}, f"unknown activation of {name} 'rel'; did you mean 'relu'"


@pytest.mark.parametrize("name, options, message", [
    *wrong_options(), *wrong_options_of_norga(), *wrong_options_of_vapt()
])  # fmt: skip
def test_wrong_options_are_refused_by_name(name, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        prompts.create(name, CONFIG, 3, **options)


@pytest.mark.parametrize("name", sorted(name for name in MECHANISMS if "dropout" in OTHER.get(name, {})))
def test_dropout_is_anew_for_every_image_and_none_in_evaluation(name):
    vit = random_vit()
    images = random_images(vit, 1).expand(2, -1, -1, -1)  # the same image twice
    prompt = random_prompt(vit, name, 6, dropout=0.5)
    first, second = vit(images, prompt)
    assert (first - second).abs().max() <= 1e-12
    first, second = vit(images, prompt.train())
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", ["vapt", "vapt-released"])
def test_vapt_is_bound_to_its_patch_grid_and_its_registers(name):
    prompt = prompts.create(name, CONFIG, 3)
    for field, changes in (("grid", {"image_size": 64}), ("prefix", {"registers": 2})):
        vit = random_vit(torch.float32, **changes)
        with pytest.raises(ValueError, match=f"{name} prompt was made for a backbone of {field}"):
            vit(random_images(vit), prompt)


def test_other_mechanisms_take_images_of_another_size():
    vit = random_vit()
    images = torch.randn(2, 3, 48, 40, dtype=torch.float64)
    for name in set(MECHANISMS) - {"vapt", "vapt-released"}:
        assert vit(images, random_prompt(vit, name, 3)).shape == (2, 31, 24)


def test_what_a_mechanism_starts_at():
    """Values that the sources state; the tokens' bound is tested with the registry."""
    norga, gated, zero = (prompts.create(name, VIT_B16, 2) for name in ("norga", "gated", "zero-init"))
    assert norga.alpha.tolist() == norga.tau.tolist() == [1.0] * 12
    assert gated.logit.tolist() == [-5.0] * 11 and gated.temperature.tolist() == [1.0] * 12
    assert zero.alpha.shape == (12, 12) and not zero.alpha.any()
    bound = (6 / (5 * 64)) ** 0.5
    own = prompts.create("e2vpt", VIT_B16, 2).key_values
    assert own.shape == (1, 12, 5, 768) and 0.99 * bound < own.abs().max() <= bound
