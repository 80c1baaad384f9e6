"""Folders, pictures, IDX files, scikit-learn's images, and the dispatch of ``load``."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vpt_analysis import data

# --- scikit-learn -----------------------------------------------------------------------------------------------------


def test_digits_are_split_once_and_for_all():
    train, test = data.digits(), data.digits(split="test")
    assert (len(train), len(test)) == (1347, 450) and not set(train.files) & set(test.files)
    assert train.images.shape == (1347, 3, 32, 32) and train.class_names == tuple("0123456789")
    assert int(train.counts.min()) > 125 and int(test.counts.min()) > 40
    assert (train.images[:, 0] == train.images[:, 2]).all()
    assert train.digest == data.digits().digest != test.digest


def test_digits_digests_are_pinned():
    """These are scikit-learn's bytes and our split; results carry them."""
    assert data.digits().digest == "4655e8f39a5921ebe0df66850e25045ee67a4a55d345c7ba13d5de10a09b51b0"
    assert data.digits(split="test").digest == "ba98a7ac1c37441a47f5cdddc323326be94abcec1fcc13f413c9ee4ebb69fe47"


def test_digits_at_their_own_size_are_the_source():
    from sklearn.datasets import load_digits

    source = load_digits()
    made = data.digits(8, "test")
    at = [int(name.split("/")[1]) for name in made.files]
    np.testing.assert_array_equal(made.images[:, 0], np.round(source.images[at] * 255 / 16).astype(np.uint8))
    np.testing.assert_array_equal(made.labels, source.target[at])
    assert data.digits(4, "test").images.shape[2:] == (4, 4)


def test_photographs_show_what_they_say():
    made = data.photographs(64)
    assert made.images.shape == (2, 3, 64, 64) and made.class_names == ("china", "flower")
    sky, petals = made.images[0, :, :6].float().mean((1, 2)), made.images[1, :, 22:42, 22:42].float().mean((1, 2))
    assert sky[2] > 200 and sky[2] > sky[0], "the sky above the pagoda is bright and blue"
    assert petals[0] > petals[1] > petals[2], "the dahlia is orange"
    crops = data.photographs(32, ("left", "centre", "right"))
    assert crops.files[:3] == ("china.jpg#left", "china.jpg#centre", "china.jpg#right") and len(crops) == 6
    assert len({data.photographs(s).digest for s in (32, 64)} | {crops.digest}) == 3


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: data.digits(split="tset"), "unknown split 'tset'; did you mean 'test'?"),
        (lambda: data.digits(0), "digits: size is 0"),
        (lambda: data.photographs(32, ("middle",)), "unknown crop 'middle'"),
        (lambda: data.photographs(32, "centre"), "expected a sequence of names"),
        (lambda: data.photographs(-1), "photographs: size is -1"),
    ],
)
def test_bundled_images_refuse(call, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        call()


# --- folders and pictures ---------------------------------------------------------------------------------------------


def test_folder_of_class_folders(tmp_path, make):
    make.write_tree(tmp_path / "pets", make.tree({"dog": 2, "cat": 3}))
    (tmp_path / "pets" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "pets" / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "pets" / "README.txt").write_text("loose text is nobody's image")
    made = data.folder(tmp_path / "pets", 8)
    assert made.class_names == ("cat", "dog") and made.labels.tolist() == [0, 0, 0, 1, 1] and made.name == "pets"
    assert made.files == ("cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png")
    assert made.images[:, 0, 0, 0].tolist() == [2, 3, 4, 0, 1], "each image under its own name"
    assert data.folder(tmp_path / "pets").images.shape == (5, 3, 4, 6)


def test_folder_with_splits(tmp_path, make):
    make.write_tree(tmp_path, make.splits({"cat": 2, "dog": 1}, {"cat": 1, "dog": 1}))
    train, test = (data.folder(tmp_path, 8, s) for s in ("train", "test"))
    assert train.labels.tolist() == [0, 0, 1] and test.labels.tolist() == [0, 1]
    assert test.files == ("test/cat/0.png", "test/dog/0.png") and test.name == f"{tmp_path.name}/test"
    assert train.digest != test.digest


def test_one_changed_byte_changes_the_digest(tmp_path, make):
    make.write_tree(tmp_path, make.tree({"cat": 2, "dog": 2}))
    digest = data.folder(tmp_path, 8).digest
    assert data.folder(tmp_path, 8).digest == digest
    (tmp_path / "dog" / "1.png").write_bytes(make.encoded(9))
    assert data.folder(tmp_path, 8).digest != digest


def spoil(name: str, content: bytes | None):
    """A change to a tree: write ``content`` to ``name``, or make an empty folder."""

    def change(root: Path) -> None:
        if content is None:
            (root / name).mkdir(parents=True)
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

    return change


@pytest.mark.parametrize(
    "change, split, message",
    [
        (spoil("train/cat/x.png", b"\x89PNG broken"), "train", "train/cat/x.png: truncated or damaged"),
        (spoil("train/cat/x.txt", b"notes"), "train", "train/cat: 'x.txt' has no image suffix"),
        (spoil("train/cat/more/x.png", b""), "train", "train/cat/more: not a file"),
        (spoil("train/x.png", b""), "train", "train/x.png: an image outside the class folders"),
        (spoil("train/emu", None), "train", "train: class 'emu' without images"),
        (spoil("test/emu/0.png", b""), "train", "train: no images of class 'emu', known from the splits test, train"),
        (spoil("train/emu/0.png", b""), "test", "test: no images of class 'emu'"),
        (lambda root: None, "val", r"unknown split 'val'; Known: test, train"),
        (lambda root: None, None, r"its folders are splits \(test, train\); choose one with split="),
    ],
)
def test_folder_refuses(tmp_path, make, change, split, message):
    make.write_tree(tmp_path, make.splits({"cat": 2, "dog": 1}, {"cat": 1, "dog": 1}))
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        data.folder(tmp_path, 8, split)


def test_folder_refuses_what_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: does not exist; expected a folder"):
        data.folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="file: is not a folder"):
        data.folder(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no classes"):
        data.folder(tmp_path / "empty")


def test_pictures_keep_their_order_and_have_no_labels(tmp_path, make):
    make.write_tree(tmp_path, {"b.png": make.encoded(1), "a.png": make.encoded(2), "more/c.png": make.encoded(3)})
    (tmp_path / "more" / "notes.txt").write_text("skipped in a folder")
    made = data.pictures([tmp_path / "b.png", str(tmp_path / "a.png"), tmp_path / "more"], 4)
    assert made.files == ("b.png", "a.png", "c.png") and made.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert made.labels.tolist() == [-1] * 3 and made.class_names == ()
    assert data.pictures(tmp_path / "b.png").images.shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("gone.png", FileNotFoundError, "gone.png: no such picture"),
        ("notes.txt", ValueError, "notes.txt: not an image of a known format"),
        ("empty", ValueError, "empty: no images in this folder"),
        (None, ValueError, "pictures: no paths given"),
    ],
)
def test_pictures_refuse(tmp_path, name, error, message):
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        data.pictures([] if name is None else [tmp_path / name])


# --- IDX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_plain_and_zipped(tmp_path, make, zipped):
    path = make.write_idx(tmp_path, zipped=zipped)
    made = data.idx(path)
    assert made.images.shape == (6, 3, 5, 5) and made.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert made.images[0, 1].flatten().tolist() == list(range(25)), "rows first, all channels equal"
    assert made.class_names == ("0", "1", "2")
    assert data.idx(path, size=10, class_names=("a", "b", "c")).images.shape == (6, 3, 10, 10)


def test_idx_digest_does_not_depend_on_compression(tmp_path, make):
    plain, zipped = make.write_idx(tmp_path / "a"), make.write_idx(tmp_path / "b", zipped=True)
    assert data.idx(plain).digest == data.idx(zipped).digest != data.idx(plain, size=8).digest


PIXELS, LABELS = np.zeros((4, 3, 3), dtype=np.uint8), np.array([0, 1, 0, 1], dtype=np.uint8)


def _zipped(content: bytes) -> bytes:
    """The same bytes at any time: they name the test."""
    return gzip.compress(content, mtime=0)


def _bytes(array: np.ndarray, claim: tuple[int, ...] | None = None, magic: bytes | None = None) -> bytes:
    shape = claim or array.shape
    head = magic or bytes((0, 0, 8, array.ndim))
    return head + b"".join(s.to_bytes(4, "big") for s in shape) + array.tobytes()


@pytest.mark.parametrize(
    "pixels, labels, names, message",
    [
        (_bytes(PIXELS, (5, 3, 3)), _bytes(LABELS), None, "images-idx3: only 36 of the 45 bytes"),
        (_bytes(PIXELS, (3, 3, 3)), _bytes(LABELS), None, "images-idx3: more than the 27 bytes"),
        (_bytes(PIXELS), _bytes(LABELS[:3]), None, "labels-idx1: 3 labels, but .*images-idx3 has 4 images"),
        (_bytes(PIXELS), _bytes(LABELS * 2), None, "labels-idx1: no images of class '1'"),
        (
            _bytes(PIXELS),
            _bytes(LABELS),
            ("a", "b", "c"),
            "labels-idx1: no images of class 'c', known from class_names",
        ),
        (_bytes(PIXELS), _bytes(LABELS), ("a",), "labels-idx1: a label is 1; expected 0 … 0"),
        (
            _bytes(PIXELS, magic=b"\x89PNG"),
            _bytes(LABELS),
            None,
            "images-idx3: starts with 89504e47; expected 00000803",
        ),
        (_bytes(LABELS), _bytes(LABELS), None, "images-idx3: starts with 00000801"),
        (b"", _bytes(LABELS), None, "images-idx3: starts with nothing"),
        (_bytes(PIXELS[:0]), _bytes(LABELS[:0]), None, "images-idx3: images are"),
        (
            _bytes(PIXELS[:, :0]),
            _bytes(LABELS),
            None,
            r"images are \(4, 0, 3\); expected at least one, of at least 1×1",
        ),
        (_bytes(PIXELS, (2**31, 2**31, 2**31)), _bytes(LABELS), None, "its header claims"),
        (_zipped(_bytes(PIXELS))[:-12], _bytes(LABELS), None, "images-idx3: truncated or damaged"),
        (_zipped(_bytes(PIXELS) + b"\0" * 10**7), _bytes(LABELS), None, "images-idx3: more than the 36 bytes"),
    ],
)
def test_idx_refuses(tmp_path, pixels, labels, names, message):
    (tmp_path / "images-idx3").write_bytes(pixels)
    (tmp_path / "labels-idx1").write_bytes(labels)
    with pytest.raises(ValueError, match=message):
        data.idx(tmp_path / "images-idx3", class_names=names)


def test_idx_needs_both_files(tmp_path, make):
    path = make.write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte: no such file; expected IDX labels"):
        data.idx(path)
    with pytest.raises(ValueError, match="pixels: cannot guess the name of the labels; give labels_path"):
        data.idx(path.rename(tmp_path / "pixels"))


# --- load -------------------------------------------------------------------------------------------------------------


def test_load_decides_by_what_lies_there(tmp_path, make):
    files = make.splits({"cat": 2, "dog": 1}, {"cat": 1, "dog": 1})
    folder = make.write_tree(tmp_path / "split", files)
    flat = make.write_tree(tmp_path / "flat", make.tree({"cat": 2, "dog": 1}))
    tar = make.write_tar(tmp_path / "pets.tar", files)
    np.savez(tmp_path / "pets.npz", **make.pack([make.encoded(i) for i in range(3)], [0, 0, 1]))
    images = make.write_idx(tmp_path / "mnist")
    make.write_idx(tmp_path / "mnist", 9, "t10k", zipped=True)

    assert data.load(folder).digest == data.load(tar).digest, "the same files in a folder and in a tar"
    assert data.load(str(folder), "test", 8).images.shape == (2, 3, 8, 8)
    assert len(data.load(flat)) == 3 and data.load(flat).images.shape[2:] == (32, 32)
    assert len(data.load(tmp_path / "pets.npz", size=None)) == 3
    assert data.load(images).digest == data.load(tmp_path / "mnist").digest
    assert (
        len(data.load(tmp_path / "mnist", "test")) == 9 and data.load(tmp_path / "mnist", "test").name == "mnist/test"
    )
    assert data.load("digits", "test", 8).digest == data.digits(8, "test").digest


def test_load_never_gives_training_images_as_test_images(tmp_path, make):
    flat = make.write_tree(tmp_path / "flat", make.tree({"cat": 2, "dog": 1}))
    for path in (flat, make.write_idx(tmp_path / "mnist")):
        with pytest.raises(ValueError, match="has no split 'test'; without splits, all of it is 'train'"):
            data.load(path, "test")


@pytest.mark.parametrize(
    "source, error, message",
    [
        ("cifar10", ValueError, "unknown data set 'cifar10'; did you mean 'cifar100'"),
        ("somewhere/else", FileNotFoundError, "somewhere/else: no such file or folder"),
        ("gone.tar", FileNotFoundError, "gone.tar: no such file or folder"),
        (Path("gone"), FileNotFoundError, "gone: no such file or folder"),
    ],
)
def test_load_refuses_unknown_sources(source, error, message):
    with pytest.raises(error, match=message):
        data.load(source)


def test_load_refuses_a_single_picture(tmp_path, make):
    make.write_tree(tmp_path, {"a.png": make.encoded()})
    with pytest.raises(ValueError, match=r"a.png: not a data set; .*pictures\(\[...\]\)"):
        data.load(tmp_path / "a.png")


def test_names_need_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("VPT_ANALYSIS_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="'cub100' needs the environment variable VPT_ANALYSIS_DATA.*export"):
        data.load("cub100")
    monkeypatch.setenv("VPT_ANALYSIS_DATA", str(tmp_path))
    (tmp_path / "cifar100.tar").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="cub100.tar: no such file; .*which holds cifar100.tar"):
        data.load("cub100")


def test_importing_stays_light():
    """Pillow and scikit-learn are imported by what needs them, not by the package."""
    code = "import sys, vpt_analysis.data; print([m for m in ('PIL', 'sklearn', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert result.stdout.strip() == "[]"


def test_every_source_gives_the_same_kind_of_thing(tmp_path, make):
    flat = make.write_tree(tmp_path / "flat", make.tree({"cat": 2, "dog": 1}))
    for made in (data.digits(8), data.photographs(8), data.folder(flat, 8), data.idx(make.write_idx(tmp_path), size=8)):
        assert isinstance(made, data.ImageSet) and made.images.is_contiguous()
        assert made.images.dtype == torch.uint8 and made.images.shape[1:] == (3, 8, 8)
        assert made.labels.dtype == torch.int64 and len(made.files) == len(made) and len(made.digest) == 64
        assert sorted(set(made.labels.tolist())) == list(range(len(made.class_names)))
