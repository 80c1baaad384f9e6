"""What a method costs: trained parameters and the arithmetic of one forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from .fits import check_method
from .vit import VisionTransformer, parameter_count


class Method(Protocol):
    """A prompt or a baseline."""

    def encode(self, vit: VisionTransformer, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Cost:
    """``parameters``: scalars of the plain backbone, without a classifier of its own. ``trainable``: scalars that the
    method trains, without the classifier on top. ``flops``: of the adapted forward pass of one image; ``extra_flops``:
    how many of them the plain pass does not have.
    """

    parameters: int
    trainable: int
    flops: int
    extra_flops: int

    @property
    def share(self) -> float:
        """Trained scalars over those of the backbone, the tables' "tuned / total"."""
        return self.trainable / self.parameters


def cost(vit: VisionTransformer, method: Method | None = None, image_size: int | None = None) -> Cost:
    r"""Cost of ``method`` (a prompt, a baseline, or None for the plain model) on images of ``image_size`` pixels.

    FLOPs are counted while one image runs, a multiply-add as 2: matrix products, convolutions and attention, 4 Q K d
    for Q queries and K keys. Sums, norms, activations, softmax, Fourier transforms and products with a vector are left
    out, as is usual; they are of lower order. So the plain model has, for N tokens, width d, MLP width m and L layers,

    .. math:: 2 (N - \mathrm{prefix}) \cdot 3\,\mathrm{patch}^2 d + L\,(2 N d\,(4 d + 2 m) + 4 N^2 d)

    (3 channels). What does not depend on the image, such as keys and values of static prompts or LoRA's product B A, is
    computed once a pass and counted in full here, where the pass has one image; in a batch it is shared by all.

    Raises what the backbone and the method raise on images or backbones that they cannot take.

    >>> from vpt_analysis.vit import ViTConfig
    >>> vit = VisionTransformer(ViTConfig(image_size=8, patch_size=4, width=8, depth=1, heads=2))
    >>> cost(vit).flops == 2 * 4 * 48 * 8 + 2 * 5 * 8 * 12 * 8 + 4 * 5**2 * 8
    True
    """
    if method is not None:
        check_method(method)
    side = vit.config.image_size if image_size is None else image_size
    image = torch.zeros(1, vit.config.channels, side, side).to(vit.patch.weight)
    plain = flops(vit, None, image)
    adapted = plain if method is None else flops(vit, method, image)
    return Cost(
        parameters=sum(math.prod(p.shape) for name, p in vit.named_parameters() if not name.startswith("head.")),
        trainable=0 if method is None else parameter_count(method, trainable_only=True),
        flops=adapted,
        extra_flops=adapted - plain,
    )


@torch.enable_grad()  # without it the counter stops at a parameter that is given to a module as its input
def flops(vit: VisionTransformer, method: Method | None, images: Tensor) -> int:
    """FLOPs of one forward pass of ``images`` (B, C, h, w), a multiply-add as 2; dropout leaves no trace."""
    # The counter does not know the fused attention of the CPU; written out, attention is two products it does know.
    random_state = torch.random.fork_rng([images.device] if images.device.type == "cuda" else [])
    with random_state, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        vit(images) if method is None else method.encode(vit, images)
    return counter.get_total_flops()
