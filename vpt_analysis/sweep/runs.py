"""One run of a sweep: what a worker is given, what it does, and what it says."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..sources import Code
from ..threads import one_thread
from . import configs
from .store import Store, encode


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

    @classmethod
    def stored(cls, key: str, store: Store) -> Failure:
        record = store.failure(key)
        return cls(record["config"], record["error"], record["traceback"], key)


@dataclass(frozen=True)
class Outcome:
    """What became of one run: a result as the store has it, or a failure."""

    key: str
    body: bytes | None = None
    failure: Failure | None = None


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
            return _failed(job, summary, traceback.format_exc(), time.monotonic() - start)
        job.store.write(job.key, body, _record(job, time.monotonic() - start))
        return Outcome(job.key, body)


def lost(job: Job, why: str, error: Exception) -> Outcome:
    """The outcome of a run whose worker is gone, recorded as a failure."""
    if not job.keep_failure:
        raise RuntimeError(f"{why}, in {job.plain}") from error
    return _failed(job, why, f"{why}\n{error}", None)


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
    return {"config": job.plain, "seeds": configs.seeds(job.plain), **job.about, "seconds": seconds, "finished": now}


def _failed(job: Job, summary: str, text: str, seconds: float | None) -> Outcome:
    job.store.write_failure(job.key, _record(job, seconds) | {"error": summary, "traceback": text})
    return Outcome(job.key, failure=Failure(job.plain, summary, text, job.key))
