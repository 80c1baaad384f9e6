"""Fits of prompt mixtures beside one call of scipy for each, the floor of our fits, and how they grow with n and R.

All fits solve one problem: VPT (tied prompts) with an atom too many, in the box of ``theory.least_squares``, from the
same start near the truth. Ours stop where the quadratic model promises less than 1e-6 noise variances, which is
2e-6 / (n E) of the cost; scipy's default, a step that gains less than 1e-8 of it, allows more. One row has the same.

Each round fits all R data sets with ours and the next few of the same data sets with scipy, which takes minutes for
all of them. Both run in processes of one thread, as many as there are cores, as the studies do: ours a batch of its
share of the data sets in each, scipy one call after another. k fits that took s seconds in all processes together count
as if none had ever waited: k · processes / s fits a second. A row shows ours as one batch on all threads instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Measured, interleaved, ratio
from benchmarks.scipy_fits import SOLVERS, TOLERANCE, Outcome, jacobian_error, solve
from vpt_analysis.progress import progress
from vpt_analysis.theory import regression, starts
from vpt_analysis.theory.frozen import frozen
from vpt_analysis.theory.least_squares import BOX, Fits, fit
from vpt_analysis.theory.normal_equations import CHUNK
from vpt_analysis.theory.regression import Regression, Sample
from vpt_analysis.threads import one_thread

TARGETS = (
    "targets: scipy / ours ≥ 20 in time a fit; n and R four times as large: ≤ 4.4 times "
    "the time; n four times as large: ≤ 1.05 times the memory. CPU, float64"
)
DTYPE = "float64"
COLUMNS = {
    "problem": 16, "n": 7, "fits": 6, "compared": 52, "time": 21, "memory": 8, "ours": 16, "other": 16, "notes": 0
}  # fmt: skip
D, OUTPUTS, TRUE_ATOMS, ATOMS = 8, (4, 3), 2, 3
N, REPLICATES = 10_000, 40
ROUND = dict(zip(SOLVERS, (2, 1, 1, 2), strict=True))  # fits of a round
SQUARE = 1024  # size of the matrices whose product shows what the machine can do


def measure(repeats: int, dtype: torch.dtype, device: str) -> Iterator[dict]:
    """Rows for every E, whatever ``dtype`` and ``device``: fits are float64, on the CPU."""
    where = {"dtype": "torch.float64", "device": f"CPU, {torch.get_num_threads()} threads"}
    for outputs in OUTPUTS:
        student, data, start = problem(outputs, N, REPLICATES)
        for row in speed(student, data, rounds(student, data, start, repeats)):
            yield where | row
    for row in growth(OUTPUTS[0], repeats):
        yield where | row


def problem(outputs: int, n: int, replicates: int, seed: int = 0) -> tuple[Regression, Sample, Tensor]:
    """Model, data sets and starts (R, p), drawn as those of the study ``estimation``."""
    known = frozen(D, outputs, seed=seed)
    truth, student = (regression.model("tied", known, count) for count in (TRUE_ATOMS, ATOMS))
    theta = regression.teacher(truth, seed + 1)
    data = regression.sample(truth, theta, n, replicates, regression.hash_seed(seed, D, n))
    start = starts.near(student, truth, theta, replicates, regression.hash_seed(seed, n))
    return student, data, start.clamp(*BOX.bounds(student))


@dataclass
class Rounds:
    """Seconds a fit of ours, of ours in one batch, of each solver and of the products of our passes, (rounds,) each;
    and what was found: our last batch, and of the solvers the data set with every outcome."""

    ours: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SOLVERS})
    floor: list[float] = field(default_factory=list)
    own_shapes: list[float] = field(default_factory=list)
    fits: Fits | None = None
    outcomes: dict[str, list[tuple[int, Outcome]]] = field(default_factory=lambda: {name: [] for name in SOLVERS})


def rounds(student: Regression, data: Sample, start: Tensor, repeats: int) -> Rounds:
    from joblib import Parallel, delayed

    assert jacobian_error(student, data.of(torch.tensor([0])).first(20), start[0]) < 1e-12, "scipy's Jacobian is wrong"
    found, bounds, processes, each = Rounds(), BOX.bounds(student), torch.get_num_threads(), len(data)
    parts = [torch.arange(i, each, processes) for i in range(min(processes, each))]
    shapes = products(student, each)
    with Parallel(processes, batch_size=1, pre_dispatch="all", inner_max_num_threads=1) as pool:
        for r in progress(range(repeats), f"least squares, E = {data.y.shape[1]}"):
            seconds, found.fits = timed_fit(student, data, start)
            found.batch.append(seconds / each)
            seconds = pool(delayed(one_process)(student, data.of(part), start[part]) for part in parts)
            found.ours.append(sum(seconds) / each / processes)
            work = float(found.fits.passes.sum()) * data.n * flops(shapes, each) / each
            found.floor.append(work / rate([((SQUARE, SQUARE), (SQUARE, SQUARE))], 1))
            found.own_shapes.append(work / rate(shapes, each))
            tasks = [(name, (r * k + i) % each) for name, k in ROUND.items() for i in range(k)]
            outcomes = pool(
                delayed(solve)(student, data.of(torch.tensor([i])), start[i].clone(), bounds, name) for name, i in tasks
            )
            for (name, i), outcome in zip(tasks, outcomes, strict=True):
                found.outcomes[name].append((i, outcome))
            for name, k in ROUND.items():
                seconds = [outcome.seconds for _, outcome in found.outcomes[name][-k:]]
                found.peers[name].append(float(np.mean(seconds)) / processes)
    return found


def one_process(student: Regression, data: Sample, start: Tensor) -> float:
    """Seconds of a batch on one thread."""
    with one_thread():
        return timed_fit(student, data, start)[0]


def timed_fit(student: Regression, data: Sample, start: Tensor) -> tuple[float, Fits]:
    fit(student, data.first(min(100, data.n)), start, passes=1)  # the first call in a process is slow
    begin = time.perf_counter()
    found = fit(student, data, start, tolerance=TOLERANCE)
    return time.perf_counter() - begin, found


def products(student: Regression, problems: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Shapes of the two factors of every matrix product that ``normal_equations`` makes for a problem and chunk."""
    prompts = student.prompts
    keys, values = prompts.linear(prompts.blocks(torch.zeros(1, prompts.size, dtype=torch.float64)))
    (_, c, d), (_, o, e) = keys.shape, values.shape
    n = max(1, CHUNK // problems)
    return [
        ((c, d - 1), (d - 1, n)),  # predictors of inputs
        ((c, n), (n, d)),  # gradient of keys
        ((o, n), (n, e)),  # and of values
        ((c * (c + 1) // 2, n), (n, d * (d + 1) // 2)),  # weights and monomials
        ((c * e * o, n), (n, d)),  # keys with values
        ((o, n), (n, o)),  # values with values
    ]  # fmt: skip


def flops(shapes: list, problems: int) -> float:
    """Of the products, for a sample. A floor: exponentials, gates, weights and monomials come on top."""
    return sum(2 * rows * inner * columns for (rows, inner), (_, columns) in shapes) / max(1, CHUNK // problems)


def rate(shapes: list, problems: int) -> float:
    """Flops a second of torch's float64 products of these shapes, batches of ``problems``; the best of five."""
    factors = [  # sums over samples meet the second factor transposed, as in ``normal_equations``
        (torch.randn(problems, *a, dtype=torch.float64), torch.randn(problems, *b[::-1], dtype=torch.float64).mT)
        for a, b in shapes
    ]
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        for a, b in factors:
            a @ b
        seconds.append(time.perf_counter() - begin)
    return problems * sum(2 * a[0] * a[1] * b[1] for a, b in shapes) / min(seconds)


def speed(student: Regression, data: Sample, found: Rounds) -> list[dict]:
    """Every solver beside ours, and ours beside the floor."""
    fits, ours = found.fits, Measured(np.array(found.ours), 0)
    base = {"problem": name(data), "n": data.n, "fits": len(data), "memory": "-"}
    rows = [
        base | compared(f"scipy {solver} / ours", ours, Measured(np.array(found.peers[solver]), 0), False)
        | {"notes": agreement(student, fits, outcomes)}
        for solver, outcomes in found.outcomes.items()
    ]  # fmt: skip
    batch = Measured(np.array(found.batch), 0)
    rows.append(base | compared("ours in one batch on all threads / ours", ours, batch, False) | {"notes": ""})
    passes, certified = fits.passes.to(torch.float64), int(fits.certified.sum())
    low, median, high = passes.quantile(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
    kinds = ", ".join(f"{fits.status.count(s)} {s}" for s in dict.fromkeys(fits.status))
    notes = (
        f"certified {certified} of {len(data)} ({kinds}); passes {low:.0f} to {high:.0f}, median {median:.0f}",
        f"{flops(products(student, len(data)), len(data)):,.0f} flops a sample and pass",
    )
    floors = {f"ours / floor: its products at the rate of {SQUARE}²": found.floor, "ours / its products in their own "
              "shapes": found.own_shapes}  # fmt: skip
    for (what, seconds), note in zip(floors.items(), notes, strict=True):
        rows.append(base | compared(what, ours, Measured(np.array(seconds), 0), True) | {"notes": note})
    return rows


def name(data: Sample) -> str:
    return f"tied, d {data.x.shape[1]}, E {data.y.shape[1]}"


def compared(what: str, ours: Measured, other: Measured, first: bool) -> dict:
    """Time a fit of ``other`` over ours, or the other way round where ours is ``first``."""
    found = {"compared": what, "time": ratio(ours, other) if first else ratio(other, ours)}
    found |= {key: f"{1 / m.median:.3g} fits/s" for key, m in (("ours", ours), ("other", other))}
    return found | {"seconds": {"ours": ours.seconds.tolist(), "other": other.seconds.tolist()}}


def agreement(student: Regression, fits: Fits, outcomes: list[tuple[int, Outcome]]) -> str:
    """Costs of the same data sets, how often scipy met a tolerance, and where it left the box."""
    low, high = (bound.numpy() for bound in BOX.bounds(student))
    excess = np.array([float(fits.cost[i]) / outcome.cost - 1 for i, outcome in outcomes])
    ours_higher = [fits.status[i] for (i, _), e in zip(outcomes, excess, strict=True) if e > 1e-8]
    words = ", ".join(f"{ours_higher.count(s)} {s}" for s in dict.fromkeys(ours_higher))
    outside = sum(bool(((o.theta < low) | (o.theta > high)).any()) for _, o in outcomes)
    stopped, evaluations = sum(o.success for _, o in outcomes), np.median([o.evaluations for _, o in outcomes])
    return (
        f"ours / theirs − 1 in cost ≤ {excess.max():.1e}; by > 1e-8 theirs is higher in {(excess < -1e-8).sum()} of "
        f"{len(outcomes)}, ours in {len(ours_higher)}{f' ({words})' if words else ''}; scipy: {stopped} met a "
        f"tolerance, {outside} left the box, {evaluations:.0f} evaluations"
    )


def growth(outputs: int, repeats: int) -> list[dict]:
    """The fixed work of a fit, two passes over the data with Hessians in the second, for more samples and fits."""
    student, data, start = problem(outputs, 4 * N, REPLICATES)
    few = torch.arange(REPLICATES // 4)
    cases = {
        (N, REPLICATES): (data.first(N), start),
        (2 * N, REPLICATES): (data.first(2 * N), start),
        (4 * N, REPLICATES): (data, start),
        (N, REPLICATES // 4): (data.of(few).first(N), start[few]),
    }
    calls = {
        case: (lambda sample=sample, first=first: fit(student, sample, first, passes=0))
        for case, (sample, first) in cases.items()
    }
    m, base = interleaved(calls, repeats, "least squares, growth"), (N, REPLICATES)
    rows = []
    for what, a, b in (
        ("two passes, 2 n / n", (2 * N, REPLICATES), base),
        ("two passes, 4 n / n", (4 * N, REPLICATES), base),
        ("two passes, 4 R / R", base, (N, REPLICATES // 4)),
    ):
        row = {"problem": name(data), "n": a[0], "fits": a[1], "compared": what, "time": ratio(m[a], m[b])}
        sizes = {key: f"{m[case].median:.2f} s, {m[case].peak / 2**20:.0f} MiB" for key, case in zip(
            ("ours", "other"), (a, b), strict=True)}  # fmt: skip
        memory = {"memory": f"{m[a].peak / m[b].peak:.2f}", "notes": "both ours; memory above the data's own"}
        rows.append(row | sizes | memory)
    return rows
