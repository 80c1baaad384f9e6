"""Claims on estimation, C12, C13 and C19: every rule on planted results whose verdict is known, scopes and notes."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import numpy as np
import pytest

from vpt_analysis import claims, sweep
from vpt_analysis.claims import approximation, estimation, text
from vpt_analysis.claims.base import Results
from vpt_analysis.power_laws import power_law
from vpt_analysis.studies import approximation as pairs
from vpt_analysis.studies import estimation as rates
from vpt_analysis.theory.frozen import frozen

SIZES = [100, 1000, 10_000, 100_000]
RATES = rates.config("full") | {
    "sizes": SIZES, "dimensions": [4], "replicates": 40, "wide": {"4": ["tied", "untied"]}
}  # fmt: skip
PAIRS = pairs.config("full") | {"sizes": SIZES, "replicates": 40}
# Slopes at which every rule is undecided or, where it has bands, supported.
SLOPES = {"function": -0.5, "d_1": -0.5, "d_2": -0.1, "d_3": -0.1, "d_4": -0.1, "exact": -0.5, "over": -0.25}


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(estimation, "RESAMPLES", 400)
    monkeypatch.setattr(approximation, "RESAMPLES", 400)
    few_laws(monkeypatch)


def few_laws(monkeypatch) -> None:
    """Laws from fewer resamples."""
    monkeypatch.setattr(approximation, "power_law", functools.partial(power_law, resamples=400))


def planted(config: dict, noise: float = 0.1, **slopes: float) -> dict[str, np.ndarray]:
    """Errors 2 (n / n₀)^slope, log-normal over the replicates; all fits certified."""
    arrays, size = {}, config["replicates"]
    for i, part in enumerate(rates.parts(config)):
        normal = np.random.default_rng(i).standard_normal((len(SLOPES), size))
        for (name, slope), draws in zip((SLOPES | slopes).items(), normal, strict=True):
            values = 2 * (part["n"] / config["sizes"][0]) ** slope * np.exp(noise * draws)
            none = name == "over" and part["specification"] == "exact"
            arrays[f"{part['name']}/{name}"] = np.full(size, np.nan) if none else values
        more = {"converged": np.ones(size, bool), "flat": np.zeros(size, bool), "held": np.ones(size, int)}
        arrays |= {f"{part['name']}/{name}": value for name, value in (more | {"agreeing": np.ones(size)}).items()}
    return arrays


def changed(arrays: dict, name: str, change, head: str = "") -> dict:
    """Arrays ``name`` of the parts that begin with ``head``, as ``change(n, values)``."""
    found = dict(arrays)
    for key, values in arrays.items():
        part, array = key.split("/")
        if array == name and part.startswith(head):
            found[key] = change(int(part.split(":")[4]), values)
    return found


def tilted(by: float):
    return lambda n, values: values * (n / SIZES[0]) ** by


def bent(n: int, values: np.ndarray) -> np.ndarray:
    """A floor: no line."""
    return values + 0.5


def judge(which: str, arrays: dict, config: dict | None = None):
    return claims.judge(which, arrays, config or (PAIRS if which == "C19" else RATES))


def verdicts(found) -> dict[str, str]:
    return {case.name: case.verdict for case in found.cases}


def figures(case) -> dict[str, object]:
    return {figure.what: figure for figure in case.figures}


def test_resamples_are_those_of_the_rules():
    assert "RESAMPLES = 10_000" in inspect.getsource(estimation)
    assert "RESAMPLES, LEVEL = 10_000, 0.95" in inspect.getsource(approximation)
    assert (estimation.SLOW, estimation.HALF, estimation.ENOUGH) == (-0.1, 0.05, 0.9)


# --- C12 --------------------------------------------------------------------------------------------------------------


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


# --- C13 --------------------------------------------------------------------------------------------------------------


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


def none_in(share: float):
    return lambda n, values: np.where(np.arange(len(values)) < share * len(values), np.nan, values)


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


# --- C19 --------------------------------------------------------------------------------------------------------------

FLOORS = {  # static less adaptive: above 0 on both teachers; below 0 on the static one; alike there
    "supported": {"static": {"static": 0.5, "adaptive": 0.1}, "adaptive": {"static": 0.9, "adaptive": 0.1}},
    "refuted": {"static": {"static": 0.0, "adaptive": 0.5}, "adaptive": {"static": 0.5, "adaptive": 0.0}},
    "inconclusive": {"static": {"static": 0.3, "adaptive": 0.3}, "adaptive": {"static": 0.5, "adaptive": 0.0}},
}


def risks(floors: dict, exponent: float = 1.0, config: dict = PAIRS) -> dict[str, np.ndarray]:
    """floor + 0.5 (n / n₀)^−exponent, log-normal with that mean; the larger static student as the static one."""
    arrays, size = {}, config["replicates"]
    for i, part in enumerate(pairs.parts(config)):
        draws = np.random.default_rng(i).standard_normal(size)
        fall = (part["n"] / config["sizes"][0]) ** -exponent
        mean = floors[part["teacher"]][part["student"].split(",")[0]] + 0.5 * fall
        more = {"risk": mean * np.exp(0.1 * draws - 0.005), "converged": np.ones(size, bool)}
        more |= {"flat": np.zeros(size, bool), "parameters": np.array(27)}
        arrays |= {f"{part['name']}/{name}": value for name, value in more.items()}
    return arrays


@pytest.mark.parametrize("verdict", FLOORS)
def test_students_get_the_verdict_their_floors_were_planted_for(verdict):
    found = judge("C19", risks(FLOORS[verdict]))
    assert found.verdict == verdict and len(found.cases) == 1
    shown = figures(found.cases[0])
    for teacher, floors in FLOORS[verdict].items():
        gap = shown[f"{teacher} teacher: floors, static − adaptive"]
        assert gap.judged and gap.low < gap.high and gap.n == 40
        assert gap.estimate == pytest.approx(floors["static"] - floors["adaptive"], abs=0.05)
        assert not shown[f"{teacher} teacher: floors, static, twice − adaptive"].judged
    assert sum(f.judged for f in shown.values()) == 2


def test_static_teacher_alone_refutes_and_adaptive_teacher_alone_supports_nothing():
    floors = {"static": FLOORS["refuted"]["static"], "adaptive": {"static": 0.1, "adaptive": 0.5}}
    assert judge("C19", risks(floors)).verdict == "refuted"
    floors = {"static": FLOORS["supported"]["static"], "adaptive": {"static": 0.1, "adaptive": 0.5}}
    assert judge("C19", risks(floors)).verdict == "inconclusive"


def test_floors_that_are_not_identified_decide_nothing():
    """A noisy risk that hardly falls may end at once or never; all of these floors lie below the static student's."""
    arrays = risks({"static": {"static": 2.0, "adaptive": 0.1}, "adaptive": FLOORS["supported"]["adaptive"]})
    assert judge("C19", arrays).verdict == "supported"
    for n in SIZES:
        draws = np.random.default_rng(n).standard_normal(40)
        arrays[f"static:adaptive:{n}/risk"] = 0.5 * (n / 100) ** -0.08 * np.exp(draws - 0.5)
    found = judge("C19", arrays)
    shown = figures(found.cases[0])
    assert "static by adaptive: floor (unidentified)" in shown
    assert shown["static teacher: floors, static − adaptive"].low > 0 and found.verdict == "inconclusive"
    assert "static teacher: floors not identified" in found.cases[0].tally


def test_interval_of_the_difference_is_that_of_independent_students():
    """Two students with the same risks: their floors are resampled apart, so the difference is not 0 but near it."""
    arrays = risks(FLOORS["inconclusive"])
    for n in SIZES:
        arrays[f"static:adaptive:{n}/risk"] = arrays[f"static:static:{n}/risk"]
    results = Results(arrays, PAIRS, "approximation")
    first, second = (approximation.floor(results, "static", s) for s in approximation.PAIR)
    gap = approximation.excess(first, second)
    width = first.law.floor.high - first.law.floor.low
    assert gap.estimate == 0 and gap.low < 0 < gap.high
    assert gap.high - gap.low == pytest.approx(np.sqrt(2) * width, rel=0.25)


def test_resampled_floors_are_those_behind_the_interval_of_the_law(monkeypatch):
    results = Results(risks(FLOORS["supported"]), PAIRS, "approximation")
    found = approximation.floor(results, "static", "static")  # the first student: the seed of ``power_law`` itself
    low, high = np.quantile(found.drawn, [0.025, 0.975])
    assert (low, high) == pytest.approx((found.law.floor.low, found.law.floor.high), rel=1e-9)


def test_crossovers_are_told_in_words_and_samples():
    """Adaptive below static up to n = 1,000 on the static teacher, above from 10,000 on."""
    arrays = risks(FLOORS["refuted"])
    for n, mean in zip(SIZES, (0.02, 0.02, 0.02, 0.02), strict=True):
        arrays[f"static:adaptive:{n}/risk"] = mean * np.exp(0.1 * np.random.default_rng(n).standard_normal(40))
    found = judge("C19", arrays)
    assert "static student's risk lower from n = 10,000 on, adaptive student's risk lower at n = 100, 1,000" in (
        found.cases[0].tally
    )
    # 0.5 (n / 100)^−1 is 0.02 at n = 2,500, between 1,000 and 10,000.
    needed = figures(found.cases[0])["static teacher: n for the other's last risk"]
    assert needed.low < 2500 < needed.high and needed.estimate == pytest.approx(2500, rel=0.1) and not needed.judged
    alike = risks({t: {"static": 0.3, "adaptive": 0.3} for t in ("static", "adaptive")})
    for n in SIZES:
        alike[f"static:adaptive:{n}/risk"] = alike[f"static:static:{n}/risk"][::-1].copy()
    assert approximation.crossover(Results(alike, PAIRS, "approximation"), "static") == "risks not told apart"


def test_missing_and_broken_risks_are_errors():
    arrays = risks(FLOORS["supported"])
    with pytest.raises(ValueError, match="static:adaptive:1000/risk: some values are not finite"):
        judge("C19", arrays | {"static:adaptive:1000/risk": np.full(40, np.nan)})
    del arrays["adaptive:static:100/risk"]
    with pytest.raises(ValueError, match="lack adaptive:static:100/risk; .*vpt-analysis study approximation"):
        judge("C19", arrays)


# --- scopes, notes ----------------------------------------------------------------------------------------------------


def test_scopes_say_what_a_verdict_holds_for():
    assert len(frozen(4, 3).offset) == 4  # "4 frozen experts"
    for tier, words in (("quick", "d = 4, "), ("full", "d = 4, 8, 16")):
        said = rates.scope(rates.config(tier), None)
        for word in (words, "4 frozen experts", "L = 2 true", "E = 3", "noise 0.1", "log-masses ≥ −2", "40 replicates",
                     "near the truth", "one truth"):  # fmt: skip
            assert word in said, word
    assert "n = 100 to 100,000 (6 sizes)" in rates.scope(rates.config("full"), None)
    said = pairs.scope(pairs.config("full"), None)
    for word in (
        "d = 8",
        "“static, twice” 6 tied",
        "“adaptive” 2 non-linear adaptive (r = 1)",
        "best of 8",
        "40 replic",
    ):
        assert word in said, word


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
    notes = " ".join(judge("C19", risks(FLOORS["refuted"])).notes)
    assert "100.0 % are certified" in notes and "one draw of each teacher" in notes.lower() and "r = 1" in notes
    assert pairs.notes(pairs.config("full"), ())


def test_claims_are_registered_and_fit_on_the_page():
    assert [claims.CLAIMS[which].study for which in ("C12", "C13", "C19")] == ["estimation"] * 2 + ["approximation"]
    arrays = changed(changed(planted(RATES, noise=0.3), "over", none_in(0.05)), "d_1", bent)
    for found in (judge("C12", arrays), judge("C13", arrays), judge("C19", risks(FLOORS["refuted"]))):
        assert max(map(len, text.shown(found).splitlines())) <= text.WIDTH


@pytest.mark.parametrize("module", [rates, pairs])
def test_scope_and_notes_are_no_part_of_the_results(module, tmp_path):
    whole, without = Path(module.__file__), tmp_path / "study.py"
    without.write_text(whole.read_text().split("\n\n\ndef scope(")[0] + "\n")
    assert "def notes(" not in without.read_text()
    assert sweep.computing_code(without) == sweep.computing_code(whole)
