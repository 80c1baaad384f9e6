"""Stanford Dogs in miniature: official lists and images in, class folders out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from vpt_analysis import data
from vpt_analysis.data import stanford_dogs

FILES = {
    "train": ["n02085620-Chihuahua/n02085620_7.jpg", "n02085782-Spaniel/n02085782_2.jpg",
              "n02085620-Chihuahua/n02085620_1.jpg"],
    "test": ["n02085782-Spaniel/n02085782_1.jpg", "n02085620-Chihuahua/n02085620_2.jpg"],
}  # fmt: skip
LABELS = {"n02085620-Chihuahua": 1, "n02085782-Spaniel": 2}


def write_list(path: Path, files: list, labels: list[int] | None = None) -> None:
    """As MATLAB has it: a column of cells with one text each, and a column of labels from 1 on."""
    cells = np.empty((len(files), 1), dtype=object)
    cells[:, 0] = files
    labels = [LABELS[str(file).partition("/")[0]] for file in files] if labels is None else labels
    savemat(path, {"file_list": cells, "annotation_list": cells, "labels": np.array(labels, dtype=float)[:, None]})


@pytest.fixture
def source(tmp_path, make) -> Path:
    folder = tmp_path / "dogs"
    names = [file for files in FILES.values() for file in files]
    make.write_tree(folder / "Images", {name: make.encoded(i, form="JPEG") for i, name in enumerate(names)})
    for split, files in FILES.items():
        write_list(folder / f"{split}_list.mat", files)
    return folder


def test_lists_become_class_folders(source, tmp_path):
    assert stanford_dogs.arrange(source, tmp_path / "out" / "dogs") == {"train": 3, "test": 2}
    train, test = (data.load(tmp_path / "out" / "dogs", split, 8) for split in ("train", "test"))
    assert train.class_names == test.class_names == tuple(LABELS)
    assert train.labels.tolist() == [0, 0, 1] and test.labels.tolist() == [0, 1]
    assert set(train.files) == {f"train/{file}" for file in FILES["train"]}
    np.testing.assert_allclose(train.images[:, 0].float().mean((1, 2)), [2, 0, 1], atol=1.5)  # as the files tell
    link = tmp_path / "out" / "dogs" / "test" / FILES["test"][0]
    assert link.is_symlink() and link.samefile(source / "Images" / FILES["test"][0])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dogs"]


def test_the_command_says_what_it_made(source, tmp_path, capsys):
    assert stanford_dogs.main([str(source), str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "2 classes, 3 train, 2 test images; not the official 120 classes and 12,000 train, 8,580 test images" in told
    assert stanford_dogs.main([str(source), str(tmp_path / "out")]) == 1
    assert "error: " in (told := capsys.readouterr().err) and "is there already" in told


def no_lists(source: Path) -> None:
    (source / "test_list.mat").unlink()


def no_image(source: Path) -> None:
    (source / "Images" / FILES["test"][0]).unlink()


def no_images(source: Path) -> None:
    shutil.rmtree(source / "Images")


def no_mat(source: Path) -> None:
    (source / "test_list.mat").write_bytes(b"text")


def other_mat(source: Path) -> None:
    savemat(source / "test_list.mat", {"labels": [1.0]})


def shared(source: Path) -> None:
    write_list(source / "test_list.mat", FILES["test"] + FILES["train"][:1])


def twice(source: Path) -> None:
    write_list(source / "test_list.mat", FILES["test"] * 2)


def outside(source: Path) -> None:
    write_list(source / "test_list.mat", ["../dogs.jpg"], [1])


def numbers(source: Path) -> None:
    write_list(source / "test_list.mat", [3.0, 4.0], [1, 2])


def mixed(source: Path) -> None:
    write_list(source / "test_list.mat", FILES["test"], [1, 1])


def doubled(source: Path) -> None:
    write_list(source / "train_list.mat", FILES["train"], [1, 2, 3])


def no_pictures(source: Path) -> None:
    write_list(source / "test_list.mat", ["n02085620-Chihuahua/list.txt"])


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (no_lists, FileNotFoundError, "test_list.mat: no such file; unpack lists.tar"),
        (no_image, FileNotFoundError, "n02085782_1.jpg: no such file, and 0 more are missing; unpack images.tar"),
        (no_images, FileNotFoundError, "n02085620_7.jpg: no such file, and 2 more"),
        (no_mat, ValueError, "test_list.mat: not a list"),
        (other_mat, ValueError, "test_list.mat: not a list .KeyError"),
        (shared, ValueError, "test_list.mat: n02085620-Chihuahua/n02085620_7.jpg is in train_list.mat too"),
        (twice, ValueError, "4 files and 4 labels; expected one label a file, each file once"),
        (outside, ValueError, r"lists '../dogs.jpg'; expected <class>/<file>"),
        (numbers, ValueError, r"lists 3.0; expected <class>/<file>"),
        (mixed, ValueError, "label 1.0 is 'n02085782-Spaniel' and 'n02085620-Chihuahua'; expected one class"),
        (doubled, ValueError, "3 labels for 2 classes"),
        (no_pictures, ValueError, "'list.txt' has no image suffix"),
    ],
)
def test_what_is_refused_leaves_nothing(source, tmp_path, spoil, error, message):
    spoil(source)
    with pytest.raises(error, match=message):
        stanford_dogs.arrange(source, tmp_path / "out" / "dogs")
    assert not (tmp_path / "out").exists()
