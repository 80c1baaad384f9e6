"""The study of teachers: its grid, small parts of it, the committed results in part again, and its figure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from paper_figures import _registry
from paper_figures import teachers as figure
from vpt_analysis import plotting
from vpt_analysis import study as machinery
from vpt_analysis.probes.teachers import NAMES
from vpt_analysis.studies import teachers as study

SMALL = {"images": 120, "steps": 5, "lengths": [1, 3], "copied": [2, 65], "other_up_to": 1, "fit_length": 2,
         "fit_steps": 2, "mechanisms": ["prefix", "vapt"], "samples": [100, 400], "draws": 2, "points": [8, 32],
         "functions": 2, "inputs": 200}  # fmt: skip


def small(name: str, **more) -> dict[str, np.ndarray]:
    (part,) = (p for p in study.parts(study.config("full")) if p["name"] == name)
    return study.compute(part | {k: v for k, v in SMALL.items() if k in part} | more)


@pytest.fixture(scope="module")
def middle() -> dict[str, np.ndarray]:
    return small("floors:middle:lora-v:0")


def planted(config: dict) -> dict[str, np.ndarray]:
    """Results with powers of P, no error of copies of all tokens, and errors that fall as P^-2 on the circle."""
    found = {}
    for part in study.parts(config):
        if part["kind"] == "floors":
            p, c = np.array(part["lengths"], float), np.array(part["copied"], float)
            static = 0.5 * p**-0.5 * (1 + 0.1 * part["seed"])
            other = 1.2 * static[: sum(p <= part["other_up_to"])]
            arrays = {"static": static, "start": 1.5 * static, "other": other, "fresh": 1.1 * static,
                      "read": 0.3 * static, "read/fresh": 0.4 * static, "read/swapped": 0.9 * static,
                      "copies": np.where(c == c.max(), 1e-25, 0.2 / c), "copies/static": 0.5 / c,
                      "copies/fresh": 0.3 / c, "constant": 0.7, "slack": 1e-20, "monotone": 1.0}  # fmt: skip
            if part["place"] == "first":
                arrays["any_length"] = np.array([0.0999, 0.1])
        elif part["kind"] == "fits":
            arrays = {name: 0.6 for name in part["mechanisms"]}
        elif part["kind"] == "samples":
            risk = np.array(part["samples"], float)[:, None] ** -1 * np.linspace(1, 1.2, part["draws"])
            arrays = {"static": 0.3 + risk, "static/floor": 0.3, "read": 0.1 + 10 * risk, "read/floor": 0.1}
        else:
            errors = np.array(part["points"], float)[:, None] ** (-2.0 / part["m"])
            errors = errors * np.linspace(1, 1.1, part["functions"])
            arrays = {"sampled": errors, "fitted": errors**2, "largest": 0.25 * errors, "bound": errors}
        found |= {f"{part['name']}/{k}": np.asarray(v, float) for k, v in arrays.items()}
    return found


# --- grid -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_choices_and_parts_are_plain_values_with_names_of_their_own(tier):
    config = study.config(tier)
    parts = study.parts(config)
    assert json.loads(json.dumps(config)) == config and json.loads(json.dumps(parts)) == parts
    names = [p["name"] for p in parts]
    assert (
        len(set(names)) == len(names) and "teachers" in machinery.names() and set(study.inputs(config)) == {"weights"}
    )
    assert tuple(config["teachers"]) == NAMES and set(config["places"]) <= set(study.PLACES)
    for part in parts:
        if part["kind"] == "floors":  # enough items for the columns of values that read 128 numbers
            items = part["images"] * (1 if part["place"] == "first" else len(part["queries"]))
            assert items > 128 + max(*part["lengths"], *part["copied"])


def test_the_full_tier_has_what_the_issue_asks_for():
    config = study.config("full")
    assert config["lengths"]["middle"] == [1, 2, 5, 10, 20, 50, 100, 200] and len(config["seeds"]) >= 3
    assert {"first", "middle", "random"} == set(config["places"]) and len(config["teachers"]) == 7
    quick = study.config("quick")
    assert len(study.parts(quick)) < len(study.parts(config)) / 2
    said = study.scope(config, "0123456789")
    for words in ("vit-micro 01234567", "digits", "600 images", "3 draws"):
        assert words in said
    assert len(study.notes(config, ())) == 3


# --- parts ------------------------------------------------------------------------------------------------------------


def test_floors_of_a_small_part_keep_their_order(middle):
    assert set(middle) == {"static", "start", "other", "fresh", "read", "read/fresh", "read/swapped", "copies",
                           "copies/static", "copies/fresh", "constant", "slack", "monotone"}  # fmt: skip
    assert all(np.isfinite(v).all() and v.dtype == np.float64 for v in middle.values())
    assert middle["static"].shape == (2,) and middle["other"].shape == (1,) and middle["copies"].shape == (2,)
    assert (middle["static"] <= middle["start"]).all() and middle["static"][1] <= middle["static"][0]
    assert (middle["read"] <= middle["static"]).all() and (middle["read/swapped"] <= middle["static"]).all()
    assert (middle["read"] < middle["read/swapped"]).all()  # the image itself says more than another one
    assert middle["copies"][1] < 1e-18 < middle["copies"][0] and middle["copies/fresh"][1] < 1e-12
    assert (middle["copies"] < middle["copies/static"]).all() and middle["slack"] < 1e-12 and middle["monotone"] == 1


def test_no_static_prompt_comes_below_the_bound_of_the_first_layer():
    found = small("floors:first:lora-q:1", images=250)
    low, high = found["any_length"]
    assert 0 < low <= high and (found["static"] >= low).all() and found["static"].min() < 1.01 * high
    assert (found["read"] < low).all()


def test_a_small_part_gives_the_same_numbers_again(middle):
    for name, value in small("floors:middle:lora-v:0").items():
        np.testing.assert_array_equal(value, middle[name], err_msg=name)


def test_the_population_and_the_other_images_are_apart():
    (part,) = (p for p in study.parts(study.config("full")) if p["name"] == "floors:random:class:2")
    vit, layers, changes = study.population(part | {"images": 40})
    assert [len(x.tokens) for x in layers] == [40, 20] and [len(c) for c in changes] == [80, 40]
    apart = (layers[0].tokens[:, None] - layers[1].tokens[None]).abs().amax((2, 3))
    assert float(apart.min()) > 1e-6
    assert layers[0].block is layers[1].block and layers[0].block not in list(vit.blocks)


def test_risks_and_fits_of_small_parts():
    found = small("samples:lora-v:0")
    assert found["static"].shape == (2, 2) == found["read"].shape
    for name in ("static", "read"):
        assert (found[name] >= found[f"{name}/floor"]).all() and found[name][1].mean() < found[name][0].mean()
    assert found["read/floor"] < found["static/floor"]
    fits = small("fits:lora-v:0")
    assert set(fits) == {"prefix", "vapt"} and all(np.isfinite(v) and v > 0 for v in fits.values())
    universal = small("universal:2")
    assert all(v.shape == (2, 2) for v in universal.values())
    assert (universal["largest"] <= universal["bound"]).all()
    assert (universal["fitted"][1] < universal["sampled"][1]).all()


def test_committed_results_in_part_again():
    """First layer, one prompt: rounding of the backbone's tokens alone can differ, and the search has one direction to
    go in. And the shorter prompts of the constructed head on the circle."""
    arrays, record = machinery.committed("teachers")
    parts = {p["name"]: p for p in study.parts(record["config"])}
    name = "floors:first:lora-v:0"
    found = study.compute(parts[name] | {"lengths": [1], "copied": [1, 2]})
    for key in ("static", "other", "read", "read/swapped", "copies", "copies/static", "constant", "any_length"):
        stored = arrays[f"{name}/{key}"]
        stored = stored[: len(found[key])] if stored.ndim else stored
        np.testing.assert_allclose(found[key], stored, rtol=1e-3, atol=1e-6, err_msg=key)
    short = study.compute(parts["universal:1"] | {"points": [8, 16]})
    for key, value in short.items():
        np.testing.assert_allclose(value, arrays[f"universal:1/{key}"][:2], rtol=1e-6, err_msg=key)


# --- figure -----------------------------------------------------------------------------------------------------------


def test_every_teacher_is_drawn_with_every_student(tmp_path):
    config = study.config("full")
    arrays = planted(config)
    module = _registry.load("teachers")
    assert module is figure and _registry.study(module) is study and module.TITLE
    with plotting.style():
        drawn = figure.draw(arrays, config)
        plotting.save(drawn, tmp_path / "teachers.png")
    panels = drawn.axes[:7]
    assert [ax.get_title() for ax in panels] == list(figure.NAMES.values())
    (static,) = (line for line in panels[0].lines if line.get_label() == figure.CURVES["static"])
    x, y = static.get_xdata(), static.get_ydata()
    means = 0.5 * np.array(x, float) ** -0.5 * (1 + 0.1 * np.mean(config["seeds"]))
    np.testing.assert_allclose(y, means, rtol=1e-12)
    for ax in panels:
        labels = ax.get_legend_handles_labels()[1]
        assert set(labels) == {*figure.CURVES.values(), *figure.FITS.values(), "static, other images",
                               "one vector added"}  # fmt: skip
        assert any(t.get_text() == "0" for t in ax.texts)  # copies of all tokens reach it
        assert min(np.min(line.get_ydata()) for line in ax.lines) >= figure.LEAST
    head, table = drawn.axes[7:9]
    assert head.get_xlabel() == "P, prompts" and head.get_ylabel()
    words = [t.get_text() for t in table.texts]
    columns = figure.places(config)
    assert len(words) == 7 * len(columns) and words.count("0") == 7 * len(config["places"])
    assert columns[0][:3] == ("first", "any_length", 0) and words[0] == ".10" or words[0] == ".100"
    assert all(ax.get_xlabel() == "n, images" and ax.get_ylabel() for ax in drawn.axes[9:])


def test_the_caption_has_the_numbers_and_says_what_is_exact():
    config = study.config("full")
    arrays = planted(config)
    said = figure.caption(arrays, config)
    last = 0.5 * 200**-0.5 * 1.1
    assert f"constant shift {last:.2g} (other images {1.1 * last:.2g}) against 0" in said
    listed = "600 images|3 draws|Exact given the keys|Upper bounds|the other one ends 20 % higher|S^1 −2.00|S^2 −1.00"
    for words in (*listed.split("|"), "at most 0.25 of the proved bound", "within 0.1 %", "95 % intervals"):
        assert words in said, words
    ten = 0.5 * 10**-0.5 * 1.1
    assert f"constant shift {ten:.2g}, {0.9 * ten:.2g}, {0.3 * ten:.2g};" in said
    worse = arrays | {"floors:middle:class:2/slack": np.array(1e-5), "universal:2/largest": arrays["universal:2/bound"]}
    said = figure.caption(worse, config)
    assert "numerical slack ≤ 1e-05" in said and "at most 1.00 of the proved bound" in said
