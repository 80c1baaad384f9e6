"""Images that come with scikit-learn: what a fresh clone without any download has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .. import errors
from . import layout
from .decoding import check_size, fit
from .image_set import ImageSet

TEST_SHARE = 0.25
CROPS = {"subject": (0, 95), "left": (0, 0), "centre": (106, 106), "right": (213, 213)}  # left edges of a 427 px square


def digits(size: int = 32, split: str = "train") -> ImageSet:
    """scikit-learn's 1,797 handwritten digits: 8×8 grey, bilinearly resized, in three equal channels.

    The last quarter of each class, in the order of the source, is the split "test" (450 images), the rest is "train"
    (1,347). The source runs writer by writer, so the two splits share few writers; a shuffled split would be easier.
    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998).

    >>> digits(split="test").describe()["n"]
    450
    """
    check_size(size, "digits")
    layout.check_split("digits", split, ("train", "test"))
    from sklearn.datasets import load_digits

    source = load_digits()
    labels = source.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    for c in range(10):
        where = np.flatnonzero(labels == c)
        test[where[len(where) - round(TEST_SHARE * len(where)) :]] = True
    chosen = np.flatnonzero(test if split == "test" else ~test)
    grey = source.images[chosen].astype(np.uint8)  # (n, 8, 8), 0 … 16
    pixels = torch.from_numpy(grey)[:, None].float() * (255 / 16)
    if size != 8:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=size < 8)
    images = pixels.round().clamp(0, 255).to(torch.uint8).repeat(1, 3, 1, 1)  # (n, 3, size, size)
    digest = hashlib.sha256(f"digits/{split}/{size}".encode() + grey.tobytes() + labels[chosen].tobytes())
    return ImageSet(
        images,
        torch.from_numpy(labels[chosen]),
        tuple(str(c) for c in range(10)),
        digest.hexdigest(),
        f"digits/{split}",
        tuple(f"digits/{i}" for i in chosen),
    )


def photographs(size: int = 224, crops: Sequence[str] = ("subject",)) -> ImageSet:
    """scikit-learn's two sample photographs (640×427), china.jpg (a pagoda) and flower.jpg (a dahlia), square.

    ``crops`` names squares of full height: "subject" frames the pagoda and the flower, "left", "centre" and "right"
    lie where they say. Each gives one image of each photograph. For pictures of attention, not for training.
    """
    check_size(size, "photographs")
    if not crops or isinstance(crops, str):
        raise ValueError(f"photographs: crops is {crops!r}; expected a sequence of names, as ('subject',)")
    for crop in crops:
        if crop not in CROPS:
            raise errors.unknown("crop", crop, CROPS)
    from PIL import Image
    from sklearn.datasets import load_sample_image

    images, files, labels = [], [], []
    total = hashlib.sha256(repr((tuple(crops), size)).encode())
    for label, file in enumerate(("china.jpg", "flower.jpg")):
        pixels = load_sample_image(file)  # uint8 (427, 640, 3)
        total.update(pixels.tobytes())
        for crop in crops:
            left = CROPS[crop][label]
            square = Image.fromarray(pixels[:, left : left + pixels.shape[0]])
            images.append(np.asarray(fit(square, file, size)))
            files.append(f"{file}#{crop}")
            labels.append(label)
    return ImageSet(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(labels),
        ("china", "flower"),
        total.hexdigest(),
        "photographs",
        tuple(files),
    )
