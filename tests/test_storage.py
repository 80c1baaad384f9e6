"""Atomic files, digests, progress and suggestions."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import torch

from vpt_analysis.errors import unknown
from vpt_analysis.progress import progress
from vpt_analysis.storage import atomic, digest_arrays, digest_file, write_text


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one")
    assert path.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), atomic(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "one" and list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write a.txt into .*file"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_digests_see_names_dtypes_shapes_and_values(tmp_path):
    a = np.arange(6, dtype=np.float32)
    variants = [{"x": a}, {"y": a}, {"x": a.astype(np.float64)}, {"x": a.reshape(2, 3)}, {"x": a[::-1]}, {}]
    assert len({digest_arrays(v) for v in variants}) == len(variants)
    assert digest_arrays({"x": torch.from_numpy(a), "y": a}) == digest_arrays({"y": a, "x": a.copy()})
    assert digest_arrays({"x": torch.zeros(2, dtype=torch.bfloat16)})
    write_text(tmp_path / "f", "abc")
    assert digest_file(tmp_path / "f").startswith("ba7816bf")


def test_progress_passes_items_through_and_prints_plain_lines(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    assert list(progress(range(3), "work", every=0.0)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["work: 1/3", "work: 2/3", "work: 3/3"]
    assert list(progress(iter("ab"), "work", total=5, done=3, every=0.0)) == ["a", "b"]
    assert "work: 4/5" in capsys.readouterr().err
    list(progress(range(3), "work"))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(progress(range(3), "work", every=0.0)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_suggestions_need_some_likeness():
    assert "did you mean" not in str(unknown("thing", "zzz", ["alpha", "beta"]))
    assert "did you mean 'alpha'" in str(unknown("thing", "alhpa", ["alpha", "beta"]))
