"""What a baseline is: another way of adapting a frozen backbone, with the face that the trainer knows from prompts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..fits import check_fits
from ..vit import VisionTransformer, ViTConfig


class Baseline(nn.Module):
    """Base of all baselines.

    A baseline holds what is trained as its parameters, and answers ``adapted(vit)``: a model like ``vit`` whose forward
    pass uses them. The backbone itself is never changed, not even for the time of a call, and takes no gradient. At
    initialisation every baseline's tokens equal those of the plain backbone.
    """

    name: ClassVar[str]

    def __init__(self, config: ViTConfig, **options):
        super().__init__()
        self.config, self.options = config, options

    def initialise(self, vit: VisionTransformer, generator: torch.Generator) -> None:
        """Give the parameters their first values: drawn from ``generator``, or copied from ``vit``."""

    def adapted(self, vit: VisionTransformer) -> VisionTransformer:
        """A model that shares the tensors of ``vit``, apart from what this baseline replaces or puts in between."""
        raise NotImplementedError

    def encode(self, vit: VisionTransformer, images: Tensor) -> Tensor:
        """Tokens (B, N, d) of the adapted backbone, in the order [CLS, registers, patches].

        Raises ``ValueError`` where the baseline was made for another backbone, dtype or device, and what the backbone
        raises on images that it cannot take.
        """
        self.check_fits(vit)
        return self.adapted(vit)(images)

    def check_fits(self, vit: VisionTransformer) -> None:
        """Raise ``ValueError`` where this baseline was made for another backbone, dtype or device."""
        fields = ("width", "depth", "heads", *self.fits_also())
        check_fits(self, vit, "baseline", fields, f"baselines.create({self.name!r}, vit)")

    def fits_also(self) -> tuple[str, ...]:
        """Further fields of the config that must agree."""
        return ()


def twin(module: nn.Module, tensors: Mapping[str, Tensor], path: str = "") -> nn.Module:
    """A copy of the module tree that shares every tensor, without gradient, but for ``tensors``, by parameter name.

    ``torch.func.functional_call`` puts the tensors into the module itself until the call returns, where another thread,
    or a prompt that runs on the same backbone, would meet them. A tree of its own costs a millisecond for twelve blocks
    and can be changed further.
    """
    new = copy.copy(module)
    new._parameters = {
        name: None if p is None else tensors.get(path + name, p.detach()) for name, p in module._parameters.items()
    }
    new._modules = {
        name: None if m is None else twin(m, tensors, f"{path}{name}.") for name, m in module._modules.items()
    }
    return new


def uniform(shape: torch.Size, bound: float, generator: torch.Generator) -> Tensor:
    """Values from [-bound, bound), drawn as float32 on the CPU: a seed gives the same for every dtype and device."""
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
