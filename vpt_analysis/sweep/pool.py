"""Runs of a sweep through joblib's active backend, past workers that die."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

from ..threads import available_cores
from .runs import Job, Outcome, lost, perform

DIED = "the worker that computed it died (killed, out of memory, or a crash of compiled code)"


def in_pool(left: list[Job], jobs: int | None) -> Iterator[Outcome]:
    """Outcomes as they come.

    Where a worker process dies, the runs that had been handed out are tried alone once the others are done, so that it
    is known which of them it was.
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
        return lost(job, DIED, error)


def _parallel(left: list[Job], jobs: int | None, sent: dict[str, Job]) -> Iterator[Outcome]:
    """joblib's outcomes as they come; ``sent`` is filled with the jobs that were handed out."""
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    backend, asked = get_active_backend()
    how = "generator_unordered" if backend.supports_return_generator else "list"
    if jobs is None:
        jobs = asked if asked is not None else available_cores()
    if jobs > 2:  # no more processes than runs; one run alone still gets a process, which it may kill
        jobs = min(jobs, max(2, len(left)))

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
