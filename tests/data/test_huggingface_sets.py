"""Data sets in the formats of the Hugging Face hub: saved, parquet, class folders; and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from vpt_analysis import data
from vpt_analysis.data import huggingface_sets

datasets = pytest.importorskip("datasets", reason="needs the package datasets")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The library's copies under the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.delenv("VPT_ANALYSIS_DATA", raising=False)


@pytest.fixture
def table(make):
    """A ``Dataset`` of ``labels``, the images telling their positions from ``start`` on; other columns beside."""

    def made(labels: list, kind=None, start: int = 0, **columns) -> datasets.Dataset:
        images = [{"bytes": make.encoded(start + i), "path": f"{i}.png"} for i in range(len(labels))]
        features = {"img": datasets.Image(), "label": kind or datasets.ClassLabel(names=["cat", "dog"])}
        features |= {name: kind for name, (kind, _) in columns.items()}
        values = {"img": images, "label": labels} | {name: values for name, (_, values) in columns.items()}
        return datasets.Dataset.from_dict(values, features=datasets.Features(features))

    return made


@pytest.fixture
def parquet(tmp_path, table) -> Path:
    """A repository's files, as the hub has them."""
    folder = tmp_path / "pets"
    (folder / "data").mkdir(parents=True)
    table([1, 0, 1]).to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    table([0, 1], start=50).to_parquet(folder / "data" / "validation-00000-of-00001.parquet")
    table([1, 0], start=100).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


def test_parquet(parquet):
    made = data.load(f"huggingface:{parquet}", "train", 8)
    assert made.labels.tolist() == [1, 0, 1] and made.class_names == ("cat", "dog")
    assert made.images[:, 0, 0, 0].tolist() == [0, 1, 2], "each image under its own label"
    assert made.name == f"huggingface:{parquet}/train" and made.files == ("train/0", "train/1", "train/2")
    assert data.load(f"huggingface:{parquet}", "test", None).images.shape == (2, 3, 4, 6)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_names_of_validation(parquet, name):
    made = data.load(f"huggingface:{parquet}", name, 8)
    assert made.images[:, 0, 0, 0].tolist() == [50, 51] and made.name.endswith("/validation")


def test_validation_never_stands_for_test(tmp_path, table):
    saved = datasets.DatasetDict(train=table([0, 1]), validation=table([0, 1]))
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="unknown split 'test'; Known: train, validation"):
        data.load(f"huggingface:{tmp_path / 'saved'}", "test")


def test_saved_to_disk_equals_parquet(tmp_path, table, parquet):
    datasets.DatasetDict(train=table([1, 0, 1]), test=table([1, 0], start=100)).save_to_disk(tmp_path / "saved")
    table([1, 0, 1]).save_to_disk(tmp_path / "one")
    for split in ("train", "test"):
        made = data.load(f"huggingface:{tmp_path / 'saved'}", split, 8)
        assert made.digest == data.load(f"huggingface:{parquet}", split, 8).digest
    assert data.load(f"huggingface:{tmp_path / 'one'}", "train", 8).labels.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="has no split 'test'; all of it is 'train'"):
        data.load(f"huggingface:{tmp_path / 'one'}", "test")


def test_class_folders(tmp_path, make):
    make.write_tree(tmp_path / "pets", make.splits({"cat": 2, "dog": 1}, {"cat": 1, "dog": 1}))
    made = data.load(f"huggingface:{tmp_path / 'pets'}", "train", 8)
    ours = data.folder(tmp_path / "pets", 8, "train")
    assert made.class_names == ours.class_names and made.labels.tolist() == ours.labels.tolist()
    np.testing.assert_array_equal(made.images, ours.images)


def test_digest_and_subset(parquet, table):
    name = f"huggingface:{parquet}"
    made = data.load(name, "train", 8)
    assert len({made.digest, data.load(name, "train", 4).digest, data.load(name, "test", 8).digest}) == 3
    part = made.subset(per_class=1, seed=0)
    assert sorted(part.labels.tolist()) == [0, 1] and part.digest != made.digest
    table([1, 0, 1], start=7).to_parquet(parquet / "data" / "train-00000-of-00001.parquet")
    assert data.load(name, "train", 8).digest != made.digest


def test_configs(tmp_path, table):
    folder = tmp_path / "pets"
    header = "---\nconfigs:\n"
    for config, labels in (("small", [0, 1]), ("large", [1, 0, 1])):
        (folder / config).mkdir(parents=True)
        table(labels).to_parquet(folder / config / "train.parquet")
        header += f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train.parquet\n"
    (folder / "README.md").write_text(header + "---\n")
    assert data.load(f"huggingface:{folder}:large", "train", 8).labels.tolist() == [1, 0, 1]
    assert data.load(f"huggingface:{folder}:small", "train", 8).labels.tolist() == [0, 1]
    for name in (folder, f"{folder}:medium"):
        with pytest.raises(ValueError, match=r"cannot be read from .*(small.*large|large.*small)"):
            data.load(f"huggingface:{name}")


def test_columns_of_labels(tmp_path, table):
    two = {"coarse": (datasets.ClassLabel(names=["a", "b"]), [1, 1, 0])}
    table([0, 1, 1], **two).save_to_disk(tmp_path / "two")
    name = f"huggingface:{tmp_path / 'two'}"
    with pytest.raises(ValueError, match=rf"2 of them are labels. Choose one, as {re.escape(name)}#label"):
        data.load(name)
    assert data.load(f"{name}#coarse", "train", 8).labels.tolist() == [1, 1, 0]
    with pytest.raises(ValueError, match="unknown column of .* 'coarce'; did you mean 'coarse'"):
        data.load(f"{name}#coarce")


@pytest.mark.parametrize(
    "kind, values, labels, names",
    [("string", ["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")), ("int64", [10, 9, 10], [1, 0, 1], ("9", "10"))],
)
def test_labels_without_names(tmp_path, table, kind, values, labels, names):
    table(values, datasets.Value(kind)).save_to_disk(tmp_path / "plain")
    name = f"huggingface:{tmp_path / 'plain'}"
    with pytest.raises(ValueError, match=rf"expected one of type ClassLabel. Name a column .* as {re.escape(name)}#"):
        data.load(name)
    made = data.load(f"{name}#label", "train", 8)
    assert made.labels.tolist() == labels and made.class_names == names


@pytest.mark.parametrize(
    "labels, kind, column, message",
    [
        ([0.5, 1.5], "float64", "#label", "column 'label' is .*float64.*; expected integers or strings"),
        (
            [0, None],
            None,
            "",
            "image train/1 has the label None .* expected 0 … 1. 1 images of split 'train' have none",
        ),
        ([-1, -1], None, "", "image train/0 has the label -1 .* 2 images of split 'train' have none"),
        ([1, 1], None, "", "train: no images of class 'cat', known from column 'label'"),
    ],
)
def test_labels_that_are_none(tmp_path, table, labels, kind, column, message):
    table(labels, kind and datasets.Value(kind)).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=message):
        data.load(f"huggingface:{tmp_path / 'saved'}{column}")


def test_images_are_needed_and_one_a_row(tmp_path, table):
    table([0, 1]).remove_columns("img").save_to_disk(tmp_path / "blind")
    with pytest.raises(ValueError, match=r"label \(ClassLabel\); expected one of type Image, not 0"):
        data.load(f"huggingface:{tmp_path / 'blind'}")
    made = table([0, 1], other=(datasets.Image(), [None, None]))
    made.save_to_disk(tmp_path / "two")
    with pytest.raises(ValueError, match="expected one of type Image, not 2"):
        data.load(f"huggingface:{tmp_path / 'two'}")
    made.remove_columns("img").save_to_disk(tmp_path / "holes")
    with pytest.raises(ValueError, match="image 0 of column 'other' is missing"):
        data.load(f"huggingface:{tmp_path / 'holes'}")


def test_broken_images_and_files_are_named(tmp_path, table, parquet):
    rows = [{"bytes": b"\x89PNG broken", "path": None}, {"bytes": b"text", "path": None}]
    broken = datasets.Dataset.from_dict({"img": rows, "label": [0, 1]}, features=table([0, 1]).features)
    broken.save_to_disk(tmp_path / "broken")
    with pytest.raises(ValueError, match="broken: image train/0: truncated or damaged"):
        data.load(f"huggingface:{tmp_path / 'broken'}")
    (parquet / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(
        ValueError, match=f"cannot be read from {parquet} .*; expected the files of a data set of the hub"
    ):
        data.load(f"huggingface:{parquet}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="cannot be read from .*empty .EmptyDatasetError"):
        data.load(f"huggingface:{tmp_path / 'empty'}")


def test_scripts_are_not_run(tmp_path):
    script = tmp_path / "pets" / "pets.py"
    script.parent.mkdir()
    script.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    with pytest.raises(ValueError, match="scripts are no longer supported"):
        data.load(f"huggingface:{script.parent}")
    assert not (tmp_path / "ran").exists()


def test_copies_of_the_hub_in_the_data_folder(tmp_path, monkeypatch, parquet):
    (tmp_path / "huggingface" / "someone").mkdir(parents=True)
    parquet.rename(tmp_path / "huggingface" / "someone" / "pets")
    monkeypatch.setenv("VPT_ANALYSIS_DATA", str(tmp_path))
    made = data.load("huggingface:someone/pets", "test", 8)
    assert made.labels.tolist() == [1, 0] and made.name == "huggingface:someone/pets/test"


@pytest.mark.parametrize(
    "name", ["", "mnist", "/nowhere/pets", "./pets", "~/no/such/pets", "a/b/c", "#label", ":config"]
)
def test_what_is_no_name(name):
    with pytest.raises(FileNotFoundError, match="expected the path of one, or OWNER/NAME"):
        data.load(f"huggingface:{name}")


def test_without_a_network_one_error_at_once(monkeypatch):
    """The only request is the first one; its own retries would take half a minute."""
    import huggingface_hub

    asked = []

    def unreachable(self, repo_id, timeout):
        asked.append(repo_id)
        raise ConnectionRefusedError("no route to the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(huggingface_hub.HfApi, "hf_hub_download", lambda *args, **kwargs: asked.append("download"))
    with pytest.raises(OSError) as caught:
        data.load("huggingface:uoft-cs/cifar100#fine_label")
    for part in ("ConnectionRefusedError: no route to the hub", "hf download uoft-cs/cifar100", "VPT_ANALYSIS_DATA"):
        assert part in str(caught.value)
    assert asked == ["uoft-cs/cifar100"] and not datasets.config.HF_HUB_OFFLINE


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'vpt-analysis\[datasets\]'"):
        data.load("huggingface:uoft-cs/cifar100")


@pytest.mark.parametrize(
    "name, parts",
    [
        ("owner/name", ("owner/name", None, None)),
        ("owner/name:config", ("owner/name", "config", None)),
        ("owner/name#column", ("owner/name", None, "column")),
        ("owner/name:config#column", ("owner/name", "config", "column")),
    ],
)
def test_parts_of_a_name(name, parts):
    assert huggingface_sets._parse(name) == parts


def test_a_folder_may_have_the_marks_in_its_name(tmp_path, table):
    table([0, 1]).save_to_disk(tmp_path / "a:b#c")
    assert data.load(f"huggingface:{tmp_path / 'a:b#c'}", "train", 8).labels.tolist() == [0, 1]
    assert data.load(f"huggingface:{tmp_path / 'a:b#c'}#label", "train", 8).labels.tolist() == [0, 1]
