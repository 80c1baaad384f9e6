"""Claims on the family study: every rule on planted results whose verdict is known, the text, the stored verdicts."""

from __future__ import annotations

import copy
import json
import time

import numpy as np
import pytest

from vpt_analysis import claims, cli
from vpt_analysis import study as machinery
from vpt_analysis.claims import base, stored, text
from vpt_analysis.studies import family
from vpt_analysis.studies.arms import ARMS

TASKS, SEEDS = ["one", "two"], [0, 1, 2]
L, H, E = 8, 4, 32
LATE = np.arange(5, 8)  # the last third of eight layers, rounded up
CONFIG = {
    "backbone": "vit-micro", "arms": list(ARMS), "tasks": TASKS, "seeds": SEEDS, "steps": 100, "batch": 32,
    "train_images": 2000, "test_images": 1000, "images": 128, "rates": {"one:vapt": 0.01},
}  # fmt: skip


def ranks(rank: int) -> np.ndarray:
    """Singular values over the first, ``rank`` of them above the tolerance."""
    return np.broadcast_to(np.where(np.arange(E) < rank, 0.5 ** np.arange(E) + 2e-6, 5e-7), (L, H, E)).copy()


def neutral() -> dict[str, np.ndarray]:
    """Results in which every interval reaches across its rule's number, by seeds that disagree about it."""
    arrays = {}
    for seed, sign in zip(SEEDS, (-1, 0, 1), strict=True):
        for task in TASKS:
            for arm in ARMS:
                arrays |= {f"{task}:{arm}:{seed}/{k}": np.asarray(v) for k, v in run(sign, arm).items()}
    return arrays


def run(sign: int, arm: str) -> dict:
    gate = 0.9 + 0.05 * sign
    found = {
        "top1": 0.5 if arm in ("vpt-deep", "norga-control", "prefix-norga-control", "prefix") else 0.5 + 0.02 * sign,
        "spectrum/cls": np.tile([gate, 1 - gate, 0, 0], (L, 1)),
        "spectrum/all": np.tile([gate, 1 - gate, 0, 0], (L, 1)),
        "singular": ranks(5 + 3 * sign),
        "divergence": np.full(L, 0.01 + 0.005 * sign),
        "mass/trained": np.full((L, H), 0.2 + 0.1 * sign),
        "mass/initial": np.full((L, H), 0.2),
        "states": np.tile([0.01 + 0.005 * sign, 0.0, 1.0], (L, 1)),
    }
    if arm == "vpt-deep":
        found["mass/random"] = np.full((L, H), 0.2)
    if arm in ("vapt", "vapt-released", "vapt-p5"):
        found |= {"swap": [0.5, 0.49 - 0.02 * sign], "class_information": np.linspace(0.1, 0.4, L)}
    return found


def change(arrays: dict, arm: str, name: str, value, tasks=TASKS, rows=...) -> dict:
    """The same results with one array of an arm set to ``value`` plus a little that differs between the seeds."""
    arrays = copy.deepcopy(arrays)
    for task in tasks:
        for seed in SEEDS:
            key = f"{task}:{arm}:{seed}/{name}"
            arrays[key] = arrays[key].astype(float)
            arrays[key][rows] = value + (0 if name == "singular" else 1e-4 * seed)
    return arrays


def verdict(which: str, arrays: dict, **other) -> str:
    return claims.judge(which, arrays, CONFIG | other).verdict


def several(*changes):
    def plant(arrays):
        for arm, name, value, *rows in changes:
            arrays = change(arrays, arm, name, value, rows=rows[0] if rows else ...)
        return arrays

    return plant


# For each claim, changes of the neutral results after which the rule must say "supported", and "refuted".
PLANTED = {
    "C2": (several(("vpt-deep", "divergence", 0.002, -1)), several(("vpt-deep", "divergence", 0.5, -1))),
    "C3": (several(("vapt-p5", "singular", ranks(9))), several(("vapt-p5", "singular", ranks(5)))),
    "C4": (
        several(("vpt-deep", "spectrum/cls", 0.95), ("vpt-deep", "spectrum/all", 0.92)),
        several(("vpt-deep", "spectrum/cls", 0.85), ("vpt-deep", "spectrum/all", 0.2)),
    ),
    "C5": (
        several(("vpt-shallow", "states", 0.001, slice(1, None))),
        several(("vpt-shallow", "states", 0.3, slice(1, None))),
    ),
    "C11": (
        several(("vapt", "swap", 0.4, 1), ("vapt-released", "swap", 0.48, 1)),
        several(("vapt", "swap", 0.499, 1), ("vapt-released", "swap", 0.51, 1)),
    ),
    "C15": (
        several(("norga", "top1", 0.53), ("prefix-norga", "top1", 0.51)),
        several(("norga", "top1", 0.47), ("prefix-norga", "top1", 0.49)),
    ),
    "C20": (
        several(("vpt-deep", "mass/trained", 0.3, LATE)),
        several(("vpt-deep", "mass/trained", 0.3, LATE), ("vpt-deep", "mass/random", 0.4, LATE)),
    ),
    "C23": (
        several(("zero-init", "top1", 0.51), ("cross", "top1", 0.6)),
        several(("zero-init", "top1", 0.49), ("cross", "top1", 0.1)),
    ),
}


@pytest.mark.parametrize("which", PLANTED)
def test_planted_results_get_the_verdict_they_were_planted_for(which):
    supported, refuted = PLANTED[which]
    assert verdict(which, neutral()) == "inconclusive"
    assert verdict(which, supported(neutral())) == "supported"
    assert verdict(which, refuted(neutral())) == "refuted"


@pytest.mark.parametrize("which", PLANTED)
def test_tasks_that_disagree_or_are_undecided_give_no_verdict(which):
    supported, refuted = (plant(neutral()) for plant in PLANTED[which])
    for other in (refuted, neutral()):
        mixed = supported | {key: value for key, value in other.items() if key.startswith("two:")}
        found = claims.judge(which, mixed, CONFIG)
        assert found.verdict == "inconclusive"
        assert {c.verdict for c in found.cases if c.name.startswith("one")} == {"supported"}
    contradiction = supported | {key: value for key, value in refuted.items() if key.startswith("two:")}
    assert "contradict" in " ".join(claims.judge(which, contradiction, CONFIG).notes)


@pytest.mark.parametrize("which", PLANTED)
def test_one_seed_decides_nothing(which):
    for plant in PLANTED[which]:
        found = claims.judge(which, plant(neutral()), CONFIG | {"seeds": [0]})
        assert found.verdict == "inconclusive" and {c.verdict for c in found.cases} == {"inconclusive"}
        assert all(np.isnan(low) and np.isnan(high) and n == 1 for _, _, low, high, n in found.figures)
        assert "One seed has no interval" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("which", "arm", "name", "value", "rows"),
    [
        ("C3", "vapt-p5", "singular", ranks(5)[0], 3),
        ("C4", "vpt-deep", "spectrum/cls", 0.5, 3),
        ("C5", "vpt-shallow", "states", 0.3, 3),
        ("C20", "vpt-deep", "mass/trained", 0.1, 6),
    ],
)
def test_one_layer_that_disagrees_is_enough(which, arm, name, value, rows):
    arrays = change(PLANTED[which][0](neutral()), arm, name, value, rows=rows)
    found = claims.judge(which, arrays, CONFIG)
    assert found.verdict == "inconclusive" and "1 against" in found.cases[0].tally


def test_layers_outside_the_rule_do_not_count():
    """C2: the last layer alone. C5: from the second. C20: the last third."""
    for which, arm, name, value, rows in (
        ("C2", "vpt-deep", "divergence", 9.0, slice(0, L - 1)),
        ("C5", "vpt-shallow", "states", 0.3, 0),
        ("C20", "vpt-deep", "mass/trained", 0.0, slice(0, 5)),
    ):
        assert verdict(which, change(PLANTED[which][0](neutral()), arm, name, value, rows=rows)) == "supported"


def test_rank_counts_what_exceeds_a_millionth_of_the_first():
    """2e-6 above and 5e-7 below the tolerance; the median over four heads of 9, 9, 3, 3 is 6, above 5."""
    arrays = neutral()
    mixed = np.stack([ranks(9)[:, 0], ranks(9)[:, 0], ranks(3)[:, 0], ranks(3)[:, 0]], axis=1)
    found = claims.judge("C3", change(arrays, "vapt-p5", "singular", mixed), CONFIG)
    assert found.verdict == "supported" and found.cases[0].figures[0].estimate == 6
    reported = {f.what for f in found.cases[0].figures if not f.judged}
    assert any("vapt-released, P = 10" in what for what in reported) and any("vpt-deep" in what for what in reported)


def test_rank_of_too_few_images_is_not_judged():
    arrays = PLANTED["C3"][0](neutral())
    assert verdict("C3", arrays, images=99) == "inconclusive"
    assert verdict("C3", arrays, images=100) == "supported"


def test_gate_is_judged_against_its_control_and_not_against_the_plain_mechanism():
    arrays = change(PLANTED["C15"][0](neutral()), "vpt-deep", "top1", 0.9)
    found = claims.judge("C15", arrays, CONFIG)
    assert found.verdict == "supported"
    gains = {f.what: f.estimate for f in found.cases[0].figures}
    assert gains["gain in points over the control"] == pytest.approx(3.0 + 0.01)
    assert gains["gain in points over vpt-deep"] == pytest.approx(-37.0)


def test_differences_are_paired_by_seed():
    """Seeds that differ by 20 points, arms that differ by one: unpaired intervals would reach across 0."""
    arrays = neutral()
    for seed in SEEDS:
        for task in TASKS:
            arrays[f"{task}:vpt-deep:{seed}/top1"] = np.array(0.3 + 0.2 * seed)
            for arm in ("zero-init", "cross"):
                arrays[f"{task}:{arm}:{seed}/top1"] = np.array(0.31 + 0.2 * seed)
    found = claims.judge("C23", arrays, CONFIG)
    assert found.verdict == "supported"
    assert found.figures[0][1:4] == pytest.approx((1.0, 1.0, 1.0))


def test_every_claim_states_its_source_rule_and_a_study_that_exists():
    of_family = [claim.id for claim in claims.CLAIMS.values() if claim.study == "family"]
    assert of_family == ["C2", "C3", "C4", "C5", "C11", "C15", "C20", "C23"] == list(PLANTED)
    for name, claim in claims.CLAIMS.items():
        assert claim.id == name and claim.study in machinery.names()
        assert claim.statement.endswith(".") and claim.rule.endswith(".") and claim.source


def test_scope_names_backbone_tasks_sizes_and_seeds():
    found = claims.judge("C4", neutral(), CONFIG, weights="0123456789abcdef")
    for words in (
        "vit-micro 01234567",
        "one, two",
        "2,000 training",
        "1,000 test",
        "128",
        "100 steps of 32",
        "3 seeds",
    ):
        assert words in found.scope
    assert "75 % of the cases" in " ".join(found.notes)


def test_planted_names_are_those_of_the_study():
    """The neutral results have the names that the study's docstring lists, so the rules read what the study writes."""
    listed = family.__doc__
    for name in run(0, "vpt-deep") | run(0, "vapt"):
        assert f"``{name}``" in listed, name


def test_missing_arrays_are_named():
    arrays = neutral()
    del arrays["two:vpt-deep:1/divergence"]
    with pytest.raises(ValueError, match="lack two:vpt-deep:1/divergence; .* --tier full --commit"):
        claims.judge("C2", arrays, CONFIG)


def test_unknown_claims_are_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="unknown claim 'C44'; did you mean 'C4'"):
        claims.chosen(["C44"])
    assert [c.id for c in claims.chosen(["c20", "C4", "C20"])] == ["C20", "C4"]


@pytest.mark.parametrize("seeds", [[0], SEEDS])
@pytest.mark.parametrize("which", PLANTED)
def test_text_has_every_part_within_100_columns(which, seeds):
    found = claims.judge(which, PLANTED[which][1](neutral()), CONFIG | {"seeds": seeds}, weights="ab" * 32)
    shown = text.shown(found)
    assert max(map(len, shown.splitlines())) <= text.WIDTH
    flat = " ".join(shown.split())
    for part in (found.claim.statement, found.claim.source, found.claim.rule, found.scope, *found.notes):
        assert " ".join(part.split()) in flat
    assert shown.splitlines()[-1].split() == ["verdict", found.verdict.upper()]
    rows = [line for line in shown.splitlines() if line.endswith(f"n = {len(seeds)}")]
    assert len(rows) == len(found.figures)
    assert all(("no interval" in line) == (seeds == [0]) for line in rows)


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """Committed results of the family study, planted, in a folder of their own."""
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path)
    machinery.write(tmp_path / "family.npz", PLANTED["C4"][1](neutral()))
    made = {"commit": "c" * 40, "dirty": False, "platform": "p", "versions": {"torch": "2", "numpy": "2"}}
    machinery.write_json(
        tmp_path / "family.json", {"config": CONFIG, "inputs": {"weights": "ab" * 32}, "collected_with": made}
    )
    return tmp_path


def test_command_prints_verdicts_from_stored_results(planted, capsys):
    started = time.process_time()
    assert cli.main(["claims", *PLANTED]) == 0
    assert time.process_time() - started < 3
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= text.WIDTH
    assert output.count("\nverdict ") == len(PLANTED) and "REFUTED" in output
    assert "commit cccccccccccc" in output and "vpt-analysis study rates --tier full --commit" in output
    assert cli.main(["claims", "C4", "c2"]) == 0
    assert capsys.readouterr().out.count("\nverdict ") == 2
    assert not (planted / "claims.json").exists()


def test_command_stores_verdicts_of_stored_results(planted, capsys):
    assert cli.main(["claims", "C4", "--commit"]) == 0
    kept = stored.read()["family"]
    assert set(kept["verdicts"]) == set(PLANTED)  # all of them, whichever was shown
    assert kept["verdicts"]["C4"]["verdict"] == "refuted"
    assert kept["files"]["family.npz"] == machinery.digest_file(planted / "family.npz")
    machinery.write_json(planted / "claims.json", {"other": {"x": 1}})
    stored.store_verdicts("family")
    assert stored.read()["other"] == {"x": 1}


def test_a_study_without_claims_has_no_verdicts(planted):
    assert stored.store_verdicts("rates") is False and not (planted / "claims.json").exists()


def test_bounds_that_do_not_exist_are_null(planted):
    made = json.loads(json.dumps(stored.record(claims.judge("C2", neutral(), CONFIG | {"seeds": [0]}))))
    assert made["cases"][0]["figures"][0]["low"] is None


@pytest.mark.parametrize("command", [["claims", "C4"], ["study", "family"]], ids=lambda c: c[0])
def test_full_run_stores_results_with_their_verdicts(command, tmp_path, monkeypatch, capsys):
    """The study itself is replaced by planted results; what runs, caches, stores and judges them is not."""
    arrays, computed = PLANTED["C20"][1](neutral()), []
    names = [f"{task}:{arm}:{seed}" for task in TASKS for arm in ARMS for seed in SEEDS]

    def compute(part):
        computed.append(part["name"])
        return {k.split("/", 1)[1]: v for k, v in arrays.items() if k.startswith(f"{part['name']}/")}

    for attribute, function in {
        "config": lambda tier: CONFIG, "inputs": lambda config: {}, "compute": compute,
        "parts": lambda config: [{"name": name} for name in names],
    }.items():  # fmt: skip
        monkeypatch.setattr(family, attribute, function)
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path / "committed")
    options = ["--tier", "full", "--commit", "--jobs", "1", "--out", str(tmp_path / "out")]
    for _ in range(2):
        assert cli.main([*command, *options]) == 0
        assert f"tored in {tmp_path / 'committed'}" in capsys.readouterr().out
    assert computed == names  # once
    assert {f.name for f in (tmp_path / "committed").iterdir()} == {"family.npz", "family.json", "claims.json"}
    kept = stored.read()["family"]
    assert kept["verdicts"]["C20"]["verdict"] == "refuted" and kept["verdicts"]["C2"]["verdict"] == "inconclusive"
    assert cli.main(["claims", "C20"]) == 0
    assert "REFUTED" in capsys.readouterr().out


def test_command_lists_claims_and_studies(capsys):
    assert cli.main(["claims", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(claims.CLAIMS)
    assert cli.main(["study", "--list"]) == 0
    assert capsys.readouterr().out.split() == machinery.names()


def test_missing_results_say_how_to_make_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path)
    assert cli.main(["claims"]) == 2
    assert "make them with `vpt-analysis study family --tier full --commit`" in capsys.readouterr().err
    assert cli.main(["claims", "--tier", "full", "--out", str(tmp_path / "out")]) == 2
    assert "make them with `vpt-analysis study rates --tier full --commit`" in capsys.readouterr().err


def test_common_verdict_needs_all():
    assert base.common(["supported"] * 3) == "supported"
    assert base.common(["supported", "inconclusive"]) == "inconclusive"


def test_stored_verdicts_are_those_of_the_stored_arrays():
    """The verdicts beside the committed results, reached again from them."""
    arrays, made = machinery.committed("family")
    kept = stored.read()["family"]
    assert kept["files"] == {f: machinery.digest_file(machinery.COMMITTED / f) for f in ("family.npz", "family.json")}
    assert kept["collected_with"] == made["collected_with"] and kept["judged_with"]["versions"]["numpy"]
    assert set(kept["verdicts"]) == {c.id for c in claims.CLAIMS.values() if c.study == "family"}
    for name, old in kept["verdicts"].items():
        new = stored.record(claims.judge(name, arrays, made["config"], made["inputs"]["weights"]))
        new, old = (flat(said) for said in (new, old))
        numbers = {path for path, value in old.items() if isinstance(value, float)}
        assert {p: v for p, v in new.items() if p not in numbers} == {p: v for p, v in old.items() if p not in numbers}
        assert {p: new[p] for p in numbers} == pytest.approx({p: old[p] for p in numbers}, rel=1e-9, abs=1e-12), name


def flat(value, path: str = "") -> dict:
    """Leaves of nested JSON values by path."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in flat(inner, f"{path}/{key}").items()}
    return {path: value}
