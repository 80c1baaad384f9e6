"""Prompt mechanisms: one file each, one registry, one file format.

``create(name, config, length, **options)``, ``save``, ``load``, ``names``; ``from_prototypes`` starts one at centres of
the content tokens; ``register`` adds a mechanism of one's own.
"""

from .base import KeyPrompt, Prompt, TokenPrompt
from .cross import Cross
from .e2vpt import E2VPT
from .files import load, save
from .gated import Gated
from .norga import NoRGa
from .prefix import Prefix
from .prefix_scaled import PrefixScaled
from .prefix_shared import PrefixShared
from .projected import Projected
from .prototypes import from_prototypes
from .registry import create, names, register
from .vapt import VAPT, VAPTReleased
from .vfpt import VFPT
from .vpt_deep import VPTDeep
from .vpt_shallow import VPTShallow
from .zero_init import ZeroInit

for _mechanism in (
    VPTShallow, VPTDeep, VAPT, VAPTReleased, NoRGa, Gated, VFPT, Prefix, PrefixShared, PrefixScaled, E2VPT, ZeroInit,
    Cross, Projected,
):  # fmt: skip
    register(_mechanism)

__all__ = [
    "KeyPrompt",
    "Prompt",
    "TokenPrompt",
    "create",
    "from_prototypes",
    "load",
    "names",
    "register",
    "save",
]
