"""``vpt-analysis probe``: every probe on a small backbone, what it refuses, and the files it writes."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

import vpt_analysis as va
from tests.reference import saved_backbone
from vpt_analysis import cli, probe_command, probe_output
from vpt_analysis.probes import commands
from vpt_analysis.probes.tables import Table
from vpt_analysis.prompts import registry

FAST = {
    "memorisation": ["--set", "steps=4", "--set", "restarts=1"],
    "wang": ["--set", "restarts=2", "--set", "steps=5"],
}
BY_HEAD = ("information", "mass", "specialisation", "usage")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> str:
    return saved_backbone(tmp_path_factory.mktemp("backbone"), image_size=8, depth=2)


def probe(backbone: str, *arguments: str) -> int:
    return cli.main(["probe", *map(str, arguments), "--backbone", backbone])


@pytest.mark.parametrize("name", commands.PROBES)
def test_every_probe_prints_a_table_and_writes_its_numbers(name, backbone, tmp_path, capsys):
    out = tmp_path / "numbers.json"
    arguments = [name, "--length", "3", "--count", "20", "--out", out, *FAST.get(name, [])]
    assert probe(backbone, *arguments) == 0
    printed = capsys.readouterr().out
    assert commands.PROBES[name].question in printed and "vpt-deep, 3 prompts (not trained, 48 parameters)" in printed
    found = json.loads(out.read_text())
    assert found["probe"] == name and found["mechanism"] == "vpt-deep" and found["length"] == 3
    assert found["settings"] == probe_output.settings(commands.PROBES[name]) | found["settings"]
    assert found["provenance"]["versions"]["torch"] and len(found["backbone"]["sha256"]) == 64
    assert (found["images"] or {"n": 20})["n"] == 20 and found["n"] >= 1
    assert found["rows"]
    for row in found["rows"]:
        assert {"quantity", "unit", "estimate", "low", "high"} <= set(row)
        if row["low"] is not None and row["high"] is not None:
            assert row["low"] <= row["high"]
    if name in BY_HEAD:
        assert {(r["layer"], r["head"]) for r in found["rows"]} == {(i, j) for i in (1, 2) for j in (1, 2)}


def test_numbers_are_those_of_the_probe(backbone, tmp_path):
    assert probe(backbone, "usage", "--mechanism", "vapt", "--length", "2", "--count", "12", "--seed", "3",
                 "--set", "queries=cls", "--option", "rank=2", "--out", tmp_path / "u.csv") == 0  # fmt: skip
    comment, *lines = (tmp_path / "u.csv").read_text().splitlines()
    assert json.loads(comment.removeprefix("# "))["options"] == {"rank": 2}
    rows = {(r["layer"], r["head"], r["quantity"]): r for r in csv.DictReader(lines)}
    vit = va.load_backbone(backbone)
    images = va.data.load("digits", "test", 8).subset(n=12, seed=3).normalised(vit.config)
    prompt = va.prompts.create("vapt", vit.config, 2, seed=3, rank=2)
    want = va.probes.gate_usage(vit, images, prompt, "cls", seed=3)[1]
    row = rows["2", "1", "entropy"]
    for side, value in (("estimate", want.entropy.estimate), ("low", want.entropy.low), ("high", want.entropy.high)):
        assert float(row[side]) == pytest.approx(value[0], rel=1e-6)


def test_trained_files_of_prompts_and_baselines(backbone, tmp_path, capsys):
    vit = va.load_backbone(backbone)
    prompt, lora = va.prompts.create("norga", vit.config, 2, seed=5), va.baselines.create("lora", vit, rank=1)
    va.prompts.save(prompt, tmp_path / "p.safetensors")
    va.baselines.save(lora, tmp_path / "l.safetensors")
    assert probe(backbone, "mass", "--prompt", tmp_path / "p.safetensors", "--count", "10") == 0
    assert "norga, 2 prompts (from " in capsys.readouterr().out
    assert probe(backbone, "tangent", "--prompt", tmp_path / "l.safetensors", "--count", "10") == 0
    assert "lora (from" in capsys.readouterr().out
    assert probe(backbone, "mass", "--prompt", tmp_path / "l.safetensors") == 2
    assert "changes weights" in capsys.readouterr().err


def test_options_reach_the_pair(backbone, capsys):
    few = ("--set", "restarts=1", "--set", "steps=1", "--mechanism", "lora")
    for options, count in (((), 32), (("--option", "rank=2"), 64)):
        assert probe(backbone, "wang", *few, *options) == 0
        assert f"lora, {count} parameters" in capsys.readouterr().out


def test_pictures_and_data_sets(backbone, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    assert probe(backbone, "spectrum", "--length", "2", "--images", folder, "--count", "3") == 0
    assert "3 images of pictures" in capsys.readouterr().out
    assert probe(backbone, "information", "--images", folder) == 2
    assert "needs labels" in capsys.readouterr().err
    assert probe(backbone, "spectrum", "--images", "digits", "--split", "train", "--count", "10") == 0
    assert "10 images of digits/train" in capsys.readouterr().out


def test_mechanisms_of_a_users_own(backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "MECHANISMS", dict(registry.MECHANISMS))
    (tmp_path / "mine.py").write_text(
        "import vpt_analysis as va\n\n\nclass Mine(va.prompts.TokenPrompt):\n"
        "    name = 'mine'\n    experts = 'static'\n\n\nva.prompts.register(Mine)\n"
    )
    assert probe(backbone, "usage", "--mechanism", "mine", "--count", "10") == 2
    assert probe(backbone, "usage", "--import", tmp_path / "mine.py", "--mechanism", "mine", "--count", "10") == 0
    assert "mine, 10 prompts" in capsys.readouterr().out
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert probe(backbone, "usage", "--import", tmp_path / "broken.py") == 2
    assert "broken.py failed: ZeroDivisionError" in capsys.readouterr().err


BAD = {
    "probe": (["uage"], "did you mean 'usage'"),
    "mechanism": (["usage", "--mechanism", "vpt-deap"], "did you mean 'vpt-deep'"),
    "setting": (["usage", "--set", "querys=cls"], "did you mean 'queries'"),
    "type of setting": (["usage", "--set", "dead=often"], "expected a float"),
    "no value": (["usage", "--set", "dead"], "expected NAME=VALUE"),
    "value out of range": (["usage", "--set", "dead=2"], "dead is 2"),
    "option": (["usage", "--option", "ranks=2"], "unknown option of vpt-deep"),
    "weights": (["usage", "--mechanism", "lora"], "changes weights"),
    "length of weights": (["tangent", "--mechanism", "lora", "--length", "3"], "--option rank=2"),
    "travelling prompts": (["ablation", "--mechanism", "vpt-shallow"], "travel in the sequence"),
    "adaptive prompts": (["reachable", "--mechanism", "vapt"], "nothing is decided"),
    "no prompts": (["usage", "--length", "0"], "no experts"),
    "data": (["usage", "--images", "digit"], "did you mean 'digits'"),
    "no such file": (["usage", "--images", "none.png"], "none.png"),
    "count": (["usage", "--count", "0"], "expected at least 1"),
    "prompt file": (["usage", "--prompt", "p.safetensors"], "no prompt file"),
    "trained prompts": (["wang", "--prompt", "p.safetensors"], "makes prompts of its own"),
    "module": (["usage", "--import", "no_such_module_of_mine"], "no_such_module_of_mine failed"),
    "suffix": (["usage", "--out", "{folder}/x.txt"], "written as .json or .csv"),
    "folder": (["usage", "--out", "{folder}"], "written as"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case, backbone, tmp_path, capsys):
    arguments, message = BAD[case]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "x.json")]
    assert probe(backbone, *(a.format(folder=tmp_path) for a in arguments), *out) == 2
    output = capsys.readouterr()
    assert message in output.err and "Traceback" not in output.err and not output.out
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_list_names_every_probe_with_its_settings(capsys):
    assert cli.main(["probe", "--list"]) == 0
    listed = capsys.readouterr().out
    for name, entry in commands.PROBES.items():
        assert name in listed and entry.question in listed
    assert "(needs labels)" in listed and "--set queries=all, dead=0.01" in listed
    assert cli.main(["probe"]) == 2


def test_tables_are_aligned_and_say_what_is_missing():
    table = Table(("layer",), {"mass": "share"}, 5, "95 %")
    table.add((1,), mass=va.stats.Interval(0.5, 0.25, 0.75, 5))
    table.add((12,), mass=math.nan)
    record = {"length": 3, "options": {}, "trained": None, "images": None, "probe": "p", "question": "Q?", "seed": 0,
              "mechanism": "m", "parameters": 1234, "backbone": {"source": "b"}}  # fmt: skip
    lines = probe_output.text(table, record).splitlines()
    assert lines[1] == "m, 3 prompts (not trained, 1,234 parameters) on b; seed 0"
    assert lines[3:6] == ["layer      mass (share)", "    1  0.5 [0.25, 0.75]", "   12              none"]
    assert probe_output.records(table)[1] == {
        "layer": 12, "quantity": "mass", "unit": "share", "estimate": None, "low": None, "high": None
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected keys"):
        table.add((1, 2), mass=0.5)


def test_page_of_probes_has_them_all():
    page = (cli.Path(__file__).resolve().parent.parent / "docs" / "probes.md").read_text()
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(commands.PROBES)
    assert probe_command.parsed("--set", ["a=1"]) == {"a": 1}
