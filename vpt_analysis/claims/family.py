"""The claims that the family study settles: statement, source, rule."""

from __future__ import annotations

from . import accuracy, prompt_term
from .base import Claim

EACH_LAYER = "A task has a verdict where all its layers agree."

CLAIMS = (
    Claim(
        id="C2",
        statement="Prompts leave the attention over the content alone.",
        source="Petrov, Torr, Bibi, ICLR 2024, arXiv 2310.19698",
        rule="KL divergence between renormalised content patterns with and without trained VPT-Deep prompts, the "
        "model running freely: refuted across layers where the interval of its mean in the last layer lies above "
        "0.01 nat; supported where it lies below.",
        study="family",
        cases=prompt_term.content_patterns,
        notes=("With a layer's inputs fixed the statement is a theorem (T2); it is judged across layers here.",),
    ),
    Claim(
        id="C3",
        statement="Adaptive prompts escape the rank bound of static ones.",
        source="Le et al., VAPT, arXiv 2501.18936, ICLR 2026",
        rule="Numerical rank (1e-6 of the first singular value) of the stacked prompt term of trained VAPT, P = 5, "
        "over at least 500 queries from at least 100 images: supported where the median over heads exceeds P at "
        f"every adaptive layer, refuted where it does not at any. {EACH_LAYER}",
        study="family",
        cases=prompt_term.rank,
        notes=(
            "As written, all prompts of VAPT come through one bottleneck of rank r = 8, so after the LayerNorm the "
            "values of a layer span at most r + 1 = 9 directions, whatever P is: above 5, but not free. The "
            "released code adds a residual around the bottleneck. VPT-Deep is a control: more than P there "
            "would be rounding.",
        ),
    ),
    Claim(
        id="C4",
        statement="VPT adds a constant bias to the attention output.",
        source="after Petrov, Torr, Bibi, ICLR 2024, arXiv 2310.19698, and Le et al., arXiv 2501.18936",
        rule="Constant share of the energy of the prompt term of trained VPT-Deep, P = 10, CLS query and all "
        f"queries apart: supported where its interval lies at or above 0.9, refuted where below. {EACH_LAYER}",
        study="family",
        cases=prompt_term.constant_bias,
    ),
    Claim(
        id="C5",
        statement="VPT's prompts do not depend on the input.",
        source="Le et al., VAPT, arXiv 2501.18936, ICLR 2026",
        rule="Between-image share of the variance of VPT-Shallow's prompt states, layers 2 and on: refuted where "
        f"its interval lies above 0.01, supported where below. {EACH_LAYER}",
        study="family",
        cases=prompt_term.invariant_states,
        notes=("For VPT-Deep the statement is a theorem (T4); VPT-Shallow is judged here.",),
    ),
    Claim(
        id="C11",
        statement="Trained adaptive prompts use the input they are made from.",
        source="a question to Le et al., VAPT, arXiv 2501.18936, ICLR 2026",
        rule="Every image is given the prompts made from an image of another class: supported where the interval "
        "of the drop in accuracy lies above 1 point, refuted where below.",
        study="family",
        cases=accuracy.input_use,
        notes=(
            "The rule as first written says another image's prompts; measured is another class's, which disturbs "
            "more: a drop that is too small here would be too small there.",
        ),
    ),
    Claim(
        id="C15",
        statement="A non-linear residual gate helps.",
        source="Le et al., NoRGa, arXiv 2405.14124, NeurIPS 2024",
        rule="Test accuracy with the gate minus that of a control that has its parameters and no non-linearity (a "
        "learnable temperature alone), on tokens and on prefixes: supported where the interval of the paired "
        "difference lies above 0, refuted where below.",
        study="family",
        cases=accuracy.residual_gate,
    ),
    Claim(
        id="C20",
        statement="Trained prompts take the attention of late layers.",
        source="reported for VPT and VFPT, Zeng et al., VFPT, NeurIPS 2024, arXiv 2411.01327",
        rule="Prompt mass of the CLS query, mean over heads, in the last third of the layers (rounded up): "
        "supported where trained VPT-Deep prompts take more than the untrained ones and more than random ones of "
        f"equal norm, both intervals above 0; refuted where one of the two lies below 0. {EACH_LAYER}",
        study="family",
        cases=prompt_term.late_attention,
        notes=(
            "Prompts pass the block's LayerNorm, which takes their norm away (T6): random tokens of equal norm are "
            "close to a fresh draw of the initial ones, and the two controls are nearly one.",
        ),
    ),
    Claim(
        id="C23",
        statement="That prompts shrink the content by 1 − λ hurts.",
        source="CVPT, arXiv 2408.14961, ICCV 2025; zero-initialised attention, arXiv 2502.03029, ICML 2025",
        rule="Test accuracy with separate normalisers (zero-init) and with an additive prompt term (cross) minus "
        "that with the joint softmax, all else equal: supported where the interval of the paired gain lies above "
        "0, refuted where below.",
        study="family",
        cases=accuracy.shrinkage,
    ),
)
