"""A plan from a file to its results: both rounds as sweeps over one store."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from .. import sweep
from ..errors import unknown
from ..storage import digest_arrays, digest_file
from . import plan as plans
from .arms import load_modules
from .plan import Plan
from .results import Results
from .runs import backbone, run
from .splits import loaded


def read(path: str | Path) -> Plan:
    """A plan from a TOML file: the fields of ``Plan``, with ``shots = [1, 5]`` (images a class) and ``fractions =
    [0.1, 1.0]`` for ``subsets``, a number or a list for ``seeds``, names or tables for ``arms``.

    Paths of data, backbone and modules are relative to the file. The modules are executed: they are your own code.
    Raises ``ValueError`` that names the file and the fault, ``FileNotFoundError`` where there is none.
    """
    path = Path(path)
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    try:
        return from_file(given, path.resolve().parent)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from error


def from_file(given: Mapping, folder: Path) -> Plan:
    values = dict(given)
    known = [*Plan.__dataclass_fields__, "shots", "fractions"]
    for name in values:
        if name not in known:
            raise unknown("entry of a plan", name, known)
    subsets = [{"per_class": m} for m in values.pop("shots", [])] + [
        {"fraction": f} for f in values.pop("fractions", [])
    ]
    if subsets and "subsets" in values:
        raise ValueError("both subsets and shots or fractions are given; keep one way of saying it")
    if subsets:
        values["subsets"] = subsets
    if isinstance(values.get("seeds"), int):
        values["seeds"] = range(values["seeds"])
    values["modules"] = [str(here(folder, m)) for m in values.get("modules", ())]
    load_modules(values["modules"])  # so that arms may name what they register
    values["tasks"] = [str(here(folder, t)) for t in values.get("tasks", ())]
    if "backbone" in values:
        values["backbone"] = str(here(folder, values["backbone"]))
    return plans.from_plain(values)


def here(folder: Path, name: str) -> str | Path:
    """A path relative to the file where something lies there, else the name as it is."""
    path = folder / Path(name).expanduser()
    return path if path.exists() else name


def inputs(plan: Plan) -> dict[str, str]:
    """Digests of what results depend on: each task's images, the weights, the modules. Loads the data."""
    vit, found = backbone(plan.backbone, plan.device), {}
    for task in plan.tasks:
        train, test = loaded(task, vit.config.image_size)
        found |= {f"{task} train": train.digest, f"{task} test": test.digest}
    found["weights"] = digest_arrays(vit.state_dict())
    return found | {f"module {m}": digest_file(m) for m in plan.modules}


def compute(plan: Plan, store: str | Path, **options) -> tuple[Results, list[sweep.Sweep]]:
    """The results of a plan, from the ``store`` or computed into it, and what each round did. ``options`` are those of
    ``sweep.run``. What failed is missing from the results, and the next start tries it again."""
    digests, found, rounds = inputs(plan), {}, []
    for label in ("trials", "finals"):
        named = plans.trials(plan) if label == "trials" else plans.finals(plan, found)
        if named:
            done = sweep.run(run, named.values(), store, inputs=digests, label=label, **options)
            found |= {name: r for name, r in zip(named, done.results, strict=True) if r is not None}
            rounds.append(done)
    return Results(plan, found), rounds
