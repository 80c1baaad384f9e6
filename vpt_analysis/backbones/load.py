"""``load_backbone``: find out what a source is, and give it to the file that knows its names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import unknown
from ..storage import write_tensors
from ..vit import VisionTransformer
from . import files, google, huggingface, native, official, onnx, timm
from .features import check_names
from .keys import assemble

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
FAMILIES = {"timm": timm, "Hugging Face": huggingface, "Google": google, "official VPT": official}
HUB_FILES = ["config.json", "preprocessor_config.json", "model*.safetensors*", "pytorch_model.bin"]


def save(vit: VisionTransformer, path: str | Path) -> None:
    """Write weights and config as safetensors, in the dtype they have."""
    write_tensors(path, vit.state_dict(), {"kind": "backbone", "config": vit.config.to_dict()})


def names() -> list[str]:
    """Backbones that come with the package."""
    return sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))


def load_backbone(
    source: str | os.PathLike | nn.Module | Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    heads: int | None = None,
    image_size: int | None = None,
    eps: float | None = None,
    gelu: str | None = None,
    antialias: bool | None = None,
    pool: str | None = None,
    pixel_mean: tuple[float, ...] | None = None,
    pixel_std: tuple[float, ...] | None = None,
) -> VisionTransformer:
    """A ``VisionTransformer`` with the weights of ``source``, copied, in evaluation mode.

    ``source`` is one of

    - the name of a bundled backbone (``names()``), stored in float16 and given in float32;
    - a path: ``.safetensors`` (ours, timm's, Hugging Face's), Google's ``.npz``, ``.pth``, ``.pt`` or ``.bin`` (read
      without executing code), ``.onnx`` of a DINOv2-type encoder, a folder with ``config.json`` and weights;
    - a timm ``VisionTransformer``, a transformers ViT, DeiT, DINOv2 or DINOv2-with-registers, or the state dict of one;
    - a hub id such as "google/vit-base-patch16-224" or "timm/vit_base_patch16_224.augreg_in21k", with a network.

    ``dtype`` and ``device`` default to the source's. Weights do not say everything: heads (by default those of the
    published models of that width), LayerNorm ``eps`` (1e-6; 1e-12 for Hugging Face's ViT and DeiT), ``gelu``
    ("exact"), ``antialias`` of interpolated positions (timm and registers: True, else False), ``pool`` ("cls"), pixel
    statistics. An object or a ``config.json`` says most of them; for a bare state dict give what differs. What
    contradicts the source is an error.

    Parts that follow the tokens (poolers, mask tokens, heads that are not linear on the pooled feature) are left out
    with a ``UserWarning`` that names them. Anything else unused, missing, misshapen, NaN, or not computed by the
    minimal Vision Transformer (QK-norm, RoPE, SwiGLU, windows, masks, ...) is a ``ValueError`` that names it. A bare
    state dict shows names and shapes only: what leaves no trace in them (post-norm, a mask, another activation) is
    caught for objects and folders, but not there.
    """
    given = {
        "heads": heads, "image_size": image_size, "eps": eps, "gelu": gelu, "antialias": antialias, "pool": pool,
        "pixel_mean": pixel_mean and tuple(pixel_mean), "pixel_std": pixel_std and tuple(pixel_std),
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(source, nn.Module):
        config, state, label = from_object(source, given)
    elif isinstance(source, Mapping):
        label = "the state dict"
        config, state = from_tensors(files.unwrap(source, label), label, given)
    elif isinstance(source, (str, os.PathLike)):
        label = str(source)
        config, state, stored = from_text(label, given)
        dtype = dtype or stored
    else:
        raise TypeError(
            f"cannot load a backbone from {type(source).__name__}; expected a name, a path, a hub id, a timm or "
            f"transformers model, or a state dict"
        )
    return assemble(config, state, dtype, device, label)


def merged(facts: Mapping, given: Mapping, source: str) -> dict:
    """What the source says and what the caller says; how images are fed is the caller's choice, the network is not."""
    for name in given.keys() & facts.keys():
        if given[name] != facts[name] and name not in ("antialias", "pixel_mean", "pixel_std"):
            raise ValueError(f"{source}: {name}={given[name]!r} was given, but the source says {facts[name]!r}")
    return {**facts, **given}


def from_object(model: nn.Module, given: Mapping):
    source = type(model).__name__
    if isinstance(model, VisionTransformer):
        facts = {k: v for k, v in model.config.to_dict().items() if k in given}
        merged(facts, {k: v for k, v in given.items() if not k.startswith(("pixel", "antialias"))}, source)
        return model.config, model.state_dict(), source
    packages = {cls.__module__.split(".")[0] for cls in type(model).__mro__}
    if "timm" in packages:
        facts, options = timm.facts_of(model)
        facts = merged({k: v for k, v in facts.items() if v is not None}, given, source)
        return *timm.convert(model.state_dict(), source, facts, **options), source
    if "transformers" in packages:
        facts = merged(huggingface.facts_of(model), given, source)
        return *huggingface.convert(model.state_dict(), source, facts), source
    raise TypeError(
        f"{source} is neither a timm nor a transformers model; what it computes cannot be checked. If it is a plain "
        f"ViT, pass its state dict (and heads=), or the model inside its wrapper"
    )


def from_tensors(tensors: Mapping[str, Tensor], source: str, facts: Mapping):
    """A state dict of any known family."""
    for family in FAMILIES.values():
        if family.recognise(tensors):
            return family.convert(tensors, source, facts)
    if native.recognise(tensors):
        raise ValueError(f"{source} has this package's names but no config; load it into VisionTransformer(config)")
    check_names(tensors, source)
    raise ValueError(
        f"{source}: names such as {sorted(tensors)[:3]} are of no known family; expected those of {', '.join(FAMILIES)}"
    )


def from_text(text: str, given: Mapping):
    """A bundled name, a path or a hub id. Gives also the dtype to use where none is asked for."""
    path = Path(text).expanduser()
    if text in names():
        return *from_path(WEIGHTS / f"{text}.safetensors", given), torch.float32
    if path.exists():
        return *from_path(path, given), None
    if path.suffix in files.SUFFIXES or path.is_absolute() or text.startswith((".", "~")):
        raise FileNotFoundError(f"no weights at {path}")
    hub_id = text.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if hub_id.count("/") == 1:
        return *from_path(from_hub(hub_id), given), None
    raise unknown("backbone", text, names())


def from_path(path: Path, given: Mapping):
    source = str(path)
    if path.name in files.FOLDER_FILES and (path.parent / "config.json").is_file():
        path = path.parent
    if path.is_dir():
        return from_folder(path, given)
    if path.suffix == ".onnx":
        tensors, facts = onnx.read(path)
        return huggingface.convert(tensors, source, merged(facts, given, source))
    tensors, metadata = files.read(path)
    if native.recognise(tensors) or metadata.get("vpt_analysis"):
        config, state = native.convert(tensors, source, metadata)
        merged(config.to_dict(), given, source)
        return config, state
    return from_tensors(files.unwrap(tensors, source), source, given)


def from_folder(path: Path, given: Mapping):
    tensors, config, pixels = files.read_folder(path)
    source = str(path)
    if "architecture" in config:  # timm's
        tensors = files.unwrap(tensors, source)
        return from_tensors(tensors, source, merged(timm.facts_from_config(config) | pixels, given, source))
    facts = huggingface.facts_from_config(config, source) | pixels
    return from_tensors(files.unwrap(tensors, source), source, merged(facts, given, source))


def from_hub(hub_id: str) -> Path:
    """Download (or find in the cache) config and weights of a hub repository."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(f"{hub_id!r} is a hub id, which needs a package: pip install huggingface_hub") from error
    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except Exception as error:  # network, authentication, missing repository: each library version has its own classes
        reason = next(iter(str(error).splitlines()), "")
        raise OSError(
            f"cannot download {hub_id!r} from the hub ({type(error).__name__}: {reason}); without a network, download "
            f"the folder elsewhere and pass its path. Bundled backbones: {', '.join(names()) or 'none'}"
        ) from error
