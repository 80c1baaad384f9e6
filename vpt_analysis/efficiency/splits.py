"""Which images train, which choose, which judge.

One seed draws one order of each class's images, so a smaller training subset lies inside every larger one, and every
class is in each. The **validation part** is carved from the training subset: a fifth of each class's images, at least
one. Where some class has a single image nothing is carved. Then methods are judged on **unused** images of the
training split, and these judgements choose the learning rate of *other* tasks only: for its own task a run uses the
labels of its subset and no more (``selection.from_others``). Test images choose nothing.
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


@dataclass(frozen=True)
class Split:
    """Images that a run is trained on, judged on to choose a learning rate (None: nothing is chosen), and judged on at
    the end. ``own``: whether those that choose were carved from the training subset."""

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    own: bool = True


def split(task: str, size: int, subset: dict, seed: int, pool: int, carve: bool, validation: int, test: int) -> Split:
    """The images of one run.

    ``subset`` is ``{"per_class": m}`` or ``{"fraction": f}`` of the training split, or of ``pool`` stratified images of
    it (0: all). With ``carve`` the validation part is taken out of the training subset, or unused images are found;
    without, the run is trained on all of the subset and nothing chooses. At most so many images of ``validation`` and
    ``test`` are judged (0: all there are), stratified, the same for every seed. Raises ``ValueError`` where there are
    too few images.
    """
    train, tested = loaded(task, size)
    among = train.subset(n=pool, seed=0) if 0 < pool < len(train) else train
    drawn, tested = among.subset(**subset, seed=seed), at_most(tested, test)
    if not carve:
        return Split(drawn, None, tested)
    held = carved(drawn, seed)
    if held.any():
        fit, judged = drawn.select(np.flatnonzero(~held)), drawn.select(np.flatnonzero(held))
        return Split(fit, at_most(judged, validation), tested)
    return Split(drawn, at_most(unused(train, drawn), validation), tested, own=False)


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
    apart = ranks(train.labels, seed=0) < np.ceil(HELD_OUT * train.counts.numpy())[train.labels.numpy()]
    if len(np.unique(train.labels[~apart])) < len(train.class_names):
        raise ValueError(f"{task}: there is no test split, and some class has too few images to keep one apart")
    return train.select(np.flatnonzero(~apart)), train.select(np.flatnonzero(apart))


def carved(drawn: ImageSet, seed: int) -> np.ndarray:
    """Which images of a training subset are held out, bool (n,); none where some class has a single one."""
    many = drawn.counts.numpy()
    if many.min() < 2:
        return np.zeros(len(drawn), dtype=bool)
    held = np.maximum(1, np.round(SHARE * many))
    return ranks(drawn.labels, seed + 1) < held[drawn.labels.numpy()]


def unused(train: ImageSet, drawn: ImageSet) -> ImageSet:
    """Images of ``train`` that are not among ``drawn``, told by their files or, without names, by their pixels."""

    def keys(images: ImageSet) -> list:
        return list(images.files) or [x.numpy().tobytes() for x in images.images]

    taken = set(keys(drawn))
    left = [i for i, key in enumerate(keys(train)) if key not in taken]
    if not left:
        raise ValueError(f"{train.name}: all images are in the training subset, and none is left to choose with")
    return train.select(left)


def at_most(images: ImageSet, n: int) -> ImageSet:
    """``n`` stratified images, one of each class at least; all where there are no more, or n is 0."""
    n = max(n, len(np.unique(images.labels))) if n else len(images)
    return images if n >= len(images) else images.subset(n=n, seed=0)
