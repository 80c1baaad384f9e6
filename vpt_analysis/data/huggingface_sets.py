"""Data sets in the formats of the Hugging Face hub, by name or from a folder, as ``huggingface:ethz/food101``.

The library ``datasets`` finds the files and knows the columns; images come as they were stored, and are decoded here as
all others are, with the same digest. Since its version 4, no script that comes with a data set is run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from .. import errors
from . import layout
from .decoding import check_size, decode_all
from .image_set import ImageSet

PREFIX = "huggingface:"
VARIABLE = "VPT_ANALYSIS_DATA"
PATIENCE = 10  # seconds for the hub's first answer
VALIDATION = ("val", "valid", "validation", "dev")  # names of one and the same split


def huggingface_set(name: str, split: str = "train", size: int | None = None) -> ImageSet:
    """The images of a data set of the hub: ``name`` is ``OWNER/NAME`` or a folder, then ``:CONFIG``, then ``#COLUMN``.

    A folder holds the files of a hub repository (parquet, or images in class folders), or is what ``save_to_disk``
    wrote. ``OWNER/NAME`` is looked for in the folder ``$VPT_ANALYSIS_DATA/huggingface``, then on the hub, and without
    a network in the cache of ``datasets`` (``HF_HOME``), into which the hub's files go.

    The images are the only column of type ``Image``, the labels the only one of type ``ClassLabel``, or ``#COLUMN``,
    which may also hold integers or strings: the classes are then its sorted values in all splits. ``split`` is a split
    of the data set; "val", "valid", "validation" and "dev" stand for each other, and nothing stands for "test".

    ``size``: shorter side resized to it, then the centre cropped; None keeps the files' size, which must then be one.

    Raises ``ImportError`` without ``datasets``, ``ValueError`` for names, columns, splits and damaged files, and
    ``OSError`` for what is neither there nor can be downloaded.
    """
    source = f"{PREFIX}{name}"
    check_size(size, source)
    place, config, column = _parse(name)
    library = _library()
    splits = _splits(library, _open(library, place, config, source))
    found = _split(splits, split, source)
    image, label = _columns(library, splits[found].features, column, source)
    labels, class_names = _labels(library, splits, found, label, source)
    kept = splits[found].select_columns([image]).cast_column(image, library.Image(decode=False))
    read = [partial(_encoded, kept, image, i) for i in range(len(kept))]
    files = [f"{found}/{i}" for i in range(len(kept))]
    messages = [f"{source}: image {file}" for file in files]
    return decode_all(f"{source}/{found}", files, read, labels, class_names, size, messages)


def _parse(name: str) -> tuple[str, str | None, str | None]:
    """Place, config and column of ``place[:config][#column]``; a folder's own name may hold both marks."""
    if Path(name).expanduser().exists():
        return name, None, None
    name, _, column = name.rpartition("#") if "#" in name else (name, "", "")
    if not name or Path(name).expanduser().exists():
        return name, None, column or None
    place, _, config = name.rpartition(":") if ":" in name else (name, "", "")
    return place, config or None, column or None


def _library():
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"data sets named {PREFIX}… need the package datasets ({error}): pip install 'vpt-analysis[datasets]'"
        ) from error
    return datasets


def _open(library, place: str, config: str | None, source: str):
    """A ``Dataset`` or ``DatasetDict`` from a folder or from the hub."""
    path = Path(place).expanduser()
    copies = [Path(os.environ[VARIABLE]).expanduser() / "huggingface" / place] if os.environ.get(VARIABLE) else []
    for folder in (path, *copies):
        if place and folder.is_dir():
            return _from_folder(library, folder, config, source)
    if path.is_absolute() or place.startswith((".", "~")) or place.count("/") != 1:
        raise FileNotFoundError(
            f"{source}: no folder {place!r}; expected the path of one, or OWNER/NAME of a data set of the hub, then "
            f":CONFIG and #COLUMN where they are needed, as {PREFIX}uoft-cs/cifar100#fine_label"
        )
    return _from_hub(library, place, config, source)


def _from_folder(library, path: Path, config: str | None, source: str):
    saved = any((path / file).is_file() for file in ("dataset_dict.json", "state.json"))
    if saved and config:
        raise ValueError(f"{source}: what save_to_disk wrote has no configs; expected {PREFIX}{path}")
    try:
        return library.load_from_disk(str(path)) if saved else library.load_dataset(str(path.resolve()), config)
    except Exception as error:  # arrow's, fsspec's, json's and the library's own
        raise ValueError(
            f"{source}: cannot be read from {path} ({type(error).__name__}: {_reason(error)}); expected the files of a "
            f"data set of the hub (parquet, or class folders of images), or what save_to_disk wrote"
        ) from error


def _from_hub(library, place: str, config: str | None, source: str):
    import huggingface_hub

    fault = None
    try:  # one request of our own: the library would try for half a minute to find out that there is no network
        huggingface_hub.HfApi().dataset_info(place, timeout=PATIENCE)
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: the hub has no such data set, or not for you ({_reason(error)}); check OWNER/NAME, or log in "
            f"with `hf auth login`"
        ) from error
    except Exception as error:  # no network, a proxy's refusal, a hub that fails: each library has its own classes
        fault = error
    try:
        with _offline(library) if fault else contextlib.nullcontext():
            return library.load_dataset(place, config)
    except Exception as error:
        if fault is None:
            raise OSError(f"{source}: cannot be loaded ({type(error).__name__}: {_reason(error)})") from error
        raise OSError(
            f"{source}: the hub cannot be reached ({type(fault).__name__}: {_reason(fault)}), and the data set is not "
            f"in the cache of datasets, nor at {place} in the folder huggingface of {VARIABLE}. Without a network, run "
            f"`hf download {place} --repo-type dataset --local-dir FOLDER` elsewhere and copy FOLDER there, or give "
            f"its path as {PREFIX}FOLDER"
        ) from error


@contextlib.contextmanager
def _offline(library) -> Iterator[None]:
    """The library looks into its cache alone, at once."""
    before, library.config.HF_HUB_OFFLINE = library.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        library.config.HF_HUB_OFFLINE = before


def _splits(library, found) -> dict:
    """Data sets by split; one that was saved without saying which is "train"."""
    return dict(found) if isinstance(found, library.DatasetDict) else {str(found.split or "train"): found}


def _split(splits: Mapping, wanted: str, source: str) -> str:
    if wanted in VALIDATION:
        wanted = next((name for name in (wanted, *VALIDATION) if name in splits), wanted)
    if wanted not in splits and len(splits) == 1:
        raise ValueError(
            f"{source}: has no split {wanted!r}; all of it is {next(iter(splits))!r}. Keep test images apart"
        )
    layout.check_split(source, wanted, splits)
    return wanted


def _columns(library, features: Mapping, column: str | None, source: str) -> tuple[str, str]:
    """The names of the columns of images and of labels."""
    images, labels = (
        [c for c, f in features.items() if isinstance(f, kind)] for kind in (library.Image, library.ClassLabel)
    )
    has = f"its columns are {', '.join(f'{c} ({type(f).__name__})' for c, f in features.items())}"
    if len(images) != 1:
        raise ValueError(f"{source}: {has}; expected one of type Image, not {len(images)}. Save it again with one")
    if column is not None:
        if column not in features:
            raise errors.unknown(f"column of {source}", column, features)
        return images[0], column
    if not labels:
        raise ValueError(
            f"{source}: {has}; expected one of type ClassLabel. Name a column of integers or strings as "
            f"{source}#COLUMN, if one holds the classes"
        )
    if len(labels) > 1:
        raise ValueError(f"{source}: {has}; {len(labels)} of them are labels. Choose one, as {source}#{labels[0]}")
    return images[0], labels[0]


def _labels(library, splits: Mapping, split: str, column: str, source: str) -> tuple[list[int], Sequence[str]]:
    """Labels of ``split``, and class names."""
    feature, values = splits[split].features[column], list(splits[split][column])
    if isinstance(feature, library.ClassLabel):
        names, labels = list(feature.names), values
    else:
        known = {value for part in splits.values() for value in part.unique(column)}
        if not known or {type(value) for value in known} not in ({int}, {str}):
            raise ValueError(f"{source}: column {column!r} is {feature}; expected integers or strings, one a class")
        index = {value: label for label, value in enumerate(sorted(known))}
        names, labels = [str(value) for value in index], [index[value] for value in values]
    if unlabelled := [i for i, label in enumerate(labels) if label is None or not 0 <= label < len(names)]:
        i = unlabelled[0]
        raise ValueError(
            f"{source}: image {split}/{i} has the label {labels[i]} in column {column!r}; expected 0 … "
            f"{len(names) - 1}. {len(unlabelled)} images of split {split!r} have none: take another split"
        )
    present = set(labels)
    counts = {name: 1 for label, name in enumerate(names) if label in present}
    layout.check_classes(f"{source}: {split}", counts, names, f"column {column!r}")
    return labels, names


def _encoded(kept, column: str, i: int) -> bytes:
    """The bytes of image ``i``, as stored: in the table, or in a file that it names."""
    stored = kept[i][column]
    if stored is None:
        raise ValueError(f"image {i} of column {column!r} is missing; expected one in every row")
    return stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()


def _reason(error: Exception) -> str:
    """What the innermost of a chain of errors says, on one line: the outer ones only say that there was one."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
