"""The seven figures of sample efficiency, on planted results of both tiers."""

from __future__ import annotations

import numpy as np
import pytest

from paper_figures import (
    _efficiency,
    _keys,
    ablation,
    crossover,
    data_multiplier,
    learning_curves,
    one_shot,
    selection_gap,
)
from vpt_analysis import plotting
from vpt_analysis.efficiency import plan as plans
from vpt_analysis.studies import ablations
from vpt_analysis.studies import learning_curves as curves
from vpt_analysis.studies import one_shot as one

STUDIES = {"one_shot": one, "learning_curves": curves, "ablations": ablations}
FIGURES = [one_shot, learning_curves, data_multiplier, crossover, selection_gap, ablation]
CLASSES, PARAMETERS = 10, 1234


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(_efficiency, "RESAMPLES", 60)


def accuracy_of(task: str, arm: str, n: int) -> float:
    """Of known order: adaptive prompts need a quarter of VPT-Deep's images; fine-tuning is behind and overtakes."""
    error = {"vapt": 0.8 * (4 * n / CLASSES) ** -0.3, "full": 1.6 * (n / CLASSES) ** -0.6}
    return 1 - min(0.95, error.get(arm, 0.8 * (n / CLASSES) ** -0.3))


def planted(config: dict, accuracy=accuracy_of, noise: float = 0.004, best: int = 1) -> dict[str, np.ndarray]:
    """Arrays of a plan: trials with their best validation at the ``best`` rate and their best test result one on,
    finals at ``accuracy`` with normal noise."""
    plan, generator = plans.from_plain(config), np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}

    def fill(name: str, run: dict, test: np.ndarray, **more) -> None:
        images = CLASSES * run["subset"]["per_class"]
        found = {
            "test": test,
            "images": images,
            "classes": CLASSES,
            "parameters": PARAMETERS,
            **more,
        }
        arrays.update({f"{name}/{key}": np.asarray(value) for key, value in found.items()})

    for name, run in plans.trials(plan).items():
        away = np.abs(np.arange(len(run["rates"])) - min(best, len(run["rates"]) - 1))
        level = accuracy(run["task"], run["arm"]["name"], CLASSES * run["subset"]["per_class"])
        own = run["subset"]["per_class"] > 1
        fill(name, run, level + 0.02 * (away == 1) - 0.03 * (away > 1), validation=level - 0.05 * away, own=own)
    for name, run in plans.finals(plan, by_run(arrays)).items():
        level = accuracy(run["task"], run["arm"]["name"], CLASSES * run["subset"]["per_class"])
        fill(name, run, np.clip(level + noise * generator.normal(size=1), 0, 1))
    return arrays


def by_run(arrays: dict) -> dict:
    from vpt_analysis.efficiency.study import by_run

    return by_run(arrays)


def study_of(module):
    return STUDIES[module.STUDY]


def drawn(module, arrays: dict, config: dict, path):
    with plotting.style():
        figure = module.draw(arrays, config)
        plotting.save(figure, path / "figure.png")
    return figure


def texts(figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


def name_of(module) -> str:
    return module.__name__.rpartition(".")[2]


def small(config: dict, **changes) -> dict:
    """One task, one size, one seed, one rate."""
    (task, *_), least = config["tasks"], {"rates": config["rates"][:1], "seeds": [0], "subsets": [{"per_class": 5}]}
    return config | {"tasks": [task]} | least | changes


def markers(ax, marker: str) -> list:
    return [line for line in ax.lines if line.get_marker() == marker and len(line.get_xdata())]


@pytest.fixture(params=["quick", "full"])
def tier(request) -> str:
    return request.param


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FIGURES, ids=name_of)
def test_figures_name_their_tasks_and_label_their_axes(module, tier, tmp_path):
    config = study_of(module).config(tier)
    arrays = planted(config)
    figure = drawn(module, arrays, config, tmp_path) if tier == "quick" else module.draw(arrays, config)
    written = " ".join(texts(figure))
    for task in config["tasks"]:
        assert _efficiency.task_name(task) in written, task
    units = ("(%)", "(points)", "(points),", "images", "times as many")
    assert any(unit in written for unit in units) and "nan" not in written
    said = module.caption(arrays, config)
    seeds = len(config["seeds"])
    assert "95 % bootstrap intervals" in said and f"at most {config['test']:,} test images" in said
    assert "chosen learning rate" in said or "one learning rate" in said or module is selection_gap
    assert module is selection_gap or f"over {seeds} seeds" in said
    assert "nan" not in said and " -" not in said


@pytest.mark.parametrize("module", FIGURES, ids=name_of)
@pytest.mark.parametrize("change", [{}, {"rates": [0.01, 0.03], "seeds": [0, 1]}], ids=["one rate", "two rates"])
def test_one_task_and_one_size_are_enough(module, change):
    config = small(study_of(module).config("quick"), **change)
    arrays = planted(config)
    with plotting.style():
        module.draw(arrays, config).draw_without_rendering()
    said = module.caption(arrays, config)
    assert said and "nan" not in said
    assert change or "one seed, no intervals" in said or module is selection_gap


@pytest.mark.parametrize(
    "module, lost", [(data_multiplier, "vapt"), (crossover, "full"), (ablation, "vpt-deep")], ids=lambda x: str(x)[-30:]
)
def test_a_missing_arm_is_named(module, lost):
    config = study_of(module).config("quick")
    config = config | {"arms": [arm for arm in config["arms"] if arm["name"] != lost]}
    arrays = planted(config)
    for function in (module.draw, module.caption):
        with pytest.raises(ValueError, match=f"the results have no arm {lost}, which this figure compares"):
            function(arrays, config)


def test_every_seed_may_have_its_own_choice():
    config = one.config("quick") | {"choose": "each seed"}
    plan, arrays = plans.from_plain(config), {}
    for name, run in plans.trials(plan).items():
        rates, level = np.arange(len(run["rates"])), 0.1 + 0.01 * run["seed"]
        found = {"test": level + 0.05 * (rates == 1), "validation": 0.1 * (rates == 1), "own": False, "images": 10,
                 "classes": 10, "parameters": 3}  # fmt: skip
        arrays |= {f"{name}/{key}": np.asarray(value) for key, value in found.items()}
    assert "No chosen learning rate is an end of its grid (of 28)" in one_shot.caption(arrays, config)
    assert one_shot.draw(arrays, config)


def test_published_tables_enter_the_key_of_a_picture(monkeypatch, tmp_path):
    from vpt_analysis.studies import tables

    before, other = _keys.picture_key(one_shot, "arrays"), _keys.picture_key(crossover, "arrays")
    (tmp_path / "dogs_curve.csv").write_text("something else")
    monkeypatch.setattr(tables, "path", lambda name: tmp_path / f"{name}.csv")
    assert _keys.picture_key(one_shot, "arrays") != before
    assert _keys.picture_key(crossover, "arrays") == other


# --- one image a class ------------------------------------------------------------------------------------------------


def test_the_published_pair_stands_beside_the_arms():
    config = one.config("full")
    figure = one_shot.draw(planted(config), config)
    above, below = figure.subfigs
    assert len(above.axes) == len(config["tasks"]) + 2 and len(below.axes) == len(config["arms"])
    printed = above.axes[-1]
    assert {t.get_text() for t in printed.texts} == {"3.6 %", "60.1 %"}
    found = sorted(float(line.get_xdata()[0]) for line in printed.lines)
    assert found == [3.6, 60.0, 60.1]
    assert {row["method"] for row in one_shot.published()} == {"VPT", "VAPT"}


def test_means_single_seeds_and_chance_stand_where_they_were_planted():
    config = one.config("full")
    arrays = planted(config)
    found = _efficiency.results(arrays, config)
    ax = one_shot.draw(arrays, config).subfigs[0].axes[0]
    accuracy = 100 * found.accuracy(config["tasks"][0], "vapt", {"per_class": 1})
    at = [arm["name"] for arm in config["arms"]].index("vapt")
    ticks = markers(ax, "|")[at]
    np.testing.assert_allclose(ticks.get_xdata(), accuracy)
    (mean,) = (line.get_xdata() for line in markers(ax, plotting.SERIES[1]["marker"])[:1])
    assert mean == pytest.approx(accuracy.mean())
    assert 100 / CLASSES in {float(line.get_xdata()[0]) for line in ax.lines}


def test_arms_are_summed_up_over_tasks_from_chance_to_all():
    config, chance = one.config("full"), 1 / CLASSES
    tasks = config["tasks"]
    # Six tasks: the lowest and the highest quarter of all runs are left out, a task and a half at each end.
    level = dict(zip(tasks, (0.1, 0.2, 0.3, 0.4, 0.9, 0.9), strict=True))
    arrays = planted(config, lambda task, arm, n: level[task], noise=0)
    found = _efficiency.results(arrays, config)
    scores = np.sort(np.repeat([(v - chance) / (1 - chance) for v in level.values()], len(config["seeds"])))
    middle = scores[len(scores) // 4 : -(len(scores) // 4)]
    assert one_shot.over_tasks(found, "vapt").estimate == pytest.approx(100 * middle.mean())
    ax = one_shot.draw(arrays, config).subfigs[0].axes[-2]
    assert "interquartile mean" in ax.get_title()
    assert float(ax.lines[0].get_xdata()[0]) == pytest.approx(100 * middle.mean())
    assert "Over all 6 tasks" in one_shot.caption(arrays, config)
    assert "Over all" not in one_shot.caption(planted(one.config("quick")), one.config("quick"))


def test_rates_at_an_end_of_the_grid_are_squares_and_said():
    config = one.config("quick")
    inside, outside = (planted(config, best=best) for best in (1, 0))
    drawn = [one_shot.draw(arrays, config).subfigs[1].axes for arrays in (inside, outside)]
    assert [sum(len(markers(ax, "s")) for ax in axes) for axes in drawn] == [0, 14]
    assert [sum(len(markers(ax, "o")) for ax in axes) for axes in drawn] == [14, 0]
    assert "No chosen learning rate is an end of its grid (of 14)." in one_shot.caption(inside, config)
    assert "14 of 14 chosen learning rates are an end" in one_shot.caption(outside, config)


def test_the_best_rival_is_held_against_vapt():
    config = one.config("full")
    level = {"vapt": 0.4, "linear": 0.35, "vpt-shallow": 0.39, "vapt-released": 0.5}
    arrays = planted(config, lambda task, arm, n: level.get(arm, 0.2), noise=0)
    said = one_shot.caption(arrays, config)
    words = "Linear probe, the best of the linear probe and static prompts, less VAPT: −5.0 [−5.0, −5.0] points"
    assert said.count(words) == len(config["tasks"]) and "The printed gap is 56.5 points" in said
    assert "VAPT 40.0 [40.0, 40.0] (best of the grid 42.0)" in said


# --- learning curves, multiplier, crossover ---------------------------------------------------------------------------


def test_curves_are_mean_errors_and_laws_are_fitted_where_they_can():
    config = curves.config("full") | {"tasks": ["shapes-count"], "subsets": [{"per_class": m} for m in (2, 8, 32, 128)]}
    arrays = planted(config, lambda task, arm, n: 1 - 0.1 - 0.6 * (n / CLASSES) ** -0.5, noise=0.001)
    figure = learning_curves.draw(arrays, config)
    ours, printed = figure.axes
    n, errors = _efficiency.results(arrays, config).curve("shapes-count", "linear")
    np.testing.assert_allclose(markers(ours, "o")[0].get_ydata(), 100 * errors.mean(1))
    assert n.tolist() == [20, 80, 320, 1280]
    assert [line.get_ydata()[0] for line in printed.lines] == pytest.approx([96.4, 39.9])
    said = learning_curves.caption(arrays, config)
    assert "Linear probe 0.5" in said and "floor 10 %" in said
    short = config | {"subsets": [{"per_class": m} for m in (2, 8, 32)]}
    assert "not fitted (fewer than 4 sizes" in learning_curves.caption(planted(short), short)


def test_published_curve_is_that_of_the_text_where_text_and_picture_speak():
    share, accuracy = learning_curves.printed("VAPT")
    assert share.tolist() == [1, 10, 30, 50, 100] and accuracy.tolist() == [60.1, 88.0, 90.3, 90.9, 91.7]


def test_multipliers_are_found_where_they_were_planted():
    config = curves.config("full")
    arrays = planted(config, noise=0.0005)
    found = _efficiency.results(arrays, config)
    for task in config["tasks"]:
        made = data_multiplier.multipliers(found, task)
        assert made[0].bound == "" and made[0].estimate == pytest.approx(4, rel=0.1)
        assert {m.bound for m in made} == {"", ">"}
        inside = [m for m in made if m.bound == ""]
        assert all(m.valid[0] <= m.error <= m.valid[1] for m in inside)
    figure = data_multiplier.draw(arrays, config)
    low, high = figure.axes[0].get_ylim()
    assert low < 1 < 4 < high
    assert ": 4" in data_multiplier.caption(arrays, config) or ": 3.9" in data_multiplier.caption(arrays, config)


def test_multipliers_that_data_only_bound_are_arrows_and_said():
    config = curves.config("quick")

    def level(task: str, arm: str, n: int) -> float:
        return {"vapt": 0.2, "vpt-deep": 0.4}.get(arm, 0.1) + 0.1 * np.log10(n / CLASSES)

    behind = planted(config, level, noise=0.001)
    assert "at most" in data_multiplier.caption(behind, config).split("\n\n")[1]
    swapped = planted(config, lambda task, arm, n: 0.6 - level(task, arm, CLASSES**2 * CLASSES // n), noise=0.001)
    assert "at least" in data_multiplier.caption(swapped, config).split("\n\n")[1]
    for arrays in (behind, swapped):
        axes = data_multiplier.draw(arrays, config).axes
        assert all(len(ax.texts) > 2 for ax in axes)  # arrows are annotations


@pytest.mark.parametrize("status, words", list(crossover.WORDS.items()))
def test_crossings_are_found_where_they_were_planted(status, words):
    gap = {"before": lambda n: 0.1, "never": lambda n: -0.1, "inside": lambda n: 0.1 * np.log10(n / 50)}[status]
    config = curves.config("full")
    arrays = planted(config, lambda t, arm, n: 0.3 + 0.1 * np.log10(n) + (gap(n) if arm == "full" else 0), noise=0.001)
    figure = crossover.draw(arrays, config)
    assert all(words in ax.get_title() for ax in figure.axes if ax.get_title())
    found = _efficiency.results(arrays, config)
    crossed = crossover.crossing(found, "shapes-count")
    assert crossed.status == status and (status != "inside" or crossed.estimate == pytest.approx(50, rel=0.15))
    n = [size for size, _ in _efficiency.sized(found, "shapes-count")]
    expected = [100 * gap(size) for size in n]
    np.testing.assert_allclose(crossover.difference(found, "shapes-count").estimate, expected, atol=0.3)
    said = crossover.caption(arrays, config)
    assert ("crossing at n = " in said) == (status == "inside")
    gaps = crossover.difference(found, "shapes-count").estimate
    assert f"{gaps[-1]:+.1f} at the largest".replace("-", "−") in said


# --- choosing on test, ablations --------------------------------------------------------------------------------------


def test_gains_of_choosing_on_test_are_the_planted_ones():
    config = curves.config("quick") | {"rates": [0.003, 0.01, 0.03]}
    arrays = planted(config)
    found = _efficiency.results(arrays, config)
    listed = selection_gap.gaps(found)
    assert len(listed) == len(plans.trials(found.plan)) == 24
    np.testing.assert_allclose([gap for *_, gap in listed], 2.0)
    assert sum(own for _, _, _, own, _ in listed) == 16  # all but those with one image a class
    figure = selection_gap.draw(arrays, config)
    assert "not a result" in figure.axes[0].get_ylabel()
    said = selection_gap.caption(arrays, config)
    assert "must not be done" in said and "VAPT 2.0 [2.0, 2.0]" in said and "(n = 16 trials)" in said


def test_without_a_choice_there_is_no_gain_to_show():
    config = small(curves.config("quick"))
    arrays = planted(config)
    assert "nothing was chosen" in " ".join(texts(selection_gap.draw(arrays, config)))
    assert "nothing was chosen" in selection_gap.caption(arrays, config)


def test_differences_to_vpt_deep_are_grouped_paired_and_marked():
    config = ablations.config("quick") | {"tasks": ["digits", "shapes-count"], "seeds": [0, 1, 2, 3, 4]}
    config = config | {"arms": [*config["arms"], {"name": "mine", "method": "vpt-deep", "label": "My own"}]}
    level = {"vapt": 0.6, "prefix": 0.4}
    arrays = planted(config, lambda task, arm, n: level.get(arm, 0.5))
    figure = ablation.draw(arrays, config)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["digits\nn = 100", "shapes, count\nn = 100", "mean over\ntasks"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"", "less VPT-Deep (points)"}
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert [heading for heading in labels if heading in (*ablation.GROUPS, ablation.OTHER)] == [
        *ablation.GROUPS, ablation.OTHER,
    ]  # fmt: skip
    assert labels.index(f"My own ({PARAMETERS:,})") > labels.index(ablation.OTHER)
    made = ablation.differences(_efficiency.results(arrays, config))
    for task in ("digits", "shapes-count", "all"):
        assert made["vapt", task][0].estimate == pytest.approx(10, abs=0.8) and made["vapt", task][1] < 0.05
        assert made["prefix", task][0].estimate == pytest.approx(-10, abs=0.8) and made["prefix", task][1] < 0.05
    assert made["norga", "all"][1] > 0.05
    said = ablation.caption(arrays, config)
    assert "Mean over tasks. VPT-Deep, P = 6" in said and "Prefix, untied −" in said and "VAPT +" in said
