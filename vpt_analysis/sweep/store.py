"""Results of a sweep in a folder: one file a run, named by what the result depends on, whole or absent.

    results/<key>.json     {"sha256": …, "result": …}: the same bytes whoever computes it, and when
    records/<key>.json     config, seeds, digests, versions, commit, wall time: written before the result
    failures/<key>.json    the same of a run that failed, with its traceback

A file that is damaged does not match the digest in it, and counts as absent. Nothing that is read is executed. Files
are not forced onto the disk one by one: a power cut may cost the last of them, which are then computed again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..storage import atomic

STALE = 3600.0  # seconds after which a file that is still being written has lost its writer
KINDS = "biufcSUmM"  # numpy's numbers, texts and dates
START, BETWEEN, END = b'{"sha256": "', b'",\n"result": ', b"}\n"


class StoreError(OSError):
    """A result cannot be written or read; the sweep stops, since no other run would fare better."""


class Store:
    """Results, records and failures by key; several processes and machines may use one folder at once."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.results, self.records, self.failures = (self.folder / n for n in ("results", "records", "failures"))

    def prepare(self) -> None:
        """Make the folders, and remove what killed processes left half-written. Raises ``StoreError``."""
        for folder in (self.results, self.records, self.failures):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with os.scandir(folder) as entries:
                    stale = [e.path for e in entries if e.name.endswith(".part") and _age(e) > STALE]
                for path in stale:
                    Path(path).unlink(missing_ok=True)
                with atomic(folder / ".writable"):
                    pass
                (folder / ".writable").unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(
                    f"cannot write into {folder}: {error.strerror or error}; give another folder"
                ) from error

    def keys(self) -> set[str]:
        """Keys of the results that are there, damaged ones included: one scan of the folder."""
        return _keys(self.results)

    def failed(self) -> set[str]:
        return _keys(self.failures)

    def read(self, key: str) -> bytes | None:
        """A result as ``encode`` made it; None where there is none, or it is damaged."""
        try:
            found = (self.results / f"{key}.json").read_bytes()
        except FileNotFoundError:
            return None
        head = len(START) + 64 + len(BETWEEN)
        body = found[head : -len(END)]
        return body if found == whole(key, body) else None

    def write(self, key: str, body: bytes, record: Mapping) -> None:
        """The record first, so that every result has one. Raises ``StoreError``, with nothing half-written left."""
        self._put(self.records, key, _json(record))
        self._put(self.results, key, whole(key, body))

    def record(self, key: str) -> dict:
        return json.loads((self.records / f"{key}.json").read_text(encoding="utf-8"))

    def write_failure(self, key: str, record: Mapping) -> None:
        self._put(self.failures, key, _json(record))

    def failure(self, key: str) -> dict:
        return json.loads((self.failures / f"{key}.json").read_text(encoding="utf-8"))

    def forget_failure(self, key: str) -> None:
        (self.failures / f"{key}.json").unlink(missing_ok=True)

    def _put(self, folder: Path, key: str, content: bytes) -> None:
        try:
            with atomic(folder / f"{key}.json") as part:
                part.write_bytes(content)
        except OSError as error:
            raise StoreError(
                f"cannot write a result into {folder}: {error.strerror or error}. Finished runs are kept: once there "
                "is room, the same command goes on from them"
            ) from error


def _keys(folder: Path) -> set[str]:
    try:
        return {name[:-5] for name in os.listdir(folder) if name.endswith(".json") and not name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _age(entry: os.DirEntry) -> float:
    try:
        return time.time() - entry.stat().st_mtime
    except FileNotFoundError:  # its writer has just finished
        return 0.0


def whole(key: str, body: bytes) -> bytes:
    """The content of a result's file."""
    digest = hashlib.sha256(key.encode() + body).hexdigest().encode()
    return b"".join((START, digest, BETWEEN, body, END))


def _json(record: Mapping) -> bytes:
    return json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"


def encode(result: Mapping[str, object]) -> bytes:
    """A result as JSON: numbers, text, lists, dicts and small arrays; equal results give equal bytes.

    Arrays keep dtype and shape, numpy's scalars become Python's, tuples lists. Raises ``TypeError`` for anything else.

    >>> decode(encode({"error": np.float32(0.5), "curve": np.arange(3.0)}))
    {'error': 0.5, 'curve': array([0., 1., 2.])}
    """
    if not isinstance(result, Mapping):
        raise TypeError(f"a run gave {type(result).__name__}; expected a dict of numbers, text and small arrays")
    return json.dumps(_plain(result, "result"), separators=(",", ":"), allow_nan=False).encode()


def decode(body: bytes) -> dict:
    """What ``encode`` was given."""
    return json.loads(body, object_hook=_rich)


def _plain(value: object, where: str) -> object:
    if isinstance(value, np.generic) and value.dtype.kind in "biufU":
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in KINDS:
        array = np.asarray(value)
        data = base64.b64encode(array.tobytes()).decode()
        return {"$array": [array.dtype.str, list(array.shape), data]}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or name.startswith("$"):
                raise TypeError(f"{where} has the name {name!r}; expected text that does not begin with $")
        return {name: _plain(item, f"{where}[{name!r}]") for name, item in value.items()}
    raise TypeError(
        f"{where} is {type(value).__module__}.{type(value).__qualname__}; results hold numbers, text, lists, dicts and "
        "numpy arrays of numbers or text (of a tensor: .item(), .tolist() or .numpy())"
    )


def _rich(value: dict) -> object:
    if "$array" in value:
        dtype, shape, data = value["$array"]
        return np.frombuffer(bytearray(base64.b64decode(data)), dtype=np.dtype(dtype)).reshape(shape)
    return float(value["$float"]) if "$float" in value else value
