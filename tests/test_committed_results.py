"""The committed results of the full tier: complete, made with the shipped weights, and in part computed again."""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from paper_figures import _registry, _run, spectrum
from vpt_analysis import study as machinery
from vpt_analysis.extended import every_part
from vpt_analysis.storage import digest_file
from vpt_analysis.studies import ablations, costs, family, learning_curves, one_shot, tasks

SCALARS = ("top1",)  # accuracies: steps of one image
# NaN says that a replicate has none of what is measured: no atom alone in its cell, none that shares one.
SOMETIMES_NONE = {"estimation": ("exact", "over")}


def stored() -> dict[str, tuple[ModuleType, Path]]:
    """Every study with its folder: those of the package, and the figures that are their own."""
    figures = (_registry.load(name) for name in _registry.names())
    own = {machinery.name(figure): (figure, _run.COMMITTED) for figure in figures if _registry.study(figure) is figure}
    return own | {name: (machinery.study(name), machinery.COMMITTED) for name in machinery.names()}


@pytest.mark.parametrize("name", stored())
def test_results_are_complete_and_belong_to_the_shipped_weights(name):
    module, folder = stored()[name]
    arrays, record = machinery.committed(name, folder)
    assert record["config"] == module.config("full")
    parts = {part["name"] for part in every_part(module, record["config"], arrays)}
    assert {key.split("/")[0] for key in arrays} == parts
    always = {k: a for k, a in arrays.items() if k.split("/")[-1] not in SOMETIMES_NONE.get(name, ())}
    assert all(np.isfinite(a).all() for a in always.values())
    if "backbone" in record["config"]:
        assert record["inputs"]["weights"] == digest_file(tasks.weights(record["config"]["backbone"]))
    made = record["collected_with"]
    assert made["commit"] and made["versions"]["torch"]


def test_a_part_computed_again_gives_the_same_numbers(data_dir, monkeypatch):
    """One training of 200 steps. On the machine that made the results the bits agree; elsewhere rounding differs, and
    training lets it grow, so shares may move in the second decimal."""
    monkeypatch.setenv(tasks.VARIABLE, str(data_dir))
    arrays, record = machinery.committed("spectrum", _run.COMMITTED)
    (part,) = (p for p in spectrum.parts(record["config"]) if p["name"] == "cifar100-vpt-deep-0")
    for key, value in spectrum.compute(part).items():
        stored = arrays[f"{part['name']}/{key}"]
        assert value.shape == stored.shape
        assert abs(value - stored).max() <= (0.06 if key in SCALARS else 0.03), key


def test_a_part_of_the_family_computed_again_gives_the_same_numbers():
    """A task whose images are made here, so that every clone can: counting shapes, VPT-Deep, seed 0. Accuracies move in
    steps of one image, losses by what training makes of other rounding; shares and masses as above."""
    arrays, record = machinery.committed("family")
    (part,) = (p for p in family.parts(record["config"]) if p["name"] == "shapes-count:vpt-deep:0")
    found = family.compute(part)
    assert {f"{part['name']}/{key}" for key in found} == {k for k in arrays if k.startswith(f"{part['name']}/")}
    for key, value in found.items():
        stored = arrays[f"{part['name']}/{key}"]
        assert value.shape == stored.shape, key
        assert abs(value - stored).max() <= (0.06 if key in (*SCALARS, "losses") else 0.03), key


def test_a_random_run_of_a_comparison_computed_again_gives_the_same_numbers():
    """Another one every day, of the tasks whose images every clone has. Training lets rounding grow: accuracies may
    move by a few of the test images, losses in the second decimal."""
    kept = {study: machinery.committed(machinery.name(study)) for study in (one_shot, learning_curves, ablations)}
    runs = [
        (study, part)
        for study, (arrays, record) in kept.items()
        for part in study.later(record["config"], arrays)
        if part["task"] in tasks.BUNDLED
    ]
    study, part = random.Random(datetime.date.today().isoformat()).choice(runs)
    print("run of the day:", machinery.name(study), part["name"])
    for key, value in study.compute(part).items():
        stored = kept[study][0][f"{part['name']}/{key}"]
        assert value.shape == stored.shape, key
        assert abs(value - stored).max() <= {"test": 0.04, "loss": 0.1}.get(key, 0), (part["name"], key)


def test_costs_computed_again_are_the_same_but_for_what_is_measured():
    """What is counted agrees but for what kernels of another version keep. Arrays named measured/... are times, of
    which only the ratio to the reference is compared, by its order of magnitude (``costs.AGREE``)."""
    arrays, record = machinery.committed("costs")
    comparison = record["config"]["comparison"]
    assert record["inputs"][comparison] == digest_file(machinery.COMMITTED / f"{comparison}.npz"), "costs are older"
    (part,) = (p for p in costs.parts(record["config"]) if p["name"] == "vapt")
    for key, value in costs.compute(part | {"repeats": 1}).items():
        stored = arrays[f"{part['name']}/{key}"]
        if key.startswith("measured/"):
            ratios = [np.median(seconds[:, 0] / seconds[:, 1]) for seconds in (value, stored)]
            assert 1 / costs.AGREE < ratios[0] / ratios[1] < costs.AGREE
        else:
            np.testing.assert_allclose(value, stored, rtol=0.05, err_msg=key)


def test_accuracies_beside_the_costs_are_those_of_the_comparison():
    arrays, record = machinery.committed("costs")
    (part,) = (p for p in costs.parts(record["config"]) if p["name"] == "accuracy")
    for key, value in costs.compute(part).items():
        np.testing.assert_array_equal(value, arrays[f"accuracy/{key}"], err_msg=key)
