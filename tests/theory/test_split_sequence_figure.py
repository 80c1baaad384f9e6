"""The figure of the split sequence: its numbers, the same at every run, and a caption that they bear out."""

from __future__ import annotations

import numpy as np
import pytest

from paper_figures import split_sequence as figure
from vpt_analysis import plotting

TINY = {"seeds": [0, 1, 2], "samples": 40, "n": [10, 100, 1000, 10_000, 100_000]}


@pytest.fixture(scope="module")
def results() -> tuple[dict, dict]:
    config = figure.config("quick") | TINY
    return config, {f"{p['name']}/{k}": v for p in figure.parts(config) for k, v in figure.compute(p).items()}


def test_slopes_are_those_of_the_sequence(results):
    config, arrays = results
    for panel, r in enumerate(figure.ORDERS):
        found = {k: figure.slope(config["n"], v) for k, v in figure.curves(arrays, config, panel).items()}
        np.testing.assert_allclose(found["distance"], -(r + 1), atol=0.01)
        np.testing.assert_allclose(found["loss"], -r, atol=0.01)
        np.testing.assert_allclose(found["ratio"], -1, atol=0.01)
    tied = {k: figure.slope(config["n"], v) for k, v in figure.curves(arrays, config, len(figure.ORDERS)).items()}
    np.testing.assert_allclose(tied["distance"], -2, atol=0.01)
    np.testing.assert_allclose(tied["loss"], -2, atol=0.01)
    np.testing.assert_allclose(tied["ratio"], 0, atol=0.01)


def test_tied_ratio_reaches_its_limit_and_the_untied_one_0(results):
    config, arrays = results
    for seed in config["seeds"]:
        ratio = arrays[f"seed{seed}/tied/distance"] / arrays[f"seed{seed}/tied/loss"]
        assert ratio[-1] == pytest.approx(float(arrays[f"seed{seed}/tied/limit"]), rel=1e-3, abs=0)
        assert ratio[-1] > 0.01
        untied = arrays[f"seed{seed}/untied/distance"] / arrays[f"seed{seed}/untied/loss"]
        assert (untied[:, -1] < 1e-4).all() and (np.diff(untied, axis=1) < 0).all()
        assert (arrays[f"seed{seed}/same"] == 0).all()


def test_both_splits_are_of_one_function(results):
    """Tied and untied write the same true function, and every split is where the closed form was tested."""
    config, _ = results
    untied, tied = figure.splits(figure.parts(config)[0])
    for split in (untied, tied):
        step, extra = 0.5, 0.1
        naive = split.naive_difference(step, extra)
        np.testing.assert_allclose(split.difference(step, extra), naive, atol=1e-14)
    # With masses alone changed (no step) both differ from it in the same way.
    np.testing.assert_allclose(untied.difference(0, 0.3), tied.difference(0, 0.3), rtol=1e-10, atol=1e-15)


def test_same_part_same_bits(results):
    config, arrays = results
    part = figure.parts(config)[1]
    for name, array in figure.compute(part).items():
        np.testing.assert_array_equal(array, arrays[f"seed1/{name}"], err_msg=name)


def test_picture_and_caption_come_from_the_arrays(results, tmp_path):
    config, arrays = results
    with plotting.style():
        drawn = figure.draw(arrays, config)
        plotting.save(drawn, tmp_path / "figure.png")
    written = {t.get_text() for t in drawn.findobj(match=lambda a: hasattr(a, "get_text"))}
    assert {"n", "untied, r = 4", "tied, r = 2", "function distance / loss", "ratio: −1.00", "D₁: −2.00"} <= written
    text = figure.caption(arrays, config)
    assert "3 random models" in text and "40 normal inputs" in text and "Nothing follows for prediction" in text
    assert "at steps 0.01, 0.1 and 1: 0)" in text


def test_committed_choices_differ_from_quick_ones_and_parts_have_names():
    quick, full = figure.config("quick"), figure.config("full")
    assert quick != full and full["n"][0] == 10 and full["n"][-1] == 10**5
    names = [part["name"] for part in figure.parts(full)]
    assert len(set(names)) == len(full["seeds"]) and figure.inputs(full) == {}
