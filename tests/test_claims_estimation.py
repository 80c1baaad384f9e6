"""Claims on estimation, C12 and C13: every rule on planted results whose verdict is known, scopes and notes."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest

from tests.planted_claims import RATES, SIZES, bent, changed, figures, judge, none_in, planted, tilted, verdicts
from vpt_analysis import claims, sources
from vpt_analysis.claims import estimation, text
from vpt_analysis.claims.base import Results
from vpt_analysis.studies import approximation as pairs
from vpt_analysis.studies import estimation as rates
from vpt_analysis.theory.frozen import frozen


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(estimation, "RESAMPLES", 400)


def test_resamples_are_those_of_the_rules():
    assert "RESAMPLES = 10_000" in inspect.getsource(estimation)
    assert (estimation.SLOW, estimation.HALF, estimation.ENOUGH) == (-0.1, 0.05, 0.9)


@pytest.mark.parametrize(
    ("slopes", "verdict", "words"),
    [
        ({"d_2": 0.0}, "supported", "prediction at n^−1/2; parameters slow"),
        ({"d_2": 0.3}, "supported", "prediction at n^−1/2; parameters slow"),  # a loss that rises is slow as well
        ({"d_2": -0.4}, "refuted", "parameters fall like a power of n"),
        ({"d_2": -0.4, "function": -0.2}, "refuted", "prediction not at n^−1/2; parameters fall"),
        ({}, "inconclusive", "parameters undecided"),  # −0.1
        ({"d_2": 0.0, "function": -0.8}, "inconclusive", "prediction not at n^−1/2; parameters slow"),
    ],
)
def test_untied_prompts_get_the_verdict_they_were_planted_for(slopes, verdict, words):
    found = judge("C12", planted(RATES, **slopes))
    assert found.verdict == verdict and len(found.cases) == 2
    assert all(words in case.tally for case in found.cases)


def test_bent_curves_decide_nothing_on_untied_prompts():
    slow, falling = planted(RATES, d_2=0.0), planted(RATES, d_2=-0.4)
    for arrays, name in ((slow, "function"), (falling, "d_2")):
        found = judge("C12", changed(arrays, name, bent))
        assert set(verdicts(found).values()) == {"inconclusive"}
        assert all("no line" in case.tally for case in found.cases)
        label = estimation.LABELS[name]
        shown = figures(found.cases[0])
        assert shown[f"slope of {label} (no line)"].judged
        assert shown[f"{label}: change of the local slope"].estimate > 0.1
        assert shown[f"{label}: curvature"].low > 0 and f"{label}: cubic" in shown
    # D₂ alone refutes: what the function error does is not needed for it.
    assert judge("C12", changed(falling, "function", bent)).verdict == "refuted"


def test_other_losses_families_and_boxes_are_reported_and_do_not_judge():
    arrays = planted(RATES, d_2=0.0)
    other = arrays
    for name in ("d_1", "d_3", "d_4", "exact", "over"):
        other = changed(other, name, tilted(-0.7), "untied:")
    for head in ("norga:", "tied:", "linear:", "nonlinear:", "untied:4:exact:"):
        other = changed(other, "d_2", tilted(-0.7), head)
    for n in SIZES:  # the wide box
        key = f"untied:4:over:near:{n}:wide/d_2"
        other[key] = tilted(-0.7)(n, other[key])
    found = judge("C12", other)
    assert found.verdict == "supported"
    near, random = (figures(case) for case in found.cases)
    assert near["slope of D₁"].estimate == pytest.approx(-1.2, abs=0.05) and not near["slope of D₁"].judged
    assert (
        near["slope of NoRGa: D₂"].estimate == pytest.approx(-0.7, abs=0.05) and not near["slope of NoRGa: D₂"].judged
    )
    assert near["slope of wide box: D₂"].estimate == pytest.approx(-0.7, abs=0.05)
    assert "slope of wide box: D₂" not in random
    assert {what for what, figure in near.items() if figure.judged} == {"slope of function error", "slope of D₂"}


def test_cases_of_untied_prompts_that_disagree_give_no_verdict():
    found = judge("C12", changed(planted(RATES, d_2=0.0), "d_2", tilted(-0.4), "untied:4:over:random"))
    assert list(verdicts(found).values()) == ["supported", "refuted"] and found.verdict == "inconclusive"
    assert "contradict" in found.notes[-1] and "2 cases: 1 supported, 1 refuted, 0 inconclusive." in found.notes


@pytest.mark.parametrize("which", ["C12", "C13"])
def test_one_replicate_decides_nothing(which):
    config = RATES | {"replicates": 1}
    found = claims.judge(which, planted(config, noise=0.0, d_2=0.0), config)
    assert set(verdicts(found).values()) == {"inconclusive"}
    assert "no interval" in text.shown(found)


@pytest.mark.parametrize(
    ("which", "part"), [("C12", "untied:4:over:near:1000/d_2"), ("C13", "tied:4:exact:random:100/d_1")]
)
def test_missing_and_broken_arrays_are_errors(which, part):
    arrays = planted(RATES)
    whole = arrays.pop(part)
    with pytest.raises(ValueError, match=f"lack {part}; .*vpt-analysis study estimation --tier full"):
        judge(which, arrays)
    for wrong in (np.nan, np.inf, 0.0):
        with pytest.raises(ValueError, match="zero, negative or not finite"):
            judge(which, arrays | {part: np.where(np.arange(40) == 7, wrong, whole)})


def test_rates_in_their_bands_support():
    found = judge("C13", planted(RATES))
    assert found.verdict == "supported" and len(found.cases) == 8
    named = verdicts(found)
    assert "nonlinear, over, d = 4, random starts" in named and "tied, exact, d = 4, started near the truth" in named
    judged = [{what for what, f in figures(case).items() if f.judged} for case in found.cases]
    assert sum("slope of over-fitted atoms" in what for what in judged) == 4  # not where nothing is over-fitted
    assert all({"slope of D₁", "slope of exact atoms"} <= what for what in judged)


@pytest.mark.parametrize(
    ("name", "slope", "verdict", "word"),
    [
        ("d_1", -0.54, "supported", "D₁ in its band"),
        ("d_1", -0.60, "refuted", "D₁ steeper"),
        ("d_1", -0.40, "refuted", "D₁ flatter"),
        ("exact", -0.25, "refuted", "exact atoms flatter"),
        ("over", -0.29, "supported", "over-fitted atoms in its band"),
        ("over", -0.50, "refuted", "over-fitted atoms steeper"),
        ("over", -0.10, "refuted", "over-fitted atoms flatter"),
    ],
)
def test_bands_are_met_or_missed_on_either_side(name, slope, verdict, word):
    found = judge("C13", planted(RATES, **{name: slope}))
    over = [case for case in found.cases if ", over," in case.name]
    assert {case.verdict for case in over} == {verdict} and all(word in case.tally for case in over)
    if name == "over":
        assert {case.verdict for case in found.cases if ", exact," in case.name} == {"supported"}
    else:
        assert found.verdict == verdict


def test_a_wide_interval_that_reaches_its_band_meets_it():
    arrays = changed(planted(RATES, noise=1.5), "d_1", tilted(-0.08))
    found = judge("C13", arrays)
    slopes = [figures(case)["slope of D₁"] for case in found.cases]
    assert any(f.low < -0.55 < f.high and f.estimate < -0.55 for f in slopes)
    for case in found.cases:
        f = figures(case)["slope of D₁"]
        assert ("D₁ in its band" in case.tally) == (f.low <= -0.45 and f.high >= -0.55)


def test_bent_curves_support_nothing_and_leave_refutation_to_the_others():
    arrays = changed(planted(RATES), "d_1", bent, "tied:4:over")
    found = verdicts(judge("C13", arrays))
    assert {v for name, v in found.items() if name.startswith("tied, over")} == {"inconclusive"}
    assert {v for name, v in found.items() if not name.startswith("tied, over")} == {"supported"}
    found = verdicts(judge("C13", changed(arrays, "over", tilted(-0.25), "tied:4:over")))
    assert {v for name, v in found.items() if name.startswith("tied, over")} == {"refuted"}


def test_replicates_without_such_a_cell_are_left_out_where_most_have_one():
    arrays = planted(RATES)
    whole = figures(judge("C13", arrays).cases[0])["slope of exact atoms"]
    few = judge("C13", changed(arrays, "exact", lambda n, v: none_in(0.1)(n, v) if n == 1000 else v))
    assert few.verdict == "supported"
    slope = figures(few.cases[0])["slope of exact atoms"]
    assert (slope.n, whole.n) == (36, 40)
    many = judge("C13", changed(arrays, "exact", lambda n, v: none_in(0.125)(n, v) if n == 1000 else v))
    assert set(verdicts(many).values()) == {"inconclusive"}
    assert "slope of exact atoms" not in figures(many.cases[0])
    assert "exact atoms in too few replicates" in many.cases[0].tally
    flat = judge("C13", changed(changed(arrays, "exact", none_in(0.5)), "d_1", tilted(0.2)))
    assert flat.verdict == "refuted"  # by D₁, which every replicate has


def test_slope_with_some_left_out_is_that_of_the_medians_of_the_others():
    arrays = changed(planted(RATES), "over", lambda n, v: none_in(0.05)(n, v) if n > 100 else v)
    curve = estimation.Curve("tied", 4, "over", "near")
    found = estimation.slope(Results(arrays, RATES, "estimation"), curve, "over")
    medians = [np.nanmedian(arrays[f"tied:4:over:near:{n}/over"]) for n in SIZES]
    assert found.estimate == pytest.approx(np.polyfit(np.log(SIZES), np.log(medians), 1)[0], abs=1e-12)
    assert found.n == 38 and found.low < found.estimate < found.high


def test_scopes_say_what_a_verdict_holds_for():
    assert len(frozen(4, 3).offset) == 4  # "4 frozen experts"
    for tier, words in (("quick", "d = 4, "), ("full", "d = 4, 8, 16")):
        said = rates.scope(rates.config(tier), None)
        for word in (words, "4 frozen experts", "L = 2 true", "E = 3", "noise 0.1", "log-masses ≥ −2", "40 replicates",
                     "near the truth", "one truth"):  # fmt: skip
            assert word in said, word
    assert "n = 100 to 100,000 (6 sizes)" in rates.scope(rates.config("full"), None)


def test_notes_give_shares_of_fits_and_say_what_they_mean():
    arrays = planted(RATES, d_2=0.0)
    arrays = changed(
        changed(arrays, "converged", lambda n, v: np.arange(40) >= 8), "flat", lambda n, v: np.arange(40) < 6
    )
    notes = " ".join(judge("C12", arrays).notes)
    assert (
        "80.0 % are certified" in notes and "15.0 % drift along a flat valley" in notes and "5.0 % are neither" in notes
    )
    assert "holds 4.2 % of the coordinates" in notes  # 1 of 3 · (1 + 4 + 3) = 24
    for word in ("wide box", "One draw of the truth", "width r = 1", "computer algebra"):
        assert word in notes, word
    assert "wide box" not in " ".join(rates.notes(rates.config("quick"), ()))


def test_claims_are_registered_and_fit_on_the_page():
    assert [claims.CLAIMS[which].study for which in ("C12", "C13")] == ["estimation"] * 2
    arrays = changed(changed(planted(RATES, noise=0.3), "over", none_in(0.05)), "d_1", bent)
    for found in (judge("C12", arrays), judge("C13", arrays)):
        assert max(map(len, text.shown(found).splitlines())) <= text.WIDTH


@pytest.mark.parametrize("module", [rates, pairs])
def test_scope_and_notes_are_no_part_of_the_results(module, tmp_path):
    whole, without = Path(module.__file__), tmp_path / "study.py"
    without.write_text(whole.read_text().split("\n\n\ndef scope(")[0] + "\n")
    assert "def notes(" not in without.read_text()
    assert sources.computing_code(without) == sources.computing_code(whole)
