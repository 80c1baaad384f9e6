"""Claims on what adaptive prompts gain by (C9, C10) and on untied prefixes (C14), on planted results."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted_efficiency import ABLATIONS, CONFIGS, PLANTED, by_arm, figures, noisy, of, planted, verdicts
from vpt_analysis import claims
from vpt_analysis.claims import adaptivity, compared


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    for module in (compared, adaptivity):
        monkeypatch.setattr(module, "RESAMPLES", 400)


def test_most_tasks_are_more_than_half():
    tasks = ["one", "two", "three"]
    config = ABLATIONS | {"tasks": tasks}
    level = by_arm(0.5, vapt={"one": 0.53, "two": 0.53, "three": 0.4}, vapt_released=0.53)
    found = claims.judge("C9", planted(config, level), config)
    assert found.verdict == "supported" and verdicts(found)["three"] == "refuted"
    level = by_arm(0.5, vapt={"one": 0.53, "two": 0.4}, vapt_released=0.53)
    assert of("C9", level).verdict == "inconclusive"


def test_control_must_be_beaten_too_and_counts_are_reported():
    found = of("C9", by_arm(0.5, vapt=0.53, vapt_released=0.45))
    assert found.verdict == "refuted"
    shown = figures(found.cases[0])
    assert shown["vapt − vpt-deep-matched"].low > 0 > shown["vapt-released − vpt-projected"].high
    assert shown["vpt-deep-matched, trained without the head"].estimate == 600
    assert "vapt: p against 0, Holm" in shown


def test_differences_are_paired_by_seed(monkeypatch):
    """Seeds that differ by 20 points and arms by half a point: intervals of unpaired differences would hold 0."""
    monkeypatch.setattr("tests.planted_efficiency.SHIFTS", 0.1 * np.linspace(-1, 1, 5))
    found = of("C9", by_arm(0.5, vapt=0.505, vapt_released=0.505))
    assert found.verdict == "supported"
    gain = found.cases[0].figures[0]
    assert (gain.estimate, gain.low, gain.high) == pytest.approx((0.5, 0.5, 0.5))


def test_share_is_that_of_the_gain_and_of_nothing_where_there_is_none():
    found = of("C10", by_arm(0.5, vapt=0.6, vapt_mean=0.52, vapt_released=0.5, vapt_released_mean=0.4),
               spread=noisy(0.01, "vapt-released", "vapt-mean"))  # fmt: skip
    plain, released = found.cases[:2]
    share = figures(plain)["share of it that means lose, %"]
    assert share.judged and share.estimate == pytest.approx(80.0) and share.low < 80 < share.high
    assert released.verdict == "inconclusive" and "no gain to explain" in released.tally
    assert not any("share" in what for what in figures(released))
    assert {"without norm − vapt-released", "without convolution − vapt-released"} <= set(figures(released))
    assert not any(f.what.startswith("without") for f in plain.figures)


def test_share_of_resamples_without_a_gain_is_open():
    part, whole = np.array([1.0, 1.0, 1.0]), np.array([-1.0, -1.0, 6.0])
    found = adaptivity.lost(part, whole)
    assert found.estimate == 75.0 and np.isneginf(found.low) and np.isposinf(found.high)


def test_each_repair_alone_refutes_and_plain_prefixes_are_only_reported():
    for arm in ("prefix_scaled", "prefix_warm"):
        assert of("C14", by_arm(0.4, vpt_deep=0.5, **{arm: 0.498})).verdict == "refuted"
    found = of("C14", by_arm(0.4, vpt_deep=0.5, prefix=0.5))
    assert found.verdict == "supported" and "no loss to explain" in found.cases[0].tally
    shown = figures(found.cases[0])
    assert not shown["prefix − vpt-deep"].judged and "prefix-warm: p against −1 points, Holm" in shown


@pytest.mark.parametrize(("which", "arms", "case"), [
    ("C9", ["vapt", "vpt-deep-matched"], "not both run: vapt-released and vpt-projected"),
    ("C14", ["vpt-deep", "prefix-warm"], "not run: prefix-scaled"),
])  # fmt: skip
def test_part_of_what_a_rule_compares_cannot_support_it(which, arms, case):
    config = CONFIGS[which] | {"arms": arms}
    for level, verdict in ((PLANTED[which][0][0], "inconclusive"), (by_arm(0.5, vapt=0.4), "refuted")):
        found = claims.judge(which, planted(config, level), config)
        assert found.verdict == verdict and case in found.cases[0].tally


def test_adaptivity_is_judged_for_the_form_that_was_run():
    config = ABLATIONS | {"arms": ["vpt-deep", "vapt", "vapt-mean"], "tasks": ["one"]}
    found = claims.judge("C10", planted(config, PLANTED["C10"][0][0]), config)
    assert verdicts(found) == {"one, vapt": "supported"}
