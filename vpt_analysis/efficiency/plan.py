"""What a comparison computes: every arm on every training subset of every task, learning rates chosen the same way.

Round one, the **trials**: each arm at each of its rates, on the first seed's training subset less its validation part.
Round two, the **finals**: each arm at the rate that the trials chose (``selection``), on the whole training subset of
every seed. All arms have as many trials, and all runs as many steps. With ``choose = "each seed"`` there is one round:
every seed has its own trials and its own choice, and the runs of the chosen rates are the results; that is more work
for intervals that hold the choice as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import unknown
from ..settings import Training
from . import selection
from .arms import Arm, arm

CHOOSE = ("once", "each seed")
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
Found = Mapping[str, Mapping[str, np.ndarray]]  # arrays of ``runs.run`` by the name of the run


@dataclass(frozen=True)
class Plan:
    """A comparison. ``subsets`` are training subsets, ``{"per_class": m}`` or ``{"fraction": f}``, the same for all
    tasks or a dict of tasks; ``rates`` the learning rates of arms whose ``scale`` is 1; ``pool``: how many stratified
    images of the training split "all" is (0: all there are); ``validation`` and ``test``: at most so many images are
    judged.

    Raises ``ValueError`` on what is no comparison.
    """

    tasks: tuple[str, ...]
    arms: tuple[Arm, ...]
    subsets: tuple[dict, ...] | dict[str, tuple[dict, ...]]
    backbone: str = "vit-micro"
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    choose: str = "once"
    steps: int = 100
    batch: int = 32
    optimiser: str = "adamw"
    weight_decay: float = 1e-4
    device: str = "cpu"
    pool: int = 0
    validation: int = 500
    test: int = 1000
    modules: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("tasks", "arms", "rates", "seeds", "modules"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.choose not in CHOOSE:
            raise unknown("choose", self.choose, CHOOSE)
        for name in ("tasks", "arms", "rates", "seeds", "subsets"):
            if not getattr(self, name):
                raise ValueError(f"a plan without {name}; expected at least one")
        for what, names in (("tasks", self.tasks), ("arms", self.names), ("seeds", self.seeds)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} {', '.join(map(str, names))}: one stands there twice")
        for name in ("pool", "validation", "test"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} is {value!r}; expected a number of images, 0 for all there are")
        for rate in self.rates:  # what no run could take is said before the first one
            for seed in self.seeds:
                Training(self.steps, rate, self.weight_decay, self.batch, self.optimiser, seed=seed)
        if self.choose == "each seed" and len(self.rates) == 1:
            raise ValueError('a single learning rate leaves each seed nothing to choose; leave choose at "once"')
        if self.steps < 2 and any(a.start == "tied" for a in self.arms):
            raise ValueError(f"steps is {self.steps}; an arm that starts tied needs 2, one for each of its halves")
        for task in self.tasks:
            for subset in self.of(task):
                check_subset(subset)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.arms)

    def of(self, task: str) -> tuple[dict, ...]:
        """The training subsets of a task."""
        if not isinstance(self.subsets, Mapping):
            return tuple(self.subsets)
        if task not in self.subsets:
            raise ValueError(f"no subsets for {task}; there are some for {', '.join(self.subsets)}")
        return tuple(self.subsets[task])

    def rates_of(self, each: Arm) -> tuple[float, ...]:
        """The learning rates of an arm: six digits of the product, so that 0.001 · 10 is 0.01."""
        return tuple(float(f"{each.scale * rate:.6g}") for rate in self.rates)

    def plain(self) -> dict:
        """As JSON values, of which ``from_plain`` makes the plan again."""
        return asdict(self) | {"arms": [a.plain() for a in self.arms]}


def from_plain(values: Mapping) -> Plan:
    """A plan from JSON values; an arm may be a name. Raises ``ValueError`` for unknown fields."""
    known = [*Plan.__dataclass_fields__]
    for key in values:
        if key not in known:
            raise unknown("field of a plan", key, known)
    for needed in ("tasks", "arms", "subsets"):
        if needed not in values:
            raise ValueError(f"a plan lacks {needed}; expected tasks, arms and subsets at least")
    return Plan(**{**values, "arms": tuple(arm(a) for a in values["arms"])})


def check_subset(subset: Mapping) -> None:
    if not isinstance(subset, Mapping) or len(subset) != 1 or next(iter(subset)) not in ("per_class", "fraction"):
        raise ValueError(f'subset {subset!r}; expected {{"per_class": m}} or {{"fraction": f}}')
    ((kind, value),) = subset.items()
    if kind == "per_class" and (type(value) is not int or value < 1):
        raise ValueError(f"subset: per_class is {value!r}; expected an integer ≥ 1")
    if kind == "fraction" and (type(value) not in (int, float) or not 0 < value <= 1):
        raise ValueError(f"subset: fraction is {value!r}; expected a number above 0, at most 1")


def key(task: str, arm: str, subset: Mapping) -> str:
    """Names what a rate is chosen for.

    >>> key("digits", "vapt", {"per_class": 1})
    'digits:vapt:per_class=1'
    """
    ((kind, value),) = subset.items()
    return f"{task}:{arm}:{kind}={value:g}"


def keys(plan: Plan) -> list[tuple[str, Arm, dict]]:
    """Task, arm and subset of all runs, task by task and from small subsets to large ones."""
    return [(task, each, subset) for task in plan.tasks for subset in plan.of(task) for each in plan.arms]


def trials(plan: Plan) -> dict[str, dict]:
    """Configs of round one by name, ``<key>:trial:<seed>``; none where no arm has a choice of rates. Raises
    ``ValueError`` where it is clear beforehand that nothing could choose."""
    if plan.choose == "once" and len(plan.rates) == 1:
        return {}
    if len(plan.tasks) == 1 and {"per_class": 1} in plan.of(plan.tasks[0]):
        raise selection.alone(plan.tasks[0])
    seeds = plan.seeds if plan.choose == "each seed" else plan.seeds[:1]
    return {
        f"{key(t, a.name, s)}:trial:{seed}": config(plan, t, a, s, plan.rates_of(a), seed, carve=True)
        for t, a, s in keys(plan)
        for seed in seeds
    }


def finals(plan: Plan, found: Found) -> dict[str, dict]:
    """Configs of round two by name, ``<key>:<seed>``, from the arrays of round one; none where each seed has trials,
    nor for what lacks its trial because that failed."""
    if plan.choose == "each seed":
        return {}
    rates = {name: choice.rate for name, choice in choices(plan, found).items()}
    return {
        f"{name}:{seed}": config(plan, task, each, subset, (rates[name],), seed, carve=False)
        for task, each, subset in keys(plan)
        for seed in plan.seeds
        if (name := key(task, each.name, subset)) in rates
    }


def config(plan: Plan, task: str, each: Arm, subset: dict, rates: tuple, seed: int, carve: bool) -> dict:
    """What ``runs.run`` takes. The arm's label is left out: it does not change what comes out."""
    shared = ("backbone", "steps", "batch", "optimiser", "weight_decay", "device", "pool", "validation", "test")
    return {name: getattr(plan, name) for name in shared} | {
        "task": task, "arm": each.plain() | {"label": ""}, "subset": dict(subset), "rates": list(rates),
        "seed": seed, "carve": carve, "modules": list(plan.modules),
    }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The rate of a task, arm and subset; ``by``: "own", "others" or "given"; ``edge``: whether it is an end of the
    grid; ``on_test``: the rate that the test images would have chosen."""

    rate: float
    by: str
    edge: bool
    on_test: float


def choices(plan: Plan, found: Found, seed: int | None = None) -> dict[str, Choice]:
    """The choice for each ``key`` whose trial was found, and one of another task where that chooses, from the trials of
    a seed (by default the first)."""
    seed, made = plan.seeds[0] if seed is None else seed, {}
    given = not trials(plan)
    for task, each, subset in keys(plan):
        name, rates = key(task, each.name, subset), np.array(plan.rates_of(each))
        if given:
            made[name] = Choice(float(rates[0]), "given", False, float(rates[0]))
            continue
        if f"{name}:trial:{seed}" not in found:
            continue
        mine = found[f"{name}:trial:{seed}"]
        if bool(mine["own"]):
            by, rate = "own", selection.own(rates, mine["validation"])
        else:
            others = on_others(plan, found, task, each, seed)
            if others is None:
                continue
            by, rate = "others", selection.from_others(task, rates, others)
        made[name] = Choice(rate, by, selection.at_edge(rates, rate), selection.on_test(rates, mine["test"]))
    return made


def on_others(plan: Plan, found: Found, task: str, each: Arm, seed: int) -> dict[str, np.ndarray] | None:
    """Accuracies of an arm at its rates on each other task, on the smallest training subset of which nothing could be
    carved; None where some trial failed and no other tells."""
    names = {t: [f"{key(t, each.name, s)}:trial:{seed}" for s in plan.of(t)] for t in plan.tasks if t != task}
    told = {t: [found[n] for n in own if n in found and not bool(found[n]["own"])] for t, own in names.items()}
    if not any(told.values()) and any(n not in found for own in names.values() for n in own):
        return None
    return {t: min(runs, key=lambda run: int(run["images"]))["validation"] for t, runs in told.items() if runs}
