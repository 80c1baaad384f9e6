"""VPT-Deep: fresh prompts in every layer, in the prefix form."""

from __future__ import annotations

from .base import TokenPrompt


class VPTDeep(TokenPrompt):
    r"""Learnable tokens :math:`p_\ell \in \mathbb R^{P\times d}` for every layer, whose outputs are thrown away.

    A prompt whose output is discarded acts on the content only as a key :math:`W_K \mathrm{LN}(p)+b_K` and a value
    :math:`W_V \mathrm{LN}(p)+b_V`. So the layer is given just these, computed once a layer and shared by all images;
    queries and MLP of the prompts are never computed. Equal to the official token form (theorem T5). With ``dropout``
    (0.1 in the official configuration) in training, every image has a mask, hence keys and values, of its own.

    Source: Jia et al., Visual Prompt Tuning, ECCV 2022, eqs. 7-8.
    """

    name = "vpt-deep"
    experts = "static"
