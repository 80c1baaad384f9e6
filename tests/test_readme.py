"""The README keeps its word: its example runs, its pictures and files exist, its commands are known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vpt_analysis import backbones, cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.skipif("vit-micro" not in backbones.names(), reason="the bundled backbone is not there")
def test_python_example_runs(capsys):
    exec(compile(EXAMPLES[0], "README.md", "exec"), {})
    shape, share, residual = capsys.readouterr().out.splitlines()
    assert shape == "torch.Size([2, 4, 65])"
    assert 0 < float(share.removeprefix("tensor(").rstrip(")")) < 1
    assert float(residual) < 1e-5


def test_theory_example_runs(capsys):
    (example,) = EXAMPLES[1:]
    exec(compile(example, "README.md", "exec"), {})
    certified, loss, residual = capsys.readouterr().out.splitlines()
    assert certified == "tensor(True)" and residual == "0"
    assert 0 < float(loss.removeprefix("tensor(").split(",")[0]) < 0.2


def test_family_of_the_theory_page_is_fitted(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "theory.md").read_text(), re.DOTALL)
    exec(compile(example, "docs/theory.md", "exec"), {})
    certified, error = (float(x) for x in re.findall(r"tensor\(([\d.e-]+)", capsys.readouterr().out))
    assert certified > 0.9
    assert 0 < error < 0.03  # σ (p / n)^½ = 0.013


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)(?:^|`)make ([a-z]+)", README + (ROOT / "CONTRIBUTING.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_files_that_are_named_exist():
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"`([\w/]+\.(?:md|ipynb))`", README)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_decompose_command_parses():
    (command,) = re.findall(r"`vpt-analysis (decompose [^`]*)`", README)
    assert cli.parser().parse_args(command.split()).backbone == "vit.safetensors"


def test_sweep_command_and_its_flags_parse():
    section = README.split("## How much data does a method need?")[1].split("\n## ")[0]
    (command,) = re.findall(r"`vpt-analysis (sweep [^`]*)`", section)
    flags = re.findall(r"`(--[^`]*)`", section)
    assert len(flags) == 2
    for flag in flags:
        assert cli.parser().parse_args([*command.split(), *flag.split()]).file == Path("plan.toml")


def test_figures_that_are_named_exist():
    (listed,) = re.findall(r"(?s)\nFigures: (.*?)\.\n", README)
    names = re.findall(r"`(\w+)`", listed)
    assert len(names) > 1 and [n for n in names if not (ROOT / "paper_figures" / f"{n}.py").is_file()] == []


def test_fits_on_a_screen():
    assert len(README.splitlines()) <= 60
