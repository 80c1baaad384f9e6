"""What torchvision fetches: from a server on loopback, from one that is silent, and not at all; and CIFAR's pickles."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import socket
import tarfile
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.data.torchvision_miniatures import dtd, md5
from vpt_analysis import data
from vpt_analysis.data import torchvision_sets


def cifar(root: Path, name: str, published) -> Path:
    """Batches of CIFAR10 or CIFAR100 as its makers pickled them, with two classes."""
    fine = name == "CIFAR100"
    base = root / ("cifar-100-python" if fine else "cifar-10-batches-py")
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    key = "fine_labels" if fine else "labels"
    for file, labels in (("train", [0, 1, 1]), ("test", [1, 0])):
        pixels = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        (base / file).write_bytes(pickle.dumps({"data": pixels, key: labels}))
    names = {"fine_label_names" if fine else "label_names": ["apple", "beaver"]}
    (base / "meta").write_bytes(pickle.dumps(names))
    meta = {"filename": "meta", "key": next(iter(names)), "md5": md5(base / "meta")}
    lists = {f"{s}_list": [[s, md5(base / s)]] for s in ("train", "test")}
    published(name, **lists, meta=meta)
    return base


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar(name, folder, published):
    base = cifar(folder, name, published)
    train, test = (data.load(f"torchvision:{name}", split, None) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 1, 1] and test.labels.tolist() == [1, 0]
    assert train.class_names == ("apple", "beaver")
    source = pickle.loads((base / "test").read_bytes())["data"].reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(test.images, source)


def test_cifar_is_not_unpickled_where_its_checksum_differs(folder, published, tmp_path):
    base = cifar(folder, "CIFAR10", published)

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    (base / "train").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(OSError, match="torchvision:CIFAR10: not in .*corrupted.*and downloading it failed"):
        data.load("torchvision:CIFAR10", "train")
    assert not (tmp_path / "exploded").exists()


# --- downloading ------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    """A web server on loopback that has the folder ``served``; gives its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "served")
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


@pytest.fixture
def served_dtd(tmp_path, make, server, published) -> Path:
    """DTD's archive on the server, in miniature."""
    dtd(tmp_path / "source", make)
    archive = tmp_path / "served" / "dtd.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "source" / "dtd" / "dtd", "dtd")
    published("DTD", _URL=server + archive.name, _MD5=md5(archive))
    return archive


@pytest.fixture
def net(folder, monkeypatch) -> None:
    """A way to the net after all: torchvision's own, without its progress bar."""
    import torchvision.datasets.utils as utils

    def fetch(url: str, filename: str, chunk_size: int = 0) -> None:
        with urllib.request.urlopen(url) as response:
            Path(filename).write_bytes(response.read())

    monkeypatch.setattr(utils, "_urlretrieve", fetch)


def test_what_is_missing_is_downloaded_once(folder, served_dtd, net):
    made = data.load("torchvision:DTD", "test", 8)
    assert made.labels.tolist() == [1, 0, 0]
    assert sorted(p.name for p in folder.iterdir()) == ["dtd"], "nothing temporary is left"
    served_dtd.unlink()
    assert data.load("torchvision:DTD", "test", 8).digest == made.digest, "the second time from the disk"


def test_a_damaged_download_leaves_nothing(folder, served_dtd, net):
    served_dtd.write_bytes(served_dtd.read_bytes()[:-40])
    with pytest.raises(OSError, match="and downloading it failed .*File not found or corrupted"):
        data.load("torchvision:DTD", "test", 8)
    assert not list(folder.iterdir())


def test_without_a_network_one_error_says_it_all(folder):
    with pytest.raises(OSError) as caught:
        data.load("torchvision:FGVCAircraft", "val")
    message = str(caught.value)
    for part in (str(folder), "no network for http", "download=True", "split='val'", "VPT_ANALYSIS_DATA"):
        assert part in message
    assert not list(folder.iterdir())


def test_a_silent_server_is_given_up(folder, net, published, monkeypatch):
    monkeypatch.setattr(torchvision_sets, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        published("DTD", _URL=f"http://127.0.0.1:{silent.getsockname()[1]}/dtd.tar.gz", _MD5="")
        with pytest.raises(OSError, match="downloading it failed .TimeoutError: timed out"):
            data.load("torchvision:DTD")
    assert socket.getdefaulttimeout() is None and not list(folder.iterdir())


def test_cars_can_no_longer_be_downloaded(folder):
    with pytest.raises(OSError, match="The original URL is broken"):
        data.load("torchvision:StanfordCars")
