"""Claims on sample efficiency (C7, C8, C22, C24) on planted results whose verdicts are known, and what all seven have
in common (C9, C10, C14 have a file of their own)."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from tests.planted_efficiency import (
    CONFIGS,
    CURVES,
    ONE_SHOT,
    PLANTED,
    SEEDS,
    STATIC,
    by_arm,
    curves,
    figures,
    judge,
    noisy,
    of,
    planted,
    verdicts,
)
from vpt_analysis import claims
from vpt_analysis.claims import adaptivity, compared, sample_efficiency, selection, stored, text
from vpt_analysis.claims.base import half, most
from vpt_analysis.efficiency.arms import ARMS

NEVER = curves({"one": 1.0, "two": 1.0})


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    for module in (compared, adaptivity, sample_efficiency, selection):
        monkeypatch.setattr(module, "RESAMPLES", 400)


@pytest.mark.parametrize("which", PLANTED)
@pytest.mark.parametrize("at", range(3), ids=("supported", "refuted", "inconclusive"))
def test_planted_results_get_the_verdict_they_were_planted_for(which, at):
    level, options = PLANTED[which][at]
    assert of(which, level, **options).verdict == ("supported", "refuted", "inconclusive")[at]


@pytest.mark.parametrize("which", ["C7", "C10", "C14"])
def test_tasks_that_contradict_each_other_give_no_verdict(which):
    (supported, _), (refuted, _), _ = PLANTED[which]
    found = of(which, lambda task, *rest: (supported if task == "one" else refuted)(task, *rest))
    assert found.verdict == "inconclusive" and set(verdicts(found).values()) == {"supported", "refuted"}
    assert "contradict" in " ".join(found.notes)


@pytest.mark.parametrize("which", PLANTED)
def test_one_seed_decides_nothing(which):
    for level, options in PLANTED[which]:
        found = judge(which, planted(CONFIGS[which] | {"seeds": [0]}, level, **options), seeds=[0])
        assert set(verdicts(found).values()) == {found.verdict} == {"inconclusive"}
        assert all(np.isnan(f.low) for case in found.cases for f in case.figures)
        assert not any("Holm" in f.what for case in found.cases for f in case.figures)


@pytest.mark.parametrize("which", CONFIGS)
@pytest.mark.parametrize("seeds", [[0], SEEDS], ids=["one seed", "five"])
def test_text_fits_the_page_and_holds_every_number(which, seeds):
    config = CONFIGS[which] | {"seeds": seeds}
    found = claims.judge(which, planted(config, PLANTED.get(which, PLANTED["C8"])[1][0], gap=0.03), config)
    shown = text.shown(found)
    assert max(map(len, shown.splitlines())) <= text.WIDTH
    for case in found.cases:
        assert all(what in shown for what in figures(case))
    assert shown.splitlines()[-1].split() == ["verdict", found.verdict.upper()]
    json.dumps(stored.record(found), allow_nan=False)


def test_resamples_are_those_of_the_rule():
    assert "RESAMPLES = 10_000" in inspect.getsource(compared)


def test_claims_are_registered_with_the_study_that_runs_their_arms():
    studies = {"C7": "one_shot", "C8": "learning_curves", "C9": "ablations", "C10": "ablations", "C14": "ablations",
               "C22": "learning_curves", "C24": "learning_curves"}  # fmt: skip
    assert {name: claims.CLAIMS[name].study for name in studies} == studies
    read = {*STATIC, "vapt", *adaptivity.MEANS.values(), *(arm for pair in adaptivity.PAIRS for arm in pair)}
    assert read <= set(ARMS) and {a for a in ARMS if a.startswith(adaptivity.WITHOUT)}


# C7


def test_every_static_arm_alone_refutes_and_arms_beside_do_not():
    for arm in STATIC:
        assert of("C7", by_arm(0.2, vapt=0.5, **{arm.replace("-", "_"): 0.46})).verdict == "refuted"
    assert of("C7", by_arm(0.2, vapt=0.5, vpt_shallow=0.5, vapt_released=0.6)).verdict == "supported"


def test_one_shot_tells_all_arms_rates_chosen_by_test_and_corrected_p_values():
    found = of("C7", by_arm(0.2, vapt=0.5, linear=0.47), gap=0.02)
    case = found.cases[0]
    shown = figures(case)
    assert shown["linear − vapt"].judged and shown["linear − vapt"].estimate == pytest.approx(-3.0)
    assert sum(f.judged for f in case.figures) == len(STATIC)
    for arm in ONE_SHOT["arms"]:
        assert not shown[f"{arm}, rate preferred by test, %"].judged
        # The trials are those of the first seed, 0.4 points below the mean of all.
        chosen = shown[f"{arm}, rate preferred by test, %"].estimate
        assert chosen == pytest.approx(shown[f"{arm}, %"].estimate - 0.4 + 2.0)
        assert shown[f"{arm}, rate chosen"].estimate == 0.01
    assert shown["chance, %"].estimate == 10 and "within 5 points of VAPT: linear" in case.tally
    p = {arm: shown[f"{arm}: p against −5 points, Holm"].estimate for arm in STATIC}
    assert all(0 <= value < 0.01 for value in p.values())


def test_room_that_vapt_leaves_the_rule_is_told():
    few = of("C7", by_arm(0.14, vapt=0.14, linear=0.02))
    assert few.verdict == "refuted" and "VAPT itself is within 5 points of chance" in few.cases[0].tally
    low = of("C7", by_arm(0.02, vapt=0.18)).cases[0]
    assert low.verdict == "inconclusive" and "VAPT has 18.0 %, so none can be 20 points below" in low.tally


def test_p_values_are_of_the_rule_s_number_and_corrected_for_all_tests():
    differences = {("one", "a"): np.array([-5.0, -4.0, -6.0, -5.0]), ("two", "a"): np.array([0.0, 1.0, 2.0, 1.0])}
    found = compared.corrected(differences, -5.0)
    assert found["one", "a"].estimate == 1.0  # a mean difference of exactly −5
    assert found["two", "a"].estimate == pytest.approx(2 * 0.0008, rel=0.2)  # t = 6 / 0.41, 3 degrees, twice


def test_rates_at_an_end_of_their_grid_are_named():
    config = ONE_SHOT | {"rates": [0.01, 0.1, 1.0]}
    arrays = planted(config, by_arm(0.2, vapt=0.5))
    for name in list(arrays):
        if ":vapt:" in name and name.endswith("/validation"):
            arrays[name] = np.array([0.1, 0.2, 0.3])
    found = claims.judge("C7", arrays, config)
    assert "learning rate at an end of the grid: vapt (largest tried)" in found.cases[0].tally
    assert figures(found.cases[0])["vapt, rate chosen (largest tried)"].estimate == 1.0


def test_static_arms_that_were_not_run_cannot_support():
    fewer = [arm for arm in ONE_SHOT["arms"] if arm != "linear"]
    for level, verdict in ((by_arm(0.2, vapt=0.5), "inconclusive"), (by_arm(0.48, vapt=0.5), "refuted")):
        found = judge("C7", planted(ONE_SHOT | {"arms": fewer}, level), arms=fewer)
        assert found.verdict == verdict and "not run: linear" in found.cases[0].tally


def test_larger_subsets_are_no_part_of_the_one_shot_claim():
    more = [{"per_class": 1}, {"per_class": 5}]
    level = lambda task, arm, size: 0.5 if arm == "vapt" else 0.2 if size == 10 else 0.5  # noqa: E731
    found = judge("C7", planted(ONE_SHOT | {"subsets": more}, level), subsets=more)
    assert verdicts(found) == {"one, 1 image a class": "supported", "two, 1 image a class": "supported"}
    with pytest.raises(ValueError, match="no training subset with one image a class"):
        judge("C7", planted(ONE_SHOT | {"subsets": more[1:]}, level), subsets=more[1:])


# C8


def test_half_of_the_tasks_are_enough():
    found = of("C8", curves({"one": 4.0, "two": 1.6}))
    assert found.verdict == "supported" and verdicts(found) == {"one": "supported", "two": "inconclusive"}
    found = of("C8", curves({"one": 4.0, "two": 0.8}))
    assert found.verdict == "inconclusive" and "contradict" in " ".join(found.notes)
    tasks = ["one", "two", "three"]
    config = CURVES | {"tasks": tasks}
    level = curves({"one": 0.8, "two": 4.0, "three": 0.8})
    assert claims.judge("C8", planted(config, level), config).verdict == "refuted"


def test_multiplier_is_the_planted_one_and_stands_beside_the_direct_comparison():
    shown = figures(of("C8", curves({"one": 4.0, "two": 4.0}), spread=noisy(0.004, "vapt")).cases[0])
    times = shown["data multiplier"]
    assert times.judged and times.estimate == pytest.approx(4.0, rel=0.05) and times.low < times.estimate < times.high
    # At 300 images VAPT makes the errors of VPT-Deep at 1,200, which has 1,000.
    direct = shown["VAPT at 30 % − VPT-Deep at 100 %"]
    assert direct.estimate == pytest.approx(90 * (100**-0.3 - 120**-0.3)) and not direct.judged
    assert shown["error of VPT-Deep at which, %"].estimate == pytest.approx(90 * 100**-0.3, rel=1e-3)
    assert shown["vapt − vpt-deep, 30 images"].estimate == pytest.approx(90 * (3**-0.3 - 12**-0.3))
    assert sum(f.judged for f in shown.values()) == 1


def test_sizes_with_a_rate_at_an_end_of_the_grid_are_named():
    arrays = planted(CURVES, NEVER)
    for name in list(arrays):
        if name.startswith("one:vapt:") and "=3:" in name or "=30:" in name and name.startswith("one:full:"):
            arrays[name] = np.array([0.3, 0.2, 0.1]) if name.endswith("/validation") else arrays[name]
    saved, other = judge("C8", arrays).cases
    assert saved.tally.endswith("learning rate at an end of the grid: vapt at 30 images") and "end" not in other.tally
    assert judge("C24", arrays).cases[0].tally.endswith("learning rate at an end of the grid: full at 300 images")


def test_multiplier_that_data_only_bound_is_said_to_be_and_judged_by_its_bound():
    shown = of("C8", lambda task, arm, size: 0.6 if arm == "vapt" else 0.1 + 0.0001 * size).cases[0]
    found = figures(shown)["data multiplier (at least)"]
    assert np.isinf(found.high) and found.low > 2 and shown.verdict == "supported"
    assert "100 % of the resamples only bound it" in shown.tally


def test_interval_that_holds_one_refutes_however_wide():
    found = of("C8", curves({"one": 2.5, "two": 2.5}, exponent=0.02), spread=noisy(0.05, "vapt"))
    times = found.cases[0].figures[0]
    assert times.low <= 1 < 2 < times.high and found.verdict == "refuted"


def test_interval_from_nothing_to_infinity_decides_nothing():
    """Curves that do not fall: VAPT's lies above or below VPT-Deep's at every size, by seeds."""
    found = of("C8", lambda task, arm, size: 0.5, spread=noisy(0.02, "vapt"))
    times = found.cases[0].figures[0]
    assert (times.low, times.high) == (0, np.inf) and times.judged and found.verdict == "inconclusive"
    assert "[0.00, inf]" in text.shown(found)
    assert stored.record(found)["cases"][0]["figures"][0]["high"] == "inf"


# C24, C22


def test_crossover_is_reported_where_it_was_planted():
    found = of("C24", NEVER, spread=noisy(0.01, "full"))
    assert found.verdict == "reported" and set(verdicts(found).values()) == {"reported"}
    shown = figures(found.cases[0])
    where = shown["images at the crossover"]
    assert where.low < 100 < where.high and where.estimate == pytest.approx(100, rel=0.1) and where.n == 5
    assert "overtakes" in found.cases[0].tally and "0 % not at all" in found.cases[0].tally
    assert not any(f.judged for f in shown.values())
    assert shown["full − vpt-deep, 10 images"].estimate < 0 < shown["full − vpt-deep, 1,000 images"].estimate


@pytest.mark.parametrize(("full", "what", "said"), [
    (0.9, "images at the crossover (at most)", "ahead at every size"),
    (0.05, "images at the crossover (at least)", "not ahead at the largest size"),
])  # fmt: skip
def test_crossover_outside_the_sizes_is_a_bound(full, what, said):
    level = lambda task, arm, size: full if arm == "full" else NEVER(task, arm, size)  # noqa: E731
    (case, _) = of("C24", level).cases
    assert what in figures(case) and said in case.tally


def test_gap_of_choosing_on_test_is_the_planted_one():
    found = of("C22", NEVER, gap=0.03)
    assert found.verdict == "reported" and list(verdicts(found)) == ["all tasks", "one", "two"]
    shown = figures(found.cases[0])
    for what in ("gap in points, over tasks", "gap in points, over trials", "gap, rate chosen on other tasks"):
        assert (shown[what].estimate, shown[what].low, shown[what].high) == pytest.approx((3.0, 3.0, 3.0))
    assert shown["gap in points, over tasks"].n == 2
    assert shown["gap in points, over trials"].n == 2 * 4 * 4  # tasks, arms, sizes with a validation part of their own
    assert shown["trials where test prefers another rate, %"].estimate == 100
    assert figures(of("C22", NEVER).cases[0])["trials where test prefers another rate, %"].estimate == 0


def test_gap_of_one_task_counts_once_and_arms_are_told_apart():
    arrays = planted(CURVES, NEVER, gap=0.01)
    for name, values in arrays.items():
        if name.startswith("two:vapt:") and ":trial:" in name and name.endswith("/test"):
            arrays[name] = values + np.array([0, 0, 0.08])
    overall, one, two = judge("C22", arrays).cases
    assert figures(one)["gap in points"].estimate == pytest.approx(1.0)
    assert figures(two)["gap of vapt"].estimate == pytest.approx(9.0)
    assert figures(two)["gap of vpt-deep"].estimate == pytest.approx(1.0)
    assert figures(overall)["gap in points, over tasks"].estimate == pytest.approx((1 + 3) / 2)
    by_rule = [figures(overall)[f"vapt − vpt-deep, chosen on {what}"].estimate for what in ("validation", "test")]
    assert by_rule[1] - by_rule[0] == pytest.approx(4.0)  # 8 points on one of two tasks


def test_no_trial_with_a_validation_part_of_its_own_is_an_error():
    few = [{"per_class": 1}]
    with pytest.raises(ValueError, match="two images a class or more"):
        judge("C22", planted(CURVES | {"subsets": few}, NEVER), subsets=few)


# Configs and missing results


@pytest.mark.parametrize(("which", "arms", "absent"), [
    ("C7", ["linear", "vpt-deep"], "no vapt but only linear, vpt-deep"),
    ("C7", ["vapt", "vpt-shallow"], "no linear, vpt-deep, vpt-deep-small, vpt-deep-prototypes"),
    ("C8", ["vpt-deep", "full"], "no vapt"),
    ("C24", ["vpt-deep", "vapt"], "no full"),
    ("C9", ["vpt-deep", "vapt"], "no vpt-deep-matched, vapt-released, vpt-projected"),
    ("C10", ["vapt", "vapt-mean"], "no vpt-deep, vapt-released, vapt-released-mean"),
    ("C14", ["prefix", "prefix-warm"], "no vpt-deep"),
    ("C14", ["prefix", "vpt-deep"], "no prefix-scaled, prefix-warm"),
])  # fmt: skip
def test_arms_that_a_rule_needs_are_named_with_what_to_do(which, arms, absent):
    config = CONFIGS[which] | {"arms": arms}
    study = claims.CLAIMS[which].study
    with pytest.raises(ValueError, match=f"{absent}.*vpt-analysis study {study} --tier full --commit"):
        claims.judge(which, planted(config, NEVER), config)


@pytest.mark.parametrize("which", CONFIGS)
def test_missing_runs_are_named_with_the_study_that_makes_them(which):
    whole = planted(CONFIGS[which], PLANTED.get(which, PLANTED["C8"])[0][0])
    study = claims.CLAIMS[which].study
    for missing in (next(n for n in whole if ":trial:" not in n), next(n for n in whole if ":trial:" in n)):
        run = missing.rpartition("/")[0]
        arrays = {name: values for name, values in whole.items() if not name.startswith(f"{run}/")}
        with pytest.raises(ValueError, match=f"lack {run}/test; .*vpt-analysis study {study}"):
            judge(which, arrays)


@pytest.mark.parametrize("which", CONFIGS)
def test_tasks_sizes_arms_and_ways_of_choosing_are_read_off_the_config(which):
    """Another number of everything, subsets a task, arms as tables, and rates chosen anew by every seed."""
    config = CONFIGS[which] | {
        "tasks": ["three", "four", "five"], "rates": [0.01, 0.02, 0.03], "choose": "each seed", "seeds": [0, 2],
        "arms": [ARMS[arm].plain() for arm in CONFIGS[which]["arms"]],
        "subsets": {t: CONFIGS[which]["subsets"] for t in ("three", "four", "five")},
    }  # fmt: skip
    level = PLANTED.get(which, PLANTED["C7"])[0][0]
    if which in ("C8", "C22", "C24"):
        level = curves(dict.fromkeys(config["tasks"], 4.0))
    found = claims.judge(which, planted(config, level), config)
    assert found.verdict == ("supported" if which in PLANTED else "reported")
    assert {case.name.partition(",")[0] for case in found.cases} >= set(config["tasks"])


def test_one_rate_leaves_nothing_to_choose():
    config = ONE_SHOT | {"rates": [0.01]}
    shown = figures(claims.judge("C7", planted(config, by_arm(0.2, vapt=0.5)), config).cases[0])
    assert shown["vapt, no other rate tried, %"].estimate == pytest.approx(50.0)
    with pytest.raises(ValueError, match="several learning rates"):
        claims.judge("C22", planted(CURVES | {"rates": [0.01]}, NEVER), CURVES | {"rates": [0.01]})


def test_verdicts_are_joined_by_half_or_by_most():
    assert half([]) == most([]) == "inconclusive"
    assert claims.CLAIMS["C8"].joins is half and claims.CLAIMS["C9"].joins is most
