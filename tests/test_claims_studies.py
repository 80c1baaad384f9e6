"""Claims on several studies: scope and notes come from each, theorems beside claims, one registry, one command."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vpt_analysis import claims, cli, studies
from vpt_analysis import study as machinery
from vpt_analysis.claims import base, registry, stored, text
from vpt_analysis.claims.base import Case, Claim, Figure, Results

STUDY = """
import os
from pathlib import Path
import numpy as np

HERE = Path(os.environ["FAKE_STUDIES"])

def config(tier):
    return {"replicates": 3, "sizes": [1, 2], "shift": {"quick": 0.0, "full": 1.0}[tier]}

def inputs(config):
    return {}

def parts(config):
    return [{"name": f"NAME-{n}", "n": n, "shift": config["shift"]} for n in config["sizes"]]

def compute(part):
    with open(HERE / "computed.txt", "a") as log:
        log.write(part["name"] + "\\n")
    return {"error": part["n"] + part["shift"] + np.arange(3.0)}

def scope(config, weights):
    return f"NAME, {config['replicates']} replicates, weights {weights}"

def notes(config, cases):
    return [f"{len(cases)} cases of NAME."]
"""
NAMES = ("fake_estimates", "fake_limits")


class Fakes:
    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder / "out"
        (folder / "studies").mkdir()
        for name in NAMES:
            self.file(name).write_text(STUDY.replace("NAME", name))

    def file(self, name: str) -> Path:
        return self.folder / "studies" / f"{name}.py"

    def replace(self, name: str, old: str, new: str) -> None:
        assert old in self.file(name).read_text()
        self.file(name).write_text(self.file(name).read_text().replace(old, new))
        sys.modules.pop(f"vpt_analysis.studies.{name}", None)

    def run(self, *arguments: str) -> int:
        return cli.main(["claims", *arguments, "--jobs", "1", "--out", str(self.out)])

    @property
    def computed(self) -> list[str]:
        return (self.folder / "computed.txt").read_text().split()


def above(study: str, limit: float):
    """A rule: the mean error of each part lies above the limit."""

    def cases(results: Results) -> list[Case]:
        found = []
        for n in results.config["sizes"]:
            (error,) = results.finite(f"{study}-{n}/error")
            verdict = base.SUPPORTED if error.mean() > limit else base.REFUTED
            found.append(Case(f"n = {n}", verdict, (base.exact("mean error", error.mean()),)))
        return found

    return cases


def claim(which: str, study: str, limit: float) -> Claim:
    return Claim(which, "It is large.", "planted", "Large: above the limit.", study, above(study, limit))


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Fakes:
    """Two studies without a backbone, and three claims on them; mean errors are 2 and 3 in the quick tier."""
    monkeypatch.setenv("FAKE_STUDIES", str(tmp_path))
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(tmp_path / "studies")])
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path / "committed")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for planted in (
        claim("C901", "fake_estimates", 1.0),
        claim("C902", "fake_limits", 2.5),
        claim("T901", "fake_limits", 2.5),
    ):
        monkeypatch.setitem(claims.CLAIMS, planted.id, planted)
    yield Fakes(tmp_path)
    for name in NAMES:
        sys.modules.pop(f"vpt_analysis.studies.{name}", None)


def test_each_study_is_computed_once_and_says_its_own_scope_and_notes(fakes, capsys):
    assert fakes.run("C901", "C902", "T901", "--tier", "quick") == 0
    assert fakes.computed == [f"{name}-{n}" for name in NAMES for n in (1, 2)]
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= text.WIDTH
    estimates, limits = shown.split("Study fake_estimates, quick tier")
    assert "fake_estimates, 3 replicates, weights None" in estimates and "2 cases of fake_estimates." in estimates
    assert "fake_limits, 3 replicates" in limits and "2 cases of fake_limits." in limits and "SUPPORTED" in estimates
    assert shown.count("Study fake_limits, quick tier") == 1 and "Learning rates" not in shown
    assert fakes.run("T901", "--tier", "quick") == 0
    assert len(fakes.computed) == 4


def test_stored_results_and_verdicts_of_each_study_stand_beside_each_other(fakes, capsys):
    assert fakes.run("C901", "T901", "--tier", "full", "--commit") == 0
    assert {f.name for f in machinery.COMMITTED.iterdir()} == {
        "claims.json", *(f"{name}.{kind}" for name in NAMES for kind in ("npz", "json"))
    }  # fmt: skip
    kept = stored.read()
    assert set(kept) == set(NAMES) and set(kept["fake_limits"]["verdicts"]) == {"C902", "T901"}
    assert kept["fake_limits"]["verdicts"]["T901"]["verdict"] == "supported"  # 3 and 4 in the full tier
    capsys.readouterr()
    assert fakes.run("C901", "C902", "T901") == 0  # the committed tier
    assert capsys.readouterr().out.count("committed results of the full tier") == 2
    (machinery.COMMITTED / "fake_limits.npz").unlink()
    assert fakes.run("C901", "C902") == 2
    assert "make them with `vpt-analysis study fake_limits --tier full --commit`" in capsys.readouterr().err


def test_what_a_study_says_computes_nothing_again(fakes):
    assert fakes.run("C901", "--tier", "quick") == 0
    fakes.replace("fake_estimates", "replicates, weights", "replicates; weights")
    fakes.replace("fake_estimates", "cases of", "settings of")
    assert fakes.run("C901", "--tier", "quick") == 0
    assert len(fakes.computed) == 2


def test_one_case_refutes_a_theorem_and_leaves_a_claim_open(fakes):
    arrays = {"fake_limits-1/error": np.full(3, 2.0), "fake_limits-2/error": np.full(3, 3.0)}
    config = machinery.study("fake_limits").config("quick")
    theorem, open_one = (claims.judge(which, arrays, config) for which in ("T901", "C902"))
    assert theorem.verdict == "refuted" and "contradict" not in " ".join(theorem.notes)
    assert open_one.verdict == "inconclusive" and "contradict" in open_one.notes[-1]
    arrays["fake_limits-1/error"] += 0.6
    assert {claims.judge(which, arrays, config).verdict for which in ("T901", "C902")} == {"supported"}


def test_missing_and_broken_arrays_name_the_study_that_makes_them(fakes):
    config = machinery.study("fake_limits").config("quick")
    with pytest.raises(ValueError, match="lack fake_limits-1/error; .*vpt-analysis study fake_limits --tier full"):
        claims.judge("T901", {}, config)
    with pytest.raises(ValueError, match="fake_limits-1/error: some values are not finite"):
        claims.judge("T901", {"fake_limits-1/error": np.array([np.nan])}, config)


def test_claims_are_listed_by_letter_and_number_and_no_id_is_taken_twice():
    one = claim("C12", "family", 0.0)
    found = registry.by_id([replace(one, id=which) for which in ("T14", "C12", "C2", "T9")])
    assert list(found) == ["C2", "C12", "T9", "T14"]
    with pytest.raises(ValueError, match="two claims have the id C12"):
        registry.by_id([one, one])
    with pytest.raises(ValueError, match="id is 'C012'; expected C or T and a number"):
        registry.by_id([replace(one, id="C012")])
    assert list(claims.CLAIMS) == list(registry.by_id(claims.CLAIMS.values()))


@pytest.mark.parametrize("name", sorted({claim.study for claim in claims.CLAIMS.values()}))
def test_every_study_that_claims_draw_on_says_its_scope_and_notes(name):
    module = machinery.study(name)
    _, record = machinery.committed(name)
    assert module.scope(record["config"], None) and isinstance(module.notes(record["config"], ()), list)


def test_numbers_that_were_not_sampled_have_neither_interval_nor_n():
    line = text.row(base.exact("printed mean", 69.43, judged=False, digits=4))
    assert line.split() == ["printed", "mean", "69.43"]
    assert text.row(Figure("gain", 1.0, float("nan"), float("nan"), 1)).endswith("no interval        n = 1")
    assert stored.record(
        base.Verdict(claim("C12", "family", 0), "supported", (Case("a", "supported", (base.exact("x", 2.0),)),), "", ())
    )["cases"][0]["figures"] == [{"what": "x", "estimate": 2.0, "low": None, "high": None, "n": 0, "judged": True}]


def test_all_committed_claims_together(capsys):
    assert cli.main(["claims"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\nverdict ") == len(claims.CLAIMS)
    assert max(map(len, shown.partition("\nT14 ")[2].splitlines())) <= text.WIDTH
    for name in {claim.study for claim in claims.CLAIMS.values()}:
        assert shown.count(f"Study {name}, committed results of the full tier") == 1
    assert "Learning rates: vpt-analysis study rates" in shown


def test_command_that_computes_again_names_claims_where_they_fit():
    few, many = claims.chosen(["C2", "T14"]), claims.chosen()
    assert "vpt-analysis claims C2 T14 --tier full" in text.again(few)
    assert "vpt-analysis claims [ID…] --tier full" in text.again(many)
    assert "vpt-analysis claims [ID…] --tier full" in text.again(())
