"""What gates and terms tell of the class, on planted vectors and on every mechanism."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vpt_analysis as va
from tests.reference import MECHANISMS, random_images, random_prompt, random_vit
from vpt_analysis.probes import information


def vectors(monkeypatch, prompt: np.ndarray, content: np.ndarray) -> dict:
    """Plant vectors (n, H, K) of one layer; the arguments of a probe of their images, to which labels are added."""
    monkeypatch.setattr(information, "expert_vectors", lambda *_: {0: (prompt, content)})
    return {"vit": None, "images": torch.zeros(len(prompt), 1), "prompt": None}


def anova(x: np.ndarray, codes: np.ndarray) -> float:
    """ε² by its definition."""
    groups = [x[codes == k] for k in np.unique(codes)]
    within = sum(((g - g.mean(0)) ** 2).sum() for g in groups) / (len(x) - len(groups))
    return 1 - within / (((x - x.mean(0)) ** 2).sum() / (len(x) - 1))


@pytest.mark.parametrize("name", MECHANISMS)
def test_vectors_are_those_of_the_split_and_every_mechanism_is_measured(name):
    vit = random_vit()
    images, prompt, labels = random_images(vit, 9), random_prompt(vit, name, 4), torch.arange(9) % 2
    splits = va.decompose(vit, images, prompt, keep=("gates", "terms"))
    for of, fields in information.FIELDS.items():
        for queries in ("cls", "all"):
            found = information.expert_vectors(vit, images, prompt, of, queries, batch=4)
            for split in splits:
                for side, field in zip(found[split.layer], fields, strict=True):
                    want = getattr(split, field)
                    want = want[:, :, 0] if queries == "cls" else want.mean(2)
                    assert abs(side - want.numpy()).max() <= 1e-12
        (special,) = information.specialisation(vit, images, labels, prompt, of, layers=[1], resamples=20)
        x = found[1][0]
        by_hand = [anova(x[:, head], labels.numpy()) for head in range(x.shape[1])]
        assert special.prompt.estimate == pytest.approx(by_hand, abs=1e-9)
        assert special.prompts[0, 0] == pytest.approx(anova(x[:, 0, :1], labels.numpy()), abs=1e-9)
        assert special.prompts.shape == x.shape[1:] and np.isfinite(special.difference.low).all()
        (told,) = information.expert_information(vit, images, labels, prompt, of, layers=[1], resamples=20)
        assert len(told.prompt) == len(told.content) == vit.config.heads
        assert all(np.isfinite(i.estimate) and 0 < i.p_value <= 1 for i in (*told.prompt, *told.content))


def test_images_that_are_their_class_tell_it_all():
    vit = random_vit()
    labels = torch.arange(12) % 3
    images = random_images(vit, 3)[labels]
    for name in ("vpt-deep", "vpt-shallow", "vapt"):
        prompt = random_prompt(vit, name, 4)
        for found in information.specialisation(vit, images, labels, prompt, resamples=20, batch=5):
            assert abs(found.prompt.estimate - 1).max() <= 1e-9 and abs(found.content.estimate - 1).max() <= 1e-9
        for told in information.expert_information(vit, images, labels, prompt, clusters=3, resamples=20, layers=[2]):
            for one in (*told.prompt, *told.content):
                assert one.share == pytest.approx(1, abs=1e-9) and one.estimate == pytest.approx(np.log(3), abs=1e-9)


def test_planted_prompts_that_know_beside_content_that_does_not(monkeypatch):
    generator = np.random.default_rng(0)
    labels = torch.arange(80) % 4
    knowing = np.eye(4)[labels.numpy()][:, None] + 1e-3 * generator.normal(size=(80, 1, 4))
    ignorant = generator.normal(size=(80, 1, 30))
    arguments = vectors(monkeypatch, knowing, ignorant)
    (special,) = information.specialisation(**arguments, labels=labels, resamples=200)
    assert special.prompt.estimate[0] > 0.999 and abs(special.content.estimate[0]) < 0.05
    assert special.difference.low[0] > 0.9 and special.content.low[0] < 0 < special.content.high[0]
    (told,) = information.expert_information(**arguments, labels=labels, resamples=200)
    assert told.prompt[0].estimate == pytest.approx(np.log(4), abs=1e-9) and told.prompt[0].p_value < 0.01
    assert abs(told.content[0].share) < 0.1 and told.content[0].p_value > 0.01
    relabelled = information.specialisation(**arguments, labels=9 - 2 * labels, resamples=200)[0]
    assert relabelled.difference.low == pytest.approx(special.difference.low, abs=1e-12)
    other = vectors(monkeypatch, knowing[..., [2, 0, 3, 1]], ignorant)
    (permuted,) = information.specialisation(**other, labels=labels, resamples=200)
    assert permuted.prompt.high == pytest.approx(special.prompt.high, abs=1e-12)
    assert permuted.prompts == pytest.approx(special.prompts[:, [2, 0, 3, 1]], abs=1e-12)
    again = information.expert_information(**other, labels=labels, resamples=200)[0]
    assert again.prompt[0].estimate == pytest.approx(told.prompt[0].estimate, abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_planted_share_and_its_interval(monkeypatch, share):
    """Class means with variance ``share``, the rest within: the mean estimate is the share, and intervals hold it."""
    codes, found = np.arange(120) % 4, []
    means = np.array([-1, -1, 1, 1]) * (share * 119 / 120) ** 0.5  # the share's T is over n - 1
    for seed in range(40):
        generator = np.random.default_rng(seed)
        x = means[codes][:, None, None] + (1 - share) ** 0.5 * generator.normal(size=(120, 1, 1))
        arguments = vectors(monkeypatch, x, x)
        found.append(information.specialisation(**arguments, labels=torch.tensor(codes), resamples=200, seed=seed)[0])
    estimates = np.array([f.prompt.estimate[0] for f in found])
    assert abs(estimates.mean() - share) < 4 * estimates.std() / 40**0.5 + 0.01
    assert np.mean([f.prompt.low[0] <= share <= f.prompt.high[0] for f in found]) >= 0.85
    assert all(f.difference.low[0] == f.difference.high[0] == 0 for f in found)


def test_a_resample_is_the_share_of_the_repeated_images():
    generator = np.random.default_rng(0)
    x, codes = generator.normal(size=(9, 3)), np.arange(9) % 3
    rows = np.array([0, 0, 0, 3, 3, 1, 7, 4, 6])  # no image of class 2
    weights = np.bincount(rows, minlength=9)[None] / 9
    assert information.between_share(x, codes, weights)[0] == pytest.approx(anova(x[rows], codes[rows]), abs=1e-12)


def test_what_does_not_vary_has_no_share_and_no_information(monkeypatch):
    constant = 0.1 + 1e-13 * np.random.default_rng(0).normal(size=(20, 2, 3))
    arguments = vectors(monkeypatch, constant, constant)
    labels = torch.arange(20) % 2
    (special,) = information.specialisation(**arguments, labels=labels, resamples=20)
    assert np.isnan(special.prompt.estimate).all() and np.isnan(special.contents).all()
    (told,) = information.expert_information(**arguments, labels=labels, resamples=20)
    assert all(abs(i.estimate) < 1e-12 and i.p_value == 1 for i in told.prompt)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": torch.arange(5)}, r"labels have shape \(5,\)"),
        ({"labels": torch.rand(8)}, "are torch.float32; expected one integer"),
        ({"labels": torch.ones(8, dtype=torch.long)}, "all images are of one class"),
        ({"labels": torch.arange(8) // 2 + torch.arange(8) % 2}, "5 classes among 8 images"),
        ({"of": "values"}, "unknown of 'values'"),
        ({"queries": "patches"}, "unknown queries 'patches'"),
        ({"batch": 1}, "batch is 1"),
    ],
)
def test_refused(arguments, message):
    vit = random_vit()
    arguments = {"labels": torch.arange(8) % 2} | arguments
    for probe in (information.specialisation, information.expert_information):
        with pytest.raises(ValueError, match=message):
            probe(vit, random_images(vit, 8), prompt=random_prompt(vit, "vpt-deep", 3), **arguments)


def test_prompts_that_cannot_be_measured_are_refused():
    vit = random_vit()
    images, labels = random_images(vit, 8), torch.arange(8) % 2
    with pytest.raises(TypeError, match="prompt is NoneType"):
        information.specialisation(vit, images, labels, None)
    noisy = va.prompts.create("vpt-deep", vit.config, 3, dropout=0.1).double().train()
    with pytest.raises(ValueError, match="training mode with dropout"):
        information.specialisation(vit, images, labels, noisy)
    with pytest.raises(ValueError, match="7 clusters of 8 samples"):
        information.expert_information(vit, images, labels, random_prompt(vit, "vpt-deep", 3), clusters=7)
