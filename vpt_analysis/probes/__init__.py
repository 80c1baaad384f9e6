"""Probes: each measures one thing about any prompt mechanism on any backbone."""

from .alignment import kernel_alignment
from .mass import cls_mass, norm_matched
from .matched import Matched, matched_methods
from .memorisation import Memorisation, memorisation
from .patterns import content_divergence
from .skills import Skill, skill
from .states import prompt_states, state_variance
from .swap import class_information, swapped_hits
from .tangent import Tangent, tangent_dimension
from .usage import Usage, gate_usage
from .wang import Wang, wang_pair

__all__ = [
    "Matched",
    "Memorisation",
    "Skill",
    "Tangent",
    "Usage",
    "Wang",
    "class_information",
    "cls_mass",
    "content_divergence",
    "gate_usage",
    "kernel_alignment",
    "matched_methods",
    "memorisation",
    "norm_matched",
    "prompt_states",
    "skill",
    "state_variance",
    "swapped_hits",
    "tangent_dimension",
    "wang_pair",
]
