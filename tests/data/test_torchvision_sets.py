"""Data sets of torchvision, read from miniatures in torchvision's own layouts."""

from __future__ import annotations

import bz2
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.data.torchvision_miniatures import MINIATURES, aircraft, dtd, food, md5, pets
from vpt_analysis import data
from vpt_analysis.data import torchvision_sets


@pytest.mark.parametrize("name", MINIATURES)
def test_a_set_in_torchvisions_layout(name, folder, make):
    labels, class_names = MINIATURES[name](folder, make)
    assert set(labels) == set(torchvision_sets.SPLITS[name]), "every split is tried"
    for split, expected in labels.items():
        made = data.load(f"torchvision:{name}", split, 8)
        assert made.labels.tolist() == expected, split
        assert made.images.shape == (len(expected), 3, 8, 8)
        assert " ".join(made.class_names).startswith(class_names)
        assert made.name.startswith(f"torchvision:{name}/") and len(set(made.files)) == len(expected)
    with pytest.raises(ValueError, match=f"torchvision:{name}: unknown split 'extra'"):
        data.load(f"torchvision:{name}", "extra")


def test_images_are_under_their_own_labels(folder, make):
    dtd(folder, make)
    made = data.load("torchvision:DTD", "test", None)
    reds = made.images[:, 0].float().mean((1, 2))
    np.testing.assert_allclose(reds, [3, 2, 3], atol=1.5)  # the numbers that the files' pixels tell, after JPEG


def test_digest_and_subset(folder, make):
    food(folder, make)
    made = data.load("torchvision:Food101", "train", 8)
    assert made.digest == data.load("torchvision:Food101", "train", 8).digest
    assert len({made.digest, data.load("torchvision:Food101", "train", 4).digest,
                data.load("torchvision:Food101", "test", 8).digest}) == 3  # fmt: skip
    part = made.subset(per_class=1, seed=3)
    assert part.labels.tolist() == [0, 1] and part.digest != made.digest
    (folder / "food-101" / "images" / "waffles" / "2.jpg").write_bytes(make.encoded(200, form="JPEG"))
    assert data.load("torchvision:Food101", "train", 8).digest != made.digest


def test_variants(folder, make):
    dtd(folder, make)
    aircraft(folder, make)
    first, second = (data.load(f"torchvision:DTD{variant}", "test", 8) for variant in ("", ":2"))
    assert second.labels.tolist() == first.labels.tolist()[::-1]
    assert data.load("torchvision:DTD:1", "test", 8).digest == first.digest
    assert data.load("torchvision:FGVCAircraft:family", "test", 8).class_names == ("Boeing 707", "A300")


def test_pets_say_that_train_is_trainval(folder, make):
    pets(folder, make)
    assert data.load("torchvision:OxfordIIITPet", "train", 8).name == "torchvision:OxfordIIITPet/trainval"


def test_files_checked_by_checksum(folder, make, published):
    """SVHN, STL10, USPS and Flowers102: real readers, on small files whose checksums stand in for the published."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    digits = [10, *range(1, 10)]  # SVHN writes 10 for the digit 0
    lists = {}
    for split in ("train", "test", "extra"):
        path = folder / f"{split}_32x32.mat"
        savemat(path, {"X": rng.integers(0, 256, (32, 32, 3, 10), dtype=np.uint8), "y": np.array(digits)[:, None]})
        lists[split] = ["", path.name, md5(path)]
    published("SVHN", split_list=lists)
    for split in lists:
        assert data.load("torchvision:SVHN", split, None).labels.tolist() == list(range(10))

    base = folder / "stl10_binary"
    base.mkdir()
    (base / "class_names.txt").write_text("airplane\nbird\n")
    sizes = {"train_X.bin": 2, "unlabeled_X.bin": 1, "test_X.bin": 2}
    for name, n in sizes.items():
        (base / name).write_bytes(rng.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8).tobytes())
    (base / "train_y.bin").write_bytes(bytes([2, 1]))
    (base / "test_y.bin").write_bytes(bytes([1, 2]))
    train, test = ([[n, md5(base / n)] for n in names] for names in
                   (("train_X.bin", "train_y.bin", "unlabeled_X.bin"), ("test_X.bin", "test_y.bin")))  # fmt: skip
    published("STL10", train_list=train, test_list=test)
    assert data.load("torchvision:STL10", "train", 32).labels.tolist() == [1, 0]
    assert data.load("torchvision:STL10", "test", 32).class_names == ("airplane", "bird")

    values = " ".join(f"{i + 1}:{-1 + i / 128:.4f}" for i in range(256))
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress("".join(f"{c} {values}\n" for c in range(1, 11)).encode()))
    for split in ("train", "test"):
        made = data.load("torchvision:USPS", split, None)
        assert made.labels.tolist() == list(range(10)) and made.images.shape[2:] == (16, 16)

    base = folder / "flowers-102"
    make.write_tree(base / "jpg", {f"image_{i:05d}.jpg": make.encoded(i, form="JPEG") for i in range(1, 307)})
    savemat(base / "imagelabels.mat", {"labels": np.arange(306) % 102 + 1})
    ids = np.arange(1, 307).reshape(3, 102)
    savemat(base / "setid.mat", dict(zip(("trnid", "valid", "tstid"), ids, strict=True)))
    published("Flowers102", _file_dict={
        "image": ("102flowers.tgz", ""),
        "label": ("imagelabels.mat", md5(base / "imagelabels.mat")),
        "setid": ("setid.mat", md5(base / "setid.mat")),
    })  # fmt: skip
    for split in ("train", "val", "test"):
        made = data.load("torchvision:Flowers102", split, 8)
        assert made.labels.tolist() == list(range(102)) and made.class_names[0] == "pink primrose"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, message",
    [
        ("CIFAR101", "unknown torchvision data set 'CIFAR101'; did you mean 'CIFAR10"),
        ("CocoDetection", "Only those with one class an image and a split to test on are read"),
        ("", "unknown torchvision data set ''"),
        ("DTD:11", "unknown partition of DTD '11'"),
        ("FGVCAircraft:wing", "unknown annotation_level of FGVCAircraft 'wing'"),
        ("MNIST:2", "torchvision:MNIST:2: MNIST has no variants"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        data.load(f"torchvision:{name}")


def test_damaged_files_are_named(folder, make):
    dtd(folder, make)
    (folder / "dtd" / "dtd" / "images" / "zigzag" / "zigzag_3.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="torchvision:DTD/test: image 0 cannot be read .UnidentifiedImageError"):
        data.load("torchvision:DTD", "test", 8)
    (folder / "dtd" / "dtd" / "labels" / "test1.txt").write_text("no slash\n")
    with pytest.raises(ValueError, match="torchvision:DTD: its files in .* are incomplete or damaged"):
        data.load("torchvision:DTD", "test", 8)


def test_images_of_several_sizes_need_a_size(folder, make):
    food(folder, make)
    (folder / "food-101" / "images" / "waffles" / "3.jpg").write_bytes(make.encoded(1, (9, 9), "JPEG"))
    with pytest.raises(ValueError, match="image 1: 9×9 pixels, but torchvision:Food101/test: image 0 has 6×4"):
        data.load("torchvision:Food101", "test", None)


def test_a_class_without_images_is_refused(folder, make):
    food(folder, make)
    meta = folder / "food-101" / "meta" / "test.json"
    meta.write_text(json.dumps({"apple_pie": [], "waffles": ["waffles/3"]}))
    with pytest.raises(ValueError, match="torchvision:Food101/test: no images of class 'apple_pie'"):
        data.load("torchvision:Food101", "test", 8)


def test_a_torchvision_that_does_not_fit_is_an_import_error():
    """In a fresh process, without the help that tests give torchvision; and again, as half of it is imported then."""
    pytest.importorskip("torchvision", reason="needs torchvision", exc_type=ImportError)
    code = """
try:
    import torchvision
    print("fits")
except RuntimeError:
    from vpt_analysis import data
    for _ in range(2):
        try:
            data.load("torchvision:DTD")
        except ImportError as error:
            print(error)
"""
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    ).stdout.splitlines()
    if found == ["fits"]:
        pytest.skip("the torchvision here was made for this torch")
    assert len(found) == 2 and all("does not work with torch" in line and "pip install" in line for line in found)


def test_without_torchvision_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ImportError, match=r"pip install 'vpt-analysis\[torchvision\]'"):
        data.load("torchvision:DTD")


def test_the_folder_without_the_variable_is_in_torchs_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("VPT_ANALYSIS_DATA", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert torchvision_sets.root() == tmp_path / "torch" / "datasets"


def test_names_reach_the_probe_command(folder, make):
    """The test split, as of every data set that has a name."""
    from argparse import Namespace

    from vpt_analysis.probe_command import image_set
    from vpt_analysis.vit import ViTConfig

    dtd(folder, make)
    config = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2)
    args = Namespace(images=["torchvision:DTD"], split=None, count=10, seed=0)
    assert image_set(args, config).name == "torchvision:DTD/test"
