"""Published numbers: files that say where each is from, and T14: which printed means follow from printed groups."""

from __future__ import annotations

import copy
import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from paper_figures import published_tables
from vpt_analysis import claims, plotting, study
from vpt_analysis.claims import stored
from vpt_analysis.studies import published, tables

FOLDER = Path(published_tables.__file__).parent / "published"
LINE = "VPT,2203.12119,Table 1,backbone,method,88.5,84.2,99.0,90.2,83.6,paper,"
HEADER = "paper,arxiv,table,backbone,method,cub,nabirds,flowers,dogs,cars,how_read,note"


def row(**values) -> dict:
    """The row of ``vtab_groups`` that has these values."""
    (found,) = (r for r in tables.read("vtab_groups") if all(r[k] == v for k, v in values.items()))
    return found


def results(found: dict) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and config of the study for tables that are given, not read."""
    arrays, names = {}, {}
    for part, rows in published.checks(found).items():
        names[part] = list(rows)
        arrays[f"{part}/printed"], arrays[f"{part}/recomputed"] = np.array(list(rows.values())).T
    return arrays, {"tables": list(found), "checks": names}


def change(found: dict, **values) -> dict:
    """The same tables with VAPT's row of the poster changed."""
    found = copy.deepcopy(found)
    for r in found["vtab_groups"]:
        if r["method"] == values.get("method", "VAPT") and r["arxiv"] == "2501.18936" and r["how_read"] == "poster":
            r.update({k: v for k, v in values.items() if k != "method"})
    return found


# Files


def test_every_file_is_a_table_and_is_shipped():
    assert {f.stem for f in FOLDER.iterdir()} == set(tables.TABLES)
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert "published/*.csv" in project["tool"]["setuptools"]["package-data"]["paper_figures"]


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_row_says_its_source_and_has_a_number(name):
    rows, table = tables.read(name), tables.TABLES[name]
    with open(FOLDER / f"{name}.csv", newline="", encoding="utf-8") as f:
        plain = list(csv.DictReader(f))
    assert len(plain) == len(rows) > 0
    for read, written in zip(rows, plain, strict=True):
        assert read["paper"] and read["table"] and read["how_read"] in tables.HOW_READ
        numbers = [read[c] for c in (*table.percent, *table.numbers)]
        assert any(np.isfinite(numbers))
        for column in (*table.percent, *table.numbers):
            assert np.isnan(read[column]) if written[column] == "" else read[column] == float(written[column])


def test_numbers_that_no_one_has_confirmed_are_marked():
    """What is known from notes alone: SA2VP's row, VAPT on self-supervised backbones, the text on 1 % of Dogs."""
    marked = [
        (name, r["method"]) for name in tables.TABLES for r in tables.read(name) if r["how_read"] == "second-hand"
    ]
    expected = [("vtab_groups", m) for m in ("SA2VP", "VAPT", "VAPT")] + [("dogs_curve", m) for m in ("VAPT", "VPT")]
    assert marked == expected
    assert all(r["how_read"] == "pixels" for r in tables.read("reparametrisation"))


def test_slopes_have_what_a_comparison_needs():
    rows = tables.read("slopes")
    assert {r["arxiv"] for r in rows} == {"2405.13997", "2505.18455"}
    for r in rows:
        assert -1 < r["slope"] < 0 and (r["n_low"], r["n_high"]) == (1e3, 1e5) and r["replicates"] >= 20
        assert r["dimension"] == {"2405.13997": 32, "2505.18455": 8}[r["arxiv"]]
        assert np.isnan(r["theory"]) or -0.5 <= r["theory"] < 0


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (HEADER.replace("dogs", "cats") + f"\n{LINE}\n", "lacks dogs and has too many: cats"),
        (HEADER.replace("dogs", "cub") + f"\n{LINE}\n", "lacks dogs and has too many: cub, cub"),
        ("", "lacks arxiv, backbone, .*too many: nothing"),
        (f"{HEADER}\n{LINE},more\n", "line 2: 13 cells; expected 12"),
        (f"{HEADER}\n{LINE.replace('90.2', 'ninety')}\n", "line 2: dogs is 'ninety'; expected a number, or nothing"),
        (f"{HEADER}\n{LINE.replace('90.2', 'inf')}\n", "line 2: dogs is 'inf'"),
        (f"{HEADER}\n{LINE.replace('90.2', 'nan')}\n", "line 2: dogs is 'nan'"),
        (f"{HEADER}\n{LINE.replace('90.2', '902')}\n", "line 2: dogs is 902.0; expected 0 to 100 per cent"),
        (f"{HEADER}\n{LINE.replace('paper,', 'pape,')}\n", "line 2: unknown way of reading 'pape'; did you"),
        (f"{HEADER}\n{LINE.replace('paper,', 'copy,')}\n", "line 2: the note has to say where"),
        (f"{HEADER}\n{LINE.replace('2203.12119', '')}\n", "line 2: the note has to say where"),
        (f"{HEADER}\n{LINE.replace('2203.12119', 'arXiv:2203')}\n", "line 2: 'arXiv:2203' is no arXiv id"),
        (f"{HEADER}\n{LINE.replace('Table 1', '')}\n", "line 2: paper and table are needed"),
        (f"{HEADER}\n{LINE}\n{LINE.replace('88.5', '88.6')}\n", "line 3: of 2203.12119, Table 1, .* line 2 speaks too"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_file_line_and_column(text, error, tmp_path):
    file = tmp_path / "planted.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"planted.csv.*{error}"):
        tables.read("fgvc_sets", file)


def test_a_good_file_is_read(tmp_path):
    file = tmp_path / "planted.csv"
    file.write_text(f"{HEADER}\n{LINE.replace('90.2', '')}\n", encoding="utf-8")
    (found,) = tables.read("fgvc_sets", file)
    assert found["cub"] == 88.5 and np.isnan(found["dogs"]) and found["method"] == "method"


def test_unknown_tables_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="unknown published table 'slope'; did you mean 'slopes'"):
        tables.read("slope")


# T14


def test_printed_means_follow_from_printed_groups_but_for_adapter_and_lora():
    means = published.checks(published.read())["means"]
    off = {name: (p, round(r, 2)) for name, (p, r) in means.items() if abs(p - r) > 0.02}
    wrong = {"Adapter": (62.41, 56.35), "LoRA": (72.25, 70.13)}
    assert off == {f"{method} ({arxiv})": wrong[method] for arxiv in ("2501.18936", "2411.01327") for method in wrong}
    assert len(means) == 13 and max(abs(p - r) for name, (p, r) in means.items() if name not in off) < 0.0133
    found = claims.judge("T14", *results(published.read()))
    assert found.verdict == "supported" and len(found.cases) == 13
    assert [c.tally for c in found.cases if c.name == "LoRA (2501.18936)"] == ["does not hold, stated to fail"]


def test_means_of_single_tasks_and_sets_agree_with_printed_ones_to_their_rounding():
    found = published.checks(published.read())
    under = found["tasks"] | found["sets"]
    assert len(found["tasks"]) == 4 * 4 + 1 and len(found["sets"]) == 4
    assert max(abs(p - r) for p, r in under.values()) < 0.05
    assert found["sets"]["VPT-Shallow (2203.12119): FGVC"] == pytest.approx((84.62, 84.66))
    assert found["tasks"]["VPT, one image a class (2401.12902): Natural"][1] == pytest.approx(56.943, abs=5e-4)
    assert all(r == pytest.approx(72.256, abs=5e-4) for _, r in found["source"].values()) and len(found["source"]) == 2


def test_weights_of_the_groups_are_their_numbers_of_tasks():
    """A permutation of the groups, or equal weights, would give other means."""
    groups = {"natural": 81.43, "specialized": 85.13, "structured": 59.34}
    assert published.weighted(groups) == pytest.approx((7 * 81.43 + 4 * 85.13 + 8 * 59.34) / 19)
    assert [len(names) for names in tables.GROUPS.values()] == [7, 4, 8]


@pytest.mark.parametrize(("mean", "verdict"), [(72.92, "supported"), (72.93, "refuted"), (72.88, "refuted")])
def test_a_row_that_breaks_refutes(mean, verdict):
    """VAPT's groups give 72.908; 0.02 either way is allowed."""
    found = claims.judge("T14", *results(change(published.read(), mean=mean)))
    assert found.verdict == verdict
    broken = [c.name for c in found.cases if c.verdict == "refuted"]
    assert broken == ([] if verdict == "supported" else ["VAPT (2501.18936)"])
    assert "contradict" not in " ".join(found.notes)


def test_a_listed_row_that_holds_refutes():
    found = claims.judge("T14", *results(change(published.read(), method="LoRA", mean=70.13)))
    assert found.verdict == "refuted"
    assert [c.tally for c in found.cases if c.verdict == "refuted"] == ["holds, stated to fail"]


def test_a_difference_of_exactly_the_tolerance_holds():
    for mean in (72.25, 72.21):
        groups = dict.fromkeys(tables.GROUPS, 72.23)
        assert claims.judge("T14", *results(change(published.read(), mean=mean, **groups))).verdict == "supported"


def test_a_mean_without_its_groups_is_no_row_and_single_tasks_need_their_groups():
    lacking = change(published.read(), structured=float("nan"))
    assert "VAPT (2501.18936)" not in published.checks(lacking)["means"]
    found = copy.deepcopy(published.read())
    for r in found["vtab_groups"]:
        if r["arxiv"] == "2411.01327" and r["method"] == "Linear":
            r["specialized"] = float("nan")
    with pytest.raises(ValueError, match="Linear .2411.01327. has no mean of specialized; .* all three groups"):
        published.checks(found)
    found["vtab_groups"] = [r for r in found["vtab_groups"] if r["method"] != "Linear"]
    with pytest.raises(ValueError, match="vtab_groups.csv has no row of arXiv 2411.01327 for Linear"):
        published.checks(found)


def test_rows_that_the_rule_speaks_of_have_to_be_there():
    found = published.read()
    found["vtab_groups"] = [r for r in found["vtab_groups"] if r["method"] != "Adapter"]
    with pytest.raises(ValueError, match="no row of Adapter has a printed mean"):
        claims.judge("T14", *results(found))


def test_committed_results_are_those_of_the_shipped_tables():
    arrays, record = study.committed("published")
    assert record["inputs"] == {name: study.digest_file(tables.path(name)) for name in published.READ}
    assert record["config"] == published.config("full") == published.config("quick")
    for part in published.parts(record["config"]):
        for name, value in published.compute(part).items():
            np.testing.assert_array_equal(value, arrays[f"{part['name']}/{name}"])
    kept = stored.read()["published"]["verdicts"]
    assert set(kept) == {"T14"} and kept["T14"] == stored.record(claims.judge("T14", arrays, record["config"]))


# The figure


def drawn(found: dict, tmp_path) -> tuple[set[str], str]:
    arrays, config = results(found)
    with plotting.style():
        figure = published_tables.draw(arrays, config)
        plotting.save(figure, tmp_path / "figure.png")
    said = {t.get_text() for t in figure.findobj(match=lambda a: hasattr(a, "get_text"))}
    return said, published_tables.caption(arrays, config)


def test_figure_shows_the_rows_that_do_not_hold(tmp_path):
    said, caption = drawn(published.read(), tmp_path)
    assert {"+6.06", "+2.12", "E2VPT", "VPT-Shallow", "VAPT, poster"} <= said and "+0.01" not in said
    assert "Adapter (2501.18936): printed 62.41, recomputed 56.35" in caption and "n = 13 rows" in caption
    assert "no seeds" in caption and "72.26" in caption and "hold to 0.013" in caption
    assert "0.04 (VPT-Shallow (2203.12119): FGVC)" in caption


def test_figure_shows_a_row_that_is_made_to_break(tmp_path):
    said, caption = drawn(change(published.read(), mean=70.91), tmp_path)
    assert "-2.00" in said and "VAPT (2501.18936): printed 70.91, recomputed 72.91" in caption
