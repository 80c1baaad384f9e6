"""A tar of class folders, read in place: nothing is unpacked to disk."""

from __future__ import annotations

import tarfile
from functools import partial
from pathlib import Path

from . import layout, manifest
from .decoding import decode_all
from .image_set import ImageSet


def tar(path: str | Path, split: str = "train", size: int | None = None, near_duplicates: str = "drop") -> ImageSet:
    """A plain tar with members ``<split>/<class>/<image>``, and the ``.json`` beside it where there is one.

    With a ``.json``: sha256, classes and counts are checked, and the near-duplicates that it lists (test images that
    repeat a training image) are dropped from the test split, or kept with ``near_duplicates="keep"``.

    Raises ``FileNotFoundError`` for a missing file; ``ValueError`` naming the member for names that leave the archive,
    links and devices, truncation, broken images and wrong layouts, and for what contradicts the ``.json``.
    """
    if near_duplicates not in ("drop", "keep"):
        raise ValueError(f"near_duplicates is {near_duplicates!r}; expected 'drop' or 'keep'")
    path = Path(path)
    listed = manifest.read(path)
    splits = _members(path, split)
    layout.check_split(str(path), split, splits)
    names = sorted(set().union(*splits.values()))
    source = f"the splits {', '.join(sorted(splits))}"
    if listed and listed.class_names:
        names, source = list(listed.class_names), listed.path.name
    found = splits[split]
    if listed:
        manifest.check_count(path, listed, split, sum(map(len, found.values())))
        everything = {f"{s}/{c}/{f}" for s, classes in splits.items() for c, files in classes.items() for f in files}
        if unknown := sorted(set(listed.near_duplicates) - everything):
            raise ValueError(f"{listed.path}: lists the near-duplicate {unknown[0]!r}, which {path.name} does not hold")
    if listed and near_duplicates == "drop":
        kept = {c: [f for f in files if f"{split}/{c}/{f}" not in listed.near_duplicates] for c, files in found.items()}
        if emptied := [c for c, files in kept.items() if found[c] and not files]:
            raise ValueError(
                f"{path}: class {emptied[0]!r} of split {split!r} consists of near-duplicates only; "
                f"load it with near_duplicates='keep'"
            )
    else:
        kept = {c: list(files) for c, files in found.items()}
    layout.check_classes(f"{path}: {split}", {c: len(files) for c, files in kept.items()}, names, source)
    pairs, labels = layout.label(kept, names)
    read = [partial(bytes, found[c][f]) for c, f in pairs]
    files = [f"{split}/{c}/{f}" for c, f in pairs]
    return decode_all(f"{path.stem}/{split}", files, read, labels, names, size, [f"{path}: {f}" for f in files])


def _members(path: Path, wanted: str) -> dict[str, dict[str, dict[str, bytes]]]:
    """Encoded images by split, class and file name; empty ones for splits that are not ``wanted``."""
    splits: dict[str, dict[str, dict[str, bytes]]] = {}
    end = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                parts = _parts(path, member)
                if parts is None:
                    continue
                split, klass, file = parts
                files = splits.setdefault(split, {}).setdefault(klass, {})
                if file in files:
                    raise ValueError(f"{path}: {member.name} occurs twice; expected each file once")
                if member.offset_data + member.size > end:
                    raise tarfile.ReadError(f"{member.name} is cut off")
                files[file] = archive.extractfile(member).read() if split == wanted else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: not a readable tar ({error}); expected an uncompressed tar with train/<class>/<image>. "
            f"Copy it again; unpack .gz or .xz first"
        ) from error
    return splits


def _parts(path: Path, member: tarfile.TarInfo) -> tuple[str, str, str] | None:
    """(split, class, file) of a member; None for folders and hidden files."""
    name = member.name.removeprefix("./")
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ".." in parts or "\0" in name:
        raise ValueError(f"{path}: member {member.name!r} points outside the archive; expected <split>/<class>/<image>")
    if member.isdir() or layout.ignored(parts[-1]):
        return None
    if not member.isreg() or member.issparse():
        raise ValueError(f"{path}: member {member.name!r} is a link, device or sparse file; expected plain files only")
    if len(parts) != 3 or "" in parts:
        raise ValueError(
            f"{path}: member {member.name!r} lies at the wrong depth; expected <split>/<class>/<image>, "
            f"as `tar -cf {path.name} train test` makes it"
        )
    layout.check_image_name(f"{path}: {parts[0]}/{parts[1]}", parts[2])
    return parts[0], parts[1], parts[2]
