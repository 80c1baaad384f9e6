"""Analysis of Visual Prompt Tuning: attention outputs, taken apart exactly.

>>> import torch, vpt_analysis as va
>>> vit = va.VisionTransformer(va.ViTConfig(image_size=8, patch_size=4, width=8, depth=2, heads=2), seed=0)
>>> prompt = va.prompts.create("vpt-deep", vit.config, length=3)
>>> split = va.decompose(vit, torch.zeros(1, 3, 8, 8), prompt)
>>> split[0].mass.shape                       # images, heads, content tokens
torch.Size([1, 2, 5])
>>> split.residual < 1e-5
True
"""

import importlib

__version__ = "0.1.0"

# Names are resolved when first used: commands that need no torch (help, figures that are up to date) start at once.
_MODULES = (
    "attention", "backbones", "baselines", "claims", "cost", "data", "moe", "pretrain", "probes", "prompts", "stats",
    "study", "sweep", "theory", "training",
)  # fmt: skip
_NAMES = {
    "Decomposition": "decomposition",
    "LayerSplit": "decomposition",
    "SplitError": "decomposition",
    "ViTConfig": "vit",
    "VisionTransformer": "vit",
    "decompose": "decomposition",
    "load_backbone": "backbones",
}
__all__ = sorted([*_MODULES, *_NAMES])


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
