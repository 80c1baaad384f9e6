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
from scipy.io import savemat

from vpt_analysis import backbones, cli
from vpt_analysis.data import stanford_dogs
from vpt_analysis.efficiency import comparison
from vpt_analysis.vit import VisionTransformer, ViTConfig

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


def own_file(path: Path) -> None:
    """A random ViT in this package's own format."""
    backbones.save(VisionTransformer(ViTConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2)), path)


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
    own_file(folder / "my-vit.safetensors")
    images = [photograph(kind, i) for i in range(8) for kind in (0, 1)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["across", "down"])})
    table = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 8}, features=features)
    table.save_to_disk(folder / "saved")
    (folder / "plan.toml").write_text(
        f'tasks = ["huggingface:{folder / "saved"}"]\nbackbone = "my-vit.safetensors"\n'
        'arms = ["linear"]\nfractions = [1.0]\nrates = [0.01]\nseeds = 1\nsteps = 3\n'
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


def write_dogs(folder: Path) -> None:
    """The photographs as Stanford Dogs comes: ``Images`` and the two lists, in ``dogs``."""
    for split in ("train", "test"):
        names, labels = [], []
        for photo in sorted((folder / "photos" / split).rglob("*.png")):
            names.append(f"n0-{photo.parent.name}/{split}_{photo.name}")
            labels.append(1.0 + (photo.parent.name == "down"))
            place = folder / "dogs" / "Images" / names[-1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(photo.read_bytes())
        cells = np.array(names, dtype=object)[:, None]
        savemat(folder / "dogs" / f"{split}_list.mat", {"file_list": cells, "labels": np.array(labels)[:, None]})


def write_pets(folder: Path) -> None:
    """Oxford-IIIT Pet as torchvision keeps it: two classes of three images in each split."""
    for place in ("images", "annotations"):
        (folder / "oxford-iiit-pet" / place).mkdir(parents=True)
    for split in ("trainval", "test"):
        rows = [(f"{name}_{split}_{i}", kind) for kind, name in enumerate(("cat", "dog")) for i in range(3)]
        for i, (name, kind) in enumerate(rows):
            photograph(kind, 200 + i).save(folder / "oxford-iiit-pet" / "images" / f"{name}.jpg")
        text = "".join(f"{name} {kind + 1} 1 1\n" for name, kind in rows)
        (folder / "oxford-iiit-pet" / "annotations" / f"{split}.txt").write_text(text)


def test_the_dogs_plan_runs_in_miniature(folder, monkeypatch):
    """Two arms, two rates, two seeds, two steps."""
    pytest.importorskip("torchvision", reason="needs torchvision", exc_type=ImportError)
    monkeypatch.setenv("VPT_ANALYSIS_DATA", str(folder))
    write_dogs(folder)
    write_pets(folder / "torchvision")
    assert stanford_dogs.main([str(folder / "dogs"), str(folder / "stanford-dogs")]) == 0
    own_file(folder / "my-vit.safetensors")
    plan = (ROOT / "docs" / "sweeps" / "dogs.toml").read_text()
    for old, new in (
        ("/data/ViT-B_16.npz", "my-vit.safetensors"),
        ("/data/stanford-dogs", str(folder / "stanford-dogs")),
        ("steps = 18800", "steps = 2"),
        ("seeds = 5", "seeds = 2"),
        ('device = "cuda"', 'device = "cpu"'),
        (', "vapt", "vapt-released"', ""),
    ):
        assert old in plan
        plan = plan.replace(old, new)
    (folder / "dogs.toml").write_text(re.sub(r"(?m)^rates = .*$", "rates = [0.001, 0.01]", plan))
    assert cli.main(["sweep", str(folder / "dogs.toml"), "--out", str(folder / "runs"), "--jobs", "1"]) == 0
    rows = list(csv.DictReader((folder / "runs" / "results.csv").read_text().splitlines()))
    dogs = [row for row in rows if row["task"].endswith("stanford-dogs")]
    assert len(dogs) == 2 * 5 * 2 and len(rows) == len(dogs) + 2 * 2
    assert {(row["subset"], row["chosen_by"]) for row in dogs if row["images"] == "2"} == {
        ("fraction=0.01", "others"),
        ("fraction=0.1", "others"),
    }
    assert {row["images"] for row in dogs} == {"2", "6", "10", "20"}
