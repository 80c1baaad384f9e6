"""The walk-through of CONTRIBUTING.md, done as it says on a copy of the package; and the page of all mechanisms."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vpt_analysis import prompts
from vpt_analysis.prompts import registry

ROOT = Path(__file__).resolve().parent.parent
SECTION = (ROOT / "CONTRIBUTING.md").read_text().split("## A prompt mechanism")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of package and tests with steps 1 and 2 done."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("vpt_analysis", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    mechanism, _ = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    (path,) = re.findall(r"Write it\*\* as `([\w/.]+)`", SECTION)
    assert not (copy / path).exists()
    (copy / path).write_text(mechanism)
    ((path, line, name),) = re.findall(
        r"Register it\*\* in `([\w/.]+)`: add `([^`]+)` to the imports and\s+`(\w+)` to the tuple", SECTION
    )
    text = (copy / path).read_text()
    imports, registered = "from .registry import", re.compile(r"(for _mechanism in \(.*?),\n\)", re.DOTALL)
    assert text.count(imports) == len(registered.findall(text)) == 1
    text = registered.sub(rf"\1, {name},\n)", text.replace(imports, f"{line}\n{imports}"))
    (copy / path).write_text(text)
    return copy


def run(checkout: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_step_3_the_mechanism_is_trained_split_measured_saved_and_loaded(checkout):
    _, use = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    (checkout / "use.py").write_text(use + "print(va.__file__)\n")
    residual, first, last, cost, loaded, where = run(checkout, "use.py").splitlines()
    assert Path(where).is_relative_to(checkout)
    assert float(residual.removeprefix("residual of the split ")) < 1e-5
    for line in (first, last):
        shares = [float(x) for x in line.split("[")[1].rstrip("]").split()]
        assert len(shares) == 4 and abs(sum(shares) - 1) < 1e-5
        assert shares[2] > 1e-3  # its experts move with the image, in layer 1 too
    assert f"trainable={8 * 5 * 128 + 8 * 128}" in cost
    assert loaded == "loaded shifted"
    assert (checkout / "shifted.safetensors").is_file()


def test_step_4_the_tests_of_all_mechanisms_pick_it_up_and_hold(checkout):
    of_it = "shifted and (random and (T1_the or T2 or T11) or gradients)"
    output = run(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", of_it, "tests/test_theorems.py",
        "tests/test_mechanisms.py",
    )  # fmt: skip
    assert re.search(r"\b6 passed", output), output  # T1; T2 and T11 on both paths; gradients


def test_files_and_names_that_the_section_speaks_of_exist():
    for path in set(re.findall(r"`((?:tests|docs)/[\w/.]+)`", SECTION)):
        assert (ROOT / path).is_file(), path
    options = (ROOT / "tests/test_mechanism_options.py").read_text()
    assert re.search(r"^OTHER = ", options, re.MULTILINE) and re.search(r"^COUNTS = ", options, re.MULTILINE)
    for method in ("keys_values", "score", "rule", "prompt_tokens", "forward"):
        assert f"`{method}`" in SECTION or f"def {method}" in SECTION
        assert callable(getattr(prompts.TokenPrompt, method))
    assert "shifted" not in prompts.names()


def test_the_page_of_mechanisms_has_the_registry_row_by_row():
    page = (ROOT / "docs" / "mechanisms.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")
    ]
    assert sorted(row[0] for row in rows) == prompts.names()
    for name, experts, gate, combine, file, source in rows:
        mechanism = registry.MECHANISMS[name]
        assert [experts, gate, combine] == [mechanism.experts, mechanism.gate, mechanism.combine], name
        assert mechanism.__module__ == f"vpt_analysis.prompts.{file.removesuffix('.py')}"
        assert source
