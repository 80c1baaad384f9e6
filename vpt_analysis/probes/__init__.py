"""Probes: each measures one thing about any prompt mechanism on any backbone."""

from .ablation import Ablation, ablation
from .alignment import kernel_alignment
from .bias import bias_check
from .information import ExpertInformation, Specialisation, expert_information, specialisation
from .mass import cls_mass, norm_matched
from .matched import Matched, matched_methods
from .memorisation import Memorisation, memorisation
from .mutual_information import Information
from .overlap import Overlap, value_overlap
from .overlap_effect import OverlapEffect, overlap_effect
from .patterns import content_divergence
from .reachable import Reachable, reachable
from .skills import Skill, skill
from .states import prompt_states, state_variance
from .swap import class_information, swapped_hits
from .tangent import Tangent, tangent_dimension
from .usage import Usage, gate_usage
from .wang import Wang, wang_pair

__all__ = [
    "Ablation",
    "ExpertInformation",
    "Information",
    "Matched",
    "Memorisation",
    "Overlap",
    "OverlapEffect",
    "Reachable",
    "Skill",
    "Specialisation",
    "Tangent",
    "Usage",
    "Wang",
    "ablation",
    "bias_check",
    "class_information",
    "cls_mass",
    "content_divergence",
    "expert_information",
    "gate_usage",
    "kernel_alignment",
    "matched_methods",
    "memorisation",
    "norm_matched",
    "overlap_effect",
    "prompt_states",
    "reachable",
    "skill",
    "specialisation",
    "state_variance",
    "swapped_hits",
    "tangent_dimension",
    "value_overlap",
    "wang_pair",
]
