"""The ``.json`` beside a packed file: what it holds, by its maker's word, checked against what is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..storage import digest_file


@dataclass(frozen=True)
class Manifest:
    """``counts`` maps splits to images; ``near_duplicates`` are files to drop, each with the file it repeats."""

    path: Path
    class_names: tuple[str, ...]
    counts: dict[str, int]
    near_duplicates: dict[str, str]


def read(path: Path) -> Manifest | None:
    """The manifest of the packed file ``path``, or None where no ``.json`` lies beside it.

    Near-duplicates are pairs (test file, training file, …): the test file is the one to drop, as it would be answered
    from memory. Raises ``FileNotFoundError`` where ``path`` itself is missing, ``ValueError`` where the manifest is
    malformed or its sha256 is not that of the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a packed data set")
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        data = json.loads(beside.read_text(encoding="utf-8"))
        expected = data["sha256"]
        manifest = Manifest(
            path=beside,
            class_names=tuple(str(c) for c in data.get("class_names", ())),
            counts={s: int(data[f"n_{s}"]) for s in ("train", "test") if f"n_{s}" in data},
            near_duplicates={str(p[0]): str(p[1]) for p in data.get("near_duplicates_test_train", {}).get("pairs", ())},
        )
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{beside}: not a manifest ({type(error).__name__}: {error}); expected JSON with sha256 and, where known, "
            f"class_names, n_train, n_test, near_duplicates_test_train. Repair it, or remove it to load without checks"
        ) from error
    if (actual := digest_file(path)) != expected:
        raise ValueError(
            f"{path}: sha256 is {actual}, but {beside.name} says {expected}; the file is damaged or another version. "
            f"Copy both again, or remove {beside.name} if the file is your own"
        )
    return manifest


def check_count(path: Path, manifest: Manifest, split: str, count: int) -> None:
    if split in manifest.counts and manifest.counts[split] != count:
        raise ValueError(
            f"{path}: split {split!r} has {count} images, but {manifest.path.name} says {manifest.counts[split]}; "
            f"copy both again"
        )
