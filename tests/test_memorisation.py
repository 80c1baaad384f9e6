"""Memorisation: searches with known answers, capacities known by hand, and what must not change the answer."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import vpt_analysis as va
from tests.reference import random_vit
from vpt_analysis import ViTConfig
from vpt_analysis.probes.memorisation import memorisation, stored_bits
from vpt_analysis.probes.sections import geometric, largest
from vpt_analysis.probes.small_backbones import first_blocks, random_backbone, resized
from vpt_analysis.training import Training

probe = importlib.import_module("vpt_analysis.probes.memorisation")  # the package has the function by that name
PLAN = Training(40, lr=0.1, weight_decay=0.0, batch=4, evaluate_every=8, enough=0.99)
SMALL = {"image_size": 8, "patch_size": 4, "width": 16, "heads": 2, "mlp_width": 16, "pool": "mean"}


def small(dtype=torch.float64, depth: int = 1, seed: int = 0, **changes) -> va.VisionTransformer:
    return random_backbone(ViTConfig(**SMALL | {"depth": depth} | changes), seed).to(dtype)


# --- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2, 3, 50])
def test_every_answer_is_found(at_once):
    grid = geometric(1, 60, 1.5)
    for answer in range(len(grid) + 1):
        limit, asked = grid[answer - 1] if answer else 0, []

        def passes(sizes, limit=limit, asked=asked):
            asked.append(len(sizes))
            return [n <= limit for n in sizes]

        found = largest(passes, grid, at_once)
        assert found.passed == limit
        assert found.failed == (grid[answer] if answer < len(grid) else 0)
        assert sum(asked) == len(found.tried) == len(set(found.tried)) and max(asked) <= at_once
        assert np.array_equal(found.which, found.tried <= limit)
        assert len(asked) <= np.ceil(np.log(len(grid) + 1) / np.log(at_once + 1)) + 1


def test_failures_below_a_success_do_not_count():
    found = largest(lambda sizes: [n in (1, 2, 8) for n in sizes], [1, 2, 4, 8, 16], at_once=5)
    assert (found.passed, found.failed) == (8, 16)


@pytest.mark.parametrize(("grid", "at_once"), [([], 1), ([0, 1], 1), ([2, 2], 1), ([3, 1], 1), ([1], 0)])
def test_refused_grids(grid, at_once):
    with pytest.raises(ValueError, match="expected"):
        largest(lambda sizes: [True] * len(sizes), grid, at_once)
    with pytest.raises(ValueError, match="expected 1 ≤ first"):
        geometric(4, 2, 1.5)


def test_a_linear_head_alone_stores_as_many_numbers_as_it_has_weights():
    """Exact interpolation of normal targets: d weights and a bias fit n = d + 1, and one more only by chance."""
    features = np.random.default_rng(0).standard_normal((40, 9))
    targets = np.random.default_rng(1).standard_normal(40)

    def fits(sizes):
        designs = [np.column_stack([features[:n], np.ones(n)]) for n in sizes]
        residuals = [d @ np.linalg.lstsq(d, targets[: len(d)], rcond=None)[0] - targets[: len(d)] for d in designs]
        return [float(r @ r) < 1e-10 for r in residuals]

    assert largest(fits, range(1, 41)).passed == 10


# --- capacities known by hand ----------------------------------------------------------------------------------------


def blind(pool: str = "cls") -> va.VisionTransformer:
    """One layer whose content values and queries are 0: its CLS feature is the same for all images."""
    vit = small(pool=pool)
    with torch.no_grad():
        vit.blocks[0].attention.qkv.weight[:16] = 0
        vit.blocks[0].ln1.weight.zero_()
        vit.blocks[0].ln1.bias.zero_()
    return vit


def equal_at_first(seed: int, classes: int, sizes) -> int:
    """How many of the first labels of a seed are equal."""
    generator = torch.Generator().manual_seed(seed)
    probe.noise(small(), max(sizes), generator)
    labels = probe.random_answers(small(), max(sizes), "labels", classes, generator)
    return int((labels != labels[0]).nonzero()[0])


@pytest.mark.parametrize("seed", [0, 3])
def test_a_backbone_that_sees_nothing_memorises_one_class(seed):
    """A prompt, or rather its MLP-side shift, can at most give all images one label."""
    sizes, vit = range(1, 9), blind()
    with torch.no_grad():
        features = vit.pool(vit(probe.noise(vit, 5, torch.Generator().manual_seed(0))))
    assert (features - features[0]).abs().max() < 1e-12
    generator = torch.Generator().manual_seed(5)
    head = nn.Linear(16, 2).double()
    with torch.no_grad():  # classes are told by the sign of one direction that a prefix can turn either way
        head.weight.copy_(torch.randn(1, 16, generator=generator).double() * torch.tensor([[1.0], [-1.0]]))
        head.bias.zero_()
    found = memorisation(vit, "prefix", 2, sizes, replace(PLAN, lr=0.5), outputs=2, head=head, seed=seed, at_once=2)
    assert found.fitted == equal_at_first(seed, 2, sizes) and found.failed == found.fitted + 1
    with pytest.raises(ValueError, match="the backbone gives all images one feature"):
        memorisation(vit, "prefix", 2, sizes, PLAN, seed=seed)


def test_static_prompts_of_one_layer_at_cls_give_one_target_and_adaptive_more():
    """All images have one CLS query (T10), so the static prompt term has one direction; and where the content's part
    is taken away, they have one feature."""
    sizes, plan = [1, 2, 3, 4, 6], replace(PLAN, steps=100, lr=0.05, evaluate_every=20)
    vit = small(pool="cls")
    static = memorisation(vit, "vpt-deep", 8, sizes, plan, kind="targets", outputs=3, seed=1)
    adaptive = memorisation(vit, "vapt", 8, sizes, replace(plan, lr=0.03), kind="targets", outputs=3, seed=1,
                            options={"kernel": 1, "rank": 16})  # fmt: skip
    assert static.fitted <= 1 < adaptive.fitted


def test_length_0_is_the_head_alone_and_does_nothing_beyond_chance():
    sizes = geometric(1, 64, 1.3)
    fitted = [memorisation(small(), "vpt-deep", 0, sizes, PLAN, outputs=4, seed=seed).fitted for seed in range(12)]
    assert np.mean(fitted) < 1.5 and max(fitted) <= 6  # geometric: P(the first is right) = 1/4
    found = memorisation(small(), "vapt", 0, sizes, PLAN, outputs=4, seed=0, restarts=2)
    assert (found.shares[:, 0] == found.shares[:, 1]).all() and found.shares[-1, 0] < 0.6
    assert memorisation(small(), "prefix", 0, sizes, PLAN, kind="targets", seed=0).fitted == 0


def test_a_prompt_that_does_not_move_fits_what_its_start_does():
    sizes, vit = geometric(1, 32, 1.3), small()
    still = memorisation(vit, "prefix", 3, sizes, replace(PLAN, lr=0.0), outputs=4, seed=2)
    moving = memorisation(vit, "prefix", 3, sizes, replace(PLAN, lr=0.3), outputs=4, seed=2)
    assert still.fitted <= 3 < moving.fitted


# --- what must and what must not change the answer -------------------------------------------------------------------


def test_longer_prompts_memorise_more():
    sizes, vit, plan = geometric(1, 64, 2.0), small(), replace(PLAN, steps=80, batch=8)
    found = [memorisation(vit, "prefix", p, sizes, plan, outputs=4, seed=0) for p in (1, 8)]
    assert found[1].fitted >= 2 * found[0].fitted >= 4
    assert found[1].parameters == 8 * found[0].parameters == 256
    assert not any(f.censored for f in found)


@pytest.mark.parametrize("kind", ["labels", "targets"])
def test_the_answer_does_not_depend_on_what_is_trained_together(kind, monkeypatch):
    """The same sizes one by one and all in one bank; and banks cut into several passes."""
    sizes, vit = [1, 3, 6], small()
    one, all_, cut = (
        memorisation(vit, "norga", 3, sizes, replace(PLAN, steps=16), kind=kind, outputs=3, at_once=k, seed=4)
        for k in (1, 3, 3)
        if monkeypatch.setattr("vpt_analysis.passes.FOLD", 10**6 if k == 1 else 400) is None
    )
    for other in (all_, cut):
        assert (one.fitted, one.failed) == (other.fitted, other.failed)
        assert set(one.sizes) <= set(other.sizes) == set(sizes)
        np.testing.assert_allclose(one.shares, other.shares[np.isin(other.sizes, one.sizes)], atol=1e-8)


def test_relabelled_classes_with_a_relabelled_head_are_the_same_task(monkeypatch):
    vit, sizes, order = small(), [2, 4, 8], torch.tensor([2, 0, 3, 1])
    head = probe.random_head(vit, probe.noise(vit, 32, torch.Generator().manual_seed(7)), 4,
                             torch.Generator().manual_seed(8))  # fmt: skip
    plan = replace(PLAN, steps=24)
    one = memorisation(vit, "vapt", 2, sizes, plan, outputs=4, head=head, seed=3)
    moved = nn.Linear(16, 4).double()
    with torch.no_grad():
        moved.weight.copy_(head.weight[order.argsort()])  # row order[c] of the new head is row c of the old
        moved.bias.copy_(head.bias[order.argsort()])
    draw = probe.random_answers
    monkeypatch.setattr(probe, "random_answers", lambda *a: order[draw(*a)])
    other = memorisation(vit, "vapt", 2, sizes, plan, outputs=4, head=moved, seed=3)
    assert one.fitted == other.fitted > 0
    np.testing.assert_allclose(one.shares, other.shares, atol=1e-12)
    monkeypatch.setattr(probe, "random_answers", draw)
    wrong = memorisation(vit, "vapt", 2, one.sizes.tolist(), plan, outputs=4, head=moved, seed=3, at_once=50)
    assert not np.allclose(wrong.shares, one.shares)


def test_same_seed_same_bits_and_another_seed_other_data():
    vit, sizes = small(torch.float32), [2, 4, 8]
    runs = [memorisation(vit, "vpt-deep", 2, sizes, replace(PLAN, steps=8), seed=s, at_once=3) for s in (0, 0, 1)]
    assert np.array_equal(runs[0].shares, runs[1].shares) and not np.array_equal(runs[0].shares, runs[2].shares)


def test_images_may_be_given_and_smaller_sets_are_their_first(monkeypatch):
    vit, seen = small(), []
    images = torch.randn(9, 3, 8, 8, dtype=torch.float64)
    real = probe.train_many
    monkeypatch.setattr(probe, "train_many", lambda *a, **k: seen.append(a[2]) or real(*a, **k))
    memorisation(vit, "vpt-deep", 1, [3, 9], PLAN, images=images, at_once=2, restarts=1)
    (given,) = seen
    assert torch.equal(given[0], images[:3].repeat(2, 1, 1, 1)) and torch.equal(given[1], images)  # at least 4 a step


def test_scores_of_the_head_have_mean_0_and_variance_1():
    vit = small()
    images = probe.noise(vit, 200, torch.Generator().manual_seed(0))
    for outputs in (3, 16, 40):
        head = probe.random_head(vit, images, outputs, torch.Generator().manual_seed(1))
        scores = head(vit.pool(vit(images))).detach()
        assert scores.mean(0).abs().max() < 1e-9
        assert scores.var() == pytest.approx(1, rel=0.35)
        gram = head.weight @ head.weight.T
        assert torch.allclose(gram.diagonal(), gram[0, 0].expand(outputs), rtol=1e-9)
        assert outputs > 16 or (gram - torch.diag(gram.diagonal())).abs().max() < 1e-9 * gram[0, 0]


def test_bits_are_counted():
    """Labels: the strings that are near enough to a given one are enumerated."""
    for n, classes, enough in ((5, 2, 0.8), (4, 3, 0.5), (6, 2, 0.99)):
        strings = np.stack(np.meshgrid(*[range(classes)] * n)).reshape(n, -1)
        near = ((strings != 0).sum(0) <= (1 - enough) * n + 1e-9).sum()
        assert stored_bits(n, "labels", classes, enough) == pytest.approx(np.log2(classes**n / near))
    assert stored_bits(0, "labels", 4, 0.99) == stored_bits(0, "targets", 4, 0.99) == 0
    assert stored_bits(3, "targets", 2, 0.75) == pytest.approx(6)  # half a standard deviation: 1 bit a number


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "tokens"}, "unknown kind of what is memorised 'tokens'"),
        ({"mechanism": "lora"}, "unknown prompt mechanism 'lora'"),
        ({"outputs": 1}, "outputs is 1; expected an integer, at least 2"),
        ({"outputs": 0, "kind": "targets"}, "outputs is 0; expected an integer, at least 1"),
        ({"restarts": 0}, "restarts is 0; expected"),
        ({"training": Training(2)}, "enough is 0, which everything fits"),
        ({"training": Training(2, enough=0.9, evaluate_every=1, patience=1)}, "takes no patience"),
        ({"options": {"dropout": 0.1}}, "dropout is 0.1; masks would tie"),
        ({"options": {"depth": 1}}, "unknown option of vpt-deep"),
        ({"images": torch.zeros(3, 3, 8, 8)}, "3 images for sizes up to 4"),
        ({"images": torch.zeros(4, 3, 8, 8, dtype=torch.float64)}, "gives all images one feature"),
        ({"head": nn.Linear(5, 16).double()}, "the head reads 5 components"),
        ({"sizes": [4, 2]}, "expected ascending integers"),
    ],
)
def test_refused(change, message):
    given = {"vit": small(), "mechanism": "vpt-deep", "length": 2, "sizes": [2, 4], "training": PLAN} | change
    with pytest.raises(ValueError, match=message):
        memorisation(**given)


# --- backbones --------------------------------------------------------------------------------------------------------


def test_random_backbones_attend_unevenly_and_differ_by_seed():
    vit = random_backbone(ViTConfig(image_size=12, patch_size=4, width=32, depth=2, heads=4), seed=0)
    images = torch.randn(20, 3, 12, 12)
    query, key, _ = vit.blocks[0].attention.project(vit.blocks[0].ln1(vit.embed(images)))
    pattern = (query @ key.transpose(-1, -2) / 8**0.5).softmax(-1)
    entropy = -(pattern * pattern.log()).sum(-1).mean() / np.log(10)
    assert 0.5 < entropy < 0.95
    assert not any(p.requires_grad for p in vit.parameters())
    other = random_backbone(vit.config, seed=1)
    assert not torch.equal(vit.blocks[1].fc1.weight, other.blocks[1].fc1.weight)
    assert torch.equal(vit.blocks[1].fc1.weight, random_backbone(vit.config, seed=0).blocks[1].fc1.weight)


def test_resized_and_shortened_backbones_compute_what_the_whole_one_does(dtype):
    vit = random_vit(dtype)
    images = torch.randn(3, 3, 16, 16).to(dtype)
    assert torch.allclose(resized(vit, 16)(images), vit(images), atol=1e-6 if dtype == torch.float32 else 1e-12)
    assert resized(vit, 16).config.grid == 2
    short = first_blocks(vit, 2)
    assert torch.equal(short(images), vit.norm(vit.encode(vit.embed(images), stop=2)))
    with pytest.raises(ValueError, match="4 blocks of a backbone of 3; expected 1 to 3"):
        first_blocks(vit, 4)
    with pytest.raises(ValueError, match="not a multiple of patch_size"):
        resized(vit, 12)
