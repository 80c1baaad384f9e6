"""The controls of adaptive prompts: VAPT fed with mean patches, and static tokens through VAPT's extras."""

from __future__ import annotations

import pytest
import torch

import vpt_analysis as va
from tests.reference import entering, random_images, random_vit
from vpt_analysis import prompts
from vpt_analysis.prompts.content import mean_tokens

VIT = random_vit()
IMAGES = random_images(VIT, 6)


def test_mean_tokens_are_means_over_images_at_each_position():
    for mean, tokens in zip(mean_tokens(VIT, IMAGES, batch=4), entering(VIT, IMAGES, None), strict=True):
        assert mean.shape == tokens.shape[1:]
        assert (mean - tokens.mean(0)).abs().max() <= 1e-12
    with pytest.raises(ValueError, match="no images given"):
        mean_tokens(VIT, IMAGES[:0])


@pytest.mark.parametrize("name", ["vapt", "vapt-released"])
def test_fed_with_means_the_prompts_are_the_same_for_every_image(name):
    fed, reading = (made(name, mean_fed=flag) for flag in (True, False))
    fed.prepare(VIT, IMAGES)
    reading.prepare(VIT, IMAGES)  # takes nothing
    layer, x = VIT.config.depth - 1, entering(VIT, IMAGES, None)[-1]
    same, own = fed.prompt_tokens(layer, x), reading.prompt_tokens(layer, x)
    assert same.shape == (1, 3, VIT.config.width) and own.shape == (6, 3, VIT.config.width)
    assert torch.equal(same, fed.prompt_tokens(layer, x.flip(0)))
    assert (own - own[:1]).abs().max() > 1e-3
    assert fed.experts.startswith("static") and reading.experts == "adaptive"
    # An image whose patches are the means is read as the means are: only the input differs.
    alone = mean_tokens(VIT, IMAGES)[layer][None]
    assert torch.equal(same, reading.prompt_tokens(layer, alone))


@pytest.mark.parametrize("name", ["vapt", "vapt-released"])
def test_means_keep_the_parameters_and_pass_gradients_to_all_of_them(name):
    fed, reading = (made(name, mean_fed=flag) for flag in (True, False))
    fed.prepare(VIT, IMAGES)
    assert [(n, p.shape) for n, p in fed.named_parameters()] == [(n, p.shape) for n, p in reading.named_parameters()]
    VIT(IMAGES, fed).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in fed.parameters())


def test_means_travel_with_the_file(tmp_path):
    fed = made("vapt", mean_fed=True)
    fed.prepare(VIT, IMAGES)
    prompts.save(fed, tmp_path / "fed.safetensors")
    again = prompts.load(tmp_path / "fed.safetensors")
    assert torch.equal(again.means, fed.means) and fed.means.abs().max() > 0


def test_projected_tokens_follow_their_equation():
    prompt = prompts.create("vpt-projected", VIT.config, 3, seed=1).double()
    x = entering(VIT, IMAGES, None)
    for layer, tokens in enumerate(x):
        g = torch.nn.functional.layer_norm(prompt.tokens[layer], (VIT.config.width,), eps=1e-5)
        want = prompt.up.weight @ torch.relu(prompt.down.weight @ g.T) + g.T
        assert (prompt.prompt_tokens(layer, tokens)[0] - want.T).abs().max() <= 1e-12


def test_without_its_extras_a_projected_prompt_is_vpt_deep():
    """LN of a standardised token is that token, and a projector of zeros adds nothing."""
    deep, projected = (prompts.create(n, VIT.config, 3, seed=1).double() for n in ("vpt-deep", "vpt-projected"))
    with torch.no_grad():
        projected.up.weight.zero_()
        deep.tokens.copy_(torch.stack([n(t) for n, t in zip(projected.norms, projected.tokens, strict=True)]))
    assert torch.equal(VIT(IMAGES, deep), VIT(IMAGES, projected))


def made(name: str, **options) -> va.prompts.Prompt:
    prompt = prompts.create(name, VIT.config, 3, seed=1, **options).double()
    with torch.no_grad():  # away from zero starts
        for i, p in enumerate(prompt.parameters()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype))
    return prompt
