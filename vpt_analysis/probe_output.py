"""Tables of probes as text, JSON and CSV."""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
from pathlib import Path

SUFFIXES = (".json", ".csv")


def settings(probe) -> dict:
    """What a user may set of a probe, with the defaults: the keyword-only parameters of its adapter."""
    found = inspect.signature(probe.run).parameters.values()
    return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}


def listing(probes: dict) -> str:
    """Every probe with its question, what it needs and its settings."""
    lines = []
    for name, probe in sorted(probes.items()):
        needs = (" (needs labels)" if probe.labels else "") + (" (no images)" if not probe.images else "")
        lines.append(f"{name:<16}{probe.question}{needs}")
        own = ", ".join(f"{k}={v}" for k, v in settings(probe).items())
        lines += [f"{'':<16}  --set {own}"] if own else []
    return "\n".join(lines)


def check_out(path: Path | None) -> None:
    """Before anything is computed: a suffix that is known, a place that is no folder."""
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--out {path}: numbers are written as {' or '.join(SUFFIXES)}; give one of these suffixes")
    if path.is_dir():
        raise IsADirectoryError(f"--out {path} is a folder; it names a file")


def text(table, record: dict) -> str:
    """What was measured, aligned columns with units, and what the intervals are."""
    head = [*table.keys, *(f"{name} ({unit})" if unit else name for name, unit in table.units.items())]
    body = [[*map(str, key), *(cell(values.get(name)) for name in table.units)] for key, values in table.rows]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    words = [isinstance(v, str) for v in table.rows[0][0]] + [False] * len(table.units) if body else [True] * len(head)
    lines = [
        "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, words, strict=True)).rstrip()
        for row in [head, *body]
    ]
    end = [f"n = {table.n}; intervals: {table.interval}.", *table.notes]
    return "\n".join([title(record), "", *lines, "", *end])


def title(record: dict) -> str:
    size = "" if record["length"] is None else f", {record['length']} prompts"
    options = "".join(f", {k}={v}" for k, v in record["options"].items()) if not record["trained"] else ""
    made = f"from {record['trained']}" if record["trained"] else "not trained"
    images = "" if record["images"] is None else f"; {record['images']['n']} images of {record['images']['name']}"
    return (
        f"{record['probe']}: {record['question']}\n{record['mechanism']}{size}{options} ({made}, "
        f"{record['parameters']:,} parameters) on {record['backbone']['source']}{images}; seed {record['seed']}"
    )


def cell(value: tuple[float, float, float] | None) -> str:
    """An estimate to four digits, with its bounds where there are any; "none" for what is not defined.

    >>> cell((0.123456, 0.1, 0.15)), cell((12.0, math.nan, math.nan)), cell((math.nan,) * 3)
    ('0.1235 [0.1, 0.15]', '12', 'none')
    """
    if value is None:
        return ""
    estimate, low, high = value
    if math.isnan(estimate):
        return "none"
    if math.isnan(low) or low == estimate == high:
        return number(estimate)
    return f"{number(estimate)} [{number(low)}, {number(high)}]"


def number(x: float) -> str:
    """
    >>> number(1778.0), number(0.00012345), number(-math.inf)
    ('1778', '0.0001234', '−∞')
    """
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    return f"{x:.0f}" if x == round(x) and abs(x) < 1e9 else f"{x:.4g}"


def records(table) -> list[dict]:
    """One flat record a value; None for what is not defined or has no bound (infinite ones too)."""
    return [
        dict(zip(table.keys, key, strict=True))
        | {"quantity": name, "unit": unit if "unit" not in table.keys else key[table.keys.index("unit")]}
        | {side: plain(x) for side, x in zip(("estimate", "low", "high"), values[name], strict=True)}
        for key, values in table.rows
        for name, unit in table.units.items()
        if name in values
    ]


def plain(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None


def write(path: Path, table, record: dict) -> None:
    """Numbers and what they were made with, whole or not at all. A CSV file has the record in its first line, as a
    comment."""
    from .provenance import provenance
    from .storage import write_text

    rows = records(table)
    meta = record | {"n": table.n, "interval": table.interval, "notes": table.notes, "provenance": provenance()}
    if path.suffix == ".json":
        write_text(path, json.dumps(meta | {"rows": rows}, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        return
    held = io.StringIO()
    held.write("# " + json.dumps(meta, ensure_ascii=False, allow_nan=False) + "\n")
    writer = csv.DictWriter(held, list(rows[0]) if rows else [*table.keys, "quantity"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    write_text(path, held.getvalue())
