"""Files that are either whole or absent, and digests that say which bytes a result came from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch is slow to import, and files can be written and compared without it
    from torch import Tensor

_umask_lock = threading.Lock()


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there when the block ends well, remove it when it does not.

    Raises ``OSError`` with the folder's name when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise OSError(f"cannot write {path.name} into {path.parent}: {error.strerror or error}") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with _umask_lock:  # reading it means setting it, for the whole process
            umask = os.umask(0)
            os.umask(umask)
        os.chmod(part, 0o666 & ~umask)  # mkstemp makes files private; a result is as readable as any other file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], record: dict) -> None:
    """safetensors with ``record`` as JSON under the one metadata key "vpt_analysis".

    One key, because the format writes several in no fixed order, and same input shall give same bytes.
    """
    from safetensors.torch import save_file

    with atomic(path) as part:
        metadata = {"vpt_analysis": json.dumps(record, sort_keys=True)}
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part, metadata=metadata)


def read_record(metadata: Mapping[str, str], kind: str, source: str | Path, hint: str) -> dict:
    """The record of a file that ``write_tensors`` wrote; ``ValueError`` where it is none or of another ``kind``."""
    try:
        record = json.loads(metadata.get("vpt_analysis", "null"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}: its metadata cannot be read ({error}); {hint}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{source} has no {kind} record in its metadata; {hint}")
    if record.get("kind") != kind:
        raise ValueError(f"{source} holds a {record.get('kind')}, not a {kind}; {hint}")
    return record


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def digest_file(path: str | Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest_arrays(arrays: Mapping[str, Tensor | np.ndarray] | Iterable[tuple[str, Tensor | np.ndarray]]) -> str:
    """sha256 over names, dtypes, shapes and bytes of arrays or tensors, in order of name.

    >>> digest_arrays({"a": np.arange(3)}) == digest_arrays({"a": np.arange(3)})
    True
    >>> digest_arrays({"a": np.arange(3)}) == digest_arrays({"b": np.arange(3)})
    False
    """
    total = hashlib.sha256()
    for name, array in sorted(dict(arrays).items()):
        if not isinstance(array, np.ndarray):
            array = array.detach().cpu()
            array = (array.float() if array.is_floating_point() and array.dtype.itemsize < 4 else array).numpy()
        array = np.ascontiguousarray(array)
        total.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        total.update(array.data if array.size else b"")
    return total.hexdigest()
