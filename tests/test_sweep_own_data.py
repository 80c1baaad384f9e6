"""``vpt-analysis sweep`` on images and backbones of one's own, as docs/data.md says; the plans of the docs are read."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vpt_analysis import cli
from vpt_analysis.efficiency import comparison

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "data.md").read_text()
PLANS = sorted((ROOT / "docs" / "sweeps").glob("*.toml"))


def photograph(kind: int, number: int) -> Image.Image:
    """Stripes of one of two directions, 12×10 pixels, never twice the same."""
    rng = np.random.default_rng([kind, number])
    across = np.arange(12 if kind else 10) % 4 < 2
    stripes = np.broadcast_to(across if kind else across[:, None], (10, 12))
    return Image.fromarray((stripes[..., None] * 160 + rng.integers(0, 90, (10, 12, 3))).astype(np.uint8))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Class folders of two classes, ten images each to train and six to test."""
    for split, count in (("train", 10), ("test", 6)):
        for kind, name in enumerate(("across", "down")):
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                photograph(kind, i + 100 * (split == "test")).save(place / f"{i}.png")
    return tmp_path


def hugging_face(path: Path) -> None:
    """A random ViT as transformers saves it."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(path)


def timm_file(path: Path) -> None:
    """A random ViT with timm's names, as wide as its vit_tiny, so that the number of heads is known."""
    timm = pytest.importorskip("timm", reason="needs timm")
    torch.manual_seed(0)
    model = timm.models.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=192, depth=1, num_heads=3, mlp_ratio=1, num_classes=0
    )
    save_file(model.state_dict(), path)


@pytest.mark.parametrize("backbone, write", [("my-vit", hugging_face), ("my-vit.safetensors", timm_file)])
def test_the_plan_of_the_page_runs(folder, backbone, write, capsys):
    """On a folder and a backbone of one's own, with fewer steps; and again, from what the first run stored."""
    (plan,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    for old, new in (('"my-vit"', f'"{backbone}"'), ("steps = 200", "steps = 6"), ("seeds = 3", "seeds = 2")):
        assert old in plan
        plan = plan.replace(old, new)
    (folder / "plan.toml").write_text(plan)
    write(folder / backbone)
    command = ["sweep", str(folder / "plan.toml"), "--out", str(folder / "runs"), "--jobs", "1"]
    assert cli.main(command) == 0
    told = capsys.readouterr().out
    assert "per_class 2" in told and "Linear probe" in told and "2 seeds" in told
    results = (folder / "runs" / "results.csv").read_text()
    rows = list(csv.DictReader(results.splitlines()))
    assert len(rows) == 3 * 2 * 2, "arms, subsets, seeds"
    assert {row["images"] for row in rows} == {"4", "10"} and {row["chosen_by"] for row in rows} == {"own"}
    assert {Path(row["task"]) for row in rows} == {folder / "photos"}
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in rows)
    stored = {path: path.stat().st_mtime_ns for path in (folder / "runs" / "store").rglob("*") if path.is_file()}
    assert cli.main(command) == 0
    assert (folder / "runs" / "results.csv").read_text() == results
    assert {path: path.stat().st_mtime_ns for path in stored} == stored, "nothing was computed again"


def test_names_of_libraries_run_and_no_test_split_is_needed(folder, capsys):
    """A saved data set without a test split: images of the training split are kept apart to judge on."""
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    hugging_face(folder / "my-vit")
    images = [photograph(kind, i) for i in range(8) for kind in (0, 1)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["across", "down"])})
    table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 8}, features=features)
    table.save_to_disk(folder / "saved")
    (folder / "plan.toml").write_text(
        f'tasks = ["huggingface:{folder / "saved"}"]\nbackbone = "my-vit"\narms = ["linear"]\nfractions = [1.0]\n'
        "rates = [0.01]\nseeds = 1\nsteps = 3\n"
    )
    assert cli.main(["sweep", str(folder / "plan.toml"), "--out", str(folder / "runs"), "--jobs", "1"]) == 0
    (row,) = csv.DictReader((folder / "runs" / "results.csv").read_text().splitlines())
    assert row["task"] == f"huggingface:{folder / 'saved'}" and row["images"] == "10", "16 less 30 %"


def test_missing_images_are_one_error(folder, capsys):
    (folder / "plan.toml").write_text('tasks = ["torchvision:CIFAR101"]\narms = ["linear"]\nshots = [2]\n')
    assert cli.main(["sweep", str(folder / "plan.toml"), "--out", str(folder / "runs")]) != 0
    assert "unknown torchvision data set 'CIFAR101'" in capsys.readouterr().err


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_plans_of_the_docs_are_read(path):
    plan = comparison.read(path)
    assert len(plan.seeds) == 5 and len(plan.rates) >= 8
    assert all(plan.of(task) for task in plan.tasks)


def test_the_page_names_every_torchvision_set():
    from vpt_analysis.data.torchvision_sets import SPLITS

    (listed,) = re.findall(r"NAME one of (.*?): those", PAGE, re.DOTALL)
    assert re.findall(r"\w+", listed) == sorted(SPLITS)


def test_the_dogs_plan_has_the_papers_fractions():
    plan = comparison.read(ROOT / "docs" / "sweeps" / "dogs.toml")
    assert [next(iter(s.values())) for s in plan.of(plan.tasks[0])] == [0.01, 0.1, 0.3, 0.5, 1.0]
    assert plan.steps == -(-12_000 // plan.batch) * 100, "100 epochs of all images"
