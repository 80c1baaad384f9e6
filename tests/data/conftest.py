"""Small files of every kind that the data sources read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def encoded(value: int = 0, size: tuple[int, int] = (6, 4), form: str = "PNG") -> bytes:
    """An encoded RGB image whose pixels tell ``value``."""
    pixels = np.full((size[1], size[0], 3), (value % 256, (value * 7) % 256, 255 - value % 256), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def tree(counts: dict[str, int], start: int = 0) -> dict[str, bytes]:
    """``{"cat/0.png": bytes, …}`` with ``counts`` images of each class, all different."""
    names = [f"{c}/{i}.png" for c, count in counts.items() for i in range(count)]
    return {name: encoded(start + i) for i, name in enumerate(names)}


def splits(train: dict[str, int], test: dict[str, int]) -> dict[str, bytes]:
    files = {f"train/{name}": data for name, data in tree(train).items()}
    return files | {f"test/{name}": data for name, data in tree(test, 100).items()}


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_manifest(path: Path, **fields) -> Path:
    """The ``.json`` beside a packed file, with its true sha256 unless ``fields`` say otherwise."""
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} | fields))
    return beside


def pack(images: list[bytes], labels: list[int], split: str = "train", names=("cat", "dog")) -> dict[str, np.ndarray]:
    """The arrays of a packed npz."""
    return {
        f"{split}_bytes": np.frombuffer(b"".join(images), dtype=np.uint8),
        f"{split}_offsets": np.cumsum([0, *map(len, images)]),
        f"{split}_labels": np.array(labels),
        "class_names": np.array(names),
    }


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, n: int = 6, prefix: str = "train", zipped: bool = False, classes: int = 3) -> Path:
    """Images and labels with MNIST's names; returns the path of the images."""
    pixels = np.arange(n * 5 * 5, dtype=np.uint64).astype(np.uint8).reshape(n, 5, 5)
    labels = (np.arange(n) % classes).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        data = idx_bytes(array)
        path = folder / f"{prefix}-{kind}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)
    return folder / f"{prefix}-images-idx3-ubyte{'.gz' if zipped else ''}"


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The writers above, by name."""
    return SimpleNamespace(
        encoded=encoded,
        tree=tree,
        splits=splits,
        write_tree=write_tree,
        write_tar=write_tar,
        write_manifest=write_manifest,
        pack=pack,
        write_idx=write_idx,
    )


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of torchvision's sets; with no way to the net, so that a machine that has one runs the same tests."""
    utils = pytest.importorskip("torchvision.datasets.utils", reason="needs torchvision", exc_type=ImportError)

    def no_network(url: str, *args, **kwargs):
        raise OSError(f"no network for {url}")

    monkeypatch.setenv("VPT_ANALYSIS_DATA", str(tmp_path))
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
    monkeypatch.setattr(utils, "_urlretrieve", no_network)
    return tmp_path / "torchvision"


@pytest.fixture
def published(monkeypatch) -> Callable[..., None]:
    """Give a class of torchvision the addresses and checksums of files that a test wrote."""
    datasets = pytest.importorskip("torchvision.datasets", reason="needs torchvision", exc_type=ImportError)

    def replace(name: str, **attributes) -> None:
        monkeypatch.setattr(datasets, name, type(name, (getattr(datasets, name),), attributes))

    return replace
