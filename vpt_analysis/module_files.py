"""Prompts and baselines as safetensors files that carry what is needed to build them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .storage import read_record, write_tensors

VERSION = 1


def save(module: nn.Module, path: str | Path, kind: str, record: dict) -> None:
    """Write the tensors of ``module`` and ``record``, whole or not at all."""
    write_tensors(path, module.state_dict(), {"kind": kind, "version": VERSION, **record})


def load(path: str | Path, kind: str, build: Callable[[dict], nn.Module], saver: str) -> nn.Module:
    """Read what ``save`` wrote, for evaluation (no dropout); executes nothing.

    ``build(record)`` makes the module without values; ``saver`` names the function that writes such files. Raises
    ``ValueError`` that names the file and the fault, ``FileNotFoundError`` where there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} file at {path}")
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); write it with {saver}") from error
    record = read_record(metadata, kind, path, f"write it with {saver}({kind}, path)")
    if record.get("version") != VERSION:
        raise ValueError(f"{path} has {kind} file version {record.get('version')!r}; this release reads {VERSION}")
    try:
        with torch.device("meta"):  # shapes only: what a record claims costs no memory before it fits the tensors
            module = build(record)
    except KeyError as error:
        raise ValueError(f"{path}: its {kind} record lacks {error}; write the file anew") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its {kind} record cannot be used: {error}") from error
    check(module, tensors, path, f"{kind} {record.get('mechanism')!r}")
    module.load_state_dict(tensors, assign=True)
    return module.eval()


def check(module: nn.Module, tensors: dict[str, torch.Tensor], path: Path, what: str) -> None:
    """Raise ``ValueError`` where names, shapes or values of ``tensors`` are not such as ``module`` can hold."""
    want = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in tensors.items()}
    if want != got:
        wrong = sorted(k for k in want.keys() | got.keys() if want.get(k) != got.get(k))
        raise ValueError(
            f"{path} does not fit {what}: "
            + ", ".join(f"{k} is {got.get(k, 'missing')}, expected {want.get(k, 'no such tensor')}" for k in wrong)
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: tensor {name!r} has NaN or infinite values")
