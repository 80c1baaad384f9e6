"""Data sets of torchvision by name, as ``torchvision:DTD``: one class an image, and images to test on.

torchvision knows where each set is on the net, how its folders look and which image is whose; the images are resized,
cropped and put together here. Of these sets only CIFAR is stored as pickles, which could run code when they are read:
torchvision compares the md5 of every file with the published one before it opens it, and that check is relied on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .. import errors
from . import layout
from .decoding import check_size, collect, fit
from .image_set import ImageSet

PREFIX = "torchvision:"
VARIABLE = "VPT_ANALYSIS_DATA"
PATIENCE = 20  # seconds without a byte, after which a server is given up

TRAIN_OR_TEST = {"train": {"train": True}, "test": {"train": False}}


def _splits(*theirs: str, **ours: str) -> dict[str, dict]:
    """The argument ``split`` of a class by our name of it, which is mostly torchvision's."""
    return {name: {"split": name} for name in theirs} | {name: {"split": their} for name, their in ours.items()}


SPLITS: dict[str, dict[str, dict]] = {
    "CIFAR10": TRAIN_OR_TEST,
    "CIFAR100": TRAIN_OR_TEST,
    "Country211": _splits("train", "test", val="valid"),
    "DTD": _splits("train", "val", "test"),
    "FGVCAircraft": _splits("train", "val", "trainval", "test"),
    "FashionMNIST": TRAIN_OR_TEST,
    "Flowers102": _splits("train", "val", "test"),
    "Food101": _splits("train", "test"),
    "GTSRB": _splits("train", "test"),
    "Imagenette": _splits("train", "val"),
    "KMNIST": TRAIN_OR_TEST,
    "MNIST": TRAIN_OR_TEST,
    "OxfordIIITPet": _splits("trainval", "test", train="trainval"),
    "RenderedSST2": _splits("train", "val", "test"),
    "STL10": _splits("train", "test"),
    "SVHN": _splits("train", "extra", "test"),
    "StanfordCars": _splits("train", "test"),
    "USPS": TRAIN_OR_TEST,
}
VARIANTS = {  # the argument that the part after a second colon is for, and its values; the first is the default
    "DTD": ("partition", {str(i): i for i in range(1, 11)}),
    "FGVCAircraft": ("annotation_level", {level: level for level in ("variant", "family", "manufacturer")}),
}
CLASSES = {"GTSRB": 43, "SVHN": 10, "USPS": 10}  # torchvision numbers these classes without naming them


def torchvision_set(name: str, split: str = "train", size: int | None = None) -> ImageSet:
    """The images of a torchvision data set, ``name`` as ``DTD`` or ``DTD:2``, the second of its ten partitions.

    The folder is ``$VPT_ANALYSIS_DATA/torchvision``, or ``datasets`` in torch's cache where the variable is not set,
    with the layout that torchvision gives it. What is not there is downloaded, where there is a network: into a
    temporary folder beside, which is moved when all of it is there. Splits are torchvision's own; "train" of
    OxfordIIITPet is its "trainval", as it has no other. ``FGVCAircraft:family`` has coarser classes.

    ``size``: shorter side resized to it, then the centre cropped; None keeps the size, which must then be one. The
    digest covers class names, size, labels and decoded pixels, as torchvision gives images rather than files.

    Raises ``ImportError`` without a torchvision that works, ``ValueError`` for names, splits and damaged files, and
    ``OSError`` for what is neither there nor can be downloaded.
    """
    source = f"{PREFIX}{name}"
    known, _, variant = name.partition(":")
    check_size(size, source)
    if known not in SPLITS:
        raise ValueError(
            f"{errors.unknown('torchvision data set', known, SPLITS)}. Only those with one class an image and a split "
            f"to test on are read; give others as folders of class folders, by their path"
        )
    layout.check_split(source, split, SPLITS[known])
    arguments = SPLITS[known][split] | _variant(known, variant, source)
    found = _open(getattr(_library(), known), arguments, source)
    return _read(found, _class_names(found, known), f"{source}/{arguments.get('split', split)}", size)


def root() -> Path:
    """The folder of all torchvision sets; it need not exist."""
    if folder := os.environ.get(VARIABLE):
        return Path(folder).expanduser() / "torchvision"
    return Path(torch.hub.get_dir()).parent / "datasets"


def _variant(known: str, variant: str, source: str) -> dict:
    if known not in VARIANTS:
        if variant:
            raise ValueError(f"{source}: {known} has no variants; expected {PREFIX}{known}")
        return {}
    argument, values = VARIANTS[known]
    if variant and variant not in values:
        raise errors.unknown(f"{argument} of {known}", variant, values)
    return {argument: values[variant or next(iter(values))]}


def _library():
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(
            f"data sets named {PREFIX}… need torchvision ({error}): pip install 'vpt-analysis[torchvision]'"
        ) from error
    except RuntimeError as error:
        raise ImportError(
            f"the torchvision that is installed does not work with torch {torch.__version__} ({error}); install the "
            f"build made for it, from the same index as torch: for the CPU build, pip install --force-reinstall "
            f"--no-deps torchvision --index-url https://download.pytorch.org/whl/cpu"
        ) from error
    return datasets


def _open(cls: type, arguments: dict, source: str):
    """The set from its folder, or from the net into its folder."""
    folder = root()
    try:
        return cls(folder, **arguments)
    except (RuntimeError, FileNotFoundError) as error:  # torchvision's words for files that are missing or altered
        _download(cls, folder, arguments, source, absent=error)
    except Exception as error:  # its readers raise whatever they like on foreign bytes
        raise _damaged(cls, folder, source, error) from error
    try:
        return cls(folder, **arguments)
    except Exception as error:
        raise _damaged(cls, folder, source, error) from error


def _damaged(cls: type, folder: Path, source: str, error: Exception) -> ValueError:
    return ValueError(
        f"{source}: its files in {folder} are incomplete or damaged ({type(error).__name__}: {_line(error)}); expected "
        f"them as torchvision.datasets.{cls.__name__} makes them. Remove its folder there to download it anew"
    )


def _download(cls: type, folder: Path, arguments: dict, source: str, absent: Exception) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{cls.__name__}.", suffix=".part") as part, _patience():
            cls(part, **arguments, download=True)
            _move(Path(part), folder)
    except Exception as error:  # urllib's, ssl's, zipfile's and torchvision's own
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise OSError(
            f"{source}: not in {folder} ({_line(absent)}), and downloading it failed ({type(error).__name__}: "
            f"{_line(error)}). Without a network, run `torchvision.datasets.{cls.__name__}(FOLDER, {given}, "
            f"download=True)` elsewhere and copy what it leaves in FOLDER into {folder} (which {VARIABLE} chooses)"
        ) from error


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """A silent server is given up after a while; torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _move(part: Path, folder: Path) -> None:
    """Everything inside ``part`` to the same place in ``folder``; what is already there stays."""
    for entry in sorted(part.iterdir()):
        place = folder / entry.name
        if not place.exists():
            os.replace(entry, place)
        elif entry.is_dir() and place.is_dir():
            _move(entry, place)


def _class_names(found, known: str) -> tuple[str, ...]:
    """One name a class. Where torchvision has synonyms, the first; equal names are told apart by the label."""
    if known in CLASSES:
        return tuple(str(c) for c in range(CLASSES[known]))
    names = [str(c[0] if isinstance(c, tuple) else c) for c in found.classes]
    often = Counter(names)
    return tuple(name if often[name] == 1 else f"{name} ({label})" for label, name in enumerate(names))


def _read(found, class_names: tuple[str, ...], name: str, size: int | None) -> ImageSet:
    files = [f"{name.rpartition('/')[2]}/{i}" for i in range(len(found))]
    messages = [f"{name}: image {i}" for i in range(len(found))]
    made = collect(name, files, partial(_produce, found, messages, size), class_names, size, messages)
    counts = {c: int(n) for c, n in zip(class_names, made.counts, strict=True) if n}
    layout.check_classes(name, counts, class_names, "torchvision")
    return made


def _produce(found, messages: list[str], size: int | None, i: int) -> tuple[np.ndarray, int, bytes]:
    """Pixels (3, h, w), label and digest of image ``i``."""
    try:
        image, label = found[i]
        digest = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
        return np.asarray(fit(image, messages[i], size)).transpose(2, 0, 1), int(label), digest
    except Exception as error:  # a file that is gone or damaged; PIL has many words for it
        raise ValueError(
            f"{messages[i]} cannot be read ({type(error).__name__}: {_line(error)}); copy or download the set again"
        ) from error


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
