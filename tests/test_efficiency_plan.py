"""Plans of a comparison: what is run, that all arms have as many trials, and which learning rates are chosen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vpt_analysis.efficiency import plan as plans
from vpt_analysis.efficiency import results
from vpt_analysis.efficiency.arms import ARMS, Arm, arm
from vpt_analysis.efficiency.plan import Plan, from_plain
from vpt_analysis.studies import ablations, learning_curves, one_shot

RATES = (0.001, 0.01, 0.1)
ONE, TEN = {"per_class": 1}, {"per_class": 10}


def small(**changes) -> Plan:
    fields = {"tasks": ("a", "b", "c"), "arms": (arm("linear"), arm("vpt-deep")), "subsets": (ONE, TEN)}
    return Plan(**fields | {"rates": RATES, "seeds": (3, 4)} | changes)


def trial(validation: list[float], test: list[float], own: bool, images: int = 10) -> dict[str, np.ndarray]:
    """What a run of round one gives."""
    return {"validation": np.array(validation), "test": np.array(test), "own": np.array(own),
            "images": np.array(images), "parameters": np.array(7)}  # fmt: skip


def found(plan: Plan, **changes) -> dict[str, dict]:
    """Trials in which every arm prefers the middle rate on validation and the last one on test, where ``changes``
    (``a__vpt-deep__1``: validation accuracies) do not say otherwise."""
    made = {}
    for name, config in plans.trials(plan).items():
        ((_, size),) = config["subset"].items()
        told = changes.get(f"{config['task']}__{config['arm']['name']}__{size:g}", [0.2, 0.4, 0.3])
        made[name] = trial(told, [0.1, 0.2, 0.9], own=size != 1, images=10 * size)
    return made


# --- what is run ------------------------------------------------------------------------------------------------------


def test_round_one_has_every_arm_at_every_rate_on_the_first_seed_alone():
    plan = small()
    configs = plans.trials(plan)
    assert len(configs) == 3 * 2 * 2 and all(c["rates"] == list(RATES) and c["carve"] for c in configs.values())
    assert {c["seed"] for c in configs.values()} == {3}
    assert "b:vpt-deep:per_class=10:trial:3" in configs
    assert len({c["steps"] for c in configs.values()}) == 1 and len({c["batch"] for c in configs.values()}) == 1


def test_round_two_has_every_seed_at_the_chosen_rate_alone():
    plan = small()
    configs = plans.finals(plan, found(plan))
    assert len(configs) == 3 * 2 * 2 * 2 and {c["seed"] for c in configs.values()} == {3, 4}
    assert {tuple(c["rates"]) for c in configs.values()} == {(0.01,)} and not any(c["carve"] for c in configs.values())
    assert "c:linear:per_class=1:4" in configs


def test_configs_are_plain_values_and_know_nothing_of_labels():
    plan = small(arms=(Arm("x", "vpt-deep", label="One"), arm("linear")))
    other = small(arms=(Arm("x", "vpt-deep", label="Two"), arm("linear")))
    configs = plans.trials(plan)
    assert json.loads(json.dumps(configs)) == configs == plans.trials(other)
    assert plans.finals(plan, found(plan)) == plans.finals(other, found(other))


def test_arms_scale_the_rates_of_the_plan_so_all_have_as_many_trials():
    plan = small(arms=(arm("vpt-deep"), Arm("full", "full", scale=0.1), Arm("prefix", "prefix", scale=10)))
    configs = plans.trials(plan)
    assert configs["a:full:per_class=10:trial:3"]["rates"] == [1e-4, 1e-3, 1e-2]
    assert configs["a:vpt-deep:per_class=10:trial:3"]["rates"] == list(RATES)
    assert configs["a:prefix:per_class=10:trial:3"]["rates"] == [0.01, 0.1, 1.0]
    assert {len(c["rates"]) for c in configs.values()} == {3}
    assert plans.finals(plan, found(plan))["a:full:per_class=10:3"]["rates"] == [1e-3]


def test_tasks_may_have_subsets_of_their_own():
    plan = small(subsets={"a": (ONE,), "b": (ONE, TEN), "c": ({"fraction": 0.5},)})
    assert [plans.key(t, a.name, s) for t, a, s in plans.keys(plan)][::2] == [
        "a:linear:per_class=1", "b:linear:per_class=1", "b:linear:per_class=10", "c:linear:fraction=0.5",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no subsets for c; there are some for a, b"):
        small(subsets={"a": (ONE,), "b": (ONE,)})


def test_a_single_rate_leaves_nothing_to_try():
    plan = small(arms=(arm("linear"), Arm("full", "full", scale=0.1)), rates=(0.02,))
    assert plans.trials(plan) == {}
    made = plans.choices(plan, {})
    assert made["a:linear:per_class=1"] == plans.Choice(0.02, "given", False, 0.02)
    assert plans.finals(plan, {})["b:full:per_class=10:4"]["rates"] == [0.002]
    assert results.Results(plan, {}).test_selection() == {}


def test_where_each_seed_chooses_there_is_one_round():
    plan = small(choose="each seed")
    configs = plans.trials(plan)
    assert len(configs) == 3 * 2 * 2 * 2 and {c["seed"] for c in configs.values()} == {3, 4}
    assert plans.finals(plan, found(plan)) == {}


@pytest.mark.parametrize("tier", ["quick", "full"])
@pytest.mark.parametrize("study", [one_shot, learning_curves, ablations])
def test_plans_of_the_studies_give_all_arms_equal_trials_and_equal_steps(study, tier):
    config = study.config(tier)
    plan, parts = from_plain(config), study.parts(config)
    assert json.loads(json.dumps(config)) == config and from_plain(plan.plain()) == plan
    for task in plan.tasks:
        of_task = [p for p in parts if p["task"] == task]
        assert len({len(p["rates"]) for p in of_task}) <= 1
        assert len({(p["steps"], p["batch"], p["weight_decay"]) for p in of_task}) <= 1
    if tier == "full":
        assert len(plan.seeds) >= 5 and {p["arm"]["name"] for p in parts} == set(plan.names)


# --- which rate is chosen ---------------------------------------------------------------------------------------------


def test_a_validation_part_of_its_own_chooses():
    plan = small()
    made = plans.choices(plan, found(plan, **{"a__linear__10": [0.5, 0.4, 0.45]}))
    choice = made["a:linear:per_class=10"]
    assert choice == plans.Choice(0.001, "own", True, 0.1)
    assert made["a:vpt-deep:per_class=10"] == plans.Choice(0.01, "own", False, 0.1)


def test_with_one_image_a_class_the_other_tasks_choose_and_the_own_one_does_not():
    plan = small()
    told = {"a__linear__1": [0.9, 0.0, 0.0], "b__linear__1": [0.1, 0.2, 0.5], "c__linear__1": [0.1, 0.2, 0.3]}
    made = plans.choices(plan, found(plan, **told))
    assert made["a:linear:per_class=1"] == plans.Choice(0.1, "others", True, 0.1)
    # b is told by a and c: losses against each one's best are (0 + 0.2), (0.9 + 0.1), (0.9 + 0).
    assert made["b:linear:per_class=1"].rate == 0.001
    assert made["a:vpt-deep:per_class=1"] == plans.Choice(0.01, "others", False, 0.1)
    changed = plans.choices(plan, found(plan, **told | {"a__linear__1": [0.0, 0.0, 0.9]}))
    assert changed["a:linear:per_class=1"] == made["a:linear:per_class=1"]
    assert changed["b:linear:per_class=1"].rate == 0.1


def test_sizes_at_which_a_task_has_an_own_part_tell_the_others_nothing():
    plan = small(subsets=(ONE, TEN))
    before = plans.choices(plan, found(plan))
    after = plans.choices(plan, found(plan, **{f"{t}__linear__10": [0.9, 0.1, 0.1] for t in "abc"}))
    for task in "abc":
        assert after[f"{task}:linear:per_class=1"] == before[f"{task}:linear:per_class=1"]
        assert after[f"{task}:linear:per_class=10"].rate == 0.001


def test_the_order_of_subsets_does_not_matter():
    plan, turned = small(), small(subsets=(TEN, ONE))
    told = {"b__linear__1": [0.1, 0.2, 0.5], "c__linear__1": [0.1, 0.2, 0.3]}
    assert plans.choices(turned, found(turned, **told)) == plans.choices(plan, found(plan, **told))


def test_what_the_test_images_prefer_is_told_and_changes_no_choice():
    plan = small()
    trials = found(plan)
    before = plans.choices(plan, trials)
    for run in trials.values():
        run["test"] = run["test"][::-1].copy()
    after = plans.choices(plan, trials)
    assert {c.on_test for c in before.values()} == {0.1} and {c.on_test for c in after.values()} == {0.001}
    assert {k: (c.rate, c.by) for k, c in before.items()} == {k: (c.rate, c.by) for k, c in after.items()}
    gaps = results.Results(plan, trials).test_selection()
    assert len(gaps) == len(trials) and set(gaps.values()) == {(0.2, 0.9)}


def test_one_task_alone_cannot_choose_at_one_image_a_class():
    message = "there is no other task to choose the learning rate on"
    with pytest.raises(ValueError, match=message):  # before anything is computed
        plans.trials(small(tasks=("a",)))
    plan = small(tasks=("a",), subsets=({"fraction": 1},))  # nobody knows before the images are there
    with pytest.raises(ValueError, match=message):
        plans.finals(plan, found(plan))
    assert plans.trials(small(tasks=("a",), subsets=(TEN,))) and not plans.trials(small(tasks=("a",), rates=(0.1,)))


def test_each_seed_has_its_own_choice():
    plan = small(choose="each seed", subsets=(TEN,))
    trials = found(plan)
    trials["a:linear:per_class=10:trial:4"] = trial([0.7, 0.1, 0.1], [0.6, 0.2, 0.9], own=True)
    made = results.Results(plan, trials)
    assert made.choices["a:linear:per_class=10:3"].rate == 0.01 and made.choices["a:linear:per_class=10:4"].rate == 1e-3
    np.testing.assert_array_equal(made.accuracy("a", "linear", TEN), [0.2, 0.6])
    assert len(made.test_selection()) == len(trials) and len(made.test_selection(own=False)) == 0


def test_what_lacks_its_trial_is_left_out_of_round_two_and_nothing_else():
    plan = small()
    trials = found(plan)
    del trials["a:linear:per_class=10:trial:3"]
    left = plans.finals(plan, trials)
    assert len(left) == 3 * 2 * 2 * 2 - 2 and not any(name.startswith("a:linear:per_class=10") for name in left)


def test_where_all_other_tasks_failed_a_choice_waits_and_the_rest_goes_on():
    plan = small(tasks=("a", "b"))
    trials = found(plan)
    del trials["b:linear:per_class=1:trial:3"]
    left = plans.finals(plan, trials)
    assert not any(name.startswith(("a:linear:per_class=1:", "b:linear:per_class=1:")) for name in left)
    assert len(left) == 2 * 2 * 2 * 2 - 4


# --- what is found ----------------------------------------------------------------------------------------------------


def test_curves_rise_in_size_whatever_the_order_of_subsets():
    plan = small(tasks=("a",), subsets=(TEN, {"per_class": 2}), rates=(0.01,))
    runs = {}
    for name, config in plans.finals(plan, {}).items():
        m = config["subset"]["per_class"]
        values = {"test": [0.1 * config["seed"] + 0.01 * m], "images": 10 * m, "parameters": 7}
        runs[name] = {what: np.array(value) for what, value in values.items()}
    made = results.Results(plan, runs)
    sizes, errors = made.curve("a", "linear")
    assert sizes.tolist() == [20, 100] and made.images("a", "linear", TEN) == 100
    np.testing.assert_allclose(errors, [[0.68, 0.58], [0.6, 0.5]], atol=1e-12)
    np.testing.assert_allclose(made.accuracy("a", "linear", TEN), [0.4, 0.5], atol=1e-12)
    assert made.parameters("a", "vpt-deep") == 7
    flat = {f"{name}/{what}": value for name, arrays in runs.items() for what, value in arrays.items()}
    again = results.of(plan.plain(), flat)
    np.testing.assert_array_equal(again.curve("a", "linear")[1], errors)
    del runs["a:linear:per_class=10:4"]
    with pytest.raises(ValueError, match="no run a:linear:per_class=10:4 among the results"):
        made.curve("a", "linear")


# --- what is no plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choose": "twice"}, "unknown choose 'twice'"),
        ({"choose": "each seed", "rates": (0.1,)}, "leaves each seed nothing to choose"),
        ({"arms": (arm("prefix-warm"),), "steps": 1}, "starts tied needs 2"),
        ({"steps": 0}, "steps is 0; expected an integer, at least 1"),
        ({"seeds": "two"}, "seed is 't'; expected an integer"),
        ({"rates": (-1.0, 0.1)}, "lr is -1.0; expected a number"),
        ({"optimiser": "adam"}, "unknown optimiser 'adam'"),
        ({"test": -1}, "test is -1; expected a number of images"),
        ({"tasks": ()}, "a plan without tasks"),
        ({"arms": ()}, "a plan without arms"),
        ({"rates": ()}, "a plan without rates"),
        ({"seeds": ()}, "a plan without seeds"),
        ({"subsets": ()}, "a plan without subsets"),
        ({"tasks": ("a", "a")}, "tasks a, a: one stands there twice"),
        ({"seeds": (0, 0)}, "seeds 0, 0: one stands there twice"),
        ({"arms": (arm("vapt"), Arm("vapt", "vapt", length=5))}, "arms vapt, vapt: one stands there twice"),
        ({"subsets": ({"per_class": 1, "fraction": 0.1},)}, "expected .*per_class"),
        ({"subsets": ({"shots": 1},)}, "expected .*per_class"),
        ({"subsets": (1,)}, "subset 1; expected"),
        ({"subsets": ({"per_class": -3},)}, "per_class is -3; expected an integer ≥ 1"),
        ({"subsets": ({"per_class": 2.0},)}, "per_class is 2.0; expected an integer ≥ 1"),
        ({"subsets": ({"fraction": 30},)}, "fraction is 30; expected a number above 0, at most 1"),
        ({"subsets": ({"fraction": "all"},)}, "fraction is 'all'; expected a number"),
    ],
)
def test_no_comparison_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"arms": ["linear"], "subsets": [ONE]}, "a plan lacks tasks"),
        ({"tasks": ["a"], "arms": ["linear"]}, "a plan lacks subsets"),
        ({"tasks": ["a"], "arms": ["linear"], "subsets": [ONE], "sedes": [1]}, "unknown field .*'sedes'.*'seeds'"),
        ({"tasks": ["a"], "arms": ["vtp-deep"], "subsets": [ONE]}, "unknown arm 'vtp-deep'; did you mean 'vpt-deep"),
        ({"tasks": ["a"], "arms": [{"name": "x"}], "subsets": [ONE]}, "lacks its method"),
        ({"tasks": ["a"], "arms": [{"method": "vapt", "lenght": 3}], "subsets": [ONE]}, "'lenght'; did you mean"),
    ],
)
def test_values_that_make_no_plan_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_plain(values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "nothing"}, "unknown method of arm 'x' 'nothing'"),
        ({"method": "vapt", "start": "warm"}, "unknown start of arm 'x' 'warm'"),
        ({"method": "full", "start": "small"}, "full has no prompts, so it cannot start at 'small'"),
        *(({"method": "full", "scale": s}, "scale is .*; expected a positive number") for s in (0, -1, "2", np.inf)),
    ],
)
def test_no_arm_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Arm("x", **fields)


def test_arms_by_name_by_method_and_by_table():
    assert arm("vapt-mean").options == {"mean_fed": True} and arm("gated") == Arm("gated", "gated")
    assert arm({"method": "vpt-deep", "length": 50}) == Arm("vpt-deep", "vpt-deep", length=50)
    for known in ARMS.values():
        assert Arm(**json.loads(json.dumps(known.plain()))) == known
