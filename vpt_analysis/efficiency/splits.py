"""Which images train, which choose, which judge.

One seed draws one order of each class's images, so a smaller training subset lies inside every larger one, and every
class is in each. The **validation part** is carved from the training subset: a fifth of each class's images, at least
one where a class has two or more. Where every class has one image nothing can be carved. Then methods are judged on
**unused** images of the training split, and these judgements choose the learning rate of *other* tasks only: for its
own task a run uses one label a class and no more (``selection.from_others``). Test images choose nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from .. import data
from ..data.image_set import ImageSet
from ..data.subsets import ranks

SHARE = 0.2  # of the training subset that is held out
HELD_OUT = 0.3  # of data that have no test split


@functools.lru_cache(maxsize=4)
def loaded(task: str, size: int) -> tuple[ImageSet, ImageSet]:
    """The training and the test images of a task. Where data have no test split, 30 % of each class, the same for every
    seed, are kept apart as one."""
    train = data.load(task, "train", size)
    try:
        return train, data.load(task, "test", size)
    except ValueError as error:
        if "has no split" not in str(error):
            raise
    place, many = ranks(train.labels, seed=0), train.counts.numpy()[train.labels.numpy()]
    apart = place < np.ceil(HELD_OUT * many)
    if not (~apart).any() or len(np.unique(train.labels[~apart])) < len(train.class_names):
        raise ValueError(
            f"{task}: some class has a single image and there is no test split; add images or a test split"
        )
    return train.select(np.flatnonzero(~apart)), train.select(np.flatnonzero(apart))


@dataclass(frozen=True)
class Split:
    """Images that a run is trained on, judged on to choose a learning rate, and judged on at the end. ``own``: whether
    those that choose were carved from the training subset."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    own: bool


def split(task: str, size: int, subset: dict, seed: int, pool: int, carve: bool, validation: int, test: int) -> Split:
    """The images of one run.

    ``subset`` is ``{"per_class": m}`` or ``{"fraction": f}`` of the training split, or of ``pool`` stratified images of
    it (0: all). With ``carve`` the validation part is taken out of the training subset; without, the run is trained on
    all of it. At most so many images of ``validation`` and ``test`` are judged, stratified, the same for every seed.
    Raises ``ValueError`` where the data have too few images.
    """
    train, tested = loaded(task, size)
    if pool and pool < len(train):
        train = train.subset(n=pool, seed=0)
    drawn = train.subset(**subset, seed=seed)
    held = carved(drawn, seed)
    own = held.any()
    if own:
        judged = drawn.select(np.flatnonzero(held))
    else:
        unused = unused_images(loaded(task, size)[0], drawn)
        judged = unused.subset(n=min(len(unused), max(validation, len(np.unique(unused.labels)))), seed=0)
    if own and carve:
        drawn = drawn.select(np.flatnonzero(~held))
    return Split(drawn, judged, at_most(tested, test), bool(own))


def carved(drawn: ImageSet, seed: int) -> np.ndarray:
    """Which images of a training subset are held out, bool (n,)."""
    many = np.bincount(drawn.labels.numpy(), minlength=len(drawn.class_names))
    held = np.where(many > 1, np.maximum(1, np.round(SHARE * many)), 0)
    return ranks(drawn.labels, seed + 1) < held[drawn.labels.numpy()]


def unused_images(train: ImageSet, drawn: ImageSet) -> ImageSet:
    """Images of the split that are not in the subset, matched by their files or, without names, by their bytes."""

    def keys(images: ImageSet) -> list:
        return list(images.files) if images.files else [x.numpy().tobytes() for x in images.images]

    taken = set(keys(drawn))
    left = [i for i, key in enumerate(keys(train)) if key not in taken]
    if not left:
        raise ValueError(f"{train.name}: all images are in the training subset, and none is left to choose with")
    return train.select(left)


def at_most(images: ImageSet, n: int) -> ImageSet:
    return images if not n or n >= len(images) else images.subset(n=n, seed=0)
