"""Packed real images: an npz of encoded bytes with offsets (TinyImageNet at 32 pixels)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..storage import digest_file


@dataclass
class PackedImages:
    """``images`` uint8 (n, 3, h, w), ``labels`` int64 (n,), ``class_names``, ``digest`` of the file."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    digest: str


def load_packed(path: str | Path, split: str, limit: int = 0) -> PackedImages:
    from PIL import Image

    with np.load(path, allow_pickle=False) as z:
        blob, offsets, labels = z[f"{split}_bytes"], z[f"{split}_offsets"], z[f"{split}_labels"]
        names = tuple(str(n) for n in z["class_names"])
    n = len(labels) if not limit else min(limit, len(labels))
    images = [
        np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB")) for i in range(n)
    ]
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return PackedImages(stacked, torch.from_numpy(labels[:n]), names, digest_file(path))
