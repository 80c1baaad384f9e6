"""``python -m benchmarks [NAME…]``: print the table, and write it with its provenance to benchmarks/out."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from benchmarks import (
    grid,
    imports,
    least_squares,
    mechanisms,
    prefix_form,
    quick_figures,
    splitting,
    sweep,
    tangent,
    train_many,
)
from vpt_analysis.errors import unknown
from vpt_analysis.provenance import provenance
from vpt_analysis.storage import write_text
from vpt_analysis.threads import available_cores

SUITES = {
    "split": splitting, "prefix": prefix_form, "mechanisms": mechanisms, "train_many": train_many, "grid": grid,
    "least_squares": least_squares, "tangent": tangent, "imports": imports, "figures": quick_figures, "sweep": sweep,
}  # fmt: skip
# A suite may have COLUMNS of its own, and a DTYPE where it is always the same.
COLUMNS = {
    "shape": 14, "batch": 6, "tokens": 7, "prompts": 8, "compared": 35, "time": 18, "memory": 7, "ours": 17, "other": 17
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"))
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error(f"--repeats is {args.repeats}; expected an integer ≥ 1")
    for name in args.names:
        if name not in SUITES:
            parser.error(str(unknown("benchmark", name, SUITES)))
    # ``models`` imports the set-up of the tests, which allows one thread.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or available_cores()))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = [torch.float32, torch.bfloat16] if device == "cuda" else [torch.float32]
    where = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    results = []
    for dtype in dtypes:
        for name in args.names or SUITES:
            suite, columns = SUITES[name], getattr(SUITES[name], "COLUMNS", COLUMNS)
            if dtype != dtypes[0] and name in ("least_squares", "imports", "figures", "sweep"):
                continue  # nothing in them depends on the dtype
            kind = getattr(suite, "DTYPE", str(dtype).removeprefix("torch."))
            print(f"\n{name}, {where}, {kind}: medians of {args.repeats} interleaved repeats")
            print(suite.TARGETS)
            print("".join(f"{column:<{width}}" for column, width in columns.items()))
            for row in suite.measure(args.repeats, dtype, device):
                print("".join(f"{row[column]:<{width}}" for column, width in columns.items()), flush=True)
                results.append({"benchmark": name, "dtype": str(dtype), "device": where} | row)
    write_text(args.out / "results.json", json.dumps({"provenance": provenance(), "rows": results}, indent=1) + "\n")
    print(f"\ntime: ratio of medians (quartiles of the ratios within rounds). Written to {args.out / 'results.json'}")


if __name__ == "__main__":
    main()
