"""The figures' machinery, tried on a figure of its own: caching, records, byte stability, failures, interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import paper_figures
from paper_figures import _page, _picture, _registry, _run
from vpt_analysis import cli
from vpt_analysis.storage import digest_file

ROOT = Path(__file__).resolve().parent.parent

SOURCE = """
import json, os
from pathlib import Path
import numpy as np

TITLE = "A <fake> figure"
HERE = Path(os.environ["FAKE_FIGURE"])

def config(tier):
    return {"images": 4, "seeds": [0, 1], "backbone": "none", "size": {"quick": 3, "full": 5}[tier]}

def inputs(config):
    return {"weights": HERE / "weights.bin"}

def parts(config):
    return [{"name": f"seed{s}", "seed": s, "size": config["size"]} for s in config["seeds"]]

def compute(part):
    log = HERE / "computed.txt"
    log.write_text((log.read_text() if log.exists() else "") + part["name"] + "\\n")
    if (HERE / "broken").exists() and part["seed"] == 1:
        raise RuntimeError("the fake figure is broken")
    return {"y": np.random.default_rng(part["seed"]).normal(size=part["size"])}

def caption(arrays, config):
    return f"Two lines & n = {config['images']}.\\n\\nSecond paragraph."

def draw(arrays, config):
    from vpt_analysis import plotting
    figure = plotting.figure()
    ax = figure.subplots()
    for i, s in enumerate(config["seeds"]):
        y = arrays[f"seed{s}/y"]
        plotting.interval(ax, np.arange(len(y)), y, y - 1, y + 1, i, f"seed {s}")
    ax.set(xlabel="step (count)", ylabel="value (nat)")
    ax.legend()
    return figure
"""


class Fake:
    """A figure module in a folder of its own, seen by the registry as if it lay in paper_figures."""

    def __init__(self, folder: Path):
        self.folder, self.out, self.committed = folder, folder / "out", folder / "committed"
        self.module = folder / "fake.py"
        self.edit(SOURCE)
        (folder / "weights.bin").write_bytes(b"weights")

    def edit(self, text: str) -> None:
        self.module.write_text(text)
        sys.modules.pop("paper_figures.fake", None)

    def replace(self, old: str, new: str) -> None:
        text = self.module.read_text()
        assert old in text
        self.edit(text.replace(old, new))

    def run(self, names=("fake",), tier="quick", **options) -> int:
        return _run.run(names, tier, self.out, committed=self.committed, **options)

    @property
    def computed(self) -> list[str]:
        log = self.folder / "computed.txt"
        return log.read_text().split() if log.exists() else []

    @property
    def record(self) -> dict:
        return json.loads((self.out / "fake.json").read_text())


@pytest.fixture
def fake(tmp_path, monkeypatch) -> Fake:
    monkeypatch.setenv("FAKE_FIGURE", str(tmp_path))
    monkeypatch.setattr(paper_figures, "__path__", [*paper_figures.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits within one second would look like one
    yield Fake(tmp_path)
    sys.modules.pop("paper_figures.fake", None)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_first_run_writes_everything(fake, capsys):
    assert fake.run() == 0
    assert {f.name for f in fake.out.iterdir()} == {"fake.pdf", "fake.png", "fake.json", "index.html", "cache"}
    assert (fake.out / "fake.png").read_bytes().startswith(b"\x89PNG")
    assert (fake.out / "fake.pdf").read_bytes().startswith(b"%PDF")
    assert "fake: drawn (quick tier" in capsys.readouterr().out


def test_second_run_changes_no_byte_and_computes_nothing(fake, capsys):
    fake.run()
    before, times = listing(fake.out), {f: f.stat().st_mtime_ns for f in fake.out.rglob("*")}
    assert fake.run() == 0
    assert listing(fake.out) == before
    assert {f: f.stat().st_mtime_ns for f in fake.out.rglob("*")} == times
    assert fake.computed == ["seed0", "seed1"]
    assert "fake: up to date" in capsys.readouterr().out


def test_record_says_what_the_figure_was_made_with(fake):
    fake.run()
    record = fake.record
    assert record["title"] == "A <fake> figure" and record["tier"] == "quick" and record["seeds"] == [0, 1]
    assert record["config"]["size"] == 3
    assert record["inputs"] == {"weights": digest_file(fake.folder / "weights.bin")}
    assert {"python", "torch", "numpy", "matplotlib", "vpt-analysis"} <= set(record["collected_with"]["versions"])
    assert {"commit", "dirty", "platform"} <= set(record["collected_with"])
    assert record["files"] == {f: digest_file(fake.out / f) for f in ("fake.pdf", "fake.png")}


@pytest.mark.parametrize("lost", ["fake.png", "fake.pdf", "fake.json"])
def test_lost_or_changed_file_is_drawn_again_from_the_cache(fake, lost):
    fake.run()
    before = listing(fake.out)
    (fake.out / lost).write_bytes(b"something else")
    assert fake.run() == 0
    assert listing(fake.out) == before
    assert fake.computed == ["seed0", "seed1"]


def test_drawing_may_change_without_computing(fake):
    fake.run()
    old = fake.record["files"]
    fake.replace("step (count)", "steps (count)")
    fake.run()
    assert fake.record["files"]["fake.png"] != old["fake.png"]
    assert fake.computed == ["seed0", "seed1"]


def test_a_comment_in_the_module_computes_nothing(fake):
    fake.run()
    fake.replace("import json, os", "# a comment\nimport json, os")
    fake.run()
    assert fake.computed == ["seed0", "seed1"]


def test_changed_computation_computes_again(fake):
    fake.run()
    fake.replace('default_rng(part["seed"])', 'default_rng(part["seed"] + 1)')
    fake.run()
    assert fake.computed == ["seed0", "seed1"] * 2


def test_changed_weights_compute_again(fake):
    fake.run()
    (fake.folder / "weights.bin").write_bytes(b"other weights")
    fake.run()
    assert fake.computed == ["seed0", "seed1"] * 2


def test_one_more_seed_computes_one_more_part(fake):
    fake.run()
    fake.replace('"seeds": [0, 1]', '"seeds": [0, 1, 2]')
    fake.run()
    assert fake.computed == ["seed0", "seed1", "seed2"]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut", b"not a zip"])
def test_damaged_cache_is_computed_again(fake, damage):
    fake.run()
    results = list((fake.out / "cache" / "results").iterdir())
    assert len(results) == 2
    for f in results:
        f.write_bytes(damage)
    (fake.out / "fake.png").unlink()
    assert fake.run() == 0
    assert fake.computed == ["seed0", "seed1"] * 2


def test_broken_figure_is_reported_and_the_others_go_on(fake, capsys):
    (fake.folder / "other.py").write_text(SOURCE.replace("A <fake>", "Another"))
    (fake.folder / "broken").touch()
    fake.replace('(HERE / "broken").exists()', '(HERE / "broken").exists() and True')
    (fake.folder / "other.py").write_text((fake.folder / "other.py").read_text().replace('"broken"', '"never"'))
    try:
        assert fake.run(["fake", "other"]) == 1
    finally:
        sys.modules.pop("paper_figures.other", None)
    output = capsys.readouterr()
    assert "fake: FAILED: RuntimeError: the fake figure is broken" in output.err
    assert "other: drawn" in output.out and (fake.out / "other.png").exists()
    assert not (fake.out / "fake.png").exists() and not (fake.out / "fake.json").exists()


def test_interrupted_run_resumes_with_what_it_had(fake, monkeypatch):
    (fake.folder / "broken").touch()
    assert fake.run() == 1
    (fake.folder / "broken").unlink()
    assert fake.run() == 0
    assert fake.computed == ["seed0", "seed1", "seed1"]


def test_interruption_in_the_middle_of_writing_leaves_nothing_half_written(fake, monkeypatch):
    from matplotlib.figure import Figure

    def savefig(self, path, **options):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(KeyboardInterrupt):
        fake.run()
    left = {f.relative_to(fake.out).parts[0] for f in fake.out.rglob("*") if f.is_file()}
    assert left == {"cache"}  # the finished parts, and no picture
    assert not list(fake.out.rglob("*.part"))


def test_same_bytes_in_another_process(fake, monkeypatch):
    """Neither hash seeds nor import order nor a user's matplotlibrc reach the files."""
    (fake.folder / "matplotlibrc").write_text("font.size: 20\nsavefig.dpi: 50\n")
    script = (
        "import sys, paper_figures; paper_figures.__path__.append(sys.argv[1])\n"
        "from paper_figures import _run; sys.exit(_run.run(['fake'], 'quick', sys.argv[2]))"
    )
    digests = []
    for seed in ("1", "2"):
        out = fake.folder / f"out{seed}"
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": str(ROOT),
            "MATPLOTLIBRC": str(fake.folder) if seed == "2" else "",
        }
        command = [sys.executable, "-B", "-c", script, str(fake.folder), str(out)]
        subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
        digests.append({f.name: digest_file(f) for f in out.iterdir() if f.is_file()})
    assert digests[0] == digests[1]


def test_committed_tier_draws_stored_results_without_computing(fake, capsys):
    assert fake.run(tier="full", commit=True) == 0
    assert sorted(f.name for f in fake.committed.iterdir()) == ["fake.json", "fake.npz"]
    computed = list(fake.computed)
    assert fake.run(tier="committed") == 0
    assert fake.computed == computed and fake.record["tier"] == "committed"
    assert fake.record["config"]["size"] == 5  # the full tier's
    assert fake.record["collected_with"]["versions"]["numpy"] == np.__version__
    assert fake.run(tier="committed") == 0
    assert "up to date (committed tier" in capsys.readouterr().out


def test_committing_an_up_to_date_figure_only_stores(fake):
    fake.run(tier="full")
    computed = list(fake.computed)
    fake.run(tier="full", commit=True)
    assert fake.computed == computed and (fake.committed / "fake.npz").exists()


def test_missing_committed_results_say_how_to_make_them(fake, capsys):
    assert fake.run(tier="committed") == 1
    assert "vpt-analysis figures fake --tier full --commit" in capsys.readouterr().err


def test_only_the_full_tier_is_committed(fake):
    with pytest.raises(ValueError, match="only results of the full tier"):
        fake.run(tier="quick", commit=True)


def test_unknown_names_are_refused_before_any_work(fake):
    with pytest.raises(ValueError, match="did you mean 'fake'"):
        fake.run(["fake", "fakee"])
    with pytest.raises(ValueError, match="unknown tier 'quik'; did you mean 'quick'"):
        fake.run(tier="quik")
    assert fake.computed == []


@pytest.mark.parametrize("part", ["caption", "compute"])
def test_incomplete_figure_says_what_it_lacks(part, fake, capsys):
    fake.replace(f"def {part}", f"def not_{part}")
    assert fake.run() == 1
    assert f"lacks {part}" in capsys.readouterr().err


def test_figure_with_a_study_and_a_computation_is_refused(fake, capsys):
    fake.replace("TITLE =", 'STUDY = "family"\nTITLE =')
    assert fake.run() == 1
    assert "names a STUDY and defines config, inputs, parts, compute itself" in capsys.readouterr().err


def test_page_shows_every_figure_and_loads_nothing_from_elsewhere(fake):
    fake.run()
    page = (fake.out / "index.html").read_text()
    assert "A &lt;fake&gt; figure" in page and "Two lines &amp; n = 4." in page and "quick tier" in page
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert not [link for link in links if re.match(r"\w+:|//", link)]
    assert all((fake.out / link).exists() for link in links if not link.startswith("#"))


def test_page_is_not_written_without_figures(tmp_path):
    _page.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_up_to_date_run_is_quick_and_needs_no_torch(fake):
    fake.run()
    script = (
        "import sys, paper_figures; paper_figures.__path__.append(sys.argv[1])\n"
        "from paper_figures import _run; code = _run.run(['fake'], 'quick', sys.argv[2])\n"
        "heavy = {'torch', 'matplotlib.figure'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    before = os.times()
    command = [sys.executable, "-c", script, str(fake.folder), str(fake.out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stdout
    after = os.times()  # processor time: a busy machine is not this test's business
    assert after.children_user + after.children_system - before.children_user - before.children_system < 5


def test_out_that_is_a_file_is_refused(fake, capsys):
    (fake.folder / "file").touch()
    assert cli.main(["figures", "fake", "--out", str(fake.folder / "file")]) == 2
    assert "is a file; --out names a folder" in capsys.readouterr().err


def test_unwritable_out_is_refused_before_any_work(fake, capsys):
    assert cli.main(["figures", "fake", "--out", "/proc/nowhere"]) == 2
    assert "cannot write into /proc/nowhere" in capsys.readouterr().err
    assert fake.computed == []


def test_ctrl_c_exits_with_130_and_leaves_no_part(fake):
    fake.replace("    if (HERE", "    import time; time.sleep(60)\n    if (HERE")
    script = "import signal, sys, paper_figures; paper_figures.__path__.append(sys.argv[1])\n"
    script += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell has it ignored
    script += "from vpt_analysis.cli import main; sys.exit(main(sys.argv[2:]))"
    arguments = ["figures", "fake", "--jobs", "1", "--out", str(fake.out)]
    command = [sys.executable, "-c", script, str(fake.folder), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not fake.computed and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert list(fake.out.rglob("*.*")) == []


def test_stamp_names_tier_size_and_weights():
    config = {"images": 12, "seeds": [0], "backbone": "vit-micro"}
    assert _picture.stamp("full", config, "ab" * 32) == "full tier · n = 12 images · 1 seed · vit-micro abababab"
    assert _picture.stamp("committed", {}, None) == "committed results of the full tier"
    config = {"test": 1000, "seeds": [0, 1]}
    assert _picture.stamp("full", config, None) == "full tier · at most 1,000 test images a task · 2 seeds"


@pytest.mark.parametrize("name", _registry.names())
def test_figure_declares_plain_choices(name):
    module = _registry.study(_registry.load(name))
    quick, full = module.config("quick"), module.config("full")
    assert json.loads(json.dumps(quick)) == quick and json.loads(json.dumps(full)) == full
    for config in (quick, full):  # what the stamp prints, where a backbone sees images
        assert "backbone" not in config or "images" in config or {"test", "seeds"} <= set(config)
        names = [part["name"] for part in module.parts(config)]
        assert len(set(names)) == len(names) and (names or hasattr(module, "later"))
