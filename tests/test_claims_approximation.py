"""Claim C19 on planted results whose verdict is known; what its study says of scope and results."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tests.planted_claims import FLOORS, PAIRS, SIZES, few_laws, figures, judge, risks
from vpt_analysis import claims
from vpt_analysis.claims import approximation, text
from vpt_analysis.claims.base import Results
from vpt_analysis.studies import approximation as pairs


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(approximation, "RESAMPLES", 400)
    few_laws(monkeypatch)


def test_resamples_are_those_of_the_rule():
    assert "RESAMPLES, LEVEL = 10_000, 0.95" in inspect.getsource(approximation)


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


def test_scope_says_what_a_verdict_holds_for():
    said = pairs.scope(pairs.config("full"), None)
    for word in (
        "d = 8",
        "“static, twice” 6 tied",
        "“adaptive” 2 non-linear adaptive (r = 1)",
        "best of 8",
        "40 replic",
    ):
        assert word in said, word


def test_notes_give_shares_of_fits():
    notes = " ".join(judge("C19", risks(FLOORS["refuted"])).notes)
    assert "100.0 % are certified" in notes and "one draw of each teacher" in notes.lower() and "r = 1" in notes
    assert pairs.notes(pairs.config("full"), ())


def test_claim_is_registered_and_fits_on_the_page():
    assert claims.CLAIMS["C19"].study == "approximation"
    found = judge("C19", risks(FLOORS["refuted"]))
    assert max(map(len, text.shown(found).splitlines())) <= text.WIDTH
