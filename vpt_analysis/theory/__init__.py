"""Prompts as mixture-of-experts regression: symbolic proofs, estimators, losses on mixing measures, rates.

>>> import vpt_analysis as va
>>> sorted(va.theory.families.FAMILIES)
['linear', 'nonlinear', 'norga', 'tied', 'untied']
"""

import importlib

# Resolved when first used: the proofs import sympy, the estimators do not.
__all__ = [
    "adaptive_experts", "alignment", "atoms", "charts", "contaminated", "derivation", "derivative_families",
    "experts", "families", "frozen", "gram", "identifiability", "least_squares", "likelihood",
    "normal_equations", "regression", "split_sequence", "splitting", "starts", "static_experts", "sums",
    "symbolic", "voronoi",
]  # fmt: skip


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
