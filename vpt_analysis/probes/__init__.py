"""Probes: each measures one thing about any prompt mechanism on any backbone."""

from .mass import cls_mass, norm_matched
from .patterns import content_divergence
from .states import prompt_states, state_variance
from .swap import class_information, swapped_hits

__all__ = [
    "class_information",
    "cls_mass",
    "content_divergence",
    "norm_matched",
    "prompt_states",
    "state_variance",
    "swapped_hits",
]
