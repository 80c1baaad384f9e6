"""The command line: help with examples, exit codes, messages without tracebacks."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vpt_analysis as va
from vpt_analysis import cli, provenance, report

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("figures", "claims", "study", "decompose", "probe", "sweep", "pretrain", "backbones")


@pytest.fixture
def backbone(tmp_path) -> Path:
    """A small backbone with random weights, as a file."""
    vit = va.VisionTransformer(va.ViTConfig(image_size=16, patch_size=4, width=8, depth=2, heads=2), seed=0)
    va.backbones.save(vit, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def image(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main([command, "--help"])
    assert done.value.code == 0
    assert f"vpt-analysis {command}" in capsys.readouterr().out.split("examples:")[1]


def test_top_help_lists_the_commands_and_exit_codes(capsys):
    assert cli.main([]) == 2
    output = capsys.readouterr().out
    assert all(command in output for command in COMMANDS) and "130" in output


def test_wrong_usage_exits_with_2():
    with pytest.raises(SystemExit) as done:
        cli.main(["figuers"])
    assert done.value.code == 2


def test_version_names_what_it_runs_on(capsys):
    assert cli.main(["--version"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"vpt-analysis {va.__version__} ") and "torch" in output


def test_module_and_help_run_without_torch():
    script = "import sys; from vpt_analysis.cli import main; main(['--version']); assert 'torch' not in sys.modules"
    for arguments in (["-c", script], ["-m", "vpt_analysis", "--version"], ["-m", "paper_figures", "--help"]):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.returncode == 0, done.stderr


def test_figures_list(capsys):
    assert cli.main(["figures", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == sorted(listed) and {"offset_map", "spectrum"} <= set(listed)


def test_recipe_flags_are_those_of_the_recipe():
    args = cli.parser().parse_args(["pretrain", "--data", "d", "--out", "o", "--epochs", "2", "--lr", "0.5"])
    assert (args.epochs, args.lr) == (2, 0.5)
    assert va.pretrain.Recipe(**{name: getattr(args, name) for name in args.recipe_flags}).epochs == 2


def test_decompose_writes_pictures_and_a_table(backbone, image, tmp_path, capsys):
    out = tmp_path / "split"
    arguments = [image, image, "--backbone", backbone, "--prompt", "vpt-deep", "--length", "3", "--out", out]
    assert cli.main(["decompose", *(str(a) for a in arguments)]) == 0
    assert {f.name for f in out.iterdir()} == {"cat-1.png", "cat-2.png", "table.csv"}
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert len(rows) == 2 * 2 * 2 and tuple(rows[0]) == report.COLUMNS
    for row in rows:
        assert 0 < float(row["mass_cls"]) < 1 and 0 < float(row["mass_patches"]) < 1
        shares = [float(row[f"energy_{term}"]) for term in ("content", "prompt", "inner")]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert "cat-1" in capsys.readouterr().out


def test_decompose_takes_a_prompt_file(backbone, image, tmp_path):
    vit = va.load_backbone(backbone)
    prompt = va.prompts.create("vpt-shallow", vit.config, length=2, seed=3)
    va.prompts.save(prompt, tmp_path / "prompt.safetensors")
    arguments = [image, "--backbone", backbone, "--prompt", tmp_path / "prompt.safetensors", "--out", tmp_path / "out"]
    assert cli.main(["decompose", *(str(a) for a in arguments)]) == 0
    (row, *_) = csv.DictReader((tmp_path / "out" / "table.csv").open())
    split = va.decompose(vit, va.data.pictures(image, size=16).normalised(vit.config), prompt)
    assert float(row["mass_cls"]) == pytest.approx(split[0].mass[0, 0, 0].item(), rel=1e-4)


BAD = {
    "no such image": (["decompose", "none.jpg", "--backbone", "{backbone}", "--out", "{out}"], "none.jpg"),
    "no such backbone": (["decompose", "{image}", "--backbone", "vit-micor", "--out", "{out}"], "vit-micro"),
    "no such mechanism": (
        ["decompose", "{image}", "--backbone", "{backbone}", "--prompt", "vpt-deap", "--out", "{out}"],
        "did you mean 'vpt-deep'",
    ),
    "no such prompt file": (
        ["decompose", "{image}", "--backbone", "{backbone}", "--prompt", "p.safetensors", "--out", "{out}"],
        "no prompt file",
    ),
    "negative length": (
        ["decompose", "{image}", "--backbone", "{backbone}", "--length", "-1", "--out", "{out}"],
        "prompt length is -1",
    ),
    "image that is none": (["decompose", "{backbone}", "--backbone", "{backbone}", "--out", "{out}"], "not an image"),
    "out is a file": (["decompose", "{image}", "--backbone", "{backbone}", "--out", "{image}"], "--out names a folder"),
    "no such data": (["pretrain", "--data", "none.npz", "--out", "{out}"], "none.npz"),
    "no such figure": (["figures", "ofset_map", "--out", "{out}"], "unknown figure"),
    "no jobs": (["figures", "--jobs", "0", "--out", "{out}"], "0 jobs asked for"),
    "no such claim": (["claims", "C44"], "unknown claim 'C44'; did you mean 'C4'"),
    "no such tier of claims": (["claims", "--tier", "fast", "--out", "{out}"], "unknown tier"),
    "quick verdicts are not committed": (
        ["claims", "--tier", "quick", "--commit", "--out", "{out}"],
        "add --tier full",
    ),
    "no such study": (["study", "famly", "--out", "{out}"], "did you mean 'family'"),
    "quick study is not committed": (["study", "rates", "--commit", "--out", "{out}"], "add --tier full"),
    "no such tier": (["figures", "--tier", "fast", "--out", "{out}"], "unknown tier"),
    "quick results are not committed": (["figures", "--commit", "--out", "{out}"], "add --tier full"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_exits_with_2_and_a_message(case, backbone, image, tmp_path, capsys):
    arguments, message = BAD[case]
    places = {"backbone": backbone, "image": image, "out": tmp_path / "out"}
    assert cli.main([a.format(**places) for a in arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err and "Traceback" not in output.err
    assert not (tmp_path / "out").exists()


def test_traceback_on_request(capsys):
    assert cli.main(["figures", "--tier", "fast", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("broke"), 1, "broke"),
        (ValueError("bad"), 2, "bad"),
        (PermissionError("no"), 2, "no"),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code, message):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(report, "bundled_table", fail)
    assert cli.main(["backbones"]) == code
    assert message in capsys.readouterr().err


def test_backbones_lists_what_is_bundled(tmp_path):
    (tmp_path / "small.safetensors").write_bytes(b"x" * 2**20)
    card = {"parameters": 1234567, "top1": 0.254, "data": "some images"}
    (tmp_path / "small.json").write_text(json.dumps(card))
    lines = report.bundled_table(tmp_path).splitlines()
    assert len(lines) == 2
    assert all(word in lines[1] for word in ("small", "1,234,567", "1.0 MiB", "0.254", "some images"))


def test_backbones_without_weights_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights"):
        report.bundled_table(tmp_path)


def test_provenance_is_plain_and_repeatable():
    first = provenance.provenance()
    assert json.loads(json.dumps(first)) == first == provenance.provenance()
    assert first["versions"]["vpt-analysis"] == va.__version__


def test_commit_is_none_outside_our_own_repository(tmp_path):
    """Installed into an environment inside somebody else's repository, the package must not take its commit."""
    assert provenance.commit(tmp_path) == {"commit": None, "dirty": None}
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    assert provenance.commit(tmp_path) == {"commit": None, "dirty": None}


def test_dirty_says_whether_tracked_files_changed(tmp_path):
    def git(*arguments):
        author = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *author, "-C", tmp_path, *arguments], check=True, capture_output=True)

    (tmp_path / "vpt_analysis").mkdir()
    (tmp_path / "vpt_analysis" / "__init__.py").write_text("")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    assert provenance.commit(tmp_path)["dirty"] is False and len(provenance.commit(tmp_path)["commit"]) == 40
    (tmp_path / "vpt_analysis" / "__init__.py").write_text("x = 1\n")
    assert provenance.commit(tmp_path)["dirty"] is True


def test_missing_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    assert provenance.commit() == {"commit": None, "dirty": None}
