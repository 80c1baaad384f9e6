"""Whether a prompt or a baseline was made for a backbone."""

from __future__ import annotations

from torch import nn

from .vit import VisionTransformer


def check_fits(module: nn.Module, vit: VisionTransformer, kind: str, fields: tuple[str, ...], create: str) -> None:
    """Raise ``ValueError`` where ``module`` was made for another backbone, dtype or device.

    ``kind`` is "prompt" or "baseline", ``fields`` are those of the config that must agree, and ``create`` is the call
    that makes one that fits.
    """
    for field in fields:
        mine, its = getattr(module.config, field), getattr(vit.config, field)
        if mine != its:
            raise ValueError(
                f"this {module.name} {kind} was made for a backbone of {field} {mine}, this one has {its}; create it "
                f"with {create}"
            )
    mine, its = next(module.parameters(), None), vit.patch.weight
    if mine is not None and (mine.dtype != its.dtype or mine.device != its.device):
        raise ValueError(
            f"the {kind} is {mine.dtype} on {mine.device}, the backbone {its.dtype} on {its.device}; move it with "
            f"{kind}.to(vit.patch.weight)"
        )


def check_method(method: object) -> None:
    """Raise ``TypeError`` for what is neither a prompt nor a baseline."""
    if not hasattr(method, "encode") or not hasattr(method, "check_fits"):
        raise TypeError(
            f"the method is {type(method).__name__}; expected a prompt or a baseline: prompts.create(name, vit.config, "
            f"length), baselines.create(name, vit)"
        )
