"""Studies: found by name, computed part by part, resumed, shared by figures, stored with the package."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import paper_figures
from paper_figures import _run
from vpt_analysis import cli, studies
from vpt_analysis import study as machinery
from vpt_analysis.extended import Extended

ROOT = Path(__file__).resolve().parent.parent

STUDY = """
import os, time
from pathlib import Path
import numpy as np

HERE = Path(os.environ["FAKE_STUDY"])

def config(tier):
    return {"images": 4, "seeds": [0, 1, 2], "backbone": "none", "size": {"quick": 3, "full": 5}[tier]}

def inputs(config):
    return {"weights": HERE / "weights.bin"}

def parts(config):
    return [{"name": f"task:{s}", "seed": s, "size": config["size"]} for s in config["seeds"]]

def compute(part):
    with open(HERE / "computed.txt", "a") as log:
        log.write(part["name"] + "\\n")
    if part["seed"] == 2:
        time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))
    return {"y": np.random.default_rng(part["seed"]).normal(size=part["size"])}
"""

FIGURE = """
STUDY = "fake_study"
TITLE = "One of several"

def caption(arrays, config):
    return f"n = {config['images']}"

def draw(arrays, config):
    from vpt_analysis import plotting
    figure = plotting.figure()
    figure.subplots().plot(arrays["task:0/y"])
    return figure
"""


class Fake:
    """A study and two figures that draw it, in folders of their own, found as if they lay in the packages."""

    def __init__(self, folder: Path):
        self.folder, self.out, self.committed = folder, folder / "out", folder / "committed"
        (folder / "studies").mkdir()
        (folder / "figures").mkdir()
        (folder / "weights.bin").write_bytes(b"weights")
        self.file = folder / "studies" / "fake_study.py"
        self.edit(STUDY)
        for name in ("one", "two"):
            (folder / "figures" / f"{name}.py").write_text(FIGURE)

    def edit(self, text: str) -> None:
        self.file.write_text(text)
        sys.modules.pop("vpt_analysis.studies.fake_study", None)

    def replace(self, old: str, new: str) -> None:
        assert old in self.file.read_text()
        self.edit(self.file.read_text().replace(old, new))

    def plan(self, tier: str = "quick") -> machinery.Computed:
        return machinery.Computed(machinery.study("fake_study"), tier, self.out / "cache")

    @property
    def computed(self) -> list[str]:
        log = self.folder / "computed.txt"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    monkeypatch.setenv("FAKE_STUDY", str(tmp_path))
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(tmp_path / "studies")])
    monkeypatch.setattr(paper_figures, "__path__", [*paper_figures.__path__, str(tmp_path / "figures")])
    monkeypatch.setattr(machinery, "COMMITTED", tmp_path / "committed")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within one second would look like one
    yield Fake(tmp_path)
    for name in ("vpt_analysis.studies.fake_study", "paper_figures.one", "paper_figures.two"):
        sys.modules.pop(name, None)


def test_studies_are_the_modules_that_compute():
    assert {"family", "rates"} <= set(machinery.names()) and not {"arms", "tasks"} & set(machinery.names())
    with pytest.raises(ValueError, match="unknown study 'famly'; did you mean 'family'"):
        machinery.study("famly")


def test_two_figures_of_one_study_compute_it_once(fake):
    assert _run.run(["one", "two"], "quick", fake.out) == 0
    assert fake.computed == ["task:0", "task:1", "task:2"]
    assert {"one.png", "two.png"} <= {f.name for f in fake.out.iterdir()}
    assert len(list((fake.out / "cache" / "results").iterdir())) == 3


def test_keys_know_nothing_of_the_figures(fake):
    before = fake.plan().keys
    (fake.folder / "figures" / "one.py").write_text(FIGURE.replace("One of", "Another of"))
    sys.modules.pop("paper_figures.one", None)
    assert fake.plan().keys == before


def test_other_choices_keep_the_parts_that_are_there(fake):
    fake.plan().arrays(1)
    fake.replace('"seeds": [0, 1, 2]', '"seeds": [0, 1, 2, 3]')
    fake.plan().arrays(1)
    assert fake.computed == ["task:0", "task:1", "task:2", "task:3"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('default_rng(part["seed"])', 'default_rng(part["seed"] + 1)'), ('"size": config["size"]', '"size": 7')],
)
def test_what_a_part_depends_on_computes_again(fake, old, new):
    first = fake.plan().arrays(1)
    fake.replace(old, new)
    second = fake.plan().arrays(1)
    assert len(fake.computed) == 6
    assert not np.array_equal(first["task:0/y"], second["task:0/y"])


def test_committed_results_of_a_study_serve_every_figure(fake):
    assert _run.run(["one"], "full", fake.out, commit=True) == 0
    assert sorted(f.name for f in fake.committed.iterdir()) == ["fake_study.json", "fake_study.npz"]
    computed = list(fake.computed)
    assert _run.run(["one", "two"], "committed", fake.out) == 0
    assert fake.computed == computed
    arrays, record = machinery.committed("fake_study")
    assert arrays["task:2/y"].shape == (5,) and record["config"]["size"] == 5
    assert set(record) == {"config", "inputs", "collected_with"} and set(record["inputs"]) == {"weights"}


def test_missing_committed_results_say_how_to_make_them(fake):
    with pytest.raises(FileNotFoundError, match="vpt-analysis study fake_study --tier full --commit"):
        machinery.committed("fake_study")


def test_killed_run_loses_the_part_in_flight_and_no_other(fake):
    script = (
        "import sys; from vpt_analysis import studies, study as machinery; studies.__path__.append(sys.argv[1])\n"
        "from pathlib import Path\n"
        "machinery.Computed(machinery.study('fake_study'), 'quick', Path(sys.argv[2])).arrays(1)"
    )
    command = [sys.executable, "-B", "-c", script, str(fake.folder / "studies"), str(fake.out / "cache")]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT), "FAKE_SLEEP": "60"})
    deadline = time.monotonic() + 60
    while "task:2" not in fake.computed and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    fake.plan().arrays(1)
    assert fake.computed == ["task:0", "task:1", "task:2", "task:2"]


def test_two_parts_of_one_name_are_refused(fake):
    fake.replace('f"task:{s}"', '"task"')
    with pytest.raises(ValueError, match="3 parts have 1 names"):
        fake.plan()


def test_objects_are_not_stored(tmp_path):
    with pytest.raises(TypeError, match="holds Python objects"):
        machinery.write(tmp_path / "a.npz", {"x": np.array([{}])})
    assert list(tmp_path.iterdir()) == []


# --- studies that grow ------------------------------------------------------------------------------------------------


@pytest.fixture
def grown(fake) -> Fake:
    """The study, committed with three seeds, asks for a fourth."""
    plan = fake.plan("full")
    plan.store(plan.arrays(1), fake.committed)
    fake.replace('"seeds": [0, 1, 2]', '"seeds": [0, 1, 2, 3]')
    (fake.folder / "computed.txt").unlink()
    return fake


def extended(fake: Fake) -> Extended:
    return Extended(machinery.study("fake_study"), fake.folder / "fresh", fake.committed, seed=0)


def test_a_study_that_grew_keeps_what_is_committed(grown):
    before, record = machinery.committed("fake_study", grown.committed)
    plan = extended(grown)
    arrays = plan.arrays(1)
    new, again = grown.computed
    assert new == "task:3" and again in ("task:0", "task:1", "task:2")
    assert set(arrays) == {*before, "task:3/y"}
    assert all(arrays[name].tobytes() == array.tobytes() for name, array in before.items())
    plan.store(arrays, grown.committed)
    _, stored = machinery.committed("fake_study", grown.committed)
    assert stored["config"]["seeds"] == [0, 1, 2, 3]
    assert stored["collected_with"]["kept"] == {
        "parts": 3, "collected_with": record["collected_with"], "computed_again": again, "differs_by": 0.0,
    }  # fmt: skip


def test_a_study_that_did_not_grow_computes_one_part_again(grown):
    grown.replace('"seeds": [0, 1, 2, 3]', '"seeds": [0, 1, 2]')
    plan = extended(grown)
    arrays = plan.arrays(1)
    assert len(grown.computed) == 1 and plan.provenance["kept"]["parts"] == len(arrays) == 3


def test_nothing_is_kept_of_what_the_code_no_longer_gives(grown):
    grown.replace('default_rng(part["seed"])', 'default_rng(part["seed"] + 7)')
    with pytest.raises(ValueError, match=r"task:\d computed again differs by .*; compute .* without --extend"):
        extended(grown).arrays(1)
    grown.replace('return {"y":', 'return {"z":')
    with pytest.raises(ValueError, match=r"task:\d/z is not what the committed results hold"):
        extended(grown).arrays(1)


def test_nothing_is_kept_that_came_of_other_files_or_versions(grown, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vpt_analysis.extended.versions", lambda: {"torch": "1.0"})
        with pytest.raises(ValueError, match="made with torch .*, here is 1.0; compute the study anew"):
            extended(grown)
    (grown.folder / "weights.bin").write_bytes(b"others")
    with pytest.raises(ValueError, match="weights is not the file that the committed results were made with"):
        extended(grown)


def test_parts_with_other_choices_are_not_kept(grown):
    grown.replace('"full": 5', '"full": 6')
    plan = extended(grown)
    arrays = plan.arrays(1)
    assert sorted(grown.computed) == [f"task:{s}" for s in range(4)] and arrays["task:0/y"].shape == (6,)
    assert "kept" not in plan.provenance


def test_only_the_full_tier_can_be_extended(capsys):
    assert cli.main(["study", "one_shot", "--extend"]) == cli.USAGE
    assert "--extend keeps committed results, which are of the full tier; add --tier full" in capsys.readouterr().err
