"""The notebooks' sanitiser file: nbval drops a malformed pattern in silence, so each one is counted and tried."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "notebooks" / "sanitize.cfg"
SAMPLES = {  # pattern: (an output it is there for, what the output becomes)
    r"ipykernel_\d+": ("/tmp/ipykernel_4711/93.py:1: UserWarning", "/tmp/ipykernel_N/93.py:1: UserWarning"),
    r"0x[0-9a-f]{6,16}": ("<Line2D at 0x7f3a5c0d1e90>", "<Line2D at 0xADDRESS>"),
}


def test_every_pattern_is_loaded_and_has_a_sample():
    text = CONFIG.read_text()
    loaded = dict(get_sanitize_patterns(text))
    for half in (r"^regex:", r"^replace:"):
        assert len(loaded) == len(re.findall(half, text, re.MULTILINE))
    assert set(loaded) == set(SAMPLES)


@pytest.mark.parametrize("pattern", SAMPLES)
def test_pattern_makes_its_sample_stable(pattern):
    before, after = SAMPLES[pattern]
    assert re.sub(pattern, dict(get_sanitize_patterns(CONFIG.read_text()))[pattern], before) == after


@pytest.mark.parametrize("pattern", SAMPLES)
def test_no_pattern_touches_numbers(pattern):
    numbers = "0.1234 1.2e-05 -3 1e-12 10 200 0.0 nan inf"
    assert not re.search(pattern, numbers)


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda p: p.name)
def test_notebook_is_committed_as_executed(path):
    """Every code cell ran, in order, without an error, and left nothing that changes from run to run."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", f"stderr in the output of: {cell.source}"
            assert "image/svg+xml" not in output.get("data", {}), "SVG carries a date; save pictures as PNG"
