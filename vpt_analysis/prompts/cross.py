"""Cross-attention prompts: the prompt output is added, outside the content's softmax."""

from __future__ import annotations

from ..attention import Additive, additive
from .base import TokenPrompt


class Cross(TokenPrompt):
    r"""Outputs :math:`y = c + o`: content tokens attend to the prompts in a softmax of its own, and the two are added.

    Queries, keys, values and output use the frozen self-attention weights of the block, and prompts pass its LN1, so
    the rule is all that differs from VPT-Deep. The released code puts its cross-attention after the self-attention by
    default (its option 3), with queries of its own from the un-normalised tokens, and neither side passes a LayerNorm;
    that is a second attention call rather than a way to combine two outputs of one. Its parallel option (2) is the rule
    here.

    Source: Huang et al., CVPT: Cross-Attention helps Visual Prompt Tuning, ICCV 2025, arXiv 2408.14961.
    """

    name = "cross"
    experts = "static"
    combine = "additive"

    def rule(self, layer: int) -> Additive:
        return additive
