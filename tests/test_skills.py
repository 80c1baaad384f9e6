"""Sequences and their tasks, training on them, the two bundled models of sequences, and the probe of skills."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vpt_analysis as va
from vpt_analysis import baselines, pretrain_sequences, prompts
from vpt_analysis.backbones.load import WEIGHTS
from vpt_analysis.data import sequences
from vpt_analysis.probes import sequence_training
from vpt_analysis.probes.sequence_training import Plan, fit, measure, scores
from vpt_analysis.probes.skills import sized, skill, unadapted
from vpt_analysis.storage import digest_file

MODELS = sorted(pretrain_sequences.RECIPES)
OWN = {"vapt": {"rank": 4}}


def some(n: int = 12, length: int = 9, kinds: int = 8, seed: int = 0) -> torch.Tensor:
    return sequences.draw(n, length, kinds, torch.Generator().manual_seed(seed))


def tiny(depth: int = 1, heads: int = 1, width: int = 16, kinds: int = 3, side: int = 2, seed: int = 0):
    config = va.ViTConfig(
        image_size=side, patch_size=1, width=width, depth=depth, heads=heads, mlp_width=2 * width, channels=kinds,
        classes=kinds, pool="mean", pixel_mean=(0.0,) * kinds, pixel_std=(1.0,) * kinds,
    )  # fmt: skip
    return va.VisionTransformer(config, seed=seed).eval()


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("ascending", [0, 1, 1, 3, 3, 3, 5, 7, 7]),
        ("descending", [7, 7, 5, 3, 3, 3, 1, 1, 0]),
        ("add-1", [4, 0, 2, 4, 1, 6, 0, 2, 4]),
        ("add-2", [5, 1, 3, 5, 2, 7, 1, 3, 5]),
        ("ascending-add-1", [1, 2, 2, 4, 4, 4, 6, 0, 0]),
        ("histogram", [3, 2, 2, 3, 1, 1, 2, 2, 3]),
        ("double-histogram", [1, 2, 2, 1, 2, 2, 2, 2, 1]),  # 3 thrice; 1 and 7 twice; 0 and 5 once
    ],
)
def test_answers_by_hand(task, wanted):
    x = torch.tensor([3, 7, 1, 3, 0, 5, 7, 1, 3])
    assert sequences.answers(task, x, 8).tolist() == wanted
    assert sequences.answers(task, x.expand(2, 3, 9), 8)[1, 2].tolist() == wanted


def test_numbers_beyond_the_symbols_wrap_around():
    same = torch.full((9,), 7)
    assert sequences.answers("histogram", same, 8).tolist() == [1] * 9  # 9 of a kind, modulo 8
    assert sequences.answers("add-2", same, 8).tolist() == [1] * 9
    abbc = torch.tensor([0, 1, 1, 2])
    assert sequences.answers("double-histogram", abbc, 4).tolist() == [2, 1, 1, 2]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_answers_are_those_of_plain_counting(x):
    often = Counter(x)
    plain = {
        "ascending": sorted(x),
        "descending": sorted(x)[::-1],
        "ascending-add-1": [(a + 1) % 6 for a in sorted(x)],
        "histogram": [often[a] % 6 for a in x],
        "double-histogram": [sum(n == often[a] for n in often.values()) % 6 for a in x],
    }
    for task, wanted in plain.items():
        assert sequences.answers(task, torch.tensor(x), 6).tolist() == wanted


@pytest.mark.parametrize("task", sequences.TASKS)
def test_what_a_permutation_of_the_sequence_does(task):
    x, order = some(), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    moved, plain = (sequences.answers(task, y, 8) for y in (x[:, order], x))
    sorts = task.startswith(("ascending", "descending"))
    assert torch.equal(moved, plain if sorts else plain[:, order])


def test_images_hold_the_sequence_one_hot_and_in_rows():
    x = some()
    made = sequences.images(x, 8)
    assert made.shape == (12, 8, 3, 3) and torch.equal(made.argmax(1).flatten(1), x)
    assert torch.equal(made.sum(1), torch.ones(12, 3, 3))


def test_drawn_sequences_are_uniform_and_seeded():
    x = some(4_000)
    assert torch.equal(x[:5], some(4_000)[:5]) and not torch.equal(x[:5], some(4_000, seed=1)[:5])
    shares = sequences.counts(x.flatten(), 8) / x.numel()
    assert (shares - 1 / 8).abs().max() < 4 * (1 / 8 * 7 / 8 / x.numel()) ** 0.5


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sequences.answers("asending", some(), 8), ValueError, "ascending"),
        (lambda: sequences.answers("add-1", some(), 4), ValueError, r"expected \[0, 3\]"),
        (lambda: sequences.answers("add-1", some().float(), 8), TypeError, "torch.int64"),
        (lambda: sequences.answers("add-1", some()[:0], 8), ValueError, "at least one symbol"),
        (lambda: sequences.images(some(length=8), 8), ValueError, "a square"),
        (lambda: sequences.draw(0, 9, 8, torch.Generator()), ValueError, "number of sequences is 0"),
        (lambda: sequences.draw(1, 9, 1, torch.Generator()), ValueError, "number of symbols is 1"),
        (lambda: Plan(0), ValueError, "steps is 0"),
        (lambda: Plan(1, batch=True), ValueError, "batch is True"),
        (lambda: Plan(1, warmup=2), ValueError, "warmup is 2"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(call, error, words):
    with pytest.raises(error, match=words):
        call()


# --- reading answers --------------------------------------------------------------------------------------------------


def test_the_readout_is_shared_by_all_positions():
    """Without positions the model is equivariant: permuting the sequence permutes the scores."""
    vit = tiny(depth=2, heads=2, kinds=8, side=3).double()
    with torch.no_grad():
        for p in vit.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype))
        vit.position.zero_()
        x, order = some(), torch.randperm(9, generator=torch.Generator().manual_seed(1))
        np.testing.assert_allclose(scores(vit, None, x[:, order]), scores(vit, None, x)[:, order], atol=1e-12)
        vit.position.normal_(generator=torch.Generator().manual_seed(2))
        assert (scores(vit, None, x[:, order]) - scores(vit, None, x)[:, order]).abs().max() > 1e-3


def test_shares_of_right_answers_are_counted_by_hand():
    """A model that answers with its own input: what is right of add-2 modulo 2 is all, of add-1 nothing."""
    vit = echo()
    assert unadapted(vit, "add-2", 50).whole == 1.0
    x = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1]])
    hits = measure(vit, None, "ascending", x)
    assert hits.whole == pytest.approx(2 / 3) and hits.tokens == pytest.approx(10 / 12)
    assert measure(vit, None, "add-1", x).tokens == 0


def echo():
    """A Transformer with known weights: its blocks do nothing and its readout reads the symbol itself."""
    vit = tiny(width=4, kinds=2)
    with torch.no_grad():
        for p in vit.parameters():
            p.zero_()
        vit.norm.weight.fill_(1)
        vit.patch.weight[:, :, 0, 0] = torch.tensor([[1.0, 0], [0, 1], [0, 0], [0, 0]])
        vit.head.weight[:, :2] = torch.eye(2)
    return vit


@pytest.mark.parametrize("name", sorted(set(prompts.names())))
def test_length_0_is_the_frozen_model(name):
    vit, x = va.load_backbone("toy-sort"), some()
    with torch.no_grad():
        found = scores(vit, prompts.create(name, vit.config, 0), x)
        assert torch.equal(found, scores(vit, None, x))


@pytest.mark.parametrize("name", ["prefix", "vpt-deep"])
def test_static_prompts_leave_the_relative_attention_of_the_one_layer_model(name):
    """T2 for the model of the claim: trained prompts scale a row over the content by 1 − λ, whatever the task."""
    vit = va.load_backbone("toy-sort")
    prompt = prompts.create(name, vit.config, 5, seed=0)
    fit(vit, [prompt], "descending", Plan(15, 8), [0.05], [0])
    x = sequences.images(some(), 8).double()
    vit, prompt = vit.double(), prompt.double()
    with torch.no_grad():
        plain = va.decompose(vit, x, prompts.create(name, vit.config, 0).double(), keep=("gates",))[0].content_gates
        content = va.decompose(vit, x, prompt, keep=("gates",))[0].content_gates
    assert (content / content.sum(-1, keepdim=True) - plain).abs().max() < 1e-12
    assert (1 - content.sum(-1)).min() > 0.01  # the prompts do take attention


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["full", "prefix"])
def test_a_method_learns_what_it_can(method):
    """A new task by fine-tuning; by a prefix a task that the model was trained on."""
    if method == "full":
        vit = tiny()
        made = baselines.create("full", vit)
        losses = fit(vit, [made], "add-1", Plan(150, 32), [0.01], [0])
        assert measure(vit, made, "add-1", some(200, 4, 3, seed=5)).whole > 0.95
    else:
        vit = va.load_backbone("toy-mixture")
        made = prompts.create("prefix", vit.config, 4)
        losses = fit(vit, [made], "add-2", Plan(120, 24), [0.2], [0])
        assert measure(vit, made, "add-2", some(200)).tokens > 0.9 > unadapted(vit, "add-2", 200).tokens
    assert losses.shape[1] == 1 and losses[-10:].mean() < 0.85 * losses[:10].mean()


def test_same_arguments_same_bits_and_nothing_else_is_trained():
    vit = va.load_backbone("toy-sort")
    before = {name: p.clone() for name, p in vit.named_parameters()}
    made = [baselines.create("lora", vit, seed=0, rank=2) for _ in range(3)]
    first, second, other = (
        fit(vit, [m], "add-1", Plan(6, 8), [0.01], [s]) for m, s in zip(made, (0, 0, 1), strict=True)
    )
    assert first.tobytes() == second.tobytes() != other.tobytes()
    assert torch.equal(made[0].up, made[1].up) and not torch.equal(made[0].up, made[2].up)
    for name, p in vit.named_parameters():
        assert torch.equal(p, before[name]) and p.grad is None and p.requires_grad, name
    full = baselines.create("full", vit)
    assert not any(name.startswith("head") for name in full.tensors())


@pytest.mark.parametrize("name", ["prefix", "vapt", "lora"])
def test_runs_together_are_those_apart(name):
    vit = va.load_backbone("toy-mixture").double()
    plan, rates, seeds = Plan(5, 8), [0.01, 0.1], [3, 4]

    def made(seed):
        if name == "lora":
            return baselines.create(name, vit, seed=seed, rank=2)
        return prompts.create(name, vit.config, 3, seed=seed).double()

    together = [made(s) for s in seeds]
    losses = fit(vit, together, "descending", plan, rates, seeds)
    for k, (rate, seed) in enumerate(zip(rates, seeds, strict=True)):
        alone = made(seed)
        np.testing.assert_allclose(fit(vit, [alone], "descending", plan, [rate], [seed])[:, 0], losses[:, k], rtol=1e-9)
        for p, q in zip(alone.parameters(), together[k].parameters(), strict=True):
            np.testing.assert_allclose(p.detach(), q.detach(), atol=1e-8)


def test_backbones_that_cannot_answer_are_refused():
    for change in ({"patch_size": 2, "image_size": 4}, {"classes": 0}, {"classes": 5}, {"pool": "cls+mean"}):
        vit = va.VisionTransformer(dataclasses.replace(tiny().config, **change))
        with pytest.raises(ValueError, match="a model of sequences has patches of 1 pixel"):
            sequence_training.check_backbone(vit)
    vit = tiny()
    prompt = prompts.create("prefix", vit.config, 2)
    with pytest.raises(ValueError, match="1 methods, 2 rates and 1 seeds"):
        fit(vit, [prompt], "add-1", Plan(1), [0.1, 0.2], [0])
    with pytest.raises(ValueError, match="learning rate is -1"):
        fit(vit, [prompt], "add-1", Plan(1), [-1], [0])


# --- the bundled models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_shipped_weights_are_those_of_their_card_and_do_what_it_says(name):
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    weights = WEIGHTS / f"{name}.safetensors"
    vit = va.load_backbone(name)
    assert card["weights_sha256"] == digest_file(weights) and weights.stat().st_size < 2**19
    assert vit.patch.weight.dtype == torch.float32 and va.vit.parameter_count(vit) == card["parameters"]
    recipe = dataclasses.replace(pretrain_sequences.RECIPES[name])
    assert json.loads(json.dumps(dataclasses.asdict(recipe))) == card["recipe"]
    assert vit.config == recipe.config() == va.ViTConfig(**card["config"])
    assert name in card["command"]
    found = pretrain_sequences.measured(vit, recipe.tasks, 2_000)
    assert found["floor"] <= found["loss"] <= found["floor"] + 0.002  # nats
    for task, hits in card["accuracy"].items():
        assert abs(found["accuracy"][task]["tokens"] - hits["tokens"]) < 0.03
    if len(recipe.tasks) == 1:
        assert found["accuracy"][recipe.tasks[0]]["whole"] > 0.99


@pytest.mark.parametrize("name", MODELS)
def test_the_first_steps_of_pretraining_computed_again_have_the_losses_of_the_card(name):
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    _, losses = pretrain_sequences.train(pretrain_sequences.RECIPES[name], stop=pretrain_sequences.FIRST)
    np.testing.assert_allclose(losses, card["first_losses"], rtol=1e-3)
    assert losses[0] == pytest.approx(np.log(8), abs=0.05) and card["losses"][-1] < card["losses"][0]


def test_the_floor_of_a_mixture_is_the_entropy_of_its_answers():
    """Of 0 1 2 … 8 positions where all four answers differ have ln 4; of one task alone nothing is left."""
    x = torch.tensor([[2, 2, 2, 2, 2, 2, 2, 2, 2]])  # sorted both ways: 2; plus 1: 3; plus 2: 4
    assert pretrain_sequences.floor(x, sequences.MIXTURE) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(4))
    assert pretrain_sequences.floor(some(), ("add-1",)) == 0


def test_pretraining_writes_weights_and_card(tmp_path, monkeypatch):
    small = pretrain_sequences.Recipe(("add-1",), width=8, depth=1, heads=1, mlp_width=16, steps=30, batch=8)
    monkeypatch.setattr(pretrain_sequences, "RECIPES", {"small": small})
    assert pretrain_sequences.main(["small", "--out", str(tmp_path)]) == 0
    card = json.loads((tmp_path / "small.json").read_text())
    assert card["weights_sha256"] == digest_file(tmp_path / "small.safetensors") and len(card["first_losses"]) == 20
    assert va.load_backbone(tmp_path / "small.safetensors").config == small.config()
    with pytest.raises(ValueError, match="small"):
        pretrain_sequences.pretrain("smal", tmp_path)


# --- the probe --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["prefix", "vapt", "lora", "full"])
def test_a_small_skill_has_all_its_numbers(method):
    vit = tiny(width=8)
    found = skill(vit, method, "add-1", 128, Plan(4, 4), (0.01, 0.1), (0, 1), 20, 10, OWN.get(method))
    assert found.whole.shape == found.tokens.shape == found.loss.shape == (2,) and found.curve.shape == (2, 4)
    assert (found.whole <= found.tokens).all() and (found.tokens <= 1).all() and np.isfinite(found.curve).all()
    assert found.trials.shape == found.trial_losses.shape == (2,) and found.rate in (0.01, 0.1)
    if method != "full":
        assert abs(found.parameters / 128 - 1) <= 0.1
    again = skill(vit, method, "add-1", 128, Plan(4, 4), (0.01, 0.1), (0, 1), 20, 10, OWN.get(method))
    assert found.loss.tobytes() == again.loss.tobytes()


def test_the_rate_is_that_of_the_best_trial_and_trials_are_no_runs():
    """A rate of 1e-6 leaves the prefix where it starts."""
    vit, plan = va.load_backbone("toy-mixture"), Plan(60, 8)
    found = skill(vit, "prefix", "add-2", 1_536, plan, (1e-6, 0.1), (0,), 100, 100)
    assert found.rate == 0.1 and found.trial_losses[1] < 0.9 * found.trial_losses[0]
    assert found.loss[0] < found.trial_losses[1]  # twice the steps
    other = skill(vit, "prefix", "add-2", 1_536, Plan(2, 8), (0.1,), (1,), 50, 50)
    assert other.trials.shape == (1,) and other.loss[0] > found.loss[0]


def test_methods_of_a_size_agree_in_their_counts_on_the_bundled_models():
    from vpt_analysis.studies import skills as study

    for model in MODELS:
        vit, target = va.load_backbone(model), study.PARAMETERS[model]
        found = {m: sized(vit, m, target, study.OPTIONS[model].get(m, {})) for m in study.METHODS}
        counts = {m: count for m, (_, count) in found.items()}
        assert all(abs(count / target - 1) <= 0.05 for m, count in counts.items() if m != "full"), counts
        assert counts["full"] == sum(p.numel() for n, p in vit.named_parameters() if not n.startswith("head"))
        assert all(10 <= size <= 50 for m, (size, _) in found.items() if m not in ("full", "lora"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "sort"}, "ascending"),
        ({"method": "prefx"}, "prefix"),
        ({"method": "linear"}, "the readout is not trained"),
        ({"rates": ()}, "0 learning rates"),
        ({"method": "lora", "parameters": 10_000_000}, "nearest count"),
    ],
)
def test_skills_that_cannot_be_measured_are_refused(change, words):
    arguments = {"method": "prefix", "task": "add-1", "parameters": 96, "plan": Plan(1, 2)} | change
    with pytest.raises(ValueError, match=words):
        skill(tiny(), **arguments)
