"""``vpt-analysis sweep``: compare methods as a file says, on the cores of this machine, a dask cluster or Slurm."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

EXAMPLES = """examples:
  vpt-analysis sweep plan.toml --out runs/mine                                 all cores of this machine; resumes
  vpt-analysis sweep plan.toml --out runs/mine --scheduler tcp://10.0.0.1:8786  the workers of a dask cluster
  vpt-analysis sweep plan.toml --out runs/mine --slurm gpu --minutes 120       jobs on a Slurm partition"""
DONE, FAILED = 0, 1


def add_flags(p: argparse.ArgumentParser) -> None:
    p.add_argument("file", type=Path, metavar="FILE", help="a plan (.toml): tasks, arms, subsets, rates, seeds")
    p.add_argument("--out", required=True, type=Path, help="folder for the runs and results.csv; a sweep resumes in it")
    where = p.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="runs at a time, one thread each (default: the cores)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="address of a dask scheduler, such as tcp://host:8786")
    where.add_argument("--slurm", metavar="PARTITION", help="partition that Slurm jobs are sent to")
    p.add_argument("--minutes", type=int, default=24 * 60, metavar="M", help="with --slurm: limit of a job (a day)")
    p.add_argument("--skip-failed", action="store_true", help="leave runs alone that failed before")


def run(args: argparse.Namespace) -> int:
    """Compute what is missing, write ``results.csv`` and print the table; 1 where runs failed."""
    from . import study
    from .efficiency import comparison, table

    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"{args.jobs} jobs asked for; expected at least 1")
    plan = comparison.read(args.file)
    study.check_writable(args.out)
    with engine(args) as options:
        results, rounds = comparison.compute(plan, args.out / "store", retry=not args.skip_failed, **options)
    table.write(results, args.out / "results.csv")
    print(table.text(results))
    print(f"\nrows: {args.out / 'results.csv'}")
    failed = [done for done in rounds if done.failures]
    for done in failed:
        print(done.report(), file=sys.stderr)
    if failed:
        print(f"tracebacks: {args.out / 'store' / 'failures'}; the next start tries them again", file=sys.stderr)
    return FAILED if failed else DONE


@contextlib.contextmanager
def engine(args: argparse.Namespace) -> Iterator[dict]:
    """What ``sweep.run`` is given so that runs are computed where the flags say."""
    from .sweep import clusters

    if args.scheduler:
        with clusters.dask(args.scheduler):
            yield {}
    elif args.slurm:
        yield {"execute": clusters.slurm(args.slurm, args.out / "slurm", timeout_min=args.minutes)}
    else:
        yield {"jobs": args.jobs}
