"""Data sets of torchvision in miniature: each writer lays files under a root as torchvision expects them.

A writer gives the labels of each split, in torchvision's order, and what the class names begin with.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from scipy.io import savemat


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def dtd(root: Path, make) -> tuple[dict[str, list[int]], str]:
    files = {f"images/{c}/{c}_{i}.jpg": make.encoded(i, form="JPEG") for c in ("banded", "zigzag") for i in range(4)}
    lists = {"train": ("banded/banded_0.jpg", "zigzag/zigzag_0.jpg", "zigzag/zigzag_1.jpg")}
    lists |= {"val": ("banded/banded_1.jpg", "zigzag/zigzag_2.jpg")}
    lists |= {"test": ("zigzag/zigzag_3.jpg", "banded/banded_2.jpg", "banded/banded_3.jpg")}
    for partition in (1, 2):  # the second lists them the other way round
        for split, names in lists.items():
            files[f"labels/{split}{partition}.txt"] = "\n".join(names[:: 3 - 2 * partition]).encode() + b"\n"
    make.write_tree(root / "dtd" / "dtd", files)
    return {"train": [0, 1, 1], "val": [0, 1], "test": [1, 0, 0]}, "banded zigzag"


def pets(root: Path, make):
    lists = {
        "trainval": "Abyssinian_1 1 1 1\nsaint_bernard_1 2 2 1\n",
        "test": "saint_bernard_2 2 2 1\nAbyssinian_2 1 1 1",
    }
    images = {f"images/{name}.jpg": make.encoded(i, form="JPEG") for i, name in enumerate(
        ("Abyssinian_1", "saint_bernard_1", "saint_bernard_2", "Abyssinian_2"))}  # fmt: skip
    make.write_tree(root / "oxford-iiit-pet", images | {f"annotations/{s}.txt": t.encode() for s, t in lists.items()})
    return {"train": [0, 1], "trainval": [0, 1], "test": [1, 0]}, "Abyssinian Saint Bernard"


def food(root: Path, make):
    meta = {"train": {"apple_pie": ["apple_pie/1"], "waffles": ["waffles/1", "waffles/2"]}}
    meta["test"] = {"apple_pie": ["apple_pie/2"], "waffles": ["waffles/3"]}
    names = [name for split in meta.values() for some in split.values() for name in some]
    files = {f"images/{name}.jpg": make.encoded(i, form="JPEG") for i, name in enumerate(names)}
    make.write_tree(root / "food-101", files | {f"meta/{s}.json": json.dumps(m).encode() for s, m in meta.items()})
    return {"train": [0, 1, 1], "test": [0, 1]}, "apple_pie waffles"


def aircraft(root: Path, make):
    files = {f"images/{i}.jpg": make.encoded(i, form="JPEG") for i in range(1, 7)}
    files |= {"variants.txt": b"707-320\nA300 B4\n", "families.txt": b"Boeing 707\nA300\n"}
    for i, split in enumerate(("train", "val", "test")):
        files[f"images_variant_{split}.txt"] = f"{2 * i + 1} A300 B4\n{2 * i + 2} 707-320\n".encode()
        files[f"images_family_{split}.txt"] = f"{2 * i + 1} A300\n{2 * i + 2} Boeing 707\n".encode()
    files["images_variant_trainval.txt"] = files["images_variant_train.txt"] + files["images_variant_val.txt"]
    make.write_tree(root / "fgvc-aircraft-2013b" / "data", files)
    return {"train": [1, 0], "val": [1, 0], "trainval": [1, 0, 1, 0], "test": [1, 0]}, "707-320 A300 B4"


def cars(root: Path, make):
    base = root / "stanford_cars"
    files = {f"cars_{s}/{i}.jpg": make.encoded(i, form="JPEG") for s in ("train", "test") for i in range(3)}
    make.write_tree(base, files | {"devkit/README.txt": b""})
    kind = [("fname", "O"), ("class", "i8")]
    rows = {"devkit/cars_train_annos": [2, 1, 1], "cars_test_annos_withlabels": [1, 2, 2]}
    for name, classes in rows.items():
        array = np.array([(f"{i}.jpg", c) for i, c in enumerate(classes)], dtype=kind)
        savemat(base / f"{name}.mat", {"annotations": array})
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Acura RL", "Audi TT"], dtype=object)})
    return {"train": [1, 0, 0], "test": [0, 1, 1]}, "Acura RL Audi TT"


def class_folders(base: str, splits: dict[str, str], classes: tuple[str, ...], form: str, suffix: str, shown: str = ""):
    """A maker of a set in class folders, ``splits`` naming the folder of each split."""

    def write(root: Path, make):
        files = {f"{s}/{c}/{i}.{suffix}": make.encoded(i, form=form)
                 for s in splits.values() for c in classes for i in range(1 + (c == classes[-1]))}  # fmt: skip
        make.write_tree(root / base, files)
        labels = [*range(len(classes)), len(classes) - 1]
        return dict.fromkeys(splits, labels), shown or " ".join(classes)

    return write


def traffic_signs(root: Path, make):
    files = {f"Training/{c:05d}/0.ppm": make.encoded(c, form="PPM") for c in range(43)}
    files |= {f"Final_Test/Images/{c:05d}.ppm": make.encoded(c, form="PPM") for c in range(43)}
    make.write_tree(root / "gtsrb" / "GTSRB", files)
    rows = "".join(f"{c:05d}.ppm;{42 - c}\n" for c in range(43))
    (root / "gtsrb" / "GT-final_test.csv").write_text("Filename;ClassId\n" + rows)
    return {"train": list(range(43)), "test": list(range(42, -1, -1))}, "0 1 2 "


def mnist(name: str, shown: str):
    def write(root: Path, make):
        for prefix in ("train", "t10k"):
            make.write_idx(root / name / "raw", 12, prefix, classes=10)
        return dict.fromkeys(("train", "test"), [*range(10), 0, 1]), shown

    return write


MINIATURES = {
    "Country211": class_folders(
        "country211", {"train": "train", "val": "valid", "test": "test"}, ("AD", "ZW"), "JPEG", "jpg"
    ),
    "DTD": dtd,
    "FGVCAircraft": aircraft,
    "FashionMNIST": mnist("FashionMNIST", "T-shirt/top Trouser"),
    "Food101": food,
    "GTSRB": traffic_signs,
    "Imagenette": class_folders(
        "imagenette2", {"train": "train", "val": "val"}, ("n01440764", "n03028079"), "JPEG", "jpeg", "tench church"
    ),
    "KMNIST": mnist("KMNIST", "o ki su"),
    "MNIST": mnist("MNIST", "0 - zero 1 - one"),
    "OxfordIIITPet": pets,
    "RenderedSST2": class_folders(
        "rendered-sst2", {"train": "train", "val": "valid", "test": "test"}, ("negative", "positive"), "PNG", "png"
    ),
    "StanfordCars": cars,
}
