"""Methods of equal numbers of parameters: which sizes are found, and which methods are left out."""

from __future__ import annotations

import pytest

import vpt_analysis as va
from tests.reference import random_vit
from vpt_analysis.probes.matched import matched_methods, nearest


def test_methods_of_equal_size():
    vit = random_vit(image_size=16, patch_size=4, width=16, heads=2, depth=2)
    found = matched_methods(vit, 256)
    assert set(found.methods) | set(found.left_out) == {*va.prompts.names(), *va.baselines.names()}
    assert not set(found.methods) & set(found.left_out)
    assert found.size["vpt-deep"] == 8 and found.parameters["vpt-deep"] == 256 and found.size["lora"] == 2
    for name, method in found.methods.items():
        assert sum(p.numel() for p in method.parameters()) == found.parameters[name]
        assert abs(found.parameters[name] - 256) <= 25.6
        method.check_fits(vit)
    assert {"linear", "full"} <= set(found.left_out) and "is not within 10%" in found.left_out["full"]
    assert [nearest(lambda s: 7 * s, t) for t in (1, 10, 11, 70, 73)] == [1, 1, 2, 10, 10]
    for bad in (0, 2.0, True):
        with pytest.raises(ValueError, match="number of parameters"):
            matched_methods(vit, bad)
    with pytest.raises(ValueError, match="vpt-deep"):
        matched_methods(vit, 100, ["vpt-deap"])
