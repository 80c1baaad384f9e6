"""Tangent dimension on cases whose answer is known by hand, and against the plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import vpt_analysis as va
from tests.reference import MECHANISMS, random_images, random_prompt, random_vit, scatter
from vpt_analysis.probes import grams
from vpt_analysis.probes import tangent as probe
from vpt_analysis.probes.grams import held
from vpt_analysis.probes.jacobian import Jacobian, naive
from vpt_analysis.probes.sketch import closure

METHODS = (*MECHANISMS, *(b for b in va.baselines.names() if b not in ("linear", "full")))


def tiny(**changes) -> va.VisionTransformer:
    """Tokens enough for every mechanism, and little else."""
    return random_vit(**{"image_size": 16, "patch_size": 4, "width": 8, "heads": 2, "depth": 2} | changes)


def method_of(name: str, vit: va.VisionTransformer, length: int = 3) -> nn.Module:
    if name in va.baselines.names():
        sizes = {"lora": {"rank": 2}, "adapter": {"width": 2}}
        return scatter(va.baselines.create(name, vit, **sizes.get(name, {})), 1, 0.3)
    return random_prompt(vit, name, length)


class Product(nn.Module):
    """CLS token U W z, with z the first pixels of the image: J = U ⊗ Z, whatever W (r, k) is."""

    name = "product"

    def __init__(self, left: torch.Tensor, features: int):
        super().__init__()
        self.register_buffer("left", left)
        self.weight = nn.Parameter(torch.zeros(left.shape[1], features, dtype=left.dtype))

    def check_fits(self, vit):
        pass

    def encode(self, vit, images):
        return (images.flatten(1)[:, : self.weight.shape[1]] @ self.weight.T @ self.left.T)[:, None]


def product(
    vit: va.VisionTransformer, n: int, rank: int, outputs: int = 12
) -> tuple[Product, torch.Tensor, np.ndarray]:
    """A method with singular values by hand: products of those of U (rank ``rank``) and of Z (5 features)."""
    generator = torch.Generator().manual_seed(5)
    left = torch.randn(outputs, rank, generator=generator, dtype=torch.float64)
    left = left @ torch.randn(rank, rank + 1, generator=generator, dtype=torch.float64)
    images = random_images(vit, n)
    z = images.flatten(1)[:, :5]
    want = np.outer(*(torch.linalg.svdvals(m).numpy() for m in (left, z))).ravel()
    return Product(left, 5), images, np.sort(want)[::-1]


@pytest.mark.parametrize("name", METHODS)
def test_rows_equal_the_plain_loop(name):
    vit = tiny()
    method, images = method_of(name, vit), random_images(vit, 3)
    jacobian = Jacobian(vit, method, images, batch=2)
    want = naive(jacobian)
    shared, own = torch.randn(4, 8, dtype=torch.float64), torch.randn(3, 4, 8, dtype=torch.float64)
    mixed = torch.einsum("ke,nep->nkp", shared, want), torch.einsum("nke,nep->nkp", own, want)
    for given, rows in ((None, want), (shared, mixed[0]), (own, mixed[1])):
        found = held(jacobian, given)
        assert (found - rows).abs().max() <= 1e-12 * want.abs().max() * 8
    assert jacobian.parameters == want.shape[-1] and want.abs().max() > 0
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("name", ["vpt-deep", "vpt-shallow", "vapt", "norga", "lora"])
def test_products_with_the_gram_matrix(name):
    vit = tiny()
    jacobian = Jacobian(vit, method_of(name, vit), random_images(vit, 3), batch=2)
    j, v = naive(jacobian).flatten(0, 1), torch.randn(jacobian.parameters, dtype=torch.float64)
    assert (jacobian.gram_product(v) - j.T @ (j @ v)).norm() <= 1e-12 * v.norm() * j.norm() ** 2
    columns = [names for names in jacobian.groups(20)]
    assert sum(columns, []) == list(jacobian.sizes)
    parts = [held(jacobian, names=names) for names in columns]
    assert (torch.cat(parts, -1).flatten(0, 1) - j).abs().max() <= 1e-12 * j.abs().max()


@pytest.mark.parametrize("how", ["exact", "sketch"])
def test_a_linear_model_by_hand(how):
    vit = tiny()
    method, images, want = product(vit, 30, rank=3, outputs=40)  # p = 4 · 5, rank 3 · 5
    found = probe.tangent_dimension(vit, method, images, how=how)
    assert (found.how, found.parameters, found.rank.value) == (how, 20, 15)
    assert found.rank.gap > 1e4 and found.certified
    if how == "exact":
        assert np.allclose(found.singular_values[:15], want[:15], rtol=1e-10)
        assert found.energy.estimate == pytest.approx(np.square(want).sum(), rel=1e-10)
        ridge = found.ridges[0]
        assert ridge == pytest.approx(1e-2 * want[0] ** 2)
        assert found.effective.estimate[0] == pytest.approx((want**2 / (want**2 + ridge)).sum(), rel=1e-9)
        z = images.flatten(1)[:, :5]
        assert np.allclose(found.kernel, (method.left.square().sum() * z @ z.T).numpy())


@pytest.mark.parametrize("depth, length", [(1, 1), (2, 2), (2, 3)])
def test_radial_and_mean_directions_of_prompts_are_null(depth, length):
    """LN takes the mean and the scale off each prompt: P (d - 2) directions a layer are left, and all are used."""
    vit = tiny(eps=0.0, depth=depth)
    prompt, images = random_prompt(vit, "vpt-deep", length), random_images(vit, 24)
    j = held(Jacobian(vit, prompt, images)).flatten(0, 1).unflatten(1, (depth, length, 8))
    tokens = prompt.tokens.detach()
    for null in (tokens, torch.ones_like(tokens)):
        moved = torch.einsum("rlpd,lpd->rlp", j, null)  # each prompt by itself
        assert moved.abs().max() <= 1e-12 * j.norm() * null.norm()
    for how in ("exact", "sketch"):
        found = probe.tangent_dimension(vit, prompt, images, how=how, tolerance=1e-7)
        assert found.rank.value == depth * length * (8 - 2)
        assert found.rank.gap > 10 and found.certified


def test_with_eps_only_the_mean_is_null():
    vit = tiny(depth=1, eps=1e-2)
    prompt, images = random_prompt(vit, "vpt-deep", 1), random_images(vit, 24)
    assert probe.tangent_dimension(vit, prompt, images, tolerance=1e-9).rank.value == 8 - 1


@pytest.mark.parametrize("name", ["vpt-deep", "prefix", "norga"])
def test_one_layer_has_no_more_directions_than_its_common_query_leaves(name):
    """The CLS query of layer 1 is that of every image, so prompts of any length move d + H numbers: the output of each
    head, and its mass against the content (T10; Wang et al.)."""
    vit = tiny(depth=1)
    for length in (3, 12):
        prompt, images = random_prompt(vit, name, length), random_images(vit, 24)
        found = probe.tangent_dimension(vit, prompt, images, tolerance=1e-9)
        assert found.rank.value == 8 + 2 and found.rank.gap > 1e4
    everywhere = probe.tangent_dimension(vit, prompt, images[:4], outputs=lambda t: t.flatten(1), tolerance=1e-9)
    assert everywhere.rank.value > 8 + 2  # queries of patches differ


@torch.no_grad()
def test_relabelling_and_rescaling_prompts():
    vit = tiny(eps=0.0)
    images, prompt = random_images(vit, 20), random_prompt(vit, "vpt-deep", 3)
    base = probe.tangent_dimension(vit, prompt, images)
    prompt.tokens.copy_(prompt.tokens[:, [2, 0, 1]])
    moved = probe.tangent_dimension(vit, prompt, images)
    assert np.allclose(moved.singular_values, base.singular_values, rtol=1e-9, atol=1e-12)
    assert np.allclose(moved.kernel, base.kernel, rtol=1e-10)
    prompt.tokens.mul_(4.0)  # dLN(p) is divided by the factor
    scaled = probe.tangent_dimension(vit, prompt, images)
    assert np.allclose(scaled.singular_values, base.singular_values / 4, rtol=1e-9, atol=1e-12)
    assert scaled.rank.value == base.rank.value == 2 * 3 * 6


def test_more_prompts_have_more_directions():
    vit = tiny()
    ranks = [
        probe.tangent_dimension(
            vit, random_prompt(vit, "vapt-released", p), random_images(vit, 24), tolerance=1e-10
        ).rank.value
        for p in (1, 2, 4)
    ]
    assert ranks[0] < ranks[1] < ranks[2]


@pytest.mark.parametrize("name", ["vpt-deep", "prefix"])
def test_a_sketch_agrees_with_the_whole_within_its_errors(name):
    vit = tiny(width=16, eps=0.0, depth=1)
    prompt, images, labels = random_prompt(vit, name, 2), random_images(vit, 16), torch.arange(16) % 3
    whole = probe.tangent_dimension(vit, prompt, images, labels, how="exact")
    seen = {"energy": 0, "participation": 0, "alignment": 0}
    for seed in range(6):
        part = probe.tangent_dimension(vit, prompt, images, labels, how="sketch", seed=seed)
        assert part.how == "sketch" and part.functionals < 16 and part.closure <= probe.CLOSED
        assert part.rank.value == whole.rank.value or not part.certified
        for what in seen:
            mine, truth = getattr(part, what), getattr(whole, what).estimate
            seen[what] += np.mean((mine.low <= truth) & (truth <= mine.high))
    assert all(4 <= hits <= 6 for hits in seen.values()), seen
    assert part.effective.estimate[0] < whole.effective.estimate[0] * 1.1 and math.isinf(part.effective.high[0])


class OneImage(Product):
    """Only images brighter than 50 depend on the weight, and then every output on its own entry."""

    def encode(self, vit, images):
        on = (images.flatten(1)[:, :1] > 50).to(images)
        return (on * self.weight[:, 0])[:, None]


def test_a_sketch_that_is_not_closed_is_enlarged_until_it_is():
    vit = tiny()
    method = OneImage(torch.eye(40, dtype=torch.float64), 1)
    images = random_images(vit, 40).clone()
    images[7] = 100.0
    assert math.ceil(probe.OVERSAMPLE) < 40  # the first sketches have too few rows of that image
    found = probe.tangent_dimension(vit, method, images, how="sketch")
    assert (found.how, found.rank.value, found.functionals) == ("exact", 40, 40)


def test_closure_tells_a_new_direction_from_an_old_one():
    old = np.diag([4.0, 1.0, 0.0])
    assert closure(old, torch.tensor([[1.0, 1.0, 0.0]]), 1e-3, 2) == pytest.approx(1.25 / 2, rel=1e-4)
    assert closure(old, torch.tensor([[0.0, 0.0, 0.1]]), 1e-3, 2) == pytest.approx(5e3, rel=1e-4)


def test_closure_bounds_what_fresh_rows_add():
    rng = np.random.default_rng(0)
    for size in (1e-4, 1e-1, 1.0):
        y = rng.standard_normal((3, 8, 6)) * np.array([1, 1, 1, 1e-2, 1e-6, 0])
        fresh = rng.standard_normal((8, 6)) * np.array([1, 1, 1, 1e-2, 1e-6, size])
        gram, tau = np.einsum("kni,knj->ij", y, y) / 3, 1e-3
        theta = closure(gram, torch.from_numpy(fresh), tau, 3)
        both = np.sqrt(np.maximum(np.linalg.eigvalsh(gram + fresh.T @ fresh / 3)[::-1], 0))
        assert both[4] <= tau * math.sqrt(1 + 2 * theta) and (theta > probe.CLOSED) == (size > 1e-2)


def test_lanczos_agrees_with_the_whole_within_its_errors():
    vit = tiny()
    method, images, _ = product(vit, 10, rank=3)
    labels = torch.arange(10) % 2
    whole = probe.tangent_dimension(vit, method, images, labels, how="exact")
    found = probe.tangent_dimension(vit, method, images, labels, how="lanczos", top=5)
    assert found.rank is None and found.singular_values.shape == (5,)
    assert (abs(found.singular_values - whole.singular_values[:5]) <= found.errors + 1e-9).all()
    assert found.errors.max() <= 1e-3 * found.singular_values[0]
    for what in ("energy", "participation", "effective"):
        mine, truth = getattr(found, what), np.asarray(getattr(whole, what).estimate)
        assert np.all((mine.low <= truth) & (truth <= mine.high)), what
    assert not found.certified and whole.certified
    assert found.alignment.low.shape == (2,)


def test_held_and_streamed_ways_agree(monkeypatch):
    vit = tiny(eps=0.0)
    images, labels = random_images(vit, 12), torch.arange(12) % 2
    for name, length in (("vpt-deep", 3), ("prefix", 4)):  # p = 48 and 128 beside 96 rows
        prompt = random_prompt(vit, name, length)
        monkeypatch.undo()
        whole = probe.tangent_dimension(vit, prompt, images, labels, how="exact")
        monkeypatch.setattr(grams, "HELD", 1000)
        streamed = probe.tangent_dimension(vit, prompt, images, labels, how="exact")
        s = whole.singular_values
        assert np.allclose(streamed.singular_values[: whole.rank.value], s[: whole.rank.value], atol=1e-6 * s[0])
        assert streamed.rank.value == whole.rank.value
        if name == "prefix":
            assert np.allclose(streamed.kernel, whole.kernel)
        else:
            assert (streamed.alignment.low <= whole.alignment.estimate).all()
            assert (streamed.alignment.high >= whole.alignment.estimate).all()


def test_rounding_is_what_float32_does_and_stands_in_the_rank():
    vit = tiny(eps=0.0)
    images, prompt = random_images(vit, 20), random_prompt(vit, "vpt-deep", 3)
    double = held(Jacobian(vit, prompt, images)).flatten(0, 1)
    vit, prompt, images = vit.float(), prompt.float(), images.float()
    jacobian = Jacobian(vit, prompt, images)
    error = torch.linalg.matrix_norm(held(jacobian).flatten(0, 1).double() - double, 2)
    assert error <= jacobian.rounding() <= 100 * error
    found = probe.tangent_dimension(vit, prompt, images, tolerance=0.0)
    assert found.rank.limit == "rounding" and found.rank.threshold >= error
    assert found.rank.value <= 2 * 3 * 6  # the null directions are rounding here, and none of them counts
    part = probe.tangent_dimension(vit, prompt, images, tolerance=0.0, how="sketch")
    assert (part.how, part.rank.limit) == ("sketch", "rounding") and part.rank.value <= 2 * 3 * 6
    assert probe.tangent_dimension(vit, prompt, images, tolerance=1e-2).rank.limit == "tolerance"


class Branches(Product):
    """Looks at the values of the image, which no batch of images can."""

    def encode(self, vit, images):
        return super().encode(vit, images) * (2 if images.sum() > 0 else 1)


def test_what_cannot_be_decided_is_refused(monkeypatch):
    vit = tiny()
    images, prompt = random_images(vit, 4), random_prompt(vit, "vpt-deep", 2)
    for method in (va.baselines.create("linear", vit), random_prompt(vit, "vpt-deep", 0), prompt.requires_grad_(False)):
        with pytest.raises(ValueError, match="has no parameters to train"):
            probe.tangent_dimension(vit, method, images)
    prompt.requires_grad_(True)
    for outputs, match in ((lambda t: t, r"\(1, 17, 8\)"), (lambda t: t.sum(), r"\(\)"), (lambda t: 3.0, "float")):
        with pytest.raises(ValueError, match=f"outputs of one image are {match}"):
            probe.tangent_dimension(vit, prompt, images, outputs=outputs)
    for options, match in (
        ({"how": "exactly"}, "exact"),
        ({"ridges": [0.0]}, "ridges"),
        ({"tolerance": 1}, "tolerance"),
    ):
        with pytest.raises(ValueError, match=match):
            probe.tangent_dimension(vit, prompt, images, **options)
    for broken, match in ((images[:0], "0 images"), (images * math.nan, "NaN or infinite pixels")):
        with pytest.raises(ValueError, match=match):
            probe.tangent_dimension(vit, prompt, broken)
    with pytest.raises(TypeError, match="float32 or float64"):
        probe.tangent_dimension(vit.half(), prompt.half(), images.half())
    vit, prompt = vit.double(), prompt.double()
    with pytest.raises(ValueError, match=r"outputs of images \[0, 1, 2, 3\] are NaN"):
        probe.tangent_dimension(vit, prompt, images, outputs=lambda t: t[:, 0] / 0)
    with pytest.raises(ValueError, match=r"derivatives of images \[0, 1, 2, 3\] are NaN"):
        probe.tangent_dimension(vit, prompt, images, outputs=lambda t: (t[:, 0] * 0).sqrt())
    branches = Branches(torch.eye(3, dtype=torch.float64), 2)
    with pytest.raises(ValueError, match="torch.vmap cannot batch product"):
        probe.tangent_dimension(vit, branches, images)
    assert probe.tangent_dimension(vit, branches, images, batch=1).rank.value == 6
    monkeypatch.setattr(probe, "LARGE", 5)
    monkeypatch.setattr(grams, "HELD", 10)
    with pytest.raises(ValueError, match="finds no rank"):
        probe.tangent_dimension(vit, prompt, images, how="exact")
    assert probe.chosen(Jacobian(vit, prompt, images), "auto") == "lanczos"


def test_chosen_outputs_and_unused_parameters():
    vit = tiny()
    images, prompt = random_images(vit, 5), random_prompt(vit, "vpt-deep", 2)
    head = nn.Linear(8, 3).double()
    found = probe.tangent_dimension(vit, prompt, images, outputs=nn.Sequential(Pooled(), head))
    assert found.outputs == 3 and found.rank.value == 15 and found.parameters == 32  # the classifier is not counted
    last = probe.tangent_dimension(vit, prompt, images, outputs=lambda t: t[:, 0].detach())
    assert last.rank.value == 0 and math.isnan(last.participation.estimate) and last.energy.estimate == 0


class Pooled(nn.Module):
    def forward(self, tokens):
        return tokens[:, 0]
