"""Splits of sample efficiency: nested, stratified, and apart from each other; no test image chooses anything."""

from __future__ import annotations

import pytest
import torch

from tests.data.conftest import splits as two_splits
from tests.data.conftest import tree, write_tree
from vpt_analysis.data.image_set import ImageSet
from vpt_analysis.efficiency import splits
from vpt_analysis.efficiency.splits import split

SIZE = 8  # that of the digits themselves: nothing is resized


def fabricated(counts: dict[str, int], start: int = 0, named: bool = True) -> ImageSet:
    """Images that are all different, ``counts`` of each class."""
    labels = torch.tensor([c for c, n in enumerate(counts.values()) for _ in range(n)])
    pixels = torch.arange(start, start + len(labels), dtype=torch.int64)
    images = torch.stack([pixels % 251, pixels // 251, pixels % 7], 1).to(torch.uint8)[:, :, None, None]
    files = tuple(f"{start + i}.png" for i in range(len(labels))) if named else ()
    return ImageSet(images.repeat(1, 1, 2, 2), labels, tuple(counts), "0" * 64, "fabricated", files)


@pytest.fixture
def planted(monkeypatch):
    """A task of one's own making: ``planted(train, test)``."""

    def plant(train: ImageSet, test: ImageSet) -> None:
        monkeypatch.setattr(splits, "loaded", lambda task, size: (train, test))

    return plant


def pixels(images: ImageSet) -> set[bytes]:
    return {x.numpy().tobytes() for x in images.images}


def drawn(subset: dict, seed: int = 0, carve: bool = False, pool: int = 0, **most) -> splits.Split:
    return split("digits", SIZE, subset, seed, pool, carve, most.get("validation", 0), most.get("test", 0))


# --- training subsets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pool", [0, 400])
@pytest.mark.parametrize("kind, sizes", [("per_class", (1, 3, 10, 30)), ("fraction", (0.01, 0.03, 0.1, 0.3, 1.0))])
def test_smaller_training_subsets_lie_inside_larger_ones(kind, sizes, pool, seed):
    subsets = [drawn({kind: size}, seed, pool=pool).train for size in sizes]
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert pixels(smaller) < pixels(larger) and len(smaller) < len(larger)
    for images in subsets:
        assert images.counts.min() >= 1 and len(images.counts) == 10
    if kind == "per_class":
        assert [len(images) for images in subsets] == [10 * m for m in sizes]
    else:
        assert len(subsets[-1]) == (pool or 1347) and abs(len(subsets[-2]) - 0.3 * len(subsets[-1])) <= 1


def test_seeds_draw_different_subsets_of_one_pool_and_are_judged_on_the_same_images():
    one, two, again = (drawn({"per_class": 3}, seed, pool=200, test=50) for seed in (0, 1, 0))
    assert pixels(one.train) != pixels(two.train) and pixels(one.train) == pixels(again.train)
    assert pixels(drawn({"fraction": 1.0}, 0, pool=200).train) == pixels(drawn({"fraction": 1.0}, 1, pool=200).train)
    assert pixels(one.test) == pixels(two.test) and len(one.test) == 50 and one.test.counts.min() >= 1


# --- what chooses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("m, held", [(2, 1), (3, 1), (10, 2), (30, 6)])
def test_the_validation_part_is_carved_from_the_training_subset_and_lies_apart(m, held, seed):
    found, whole = drawn({"per_class": m}, seed, carve=True), drawn({"per_class": m}, seed)
    assert found.own and whole.validation is None
    assert pixels(found.train) | pixels(found.validation) == pixels(whole.train)
    assert not pixels(found.train) & pixels(found.validation)
    assert found.validation.counts.tolist() == [held] * 10 and found.train.counts.tolist() == [m - held] * 10
    assert not pixels(found.test) & (pixels(found.train) | pixels(found.validation))


def test_unequal_classes_are_carved_class_by_class(planted):
    planted(fabricated({"a": 2, "b": 11, "c": 40}), fabricated({"a": 2, "b": 2, "c": 2}, 900))
    found = split("any", SIZE, {"fraction": 1.0}, 0, 0, True, 0, 0)
    assert found.validation.counts.tolist() == [1, 2, 8] and found.train.counts.tolist() == [1, 9, 32]
    few = split("any", SIZE, {"fraction": 1.0}, 0, 0, True, 5, 0)
    assert len(few.validation) == 5 and few.validation.counts.min() == 1
    assert pixels(few.validation) < pixels(found.validation) and pixels(few.train) == pixels(found.train)


@pytest.mark.parametrize("named", [True, False])
def test_with_one_image_a_class_unused_training_images_are_judged_and_the_choice_is_not_its_own(planted, named):
    train, test = fabricated({"a": 5, "b": 9}, named=named), fabricated({"a": 3, "b": 3}, 900, named)
    planted(train, test)
    found = split("any", SIZE, {"per_class": 1}, 0, 0, True, 0, 0)
    assert not found.own and found.train.counts.tolist() == [1, 1]
    assert pixels(found.train) | pixels(found.validation) == pixels(train)
    assert not pixels(found.train) & pixels(found.validation)
    assert pixels(found.train) == pixels(split("any", SIZE, {"per_class": 1}, 0, 0, False, 0, 0).train)


def test_one_class_with_a_single_image_is_enough_to_carve_nothing(planted):
    planted(fabricated({"a": 10, "b": 100}), fabricated({"a": 3, "b": 3}, 900))
    found = split("any", SIZE, {"fraction": 0.1}, 0, 0, True, 0, 0)
    assert found.train.counts.tolist() == [1, 10] and not found.own and len(found.validation) == 99


def test_unused_images_may_lie_outside_the_pool(planted):
    """The pool is what "all" of a learning curve is; unused images choose for other tasks only."""
    planted(fabricated({"a": 8, "b": 8}), fabricated({"a": 3, "b": 3}, 900))
    found = split("any", SIZE, {"fraction": 1.0}, 0, 2, True, 0, 0)
    assert len(found.train) == 2 and not found.own and len(found.validation) == 14


def test_without_unused_images_nothing_can_choose(planted):
    planted(fabricated({"a": 1, "b": 1}), fabricated({"a": 3, "b": 3}, 900))
    assert len(split("any", SIZE, {"per_class": 1}, 0, 0, False, 0, 0).train) == 2
    with pytest.raises(ValueError, match="all images are in the training subset, and none is left to choose with"):
        split("any", SIZE, {"per_class": 1}, 0, 0, True, 0, 0)


@pytest.mark.parametrize("subset", [{"per_class": 1}, {"per_class": 4}, {"fraction": 0.05}, {"fraction": 1.0}])
def test_no_test_image_ever_trains_or_chooses(planted, subset):
    train, test = fabricated({"a": 12, "b": 40}), fabricated({"a": 7, "b": 9}, 900)
    planted(train, test)
    for seed in range(4):
        for carve in (True, False):
            found = split("any", SIZE, subset, seed, 30, carve, 0, 0)
            assert pixels(found.test) == pixels(test)
            assert pixels(found.train) <= pixels(train)
            assert found.validation is None or pixels(found.validation) <= pixels(train)


# --- data without a test split ----------------------------------------------------------------------------------------


def test_folders_without_a_test_split_keep_images_of_each_class_apart(tmp_path):
    write_tree(tmp_path, tree({"cat": 10, "dog": 4, "emu": 2}))
    train, test = splits.loaded(str(tmp_path), SIZE)
    assert test.counts.tolist() == [3, 2, 1] and train.counts.tolist() == [7, 2, 1]
    assert not pixels(train) & pixels(test) and len(pixels(train) | pixels(test)) == 16
    for seed in (0, 1):
        found = split(str(tmp_path), SIZE, {"fraction": 1.0}, seed, 0, False, 0, 0)
        assert pixels(found.test) == pixels(test) and pixels(found.train) == pixels(train)


def test_folders_with_a_test_split_are_taken_as_they_are(tmp_path):
    write_tree(tmp_path, two_splits({"cat": 3, "dog": 3}, {"cat": 2, "dog": 1}))
    train, test = splits.loaded(str(tmp_path), SIZE)
    assert train.counts.tolist() == [3, 3] and test.counts.tolist() == [2, 1]


def test_a_class_of_one_image_cannot_be_kept_apart(tmp_path):
    write_tree(tmp_path, tree({"cat": 5, "dog": 1}))
    with pytest.raises(ValueError, match="there is no test split, and some class has too few images"):
        splits.loaded(str(tmp_path), SIZE)


def test_what_is_no_task_is_said_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        splits.loaded(str(tmp_path / "nowhere"), SIZE)
    with pytest.raises(ValueError, match="unknown data set 'digit'; did you mean 'digits'"):
        splits.loaded("digit", SIZE)


# --- how many are judged ----------------------------------------------------------------------------------------------


def test_judged_images_are_at_most_so_many_and_one_of_each_class_at_least():
    images = fabricated({"a": 50, "b": 30, "c": 5})
    assert splits.at_most(images, 0) is images and splits.at_most(images, 500) is images
    assert splits.at_most(images, 17).counts.tolist() == [10, 6, 1]
    assert splits.at_most(images, 1).counts.tolist() == [1, 1, 1]
    assert pixels(splits.at_most(images, 17)) == pixels(splits.at_most(images, 17)) < pixels(images)
