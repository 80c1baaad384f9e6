"""Digests of code: they move with what computes, and with nothing else."""

from __future__ import annotations

import sys

import pytest

from vpt_analysis import sources
from vpt_analysis.sources import Code

FILES = {
    "cells.py": "from helpers import used\n\ndef f(config):\n    from parts.deep import g\n    return g()\n",
    "helpers.py": "used = 1\n",
    "other.py": "x = 1\n",
    "parts/__init__.py": "",
    "parts/deep.py": "from . import sibling\nimport numpy\n",
    "parts/sibling.py": "y = 1\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_module_depends_on_what_it_imports(folder):
    before = Code.of("cells", folder / "cells.py").digest
    assert sources.reachable(folder / "cells.py", "cells").keys() == {
        "cells", "helpers", "parts", "parts.deep", "parts.sibling"
    }  # fmt: skip
    (folder / "other.py").write_text("x = 2\n")
    assert Code.of("cells", folder / "cells.py").digest == before
    (folder / "parts/sibling.py").write_text("y = 2\n")
    assert Code.of("cells", folder / "cells.py").digest != before


def test_names_of_the_package_are_resolved_as_it_does(folder):
    cells = folder / "cells.py"
    cells.write_text("from vpt_analysis import load_backbone\n")
    found = sources.reachable(cells, "cells")
    assert {"vpt_analysis", "vpt_analysis.backbones", "vpt_analysis.vit"} <= set(found)
    assert "vpt_analysis.theory.voronoi" not in found
    for what in ("import vpt_analysis as va", "import vpt_analysis.data", "from vpt_analysis import *"):
        cells.write_text(what)
        found = sources.reachable(cells, "cells")
        assert {"vpt_analysis.theory.voronoi", "vpt_analysis.vit", "vpt_analysis.prompts"} <= set(found), what


def test_what_runs_shows_and_judges_does_not_count():
    found = sources.reachable(sources.ROOT / "studies" / "rates.py", "vpt_analysis.studies.rates")
    assert {"vpt_analysis.training", "vpt_analysis.studies.tasks"} <= set(found)
    assert not {"vpt_analysis.study", "vpt_analysis.sweep", "vpt_analysis.cli", "vpt_analysis.claims"} & set(found)


def test_of_a_study_what_computes_alone_counts(folder):
    file = folder / "parts" / "study.py"
    file.write_text("def config(tier): return 1\ndef compute(part): return 1\n")
    before = Code.of("parts.study", file, study=True).digest
    file.write_text("def config(tier): return 2\ndef compute(part): return 1  # as ever\n")
    assert Code.of("parts.study", file, study=True).digest == before
    assert Code.of("parts.study", file).digest != before
    file.write_text("def config(tier): return 2\ndef compute(part): return 2\n")
    assert Code.of("parts.study", file, study=True).digest != before


def test_a_worker_with_other_sources_refuses(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sources, "_here", sources._here.__wrapped__)
    code = Code.of("cells")
    code.check()
    (folder / "helpers.py").write_text("used = 2\n")
    with pytest.raises(RuntimeError, match="this worker has other sources of cells than the process that started"):
        code.check()


def test_a_module_without_source():
    with pytest.raises(TypeError, match="module math has no source file"):
        Code.of("math")


def test_package_code_leaves_out_what_only_shows_and_what_only_chooses(tmp_path, monkeypatch):
    """A copy of the package, edited: the digest moves with what computes and with nothing else."""
    for path, text in {
        "training.py": "a = 1", "claims/rules.py": "b = 1", "cli.py": "c = 1",
        "studies/s.py": "def config(tier): return 1\ndef compute(part): return 1",
    }.items():  # fmt: skip
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)

    def digest() -> str:
        return sources.package_code.__wrapped__()

    before = digest()
    (tmp_path / "claims/rules.py").write_text("b = 2")
    (tmp_path / "cli.py").write_text("c = 2")
    (tmp_path / "studies/s.py").write_text("def config(tier): return 2\ndef compute(part): return 1  # a comment")
    assert digest() == before
    (tmp_path / "studies/s.py").write_text("def config(tier): return 2\ndef compute(part): return 2")
    changed = digest()
    assert changed != before
    (tmp_path / "training.py").write_text("a = 2")
    assert digest() not in (before, changed)
