"""What a step of each arm costs, the study of costs, and its figure on planted accuracies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from paper_figures import _efficiency, cost
from tests.test_efficiency_figures import drawn, planted
from vpt_analysis import study as machinery
from vpt_analysis.step_cost import kept_bytes
from vpt_analysis.studies import ablations, costs


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(_efficiency, "RESAMPLES", 60)


@pytest.fixture(scope="module")
def measured(tiny_backbone) -> tuple[dict, dict[str, np.ndarray]]:
    """All arms on a tiny backbone."""
    config = costs.config("quick") | {"backbone": tiny_backbone, "repeats": 3}
    parts = [part for part in costs.parts(config) if part["name"] != "accuracy"]
    return config, {f"{p['name']}/{key}": value for p in parts for key, value in costs.compute(p).items()}


@pytest.fixture
def stored(tmp_path, monkeypatch) -> dict:
    """Planted results of the comparison where committed ones are looked for; its config."""
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path)
    config = ablations.config("quick") | {
        "tasks": ["digits", "cifar100"], "subsets": {"digits": [{"per_class": m} for m in (2, 10)],
        "cifar100": [{"per_class": 10}]}, "seeds": [0, 1, 2], "validation": 60, "test": 100, "rates": [0.01, 0.1],
    }  # fmt: skip
    store(tmp_path, config)
    return config


def store(folder, config: dict) -> None:
    machinery.write(folder / "ablations.npz", planted(config))
    machinery.write_json(folder / "ablations.json", {"config": config, "inputs": {}, "collected_with": {}})


def taken(config: dict) -> dict[str, np.ndarray]:
    parts = [part for part in costs.parts(config) if part["name"] == "accuracy"]
    return {f"{p['name']}/{key}": value for p in parts for key, value in costs.compute(p).items()}


def test_costs_of_the_arms_are_in_order(measured):
    _, arrays = measured
    assert arrays["linear/parameters"] == arrays["linear/extra_flops"] == 0
    assert arrays["vpt-deep/parameters"] == 3 * 10 * 8 and arrays["vpt-deep-matched/parameters"] == 3 * 6 * 8
    kept = {arm: int(arrays[f"{arm}/kept"]) for arm in costs.ARMS}
    assert kept["linear"] < min(value for arm, value in kept.items() if arm != "linear")
    assert kept["vpt-deep-matched"] < kept["vpt-deep"] < min(kept["full"], kept["norga"])
    head = 8 * costs.CLASSES + costs.CLASSES
    assert all(arrays[f"{arm}/state"] == 12 * (arrays[f"{arm}/parameters"] + head) for arm in costs.ARMS)
    for arm in costs.ARMS:
        seconds = arrays[f"{arm}/measured/seconds"]
        assert seconds.shape == (3, 2) and (seconds > 0).all()


class Scaled(torch.nn.Module):
    """w times the tokens, which are what the backward pass needs."""

    def __init__(self, width: int):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(width))

    def encode(self, vit, images):
        return self.w * vit(images)

    def check_fits(self, vit):
        pass


def test_bytes_are_those_that_the_backward_pass_needs(tiny_backbone):
    vit, n = va.load_backbone(tiny_backbone), 4
    images, labels, head = torch.randn(n, 3, 16, 16), torch.zeros(n, dtype=torch.long), torch.nn.Linear(8, 5)
    tokens, scores = n * 17 * 8 * 4, n * 5 * 4
    plain = kept_bytes(vit, va.baselines.create("linear", vit), images, head, labels)
    assert plain == pytest.approx(tokens + scores, abs=16)  # pooled features are a view of the tokens
    scaled = kept_bytes(vit, Scaled(8), images, head, labels)
    assert scaled == pytest.approx(2 * tokens + scores, abs=16)  # the tokens, and their product, of which CLS is a view
    assert all(p.requires_grad for p in vit.parameters()) and all(p.grad is None for p in head.parameters())


def test_bytes_are_the_same_again_and_grow_with_the_batch(tiny_backbone):
    vit = va.load_backbone(tiny_backbone)
    prompt, head = va.prompts.create("vapt", vit.config, 4, seed=0), torch.nn.Linear(8, 5)

    def kept(n: int) -> int:
        return kept_bytes(vit, prompt, torch.zeros(n, 3, 16, 16), head, torch.zeros(n, dtype=torch.long))

    assert kept(4) == kept(4)
    assert kept(8) - kept(4) == pytest.approx(kept(12) - kept(8), rel=0.01)


def test_accuracies_come_from_the_committed_comparison(stored):
    config = costs.config("quick")
    arrays = taken(config)
    assert set(costs.inputs(config)) == {"weights", "ablations"}
    assert arrays["accuracy/digits:images"] == 100  # the largest training subset
    assert cost.tasks_of(arrays) == ["digits", "cifar100"]
    found = _efficiency.results(planted(stored), stored)
    for arm in config["arms"]:
        expected = found.accuracy("digits", arm, {"per_class": 10})
        np.testing.assert_array_equal(arrays[f"accuracy/digits:{arm}"], expected)


def test_missing_comparisons_say_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path)
    with pytest.raises(FileNotFoundError, match="`vpt-analysis study ablations --tier full --commit`"):
        costs.inputs(costs.config("full"))


def test_accuracy_is_drawn_against_every_cost(measured, stored, tmp_path):
    config, arrays = measured
    arrays = arrays | taken(config)
    figure = drawn(cost, arrays, config, tmp_path)
    assert [ax.get_xlabel() for ax in figure.axes[-len(cost.COSTS) :]] == list(cost.COSTS.values())
    assert "digits, n = 100" in figure.axes[0].get_ylabel()
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert len(labels) == len(set(labels)) == len(config["arms"])
    looks = [(look["color"], look["marker"], look["markerfacecolor"]) for look in map(cost.look, range(len(labels)))]
    assert len(set(looks)) == len(labels)
    accuracy = 100 * arrays["accuracy/digits:vapt"].mean()
    points = np.array([[v[0] for v in line.get_data()] for line in figure.axes[0].lines], dtype=float)
    assert np.isclose(points, [arrays["vapt/parameters"], accuracy]).all(1).any()
    said = cost.caption(arrays, config)
    assert "Most accurate on digits" in said and f"VAPT: {arrays['vapt/parameters']:,} parameters" in said
    assert "over 3 seeds" in said and "nan" not in said and "Without an accuracy" not in said


def test_arms_without_an_accuracy_are_said(measured, stored, tmp_path):
    lost = ("linear", "full")
    store(tmp_path, stored | {"arms": [arm for arm in stored["arms"] if arm["name"] not in lost]})
    config, arrays = measured
    said = cost.caption(arrays | taken(config), config)
    assert "Without an accuracy here: Linear probe, Full fine-tuning." in said
