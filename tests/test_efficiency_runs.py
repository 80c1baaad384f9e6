"""Cells of a comparison: what they give, that they repeat, where arms start, and mechanisms of one's own."""

from __future__ import annotations

import copy
import textwrap

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.data.conftest import tree, write_tree
from tests.reference import random_vit
from vpt_analysis import backbones, prompts, training
from vpt_analysis.efficiency import arms, comparison, runs, splits
from vpt_analysis.efficiency import plan as plans
from vpt_analysis.efficiency.arms import ARMS, Arm, arm
from vpt_analysis.training import Training

RATES = [0.003, 0.03]
OWN = '''
    """Prompts that the mean of the image's patches shifts."""

    import torch

    from vpt_analysis import prompts
    from vpt_analysis.prompts import TokenPrompt


    class {cls}(TokenPrompt):
        name = "{name}"
        experts = "adaptive"

        def prompt_tokens(self, layer, x):
            return super().prompt_tokens(layer, x) + x[:, self.config.prefix :].mean(1, keepdim=True)


    prompts.register({cls})
'''


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    backbones.save(random_vit(torch.float32, image_size=8, patch_size=4, depth=2), path)
    return str(path)


@pytest.fixture
def cell(weights):
    """The config of a cell, but for what a test changes."""

    def made(which: str | Arm = "vpt-deep", **changes) -> dict:
        given = ARMS[which] if isinstance(which, str) else which
        config = {
            "backbone": weights, "task": "digits", "arm": given.plain() | {"label": ""}, "subset": {"per_class": 3},
            "rates": RATES, "seed": 0, "carve": True, "pool": 0, "validation": 30, "test": 40, "steps": 6, "batch": 8,
            "weight_decay": 1e-4, "optimiser": "adamw", "device": "cpu", "modules": [],
        }  # fmt: skip
        return config | changes

    return made


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten at its end."""
    monkeypatch.setattr(prompts.registry, "MECHANISMS", dict(prompts.registry.MECHANISMS))


def own_module(folder, name: str = "shifted-here"):
    path = folder / "mine.py"
    path.write_text(textwrap.dedent(OWN.format(cls="Shifted", name=name)))
    return path


def images_of(config: dict) -> splits.Split:
    keys = ("subset", "seed", "pool", "carve", "validation", "test")
    return splits.split(config["task"], 8, *(config[k] for k in keys))


# --- what a cell gives ------------------------------------------------------------------------------------------------


def test_a_trial_has_accuracies_at_every_rate_and_a_final_nothing_that_chose(cell):
    found, final = runs.run(cell()), runs.run(cell(carve=False, rates=[0.01]))
    assert set(found) == {"test", "validation", "own", "loss", "images", "classes", "parameters"}
    assert set(final) == set(found) - {"validation", "own"}
    for name in set(found) - {"own"}:
        assert f"``{name}``" in runs.run.__doc__
    assert found["test"].shape == found["validation"].shape == found["loss"].shape == (2,)
    assert final["test"].shape == (1,)
    assert found["images"] == 20 and final["images"] == 30 and found["classes"] == 10 and found["own"]
    assert found["parameters"] == 2 * 10 * 24
    for name in ("test", "validation"):
        hits = found[name] * {"test": 40, "validation": 10}[name]
        np.testing.assert_allclose(hits, np.round(hits), atol=1e-5)
    assert (found["loss"] > 0).all() and found["loss"][0] != found["loss"][1]


def test_one_image_a_class_is_judged_on_unused_images(cell):
    found = runs.run(cell(subset={"per_class": 1}))
    assert not found["own"] and found["images"] == 10 and found["validation"].shape == (2,)


@pytest.mark.parametrize("which", ["vpt-deep", "vapt", "linear", "full", "vpt-deep-prototypes"])
def test_same_config_same_bits_and_another_seed_others(cell, which):
    config = cell(which)
    found, again, other = runs.run(config), runs.run(copy.deepcopy(config)), runs.run(config | {"seed": 1})
    assert all(found[name].tobytes() == again[name].tobytes() for name in found)
    assert (found["loss"] != other["loss"]).all()


@pytest.mark.parametrize("which", ["linear", "vpt-deep", "vapt-released", "prefix-warm", "bias"])
def test_rates_together_give_what_each_gives_alone(cell, which):
    together = runs.run(cell(which))
    for place, rate in enumerate(RATES):
        alone = runs.run(cell(which, rates=[rate]))
        assert alone["loss"] == pytest.approx(together["loss"][place], rel=1e-4)
        for name in ("test", "validation"):  # one of the images may stand on the border
            assert abs(alone[name][0] - together[name][place]) <= 1 / 10 + 1e-6


def test_every_known_arm_runs(cell):
    for which in ARMS:
        found = runs.run(cell(which, rates=[0.01], steps=2, batch=4, validation=10, test=10))
        assert np.isfinite(found["loss"]).all() and found["test"].shape == (1,), which
        assert (found["parameters"] > 0) == (which != "linear"), which


def test_a_batch_is_never_larger_than_the_training_subset(cell):
    found = runs.run(cell(batch=500, subset={"per_class": 1}, steps=1))
    assert found["images"] == 10 and np.isfinite(found["loss"]).all()


def test_a_cell_is_the_training_that_its_config_says(cell):
    """The numbers of a cell, written out with the trainer."""
    config = cell(rates=[0.02], weight_decay=0.1)
    vit, images = runs.backbone(config["backbone"], "cpu"), images_of(config)
    prompt = prompts.create("vpt-deep", vit.config, 10, seed=0)
    pixels = images.train.normalised(vit.config)
    plan = Training(steps=6, lr=0.02, weight_decay=0.1, batch=8, seed=0)
    trained = training.train(vit, prompt, pixels, images.train.labels, plan, classes=10)
    found = runs.run(config)
    assert found["loss"][0] == pytest.approx(trained.losses[-1:].mean(), rel=1e-5)
    for name, judged in (("test", images.test), ("validation", images.validation)):
        want = training.accuracy(vit, prompt, trained.head, judged.normalised(vit.config), judged.labels)
        assert found[name][0] == pytest.approx(want, abs=1e-6)


def test_the_optimiser_is_the_one_that_the_config_names(cell):
    adamw, sgd = (runs.run(cell(optimiser=name)) for name in ("adamw", "sgd"))
    assert (adamw["loss"] != sgd["loss"]).all() and np.isfinite(sgd["loss"]).all()
    with pytest.raises(ValueError, match="unknown optimiser 'lion'"):
        runs.run(cell(optimiser="lion"))


def test_training_learns(cell):
    at_chance, learned = (runs.run(cell(carve=False, rates=[r], steps=60, subset={"per_class": 20}, test=200))
                          for r in (1e-7, 0.03))  # fmt: skip
    assert learned["test"][0] > 0.4 > at_chance["test"][0] and learned["loss"] < at_chance["loss"]


# --- where arms start -------------------------------------------------------------------------------------------------


def test_a_small_start_is_a_hundredth_of_the_standard_one(weights):
    vit = runs.backbone(weights, "cpu")
    pixels = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    standard, small = (arms.create(ARMS[n], vit, pixels, seed=3) for n in ("vpt-deep", "vpt-deep-small"))
    assert standard.tokens.abs().min() > 0
    torch.testing.assert_close(small.tokens, 0.01 * standard.tokens, rtol=1e-6, atol=0)
    assert arms.SMALL == 0.01


def test_prototypes_are_those_of_the_runs_own_training_images(cell):
    config = cell("vpt-deep-prototypes")
    vit, own = (
        runs.backbone(config["backbone"], "cpu"),
        images_of(config).train.normalised(runs.backbone(config["backbone"], "cpu").config),
    )
    made = arms.create(ARMS["vpt-deep-prototypes"], vit, own, seed=0)
    want = prompts.from_prototypes("vpt-deep", vit, own, 10, seed=0)
    assert torch.equal(made.tokens, want.tokens)
    assert not torch.equal(made.tokens, arms.create(ARMS["vpt-deep-prototypes"], vit, own.flip(0)[:8], seed=0).tokens)


@pytest.mark.parametrize("which", ["vapt-mean", "vapt-released-mean", "vpt-deep-prototypes"])
def test_what_an_arm_takes_from_images_it_takes_from_its_training_images_alone(cell, which, monkeypatch):
    config, seen = cell(which, steps=1, rates=[0.01]), []
    create = runs.create
    monkeypatch.setattr(runs, "create", lambda *given: seen.append(given[2]) or create(*given))
    runs.run(config)
    vit = runs.backbone(config["backbone"], "cpu")
    assert len(seen) == 1 and torch.equal(seen[0], images_of(config).train.normalised(vit.config))


def test_means_are_ready_before_the_first_step(weights):
    vit = runs.backbone(weights, "cpu")
    pixels = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fed = arms.create(ARMS["vapt-mean"], vit, pixels, seed=0)
    want = prompts.content.mean_tokens(vit, pixels)
    assert fed.means.abs().max() > 0
    for mean, of_layer in zip(fed.means, want, strict=True):
        torch.testing.assert_close(mean, of_layer[vit.config.prefix :])


def test_a_start_from_tied_has_the_keys_and_values_of_trained_tied_prompts(cell, monkeypatch):
    config = cell("prefix-warm", rates=[0.05, 0.5], steps=7)
    vit, images = runs.backbone(config["backbone"], "cpu"), images_of(config)
    pixels, calls, heads = images.train.normalised(vit.config), [], []
    train_many = training.train_many

    def watched(vit, methods, *given, **more):
        calls.append((copy.deepcopy(methods), given[2], copy.deepcopy(more["head"])))
        trained = train_many(vit, methods, *given, **more)
        heads.append([t.head for t in trained])
        return trained

    monkeypatch.setattr(training, "train_many", watched)
    runs.run(config)
    (tied, first, none), (untied, second, starts) = calls
    assert none is None
    for start, left, trained in zip(starts, *heads, strict=True):
        assert torch.equal(start.weight, left.weight) and not torch.equal(start.weight, trained.weight)
    assert [p.steps for p in (*first, *second)] == [3, 3, 4, 4]
    assert [p.lr for p in first] == pytest.approx([0.05 / 3, 0.5 / 3]) and [p.lr for p in second] == [0.05, 0.5]
    assert all(p.name == "vpt-deep" for p in tied) and all(p.name == "prefix" for p in untied)
    for start, plan, method in zip(tied, first, untied, strict=True):
        training.train(vit, start, pixels, images.train.labels, plan, classes=10)
        tokens = start.tokens.detach()
        for layer, block in enumerate(vit.blocks):
            key, value = block.keys_values(tokens[layer][None])
            for mine, want in ((method.key, key), (method.value, value)):
                torch.testing.assert_close(
                    mine[layer].detach(), want[0].transpose(0, 1).flatten(1), rtol=1e-4, atol=1e-5
                )
    assert not torch.equal(untied[0].key, untied[1].key)
    # What was placed is what the tied prompts do: outputs are equal before the second half.
    torch.testing.assert_close(vit(pixels[:4], untied[1]), vit(pixels[:4], tied[1]), rtol=1e-3, atol=1e-4)


# --- mechanisms of one's own ------------------------------------------------------------------------------------------


def test_a_mechanism_of_ones_own_enters_by_one_line_of_a_plan(tmp_path, weights, registry):
    own_module(tmp_path, "shifted-one-line")
    write_tree(tmp_path / "pets", tree({"cat": 6, "dog": 6}))
    (tmp_path / "plan.toml").write_text(
        textwrap.dedent(f"""
        tasks = ["pets"]
        arms = ["vpt-deep", "shifted-one-line"]
        shots = [3]
        backbone = "{weights}"
        rates = [0.01, 0.1]
        seeds = 2
        steps = 2
        modules = ["mine.py"]
    """)
    )
    plan = comparison.read(tmp_path / "plan.toml")
    assert plan.names == ("vpt-deep", "shifted-one-line") and plan.modules == (str(tmp_path / "mine.py"),)
    assert "shifted-one-line" in prompts.names()
    with_own = {name: runs.run(config) for name, config in plans.trials(plan).items()}
    loss = [with_own[plans.key(str(tmp_path / "pets"), n, {"per_class": 3}) + ":trial:0"]["loss"] for n in plan.names]
    assert (loss[0] != loss[1]).all()
    assert {c["modules"][0] for c in plans.finals(plan, with_own).values()} == {str(tmp_path / "mine.py")}


def test_a_cell_registers_the_mechanisms_it_names(tmp_path, cell, registry):
    """As a worker does, which starts without them."""
    path = own_module(tmp_path, "shifted-worker")
    plain = Arm("own", "vpt-deep").plain() | {"method": "shifted-worker", "label": ""}
    with pytest.raises(ValueError, match="unknown method of arm 'own' 'shifted-worker'"):
        runs.run(cell(arm=plain))
    found = runs.run(cell(arm=plain, modules=[str(path)]))
    assert found["parameters"] == 2 * 10 * 24 and np.isfinite(found["loss"]).all()


def test_a_module_is_executed_once_and_again_where_it_failed(tmp_path, registry):
    path = tmp_path / "counts.py"
    path.write_text(f"open({str(tmp_path / 'log')!r}, 'a').write('x')\n")
    arms.load_modules([path, str(path)])
    assert (tmp_path / "log").read_text() == "x"
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    for _ in range(2):  # a second run must not go on without what the first could not register
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
            arms.load_modules([broken])
    with pytest.raises(FileNotFoundError, match="a plan's modules are Python files that register mechanisms"):
        arms.load_modules([tmp_path / "missing.py"])


def test_an_arm_for_another_mechanism_takes_its_options(weights):
    vit = runs.backbone(weights, "cpu")
    pixels = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    long = arms.create(arm({"method": "vpt-deep", "length": 25}), vit, pixels, 0)
    assert long.tokens.shape == (2, 25, 24)
    assert not arms.create(arm({"method": "vapt-released", "options": {"norm": False}}), vit, pixels, 0).options["norm"]
    assert isinstance(arms.create(arm("lora"), vit, pixels, 0), va.baselines.base.Baseline)
