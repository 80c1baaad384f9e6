"""Comparisons as studies: two rounds through the machinery, resumed where results are missing, read back by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.conftest import splits, tree, write_tree
from tests.reference import random_vit
from vpt_analysis import backbones
from vpt_analysis import study as machinery
from vpt_analysis.efficiency import plan as plans
from vpt_analysis.efficiency import results, runs
from vpt_analysis.efficiency.study import notes, scope
from vpt_analysis.studies import ablations, learning_curves, one_shot

STUDIES = {"one_shot": one_shot, "learning_curves": learning_curves, "ablations": ablations}
CONFIGS = {(name, tier): module.config(tier) for name, module in STUDIES.items() for tier in ("quick", "full")}


class Study:
    """``one_shot`` with another plan: two folders of images, a backbone of two layers, two steps."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        weights, self.cache, self.cells, run = folder / "tiny.safetensors", folder / "cache", [], runs.run
        backbones.save(random_vit(torch.float32, image_size=8, patch_size=4, depth=2), weights)
        self.tasks = [
            str(write_tree(folder / "pets", splits({"cat": 6, "dog": 6}, {"cat": 4, "dog": 4}))),
            str(write_tree(folder / "birds", tree({"emu": 9, "owl": 9, "rook": 9}))),
        ]
        config = {
            "tasks": self.tasks, "arms": ["linear", "vpt-deep"], "subsets": [{"per_class": 1}, {"per_class": 3}],
            "backbone": str(weights), "rates": [0.001, 0.01, 0.1], "seeds": [0, 1], "steps": 2, "batch": 4,
            "validation": 0, "test": 0,
        }  # fmt: skip
        patch.setattr(one_shot, "config", lambda tier: config)
        patch.setattr(one_shot, "inputs", lambda config: {"weights": weights})
        patch.setattr(runs, "run", lambda part: self.cells.append(part["name"]) or run(part))
        self.first = self.again()
        self.arrays = self.first.arrays(jobs=1)
        self.computed = list(self.cells)

    def again(self) -> machinery.Computed:
        return machinery.Computed(one_shot, "full", self.cache)

    @property
    def trials(self) -> list[str]:
        keys = (f"{t}:{a}:per_class={m}" for t in self.tasks for m in (1, 3) for a in ("linear", "vpt-deep"))
        return [f"{key}:trial:0" for key in keys]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Study(tmp_path_factory.mktemp("study"), patch)


def test_two_rounds_are_computed_once(study):
    assert study.computed[:8] == study.trials and len(study.computed) == 8 + 16 == len(set(study.computed))
    before, again = len(study.cells), study.again()
    stored = again.arrays(jobs=1)
    assert len(study.cells) == before and again.key == study.first.key
    assert all(stored[name].tobytes() == array.tobytes() for name, array in study.arrays.items())


def test_results_are_read_back_by_name(study):
    told = results.of(study.first.config, study.arrays)
    for task in told.plan.tasks:
        for arm in told.plan.names:
            sizes, errors = told.curve(task, arm)
            classes = int(told.run(task, arm, {"per_class": 1}, 0)[0]["classes"])
            assert sizes.tolist() == [classes, 3 * classes] and errors.shape == (2, 2)
            assert ((errors >= 0) & (errors <= 1)).all()
            ones, threes = (told.choices[plans.key(task, arm, {"per_class": m})] for m in (1, 3))
            assert (ones.by, threes.by) == ("others", "own") and {ones.rate, threes.rate} <= {0.001, 0.01, 0.1}
    assert len(told.test_selection(own=True)) == len(told.test_selection(own=False)) == 4


def test_finals_are_what_the_trials_chose(study):
    told = results.of(study.first.config, study.arrays)
    by_name = {part["name"]: part for part in one_shot.later(study.first.config, study.arrays)}
    assert len(by_name) == 16
    for name, choice in told.choices.items():
        for seed in (0, 1):
            part = by_name[f"{name}:{seed}"]
            assert part["rates"] == [choice.rate] and part["seed"] == seed and not part["carve"]
    alone = runs.run(part)
    assert all(alone[what].tobytes() == study.arrays[f"{part['name']}/{what}"].tobytes() for what in alone)


def test_a_study_goes_on_where_results_are_missing(study):
    finals = machinery.part_keys(one_shot, one_shot.later(study.first.config, study.arrays), study.first.inputs)
    lost = [*study.trials[2:4], list(finals)[0], list(finals)[-1]]
    for name in lost:
        (study.cache / "results" / f"{(study.first.keys | finals)[name]}.json").unlink()
    before = len(study.cells)
    again = study.again().arrays(jobs=1)
    assert study.cells[before:] == lost and study.arrays.keys() == again.keys()
    assert all(again[name].tobytes() == array.tobytes() for name, array in study.arrays.items())


def test_results_can_be_stored_and_read_without_the_plan_that_made_them(study, tmp_path):
    study.first.store(study.arrays, tmp_path)
    stored = machinery.Committed("one_shot", tmp_path)
    there, here = (
        results.of(stored.config, arrays).curve(study.tasks[1], "vpt-deep")[1]
        for arrays in (stored.arrays(), study.arrays)
    )
    np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize(("name", "tier"), CONFIGS)
def test_choices_and_parts_are_plain_values_with_names_of_their_own(name, tier):
    module, config = STUDIES[name], CONFIGS[name, tier]
    parts = module.parts(config)
    assert name in machinery.names() and json.loads(json.dumps(config)) == config
    assert module.parts(json.loads(json.dumps(config))) == parts
    assert len({part["name"] for part in parts}) == len(parts)


def test_scope_and_notes_say_what_was_measured():
    config = CONFIGS["learning_curves", "full"]
    said = scope(config, "0123456789")
    told = [f"{config['steps']} steps of {config['batch']} images", f"{len(config['rates'])} learning rates an arm"]
    for words in ("vit-micro 01234567, frozen", *config["tasks"], *told, f"{len(config['seeds'])} seeds"):
        assert words in said, words
    assert "cifar100: 1, 3" in said and "a class" in said
    told = " ".join(notes(config, ()))
    assert "chosen once, on the first seed" in told and f"{config['steps'] * config['batch']:,} images are seen" in told
    assert "0.01, 0.5 of the training images" in scope(
        config | {"subsets": [{"fraction": 0.01}, {"fraction": 0.5}]}, None
    )
    assert "One seed has no interval" in " ".join(notes(config | {"seeds": [0]}, ()))
    assert "chosen once" not in " ".join(notes(config | {"choose": "each seed"}, ()))
