"""Loading from the hub: a small hub on loopback, and then without it from the library's cache."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

datasets = pytest.importorskip("datasets", reason="needs the package datasets")

ROOT = Path(__file__).parents[2]
COMMIT = "c0ffee" * 6 + "beef"
LOAD = """
from vpt_analysis import data
for step in ("online", "offline"):
    made = data.load("huggingface:someone/pets", "test", 8)
    print(step, made.digest, made.labels.tolist(), made.class_names, flush=True)
    try:
        data.load("huggingface:someone/fish")
    except OSError as error:
        print(type(error).__name__, error, flush=True)
    input()
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The data set someone/pets, of the files under ``files``, in the hub's words; nothing else is there."""

    files: Path
    api = "/api/datasets/someone/pets"
    raw = "/datasets/someone/pets/resolve/"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(self.raw):
            file = self.files / path.removeprefix(self.raw).partition("/")[2]
            return self.answer(file.read_bytes()) if file.is_file() else self.lacking("EntryNotFound")
        if path.startswith(f"{self.api}/tree/{COMMIT}"):
            folder = self.files / path.removeprefix(f"{self.api}/tree/{COMMIT}").strip("/")
            return self.answer(json.dumps([self.entry(file) for file in sorted(folder.iterdir())]).encode())
        if path in (self.api, f"{self.api}/revision/{COMMIT}"):
            return self.answer(json.dumps({"id": "someone/pets", "sha": COMMIT, "siblings": []}).encode())
        return self.lacking("RepoNotFound")

    do_HEAD = do_GET

    def entry(self, file: Path) -> dict:
        kind = "directory" if file.is_dir() else "file"
        return {"type": kind, "path": str(file.relative_to(self.files)), "size": file.stat().st_size, "oid": "0" * 40}

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def lacking(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def files(tmp_path, make) -> Path:
    """What the hub has: a card and two parquet files."""
    kinds = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    (tmp_path / "files" / "data").mkdir(parents=True)
    (tmp_path / "files" / "README.md").write_text("# Pets\n")
    for split, labels in (("train", [0, 1]), ("test", [1, 0, 0])):
        images = [{"bytes": make.encoded(i), "path": None} for i in range(len(labels))]
        table = datasets.Dataset.from_dict({"img": images, "label": labels}, features=kinds)
        table.to_parquet(tmp_path / "files" / "data" / f"{split}-00000-of-00001.parquet")
    return tmp_path / "files"


def test_from_the_hub_and_then_without_it(tmp_path, files):
    hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Pets", (Hub,), {"files": files}))
    serving = threading.Thread(target=hub.serve_forever, args=(0.02,))
    serving.start()
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "VPT_ANALYSIS_DATA": ""}
    loader = subprocess.Popen(
        [sys.executable, "-c", LOAD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    )  # fmt: skip
    try:
        online = loader.stdout.readline().split(" ", 1)
        unknown = loader.stdout.readline()
    finally:
        hub.shutdown()
        serving.join()
        hub.server_close()
        rest, errors = loader.communicate("\n\n")
    assert loader.returncode == 0, errors
    assert online[0] == "online" and online[1].strip().endswith("[1, 0, 0] ('cat', 'dog')")
    assert unknown.startswith("FileNotFoundError huggingface:someone/fish: the hub has no such data set")
    offline, unreachable = rest.splitlines()
    assert offline.split(" ", 1) == ["offline", online[1].strip()], "the same images from the cache"
    assert unreachable.startswith("OSError huggingface:someone/fish: the hub cannot be reached (ConnectError")
