"""Grids of pure functions of a small config: every run kept by content, resumed, on all cores or on a cluster.

``run(function, configs, store)`` computes ``function(config)`` for every config that the store does not have, and gives
all results in the order of the configs. Equal key, equal result: the key covers the function, the config, the digests
of weights and data that the caller names, the sources that compute and the versions of the libraries (``configs``,
``sources``). ``store`` says what lies in the folder.

The engine is joblib. Whatever backend the caller has set with ``joblib.parallel_config`` is used, processes on all
cores otherwise; ``clusters`` has dask and Slurm. Every run is computed on one thread, so that its result does not
depend on the machine's cores and workers do not fight.

- A cached config is never dispatched. ``kill -9`` of a worker or of the sweep loses the runs in flight and no other.
- A run that fails is recorded with its traceback, does not stop the others, and is tried again by the next start.
- Two sweeps may share a folder: both may compute the same run, their results are equal, either file is whole.
- Workers write into the folder themselves, so all machines must see it at the same path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .. import sources
from ..progress import progress
from ..provenance import provenance
from ..sources import Code
from . import configs as grid
from .pool import in_pool
from .runs import Failure, Job, Outcome
from .store import Store, StoreError, decode


@dataclass(frozen=True)
class Sweep:
    """Results in the order of the configs, None where a run failed, with the key of each; what failed, and why."""

    results: list[dict | None]
    keys: list[str]
    failures: list[Failure] = field(default_factory=list)
    computed: int = 0
    cached: int = 0

    def report(self) -> str:
        """How many runs there are, and the failures with their configs, in lines."""
        counts = f"{self.computed} computed, {self.cached} cached, {len(self.failures)} failed"
        failed = [f"  {failure.error}\n    in {failure.config}" for failure in self.failures]
        return "\n".join([f"{len(set(self.keys))} runs: {counts}", *failed])


def run(
    function: Callable[[object], Mapping],
    configs: Iterable[object],
    store: Store | str | os.PathLike,
    *,
    inputs: Mapping[str, str] | None = None,
    jobs: int | None = None,
    retry: bool = True,
    stop: bool = False,
    execute: Callable[[list[Job]], Iterable[Outcome]] | None = None,
    label: str | None = None,
    code: Code | None = None,
) -> Sweep:
    """``function(config)`` for every config, from the store or computed into it.

    ``function`` is a function of a module that gives equal results for equal configs: a dict of numbers, text and small
    numpy arrays. A config is a frozen dataclass, which it gets as it is, or a dict of JSON values, which it gets with
    lists for tuples. ``inputs`` holds the digests of files that results depend on.

    ``jobs`` runs go side by side; by default as many as the caller's ``joblib.parallel_config`` says, and without one
    as there are cores. ``execute`` takes joblib's place (``clusters.slurm``). ``retry=False`` leaves runs alone that
    failed before, and reports them again; ``stop`` raises the first error and keeps no failure. ``label`` is shown
    with the progress, ``code`` takes the place of the function's module in the key.

    Raises ``TypeError`` or ``ValueError`` for configs that are none, before anything is computed, and ``StoreError``
    where the folder cannot be written.
    """
    store, given = store if isinstance(store, Store) else Store(store), list(configs)
    plain = [grid.plain(config) for config in given]
    code, inputs = code or Code.of(function.__module__), dict(inputs or {})
    keys = _keys(function, plain, inputs, code)
    found, failures = cached(store, keys), {}
    count, todo = len(found), {key: at for at, key in enumerate(keys) if key not in found}
    failed = store.failed() & todo.keys()
    if not retry:
        failures = {key: Failure.stored(key, store) for key in failed}
        todo = {key: at for key, at in todo.items() if key not in failed}
    if todo:
        store.prepare()
        about = {"function": grid.name(function), "inputs": inputs, "code": code.digest, **provenance()}
        rest = (store, code, about, os.getpid(), not stop)
        get = [value if isinstance(config, Mapping) else config for config, value in zip(given, plain, strict=True)]
        left = [Job(function, get[at], plain[at], key, *rest) for key, at in todo.items()]
        outcomes = execute(left) if execute else in_pool(left, jobs)
        for outcome in progress(outcomes, label or function.__name__, count + len(left), count, every=5.0):
            if outcome.failure:
                failures[outcome.key] = outcome.failure
                continue
            found[outcome.key] = outcome.body
            if outcome.key in failed:
                store.forget_failure(outcome.key)
        _check_shared(store, todo.keys() & found.keys())
    results = {key: decode(body) for key, body in found.items()}
    ordered = [failures[key] for key in dict.fromkeys(keys) if key in failures]
    return Sweep([results.get(key) for key in keys], keys, ordered, len(found) - count, count)


def keys(
    function: Callable[[object], Mapping],
    configs: Iterable[object],
    inputs: Mapping[str, str] | None = None,
    code: Code | None = None,
) -> list[str]:
    """What ``run`` names its results by, in the order of the configs."""
    plain = [grid.plain(config) for config in configs]
    return _keys(function, plain, dict(inputs or {}), code or Code.of(function.__module__))


def _keys(function: Callable, plain: Sequence[dict], inputs: dict[str, str], code: Code) -> list[str]:
    return grid.keys([grid.name(function), inputs, code.digest, sources.versions()], plain)


def cached(store: Store, keys: Iterable[str]) -> dict[str, bytes]:
    """The results that the store has, as ``store.encode`` made them; damaged ones are not among them."""
    there = store.keys()
    found = {key: store.read(key) for key in dict.fromkeys(keys) if key in there}
    return {key: body for key, body in found.items() if body is not None}


def _check_shared(store: Store, computed: set[str]) -> None:
    missing = computed - store.keys()
    if missing:
        raise StoreError(
            f"{len(missing)} finished runs are not in {store.folder}: their workers wrote elsewhere. All machines must "
            "see the folder at the same path"
        )
