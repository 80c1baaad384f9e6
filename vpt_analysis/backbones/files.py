"""Weights from files, without executing anything that is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .keys import strip

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".onnx")
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "net")
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, metadata) of a safetensors, npz or torch file; a ``ValueError`` names the file and the fault."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown kind of file {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return (read_npz(path) if path.suffix == ".npz" else read_torch(path)), {}


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as f:
            return {name: f.get_tensor(name) for name in f.keys()}, f.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); download or save it again") from error


def read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as f:
            arrays = {name: f[name] for name in f.files}
    except Exception as error:  # zipfile, zlib and numpy each have their own for damaged files
        fault = "holds Python objects, which could run code" if "allow_pickle" in str(error) else "cannot be read"
        raise ValueError(f"{path} {fault} ({error}); expected plain arrays in Google's .npz layout") from error
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ValueError(f"{path}: array {name!r} is {array.dtype}; expected floating point")
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def read_torch(path: Path) -> dict[str, Tensor]:
    import pickle

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects besides tensors, or is damaged; nothing of it was executed. If you trust its "
            f"maker, load it yourself and pass model.state_dict(). ({str(error).splitlines()[0]})"
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError, ... for damaged files
        raise ValueError(f"{path} cannot be read as a torch file ({error}); download or save it again") from error
    return unwrap(content, str(path))


def unwrap(content: object, source: str) -> dict[str, Tensor]:
    """The state dict inside the usual wrappers: {"model": ...}, {"state_dict": ...}, ``module.`` before each name.

    What else a training checkpoint carries (optimiser, epoch) is not weights and is passed over, but a second set of
    weights (an average, a teacher) makes the choice the caller's.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} holds {type(content).__name__}; expected a state dict (names to tensors)")
    sets = [name for name, value in content.items() if is_state(value)]
    if sets and not is_state(content):
        if len(sets) > 1:
            raise ValueError(f"{source} holds several sets of weights {sets}; pass the state dict of one of them")
        if sets[0] not in WRAPPERS:
            raise ValueError(f"{source} holds weights under {sets[0]!r}, not one of {WRAPPERS}; pass that state dict")
        content = content[sets[0]]
    if not content:
        raise ValueError(f"{source} holds no weights")
    return strip(content, "module.", "_orig_mod.")


def is_state(value: object) -> bool:
    """Names to tensors, and at least one."""
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(v, Tensor | np.ndarray) for v in value.values())


def read_folder(path: Path) -> tuple[dict[str, Tensor], dict, dict]:
    """(tensors, config.json, pixel statistics) of a folder that ``save_pretrained`` or the hub made."""
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{path} has no config.json; a Hugging Face folder has one beside its weights")
    config = read_json(path / "config.json")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        tensors = {}
        for name in sorted(set(read_json(index)["weight_map"].values())):
            tensors |= read(path / Path(name).name)[0]
        return tensors, config, pixels(path, config)
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return read(path / name)[0], config, pixels(path, config)
    raise FileNotFoundError(f"{path} has neither of {FOLDER_FILES}; download the folder with its weights")


def read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); download it again") from error


def pixels(path: Path, config: Mapping) -> dict:
    """What images are normalised with: from ``preprocessor_config.json``, or timm's ``pretrained_cfg``."""
    file = path / "preprocessor_config.json"
    said = read_json(file) if file.is_file() else {}
    card = config.get("pretrained_cfg") or {}
    mean, std = said.get("image_mean") or card.get("mean"), said.get("image_std") or card.get("std")
    return {f"pixel_{k}": tuple(v) for k, v in (("mean", mean), ("std", std)) if v}
