"""ImageSet: its checks, its subsets (seeded, stratified, nested, all classes present), its digest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vpt_analysis.data import ImageSet, normalise
from vpt_analysis.vit import ViTConfig

CONFIG = ViTConfig(
    image_size=8, patch_size=4, width=8, depth=1, heads=1, pixel_mean=(0.1, 0.2, 0.3), pixel_std=(0.5, 0.25, 1.0)
)


def image_set(sizes: list[int], shuffle: int = 0) -> ImageSet:
    """One-pixel images, by class or (``shuffle`` > 0) mixed; file i is named i."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    if shuffle:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(shuffle))]
    pixels = torch.arange(len(labels) * 3).remainder(256).to(torch.uint8).reshape(-1, 3, 1, 1)
    names = tuple(f"class {c}" for c in range(len(sizes)))
    return ImageSet(pixels, labels, names, "d" * 64, "made", tuple(str(i) for i in range(len(labels))))


sizes_of = st.lists(st.integers(1, 30), min_size=1, max_size=8)
seeds = st.integers(-(2**40), 2**40)


@given(sizes=sizes_of, seed=seeds, shuffle=st.integers(0, 9), data=st.data())
def test_subsets_by_size_are_nested_complete_and_exact(sizes, seed, shuffle, data):
    full = image_set(sizes, shuffle)
    small, large = sorted(data.draw(st.integers(len(sizes), len(full))) for _ in range(2))
    a, b = full.subset(n=small, seed=seed), full.subset(n=large, seed=seed)
    assert len(a) == small and len(b) == large
    assert set(a.files) <= set(b.files) <= set(full.files)
    assert len(set(b.files)) == large, "an image occurs twice"
    assert int(a.counts.min()) >= 1
    assert a.files == tuple(sorted(a.files, key=int)), "not in the set's order"
    at = torch.tensor([int(f) for f in a.files])
    assert torch.equal(a.images, full.images[at]) and torch.equal(a.labels, full.labels[at])


@given(sizes=sizes_of, seed=seeds, data=st.data())
def test_subsets_by_size_keep_proportions(sizes, seed, data):
    """Sainte-Laguë: no class got its last image before another's next was due, but for the first of each class."""
    full = image_set(sizes)
    counts = full.subset(n=data.draw(st.integers(len(sizes), len(full))), seed=seed).counts.tolist()
    for taken, size in zip(counts, sizes, strict=True):
        for other, other_size in zip(counts, sizes, strict=True):
            if taken > 1 and other < other_size:
                assert (taken - 0.5) / size <= (other + 0.5) / other_size + 1e-12


@given(sizes=sizes_of, seed=seeds, data=st.data())
def test_subsets_per_class(sizes, seed, data):
    full = image_set(sizes)
    small, large = sorted(data.draw(st.integers(1, min(sizes))) for _ in range(2))
    a, b = full.subset(per_class=small, seed=seed), full.subset(per_class=large, seed=seed)
    assert a.counts.tolist() == [small] * len(sizes)
    assert set(a.files) <= set(b.files)
    spread = full.subset(n=len(full), seed=seed)
    assert set(b.files) <= set(spread.files)


@given(sizes=sizes_of, seed=seeds, data=st.data())
def test_subsets_by_fraction(sizes, seed, data):
    full = image_set(sizes)
    small, large = sorted(data.draw(st.floats(1e-6, 1)) for _ in range(2))
    a, b = full.subset(fraction=small, seed=seed), full.subset(fraction=large, seed=seed)
    assert set(a.files) <= set(b.files)
    assert int(a.counts.min()) >= 1
    assert len(a) == max(len(sizes), round(small * len(full)))


@given(seed=seeds, per_class=st.integers(1, 10))
def test_equal_classes_make_all_kinds_agree(seed, per_class):
    full = image_set([10] * 4)
    by_class = full.subset(per_class=per_class, seed=seed)
    assert full.subset(n=4 * per_class, seed=seed).digest == by_class.digest
    assert full.subset(fraction=per_class / 10, seed=seed).digest == by_class.digest


def test_seeds_choose_differently_and_repeatably():
    full = image_set([20] * 5)
    choices = {seed: full.subset(per_class=5, seed=seed) for seed in range(20)}
    assert len({s.digest for s in choices.values()}) == 20
    assert len({s.files for s in choices.values()}) == 20
    assert all(full.subset(per_class=5, seed=seed).files == s.files for seed, s in choices.items())


def test_choice_is_the_same_forever():
    """Pinned: a change here changes every learning curve that was ever computed."""
    assert image_set([6, 4]).subset(n=6, seed=3).files == ("0", "1", "4", "5", "6", "8")


def test_every_image_is_as_likely_as_another():
    full = image_set([10, 10])
    hits = np.zeros(20)
    for seed in range(400):
        hits[[int(f) for f in full.subset(per_class=3, seed=seed).files]] += 1
    assert np.abs(hits / 400 - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 400)


def test_left_over_places_go_to_other_classes_with_other_seeds():
    """Six places for five equal classes: which class gets two is drawn too."""
    full = image_set([4] * 5)
    assert {int(full.subset(n=6, seed=seed).counts.argmax()) for seed in range(60)} == set(range(5))


def test_unlabelled_images_have_subsets_too():
    full = ImageSet(torch.zeros(9, 3, 1, 1, dtype=torch.uint8), torch.full((9,), -1), (), "d", "pictures")
    assert len(full.subset(n=4)) == 4 and full.counts.tolist() == []


def test_digests_follow_the_selection():
    full = image_set([5, 5])
    assert full.subset(fraction=1.0) is full
    assert full.select(range(10)) is full
    assert full.select([1, 2]).digest == full.select(torch.tensor([1, 2])).digest != full.select([2, 1]).digest
    other = ImageSet(full.images, full.labels, full.class_names, "e" * 64, "other")
    assert other.select([1, 2]).digest != full.select([1, 2]).digest, "another parent"
    twice = full.subset(per_class=4).subset(per_class=2)
    assert twice.digest != full.subset(per_class=2).digest and len(twice.digest) == 64


def test_describe():
    assert image_set([2, 3]).describe() == {"name": "made", "n": 5, "classes": 2, "size": [1, 1], "digest": "d" * 64}
    assert len(image_set([2, 3])) == 5
    assert repr(image_set([2, 3])) == "<made: 5 images 1×1, 2 classes, sha256 dddddddddddd>"


def test_normalised_is_the_plain_formula(generator):
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=generator)
    made = ImageSet(images, torch.zeros(3, dtype=torch.int64), ("a",), "d", "made").normalised(CONFIG)
    mean, std = np.array(CONFIG.pixel_mean), np.array(CONFIG.pixel_std)
    expected = (images.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)


GOOD = {
    "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    "labels": torch.tensor([0, 1]),
    "class_names": ("a", "b"),
    "digest": "d",
    "name": "made",
}


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, TypeError, "images are torch.float32"),
        ({"images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, TypeError, r"expected uint8 \(n, C, h, w\)"),
        ({"labels": torch.tensor([0.0, 1.0])}, TypeError, "labels are torch.float32"),
        ({"labels": torch.tensor([0, 1, 1])}, TypeError, r"expected int64 \(2,\)"),
        ({"labels": torch.tensor([0, 2])}, ValueError, "labels go from 0 to 2; expected 0 … 1"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, "labels go from -1 to 0"),
        ({"class_names": ()}, ValueError, "expected −1, as there are no classes"),
        ({"files": ("x",)}, ValueError, "1 file names for 2 images"),
    ],
)
def test_inconsistent_sets_are_refused(change, error, message):
    with pytest.raises(error, match=f"made: .*{message}"):
        ImageSet(**(GOOD | change))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, TypeError, "got nothing; give exactly one"),
        ({"n": 4, "per_class": 1}, TypeError, r"\['n', 'per_class'\]; give exactly one"),
        ({"per_class": 3}, ValueError, "'class 0' has 2 images; take at most 2"),
        ({"per_class": 0}, ValueError, "per_class is 0; expected an integer ≥ 1"),
        ({"per_class": 1.5}, ValueError, "per_class is 1.5"),
        ({"n": 1}, ValueError, "no room for all 2 classes; take n ≥ 2"),
        ({"n": 8}, ValueError, "n=8, but there are 7 images"),
        ({"n": True}, ValueError, "n is True"),
        ({"n": 0}, ValueError, "n is 0; expected an integer ≥ 1"),
        ({"fraction": 0}, ValueError, r"fraction is 0; expected a number in \(0, 1\]"),
        ({"fraction": 1.01}, ValueError, "fraction is 1.01"),
        ({"fraction": float("nan")}, ValueError, "fraction is nan"),
        ({"n": 3, "seed": 0.5}, TypeError, "seed is 0.5; expected an integer"),
    ],
)
def test_impossible_subsets_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        image_set([2, 5]).subset(**arguments)


@pytest.mark.parametrize(
    "images, error, message",
    [
        (torch.zeros(1, 3, 8, 8), TypeError, "pixels are torch.float32; expected uint8"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), ValueError, r"expected \(B, 3, h, w\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), ValueError, r"images are \(3, 8, 8\)"),
    ],
)
def test_normalise_refuses(images, error, message):
    with pytest.raises(error, match=message):
        normalise(images, CONFIG)
