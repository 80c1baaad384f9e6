"""The committed results of the full tier: complete, made with the shipped weights, and in part computed again."""

from __future__ import annotations

import numpy as np
import pytest

from paper_figures import _arrays, _inputs, _registry, spectrum
from vpt_analysis.storage import digest_file

SCALARS = ("top1",)  # accuracies: steps of one image


@pytest.mark.parametrize("name", _registry.names())
def test_results_are_complete_and_belong_to_the_shipped_weights(name):
    module = _registry.load(name)
    arrays, record = _arrays.committed(name, _arrays.COMMITTED)
    assert record["config"] == module.config("full")
    parts = {part["name"] for part in module.parts(record["config"])}
    assert {key.split("/")[0] for key in arrays} == parts
    assert all(np.isfinite(a).all() for a in arrays.values())
    assert record["inputs"]["weights"] == digest_file(_inputs.backbone(record["config"]["backbone"]))
    made = record["collected_with"]
    assert made["commit"] and made["versions"]["torch"]


def test_a_part_computed_again_gives_the_same_numbers(data_dir, monkeypatch):
    """One training of 200 steps. On the machine that made the results the bits agree; elsewhere rounding differs, and
    training lets it grow, so shares may move in the second decimal."""
    monkeypatch.setenv(_inputs.VARIABLE, str(data_dir))
    arrays, record = _arrays.committed("spectrum", _arrays.COMMITTED)
    (part,) = (p for p in spectrum.parts(record["config"]) if p["name"] == "cifar100-vpt-deep-0")
    for key, value in spectrum.compute(part).items():
        stored = arrays[f"{part['name']}/{key}"]
        assert value.shape == stored.shape
        assert abs(value - stored).max() <= (0.06 if key in SCALARS else 0.03), key
