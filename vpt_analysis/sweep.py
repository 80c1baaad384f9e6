"""Grids of pure functions of a small config: every run kept by content, resumed, on all cores or on a cluster.

``run(function, configs, store)`` computes ``function(config)`` for every config that the store does not have, and gives
all results in the order of the configs. Equal key, equal result: the key covers the function, the config, the digests of
weights and data that the caller names, the sources that compute and the versions of the libraries (``configs``,
``sources``). ``store`` says what lies in the folder.

The engine is joblib. Whatever backend the caller has set with ``joblib.parallel_config`` is used, processes on all cores
otherwise; ``clusters`` has dask and Slurm. Every run is computed on one thread, so that its result does not depend on
the machine's cores and workers do not fight.

- A cached config is never dispatched. ``kill -9`` of a worker or of the sweep loses the runs in flight and no other.
- A run that fails is recorded with its traceback, does not stop the others, and is tried again by the next start.
- Two sweeps may share a folder: both may compute the same run, their results are equal, either file is whole.
- Workers write into the folder themselves, so all machines must see it at the same path.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from . import configs as grid
from . import sources
from .progress import progress
from .provenance import provenance
from .sources import Code
from .store import Store, StoreError, decode, encode
from .threads import available_cores, one_thread


@dataclass(frozen=True)
class Job:
    """One run as a worker gets it; ``about`` is what its record says besides. Small: it travels with every run."""

    function: Callable[[object], Mapping]
    config: object
    plain: dict
    key: str
    store: Store
    code: Code
    about: dict
    caller: int  # its process
    keep_failure: bool  # or raise it


@dataclass(frozen=True)
class Failure:
    """A run that gave no result: its config, the error in one line, and where it came from."""

    config: dict
    error: str
    traceback: str
    key: str


@dataclass(frozen=True)
class Outcome:
    """What became of one run: a result as the store has it, or a failure."""

    key: str
    body: bytes | None = None
    failure: Failure | None = None


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
        lines = [
            f"{len(set(self.keys))} runs: {self.computed} computed, {self.cached} cached, {len(self.failures)} failed"
        ]
        lines += [f"  {failure.error}\n    in {failure.config}" for failure in self.failures]
        return "\n".join(lines)


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
    failed before, and reports them again; ``stop`` raises the first error and keeps no failure.

    Raises ``TypeError`` or ``ValueError`` for configs that are none, before anything is computed, and ``StoreError``
    where the folder cannot be written.
    """
    store, began = store if isinstance(store, Store) else Store(store), list(configs)
    name, plain = grid.name(function), [grid.plain(config) for config in began]
    code = code or Code.of(function.__module__)
    inputs = dict(inputs or {})
    keys = grid.keys([name, inputs, code.digest, sources.versions()], plain)
    store.prepare()
    there = store.keys()
    found = {key: body for key in dict.fromkeys(keys) if key in there and (body := store.read(key)) is not None}
    cached, failures = len(found), {}
    todo = {key: at for at, key in enumerate(keys) if key not in found}
    failed = store.failed() & set(todo)
    if not retry:
        failures = {key: _failure(key, store.failure(key)) for key in failed}
    if todo.keys() - failures.keys():
        about = {"function": name, "inputs": inputs, "code": code.digest, **provenance()}
        left = [
            Job(function, plain[at] if isinstance(began[at], Mapping) else began[at], plain[at], key, store, code, about,
                os.getpid(), not stop)
            for key, at in todo.items() if key not in failures
        ]  # fmt: skip
        outcomes = execute(left) if execute else in_pool(left, jobs)
        for outcome in progress(outcomes, label or name.rpartition(".")[2], cached + len(left), cached, every=5.0):
            if outcome.failure:
                failures[outcome.key] = outcome.failure
            else:
                found[outcome.key] = outcome.body
                if outcome.key in failed:
                    store.forget_failure(outcome.key)
        _check_shared(store, set(todo) & found.keys())
    results = {key: decode(body) for key, body in found.items()}
    ordered = [failures[key] for key in dict.fromkeys(keys) if key in failures]
    return Sweep([results.get(key) for key in keys], keys, ordered, len(found) - cached, cached)


def _failure(key: str, record: dict) -> Failure:
    return Failure(record["config"], record["error"], record["traceback"], key)


def _check_shared(store: Store, computed: set[str]) -> None:
    missing = computed - store.keys()
    if missing:
        raise StoreError(
            f"{len(missing)} finished runs are not in {store.folder}: their workers wrote elsewhere. All machines must "
            "see the folder at the same path"
        )


def in_pool(left: list[Job], jobs: int | None) -> Iterator[Outcome]:
    """Outcomes as they come, from joblib's active backend.

    Where a worker process dies (killed by the system, out of memory), those that were sent are tried alone once the
    others are done, so that it is known which of them it was.
    """
    sent, done = {}, set()
    try:
        for outcome in _parallel(left, jobs, sent):
            done.add(outcome.key)
            yield outcome
        return
    except BrokenProcessPool:
        pass
    yield from in_pool([job for job in left if job.key not in sent], jobs)
    for job in sent.values():
        if job.key not in done:
            yield alone(job)


def alone(job: Job) -> Outcome:
    """One run in a process of its own; one that kills its worker has failed."""
    try:
        (outcome,) = _parallel([job], 2, {})
        return outcome
    except BrokenProcessPool as error:
        return lost(job, "the worker that computed it died (killed, out of memory, or a crash of compiled code)", error)


def lost(job: Job, why: str, error: Exception) -> Outcome:
    """The outcome of a run whose worker is gone, recorded as a failure."""
    if not job.keep_failure:
        raise RuntimeError(f"{why}, in {job.plain}") from error
    return _record_failure(job, why, f"{why}\n{error}", None)


def _parallel(left: list[Job], jobs: int | None, sent: dict[str, Job]) -> Iterator[Outcome]:
    """joblib's outcomes as they come; ``sent`` is filled with the jobs that were handed out."""
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    backend, asked = get_active_backend()
    how = "generator_unordered" if backend.supports_return_generator else "list"
    if jobs is None:
        jobs = asked if asked is not None else available_cores()

    def tasks():
        for job in left:
            sent[job.key] = job
            yield delayed(perform)(job)

    outcomes = Parallel(n_jobs=jobs, return_as=how)(tasks())
    if how == "list":
        yield from outcomes
        return
    with contextlib.closing(outcomes):  # an interrupt ends the workers too
        yield from outcomes


def perform(job: Job) -> Outcome:
    """Compute one run where it is, on one thread, and write what it gave."""
    with _room(job):
        stored = job.store.read(job.key)  # written meanwhile, by another sweep or by a worker that died later
        if stored is not None:
            return Outcome(job.key, stored)
        start = time.monotonic()
        try:
            body = encode(job.function(job.config))
        except (Exception, SystemExit) as error:
            if not job.keep_failure:
                raise
            summary = f"{type(error).__name__}: {error}"
            return _record_failure(job, summary, traceback.format_exc(), time.monotonic() - start)
        job.store.write(job.key, body, _record(job, time.monotonic() - start))
        return Outcome(job.key, body)


@contextlib.contextmanager
def _room(job: Job) -> Iterator[None]:
    """What surrounds a run: one thread, and in a worker the same sources and no progress of its own."""
    if os.getpid() != job.caller:
        job.code.check()
        os.environ["TQDM_DISABLE"] = "1"
    with one_thread():
        yield


def _record(job: Job, seconds: float | None) -> dict:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"config": job.plain, "seeds": grid.seeds(job.plain), **job.about, "seconds": seconds, "finished": now}


def _record_failure(job: Job, summary: str, text: str, seconds: float | None) -> Outcome:
    job.store.write_failure(job.key, _record(job, seconds) | {"error": summary, "traceback": text})
    return Outcome(job.key, failure=Failure(job.plain, summary, text, job.key))
