"""Ranks and the adaptivity spectrum, against their definitions written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, FixedKeys, random_images, random_prompt, random_vit
from vpt_analysis import moe


def spectrum_by_hand(gates: torch.Tensor, values: torch.Tensor) -> np.ndarray:
    """Shares from gates (B, H, Q, P) and values (B, H, P, e), by the definition; heads summed."""
    values = values.expand(len(gates), -1, -1, -1)
    g, v = gates.mean((0, 2), keepdim=True), values.mean(0, keepdim=True)
    energies = [
        (part.square().sum(-1).mean((0, 2))).sum().item()
        for part in (g @ v, (gates - g) @ v, g @ (values - v), gates @ values)
    ]
    constant, gate, expert, total = energies
    return np.array([constant, gate, expert, total - constant - gate - expert]) / total


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("queries", ["cls", "all"])
@pytest.mark.parametrize("batch", [2, 3, 64])
def test_the_spectrum_by_its_definition(name, queries, batch):
    vit = random_vit()
    images, prompt = random_images(vit, 7), random_prompt(vit, name, 5)
    splits = va.decompose(vit, images, prompt, keep=("prompt",))
    spectra = moe.adaptivity_spectrum(vit, images, prompt, queries=queries, batch=batch, resamples=20)
    for split, spectrum in zip(splits, spectra, strict=True):
        gates = split.prompt_gates[:, :, :1] if queries == "cls" else split.prompt_gates
        assert abs(spectrum.shares - spectrum_by_hand(gates, split.prompt_experts)).max() <= 1e-10
        for head in range(3):
            by_hand = spectrum_by_hand(gates[:, head, None], split.prompt_experts[:, head, None])
            assert abs(spectrum.per_head[head] - by_hand).max() <= 1e-10


def test_the_energy_is_that_of_the_prompt_term():
    vit = random_vit()
    images, prompt = random_images(vit, 6), random_prompt(vit, "vapt-released", 5)
    (split,) = va.decompose(vit, images, prompt, layers=[2], keep=("terms",))
    (spectrum,) = moe.adaptivity_spectrum(vit, images, prompt, layers=[2], resamples=5)
    assert np.allclose(spectrum.energy, split.prompt_term.square().sum(-1).mean((0, 2)).numpy(), rtol=1e-10)


def test_a_bootstrap_resample_is_the_spectrum_of_the_repeated_images():
    """The moments with weights k/n are those of a data set in which an image stands k times."""
    vit = random_vit()
    images, prompt = random_images(vit, 4), random_prompt(vit, "vapt-released", 3)
    ((_, moments),) = moe._moments(vit, images, prompt, "all", [1], 64)
    parts = moments.parts(np.array([[2, 0, 1, 1]]) / 4)[0].sum(0)
    (repeated,) = moe.adaptivity_spectrum(vit, images[[0, 0, 2, 3]], prompt, layers=[1], resamples=2)
    assert np.allclose(parts[:4] / parts[4], repeated.shares, atol=1e-12)


def test_intervals_cover_the_estimate_and_shrink_with_images():
    vit, prompt = random_vit(), random_prompt(random_vit(), "vapt-released", 5)
    widths = []
    for n in (8, 128):
        (spectrum,) = moe.adaptivity_spectrum(vit, random_images(vit, n), prompt, layers=[1])
        low, high = spectrum.intervals.T
        assert (low <= high).all()
        widths.append((high - low).mean())
    assert (low <= spectrum.shares + 1e-3).all() and (spectrum.shares - 1e-3 <= high).all()
    assert widths[1] < widths[0] / 2


def test_same_seed_same_intervals():
    vit, prompt = random_vit(), random_prompt(random_vit(), "vpt-deep", 5)
    a, b = (moe.adaptivity_spectrum(vit, random_images(vit), prompt, seed=1)[0].intervals for _ in range(2))
    assert np.array_equal(a, b)


def test_singular_values_are_those_of_the_stack_whatever_the_batch():
    vit = random_vit()
    images, prompt = random_images(vit, 7), random_prompt(vit, "vapt-released", 3)
    (split,) = va.decompose(vit, images, prompt, layers=[1], keep=("terms",))
    stack = split.prompt_term.transpose(0, 1).flatten(1, 2)
    for batch in (1, 3, 64):
        values = moe.prompt_singular_values(vit, images, prompt, 1, batch=batch)
        assert (values - torch.linalg.svdvals(stack)).abs().max() <= 1e-12


def test_rank_with_fewer_rows_than_dimensions():
    vit = random_vit(image_size=8, patch_size=8)  # CLS and one patch
    values = moe.prompt_singular_values(vit, random_images(vit, 1), random_prompt(vit, "vpt-deep", 5), 0)
    assert values.shape == (3, 8) and (moe.numerical_rank(values) <= 2).all()


def test_constant_gates_and_experts_are_a_constant_spectrum():
    """All scores 0 and no content to compete with differently: zero keys make every gate 1/(N+P)."""
    vit = random_vit()
    for block in vit.blocks:
        block.attention.qkv.weight.data[:48] = 0
        block.attention.qkv.bias.data[:48] = 0
    key = torch.zeros(1, 3, 4, 8, dtype=torch.float64)
    prompt = FixedKeys(vit.config, key, torch.randn(1, 3, 4, 8, dtype=torch.float64))
    for spectrum in moe.adaptivity_spectrum(vit, random_images(vit, 5), prompt, resamples=5):
        assert np.allclose(spectrum.shares, [1, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"queries": "patches"}, "unknown queries 'patches'"),
        ({"n": 1}, "1 images given; variation over images needs at least 2"),
        ({"batch": 1}, "batch is 1; the spectrum tells shared from per-image experts"),
        ({"length": 0}, "a prompt of length 0 has no prompt term"),
    ],
)
def test_refused(arguments, message):
    vit = random_vit()
    prompt = random_prompt(vit, "vpt-deep", arguments.pop("length", 3))
    with pytest.raises(ValueError, match=message):
        moe.adaptivity_spectrum(vit, random_images(vit, arguments.pop("n", 3)), prompt, **arguments)
    with pytest.raises(ValueError, match="no images given"):
        moe.prompt_singular_values(vit, random_images(vit, 3)[:0], random_prompt(vit, "vpt-deep", 3), 0)
