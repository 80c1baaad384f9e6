"""Full and bias-only fine-tuning: copies of the backbone's own parameters, trained in its place."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..backbones.native import shapes
from ..vit import VisionTransformer, ViTConfig
from .base import Baseline, twin

NORMS = ("ln1", "ln2", "norm")


class Copies(Baseline):
    """Trains a copy of every parameter of the given ``names``, beginning with the backbone's values."""

    def __init__(self, config: ViTConfig, names: Iterable[str], **options):
        super().__init__(config, **options)
        shape = shapes(config)
        # Parameter names hold dots, which names inside a module must not.
        self.copies = nn.ParameterDict({name.replace(".", "/"): torch.empty(shape[name]) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors under the names that they have in the backbone."""
        return {key.replace("/", "."): p for key, p in self.copies.items()}

    @torch.no_grad()
    def initialise(self, vit: VisionTransformer, generator: torch.Generator) -> None:
        for name, p in self.tensors().items():
            p.copy_(vit.get_parameter(name))

    def adapted(self, vit: VisionTransformer) -> VisionTransformer:
        return twin(vit, self.tensors())


def backbone_names(config: ViTConfig) -> list[str]:
    """Names of all parameters but those of a classifier that the backbone has of its own; that is never trained."""
    return [name for name in shapes(config) if not name.startswith("head.")]


class Full(Copies):
    """Full fine-tuning: every parameter of the backbone."""

    name = "full"

    def __init__(self, config: ViTConfig):
        super().__init__(config, backbone_names(config))

    def fits_also(self) -> tuple[str, ...]:
        return ("image_size", "patch_size", "channels", "registers", "mlp_width", "layer_scale")


class Bias(Copies):
    r"""Bias-only fine-tuning: every bias of the backbone, d (2 + 7 L) + m L scalars for MLP width m.

    That is the patch embedding's, and those of queries, keys, values, output projections, MLPs and LayerNorms.
    ``norms=False`` leaves the LayerNorms' d (2 L + 1) out; ``layer_scale=True`` trains the 2 d L factors of LayerScale
    too, and raises ``ValueError`` where the backbone has none.

    Source: Ben Zaken et al., BitFit, ACL 2022; as a baseline of visual prompts, Jia et al., ECCV 2022.
    """

    name = "bias"

    def __init__(self, config: ViTConfig, norms: bool = True, layer_scale: bool = False):
        if layer_scale and not config.layer_scale:
            raise ValueError("layer_scale is True, but this backbone has no LayerScale; leave the option out")
        ends = [".bias", *([".scale1", ".scale2"] if layer_scale else [])]
        left_out = [] if norms else [f"{norm}.bias" for norm in NORMS]
        names = [n for n in backbone_names(config) if n.endswith(tuple(ends)) and not n.endswith(tuple(left_out))]
        super().__init__(config, names, norms=norms, layer_scale=layer_scale)

    def fits_also(self) -> tuple[str, ...]:
        return ("mlp_width", "layer_scale") if self.options["layer_scale"] else ("mlp_width",)
