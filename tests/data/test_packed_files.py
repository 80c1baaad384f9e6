"""Tars and packs with their manifests: the real ones where they are at hand, and everything that can be wrong."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from vpt_analysis import data

TARS = {"caltech101": 28, "cifar100": 21, "cub100": 1, "flowers12": 24, "grocery81": 0}
COUNTS = ({"cat": 2, "dog": 1}, {"cat": 2, "dog": 1})


# --- the real files ---------------------------------------------------------------------------------------------------


def real(data_dir, name):
    if not (data_dir / name).is_file():
        pytest.skip(f"no {name} in the shared data")
    return data_dir / name, json.loads((data_dir / name).with_suffix(".json").read_text())


@pytest.mark.parametrize("name, duplicates", TARS.items())
def test_real_tars_lose_their_near_duplicates(data_dir, name, duplicates):
    path, listed = real(data_dir, f"{name}.tar")
    made = data.tar(path, "test", 16)
    assert len(made) == listed["n_test"] - duplicates
    assert not set(made.files) & {pair[0] for pair in listed["near_duplicates_test_train"]["pairs"]}
    assert made.class_names == tuple(listed["class_names"]) and int(made.counts.min()) >= 1
    for file, label in zip(made.files, made.labels.tolist(), strict=True):
        assert file.split("/")[1] == made.class_names[label]


def test_real_duplicates_can_be_kept(data_dir):
    path, listed = real(data_dir, "flowers12.tar")
    kept, dropped = data.tar(path, "test", 16, near_duplicates="keep"), data.tar(path, "test", 16)
    assert len(kept) == listed["n_test"] and kept.counts.tolist() == listed["test_per_class"]
    assert set(dropped.files) < set(kept.files) and dropped.digest != kept.digest
    train = data.tar(path, "train", 16)
    assert train.counts.tolist() == listed["train_per_class"], "training images stay"


def test_real_images_by_name(data_dir, monkeypatch):
    real(data_dir, "flowers12.tar")
    monkeypatch.setenv("VPT_ANALYSIS_DATA", str(data_dir))
    made = data.load("flowers12", "test")
    assert made.images.shape == (216, 3, 32, 32) and made.name == "flowers12/test"
    assert made.digest == "0950a0d5216fe6aa07ada32030ab4eceb916d78524866d31a1a9e698c5d0635e"
    sunflower = made.images[made.labels == made.class_names.index("sunflower")].float().mean((0, 2, 3))
    assert sunflower[2] < min(sunflower[:2]), "sunflowers are not blue: the channels are in order"
    assert data.tar(data_dir / "flowers12.tar", "test").images.shape == (216, 3, 126, 126)


def test_real_pack(data_dir):
    path, listed = real(data_dir, "tinyimagenet32.npz")
    made = data.packed(path, "test", limit=300)
    assert made.images.shape == (300, 3, 32, 32) and len(made.class_names) == listed["n_classes"]
    assert made.images.float().std() > 40, "real pictures have contrast"


# --- tars -------------------------------------------------------------------------------------------------------------


def test_tar_with_and_without_manifest(tmp_path, make):
    path = make.write_tar(tmp_path / "pets.tar", make.splits(*COUNTS))
    plain = data.tar(path, "test", 8)
    assert plain.files == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png")
    pairs = [["test/cat/1.png", "train/cat/0.png", 0.99]]
    make.write_manifest(path, class_names=["dog", "cat"], n_test=3, near_duplicates_test_train={"pairs": pairs})
    listed = data.tar(path, "test", 8)
    assert listed.class_names == ("dog", "cat") and listed.labels.tolist() == [0, 1]
    assert listed.files == ("test/dog/0.png", "test/cat/0.png")


def test_tar_as_the_command_makes_it(tmp_path, make):
    """With folders as members and a leading ./, as ``tar -cf pets.tar -C pets .`` writes them."""
    root = make.write_tree(tmp_path / "pets", make.splits(*COUNTS) | {"train/cat/.hidden": b"x"})
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(root, arcname=".")
    assert data.tar(tmp_path / "pets.tar", "train", 8).digest == data.folder(root, 8, "train").digest


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = "") -> tuple:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(content), link
    return made, io.BytesIO(content)


@pytest.mark.parametrize(
    "extra, message",
    [
        (member("../../etc/x.png"), "member '../../etc/x.png' points outside the archive"),
        (member("/etc/cat/x.png"), "member '/etc/cat/x.png' points outside"),
        (member("train/cat/..\\x.png"), "points outside"),
        (member("train/../x.png"), "points outside"),
        (member("train/cat/x.png", tarfile.SYMTYPE, link="/etc/passwd"), "member 'train/cat/x.png' is a link"),
        (member("train/cat/x.png", tarfile.LNKTYPE, link="train/cat/0.png"), "is a link"),
        (member("train/cat/x.png", tarfile.FIFOTYPE), "is a link, device"),
        (member("cat/x.png"), "member 'cat/x.png' lies at the wrong depth"),
        (member("pets/train/cat/x.png"), "wrong depth"),
        (member("train/cat/notes.txt"), "train/cat: 'notes.txt' has no image suffix"),
        (member("train/cat/0.png"), "train/cat/0.png occurs twice"),
        (member("train/cat/x.png", content=b"text"), "pets.tar: train/cat/x.png: not an image of a known format"),
        (member("train/cat/x.png"), "train/cat/x.png: the file is empty"),
        (member("train/emu/0.png", content=b"x"), "test: no images of class 'emu'"),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_tar_refuses_members(tmp_path, make, extra, message, listed):
    path = make.write_tar(tmp_path / "pets.tar", make.splits(*COUNTS))
    with tarfile.open(path, "a") as archive:
        extra[1].seek(0)
        archive.addfile(*extra)
    if listed:
        make.write_manifest(path)
    with pytest.raises(ValueError, match=message.replace("\\", "\\\\").replace("..", r"\.\.")):
        data.tar(path, "test" if "emu" in message else "train", 8)


@pytest.mark.parametrize("keep", [700, 1000, 5000])
def test_tar_cut_off(tmp_path, make, keep):
    path = make.write_tar(
        tmp_path / "pets.tar", {k: make.encoded(i, (90, 90)) for i, k in enumerate(make.splits(*COUNTS))}
    )
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="pets.tar: (not a readable tar|.*no images of|unknown split|.*train)"):
        data.tar(path, "train", 8)


def test_tar_member_that_claims_more_than_there_is(tmp_path, make):
    made = tarfile.TarInfo("train/cat/0.png")
    made.size = 2**50
    (tmp_path / "pets.tar").write_bytes(made.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    with pytest.raises(ValueError, match="pets.tar: not a readable tar .train/cat/0.png is cut off"):
        data.tar(tmp_path / "pets.tar")


@pytest.mark.parametrize("content", [b"", b"text" * 500, b"\x1f\x8b" + b"\0" * 600])
def test_what_is_no_tar(tmp_path, content):
    (tmp_path / "pets.tar").write_bytes(content)
    with pytest.raises(ValueError, match="pets.tar: not a readable tar .*expected an uncompressed tar"):
        data.tar(tmp_path / "pets.tar")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sha256": "0" * 64}, "pets.tar: sha256 is .*, but pets.json says 0000"),
        ({"sha256": None}, "pets.tar: sha256 is .*, but pets.json says None"),
        ({"n_train": 4}, "pets.tar: split 'train' has 3 images, but pets.json says 4"),
        ({"n_train": "many"}, "pets.json: not a manifest"),
        ({"class_names": ["cat", "dog", "emu"]}, "no images of class 'emu', known from pets.json"),
        ({"class_names": ["cat"]}, "has class 'dog', not among the 1 classes of pets.json"),
        (
            {"near_duplicates_test_train": {"pairs": [["test/cat/9.png", "x"]]}},
            "lists the near-duplicate 'test/cat/9.png'",
        ),
        ({"near_duplicates_test_train": {"pairs": [["test/dog/0.png"]]}}, "pets.json: not a manifest .IndexError"),
        ({"near_duplicates_test_train": []}, "pets.json: not a manifest .AttributeError"),
    ],
)
def test_manifest_contradicts(tmp_path, make, fields, message):
    path = make.write_tar(tmp_path / "pets.tar", make.splits(*COUNTS))
    make.write_manifest(path, **fields)
    with pytest.raises(ValueError, match=message):
        data.tar(path, "train", 8)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\u2026" * 3])
def test_manifest_that_is_none(tmp_path, make, text):
    path = make.write_tar(tmp_path / "pets.tar", make.splits(*COUNTS))
    path.with_suffix(".json").write_text(text, encoding="utf-16")
    with pytest.raises(ValueError, match="pets.json: not a manifest .*remove it to load without checks"):
        data.tar(path)


def test_class_of_near_duplicates_only(tmp_path, make):
    path = make.write_tar(tmp_path / "pets.tar", make.splits(*COUNTS))
    make.write_manifest(path, near_duplicates_test_train={"pairs": [["test/dog/0.png", "train/dog/0.png", 1.0]]})
    with pytest.raises(ValueError, match="class 'dog' of split 'test' consists of near-duplicates only"):
        data.tar(path, "test", 8)
    assert len(data.tar(path, "test", 8, near_duplicates="keep")) == 3
    with pytest.raises(ValueError, match="near_duplicates is 'maybe'; expected 'drop' or 'keep'"):
        data.tar(path, "test", 8, near_duplicates="maybe")


@pytest.mark.parametrize("read", [data.tar, data.packed])
def test_missing_files(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="gone: no such file"):
        read(tmp_path / "gone")


def test_unknown_split(tmp_path, make):
    path = make.write_tar(tmp_path / "pets.tar", make.splits(*COUNTS))
    with pytest.raises(ValueError, match=r"pets.tar: unknown split 'tets'; did you mean 'test'\? Known: test, train"):
        data.tar(path, "tets")


# --- packs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def arrays(make):
    return make.pack([make.encoded(i) for i in range(4)], [0, 1, 1, 0])


def test_packed_images(tmp_path, make, arrays):
    np.savez(tmp_path / "pets.npz", **arrays)
    make.write_manifest(tmp_path / "pets.npz", n_train=4)
    made = data.packed(tmp_path / "pets.npz")
    assert made.images.shape == (4, 3, 4, 6) and made.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert made.labels.tolist() == [0, 1, 1, 0] and made.class_names == ("cat", "dog")
    assert made.name == "pets/train" and made.files[2] == "train/2"
    first = data.packed(tmp_path / "pets.npz", limit=1)
    assert torch.equal(first.images, made.images[:1]) and first.class_names == made.class_names
    assert data.packed(tmp_path / "pets.npz", size=8).images.shape == (4, 3, 8, 8)
    np.savez_compressed(tmp_path / "small.npz", **arrays)
    assert data.packed(tmp_path / "small.npz").digest == made.digest, "compression is no content"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_labels": np.array([0, 1, 1, 2])}, "image train/3 has label 2; expected 0 … 1"),
        ({"train_labels": np.array([0, -1, 1, 1])}, "image train/1 has label -1"),
        ({"train_labels": np.zeros(4, dtype=int)}, "train: no images of class 'dog', known from class_names"),
        ({"train_labels": np.zeros(0, dtype=int), "train_offsets": np.zeros(1, dtype=int)}, "'train' has no images"),
        ({"train_labels": np.array([0.0, 1, 1, 0])}, "train_labels is float64"),
        ({"train_labels": np.array([0, 1, 1])}, "train_offsets has 5 entries for 3 labels; expected 4"),
        (
            {"train_offsets": np.array([0, 9, 5, 20, 30])},
            "image train/1 goes from byte 9 to 5; expected rising offsets",
        ),
        ({"train_offsets": np.array([-4, 9, 15, 20, 30])}, "image train/0 goes from byte -4"),
        ({"train_offsets": np.array([0, 9, 15, 20, 10**9])}, "image train/3 goes from byte 20 to 1000000000"),
        ({"train_offsets": np.array([0, 9, 15, 20, 30])}, "image train/0: truncated or damaged"),
        ({"train_bytes": np.zeros(400)}, "train_bytes is float64"),
        ({"class_names": np.array(["cat", "cat"])}, "class_names is .*expected distinct strings"),
        ({"class_names": np.array([1, 2])}, "class_names is int64"),
        ({"class_names": None}, "not a readable pack .*class_names"),
        ({"train_offsets": None}, "not a readable pack .*train_offsets"),
        ({"class_names": np.array(["cat", {}], dtype=object)}, "not a readable pack .*Object arrays"),
    ],
)
def test_packed_refuses(tmp_path, arrays, change, message):
    kept = {key: value for key, value in (arrays | change).items() if value is not None}
    np.savez(tmp_path / "pets.npz", **kept)
    with pytest.raises(ValueError, match=f"pets.npz: .*{message}"):
        data.packed(tmp_path / "pets.npz")


class Payload:
    """What a malicious file would run when unpickled."""

    def __reduce__(self):
        return (open, ("owned", "w"))


def test_nothing_is_unpickled(tmp_path, arrays, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("pets.npz", **(arrays | {"class_names": np.array([Payload()], dtype=object)}))
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Payload()))
    for name in ("pets.npz", "bare.npz"):
        with pytest.raises(ValueError, match=f"{name}: not a readable pack"):
            data.packed(name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_pack_cut_off(tmp_path, arrays, keep):
    np.savez(tmp_path / "pets.npz", **arrays)
    (tmp_path / "pets.npz").write_bytes((tmp_path / "pets.npz").read_bytes()[:keep])
    with pytest.raises(ValueError, match="pets.npz: not a readable pack"):
        data.packed(tmp_path / "pets.npz")


def test_pack_that_would_explode(tmp_path, arrays):
    np.savez(tmp_path / "pets.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "pets.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", b"\0" * 80_000_000)
    with pytest.raises(ValueError, match="would inflate to 80,0.* bytes"):
        data.packed(tmp_path / "pets.npz")


def test_header_that_claims_a_petabyte(tmp_path, arrays):
    np.savez(tmp_path / "pets.npz", **{k: v for k, v in arrays.items() if k != "train_bytes"})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "pets.npz", "a") as archive:
        archive.writestr("train_bytes.npy", header.getvalue())
    with pytest.raises(ValueError, match="pets.npz: not a readable pack"):
        data.packed(tmp_path / "pets.npz")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "val"}, "pets.npz: unknown split 'val'; Known: train"),
        ({"limit": -1}, "limit is -1; expected an integer ≥ 0"),
        ({"size": 0}, "size is 0; expected a positive number"),
    ],
)
def test_packed_refuses_arguments(tmp_path, arrays, arguments, message):
    np.savez(tmp_path / "pets.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        data.packed(tmp_path / "pets.npz", **arguments)


def test_pack_and_manifest_must_agree(tmp_path, make, arrays):
    np.savez(tmp_path / "pets.npz", **arrays)
    make.write_manifest(tmp_path / "pets.npz", class_names=["dog", "cat"])
    with pytest.raises(ValueError, match="class_names are not those of pets.json"):
        data.packed(tmp_path / "pets.npz")
    make.write_manifest(tmp_path / "pets.npz", n_train=5)
    with pytest.raises(ValueError, match="split 'train' has 4 images, but pets.json says 5"):
        data.packed(tmp_path / "pets.npz")
