"""The same sweep on more than one machine: a dask cluster that is there, or batches on Slurm.

    with clusters.dask("tcp://10.0.0.1:8786"):
        sweep.run(function, configs, store)

    sweep.run(function, configs, store, execute=clusters.slurm("gpu", "logs"))

All machines need the package in one version, the function's module on their path, and the store at the same path. Small
configs travel, nothing else: data and weights are read where a run is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from .runs import Job, Outcome, lost, perform

INSTALL = "{what} needs the extra {extra!r}: pip install 'vpt-analysis[{extra}]'"


@contextlib.contextmanager
def dask(address: str, timeout: float = 10.0) -> Iterator[object]:
    """Send what joblib computes inside the block to the workers of a dask scheduler; gives dask's client.

    Start workers with one thread each, ``dask worker ADDRESS --nworkers CORES --nthreads 1``. A run whose worker dies
    is computed by another; one that has cost four workers failed. Raises ``ImportError`` where dask is not installed,
    ``OSError`` where no scheduler answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(INSTALL.format(what="a dask cluster", extra="dask")) from error
    from joblib import parallel_config

    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no dask scheduler answers at {address}: {error}. Start one with `dask scheduler`, and workers with "
            f"`dask worker {address} --nthreads 1`"
        ) from error
    with client, parallel_config(backend=_backend(client)):
        yield client


def _backend(client: object) -> object:
    from joblib._dask import DaskDistributedBackend

    class Dask(DaskDistributedBackend):
        """joblib's own tells nobody of a task that dask gave up, and waits for it for ever."""

        def submit(self, func, callback=None):
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: callback(_given_up(done.exception())) if done.exception() else None)
            return future

    return Dask(client=client)


def _given_up(error: BaseException) -> BaseException:
    """dask's error as ``pool`` knows it: some worker died of one of the runs that were sent."""
    return BrokenProcessPool(str(error)) if type(error).__name__ == "KilledWorker" else error


def slurm(
    partition: str | None,
    logs: str | Path,
    batches: int = 64,
    cluster: str = "slurm",
    every: float = 10.0,
    **parameters,
) -> Callable[[list[Job]], Iterator[Outcome]]:
    """What ``sweep.run`` takes as ``execute``: runs in ``batches`` jobs of an array, one core each.

    ``parameters`` are submitit's, such as ``timeout_min`` (default: a day), ``mem_gb``, ``slurm_array_parallelism`` or
    ``cpus_per_task``; ``logs`` is a folder that all nodes see, ``every`` how often, in seconds, jobs are looked at. The
    runs that a job did not finish have failed: the next start tries them again. Raises ``ImportError`` where submitit
    is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError(INSTALL.format(what="Slurm", extra="slurm")) from error
    settings = {"name": "vpt-analysis", "timeout_min": 24 * 60, "cpus_per_task": 1} | parameters
    settings |= {"slurm_partition": partition} if partition else {}

    def execute(left: list[Job]) -> Iterator[Outcome]:
        try:
            executor = submitit.AutoExecutor(folder=Path(logs) / "%j", cluster=cluster)
        except RuntimeError as error:
            raise OSError(f"{error} Jobs are sent from a machine that has Slurm's srun and sbatch") from error
        executor.update_parameters(**settings)
        groups = [left[i::batches] for i in range(min(batches, len(left)))]
        jobs = executor.map_array(_batch, groups)
        group = {id(job): runs for job, runs in zip(jobs, groups, strict=True)}
        for job in submitit.helpers.as_completed(jobs, poll_frequency=every):
            try:
                yield from job.result()
            except submitit.core.utils.UncompletedJobError as error:
                yield from (_what_became(run, error) for run in group[id(job)])

    return execute


def _batch(runs: list[Job]) -> list[Outcome]:
    return [perform(run) for run in runs]


def _what_became(run: Job, error: Exception) -> Outcome:
    body = run.store.read(run.key)
    return Outcome(run.key, body) if body is not None else lost(run, "its Slurm job ended before it", error)
