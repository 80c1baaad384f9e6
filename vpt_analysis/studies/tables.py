"""Numbers printed in papers: the CSV files of ``paper_figures/published``, read and checked.

Every row says whose number it is: ``paper``, its ``arxiv`` id, the ``table`` or figure that prints it. ``how_read``:

- ``paper``: read in the paper itself; ``poster``: as text on the authors' poster;
- ``copy``: read in another document's copy of the table, which ``note`` names;
- ``outputs``: read in the stored outputs of the authors' notebooks;
- ``pixels``: measured off a picture;
- ``second-hand``: from notes or summaries, not confirmed in the paper nor to be quoted as its; ``note`` says whence.

A number that is not printed, or was not noted, is empty in the file and NaN here. Accuracies are in per cent.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..errors import unknown

NATURAL = ("cifar100", "caltech101", "dtd", "flowers", "pets", "svhn", "sun397")
SPECIALIZED = ("camelyon", "eurosat", "resisc45", "retinopathy")
STRUCTURED = (
    "clevr_count", "clevr_distance", "dmlab", "kitti", "dsprites_location", "dsprites_orientation", "smallnorb_azimuth",
    "smallnorb_elevation",
)  # fmt: skip
GROUPS = {"natural": NATURAL, "specialized": SPECIALIZED, "structured": STRUCTURED}
SETS = ("cub", "nabirds", "flowers", "dogs", "cars")

HOW_READ = ("paper", "poster", "copy", "outputs", "pixels", "second-hand")
COMMON = ("paper", "arxiv", "table", "how_read", "note")
ARXIV = re.compile(r"\d{4}\.\d{5}")


@dataclass(frozen=True)
class Table:
    """The columns of one file beside the common ones: what tells its rows apart, ``percent`` and other ``numbers``."""

    key: tuple[str, ...]
    percent: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    @property
    def columns(self) -> set[str]:
        return {*COMMON, *self.key, *self.percent, *self.numbers}


TABLES = {
    "vtab_groups": Table(("backbone", "setting", "method"), ("tuned_percent", "fgvc", *GROUPS, "mean")),
    "vtab_tasks": Table(("backbone", "setting", "method"), (*NATURAL, *SPECIALIZED, *STRUCTURED, "mean")),
    "fgvc_sets": Table(("backbone", "method"), SETS),
    "dogs_curve": Table(("backbone", "method", "percent_of_data"), ("accuracy",), ("reading_error",)),
    "vapt_scale": Table(("backbone", "method"), ("accuracy",), ("reading_error",)),
    "reparametrisation": Table(("prefix", "sharing"), SETS),
    "norga": Table(("benchmark", "backbone", "method", "activation"), ("final_accuracy",), ("spread",)),
    "petrov_toys": Table(("model", "method", "task"), ("accuracy",), ("trained_parameters",)),
    "slopes": Table(("experiment", "quantity"), (), ("slope", "theory", "n_low", "n_high", "replicates", "dimension")),
}
NUMBERED_KEYS = ("percent_of_data",)


def path(name: str) -> Path:
    """The file of one table. Raises ``ValueError`` for an unknown name, ``FileNotFoundError`` where it is missing."""
    if name not in TABLES:
        raise unknown("published table", name, TABLES)
    try:
        found = Path(str(resources.files("paper_figures") / "published" / f"{name}.csv"))
    except ModuleNotFoundError as error:
        raise FileNotFoundError("the package paper_figures, which holds it, is missing; install again") from error
    if not found.is_file():
        raise FileNotFoundError(f"the published table {name!r} is not at {found}; install the package again")
    return found


def read(name: str, file: Path | None = None) -> list[dict[str, str | float]]:
    """Rows of a table in the order of its file: words as text, numbers as floats, NaN where there is none.

    ``file``: another file with the same columns. Raises ``ValueError``, with file, line and column, for columns that
    are missing or unknown, rows of other lengths, words where a number belongs, accuracies outside 0 to 100, an arXiv
    id or a way of reading that is none, a source left unsaid, and two rows for one thing.

    >>> rows = read("vtab_groups")
    >>> [row["mean"] for row in rows if row["method"] == "LoRA"]
    [72.25, 72.25]
    """
    shipped, table = path(name), TABLES[name]
    file = file or shipped
    lines = csv.reader(io.StringIO(file.read_text(encoding="utf-8")), strict=True)
    header = next(lines, [])
    if sorted(header) != sorted(table.columns):
        missing = ", ".join(sorted(table.columns - set(header))) or "nothing"
        extra = ", ".join(c for c in header if c not in table.columns or header.count(c) > 1) or "nothing"
        raise ValueError(f"{file.name}: its header lacks {missing} and has too many: {extra}; see {__name__}.TABLES")
    rows, seen = [], {}
    for cells in lines:
        where = f"{file.name}, line {lines.line_num}"
        if len(cells) != len(header):
            raise ValueError(f"{where}: {len(cells)} cells; expected {len(header)}, as the header has")
        row = _row(dict(zip(header, cells, strict=True)), table, where)
        key = tuple(row[column] for column in ("arxiv", "table", *table.key))
        if key in seen:
            raise ValueError(f"{where}: of {', '.join(map(str, key))} line {seen[key]} speaks too; keep one of them")
        seen[key] = lines.line_num
        rows.append(row)
    return rows


def _row(cells: dict[str, str], table: Table, where: str) -> dict[str, str | float]:
    numbers = {*table.percent, *table.numbers, *NUMBERED_KEYS} & set(cells)
    row = {column: _number(cell, column, where) if column in numbers else cell for column, cell in cells.items()}
    for column in table.percent:
        if not (math.isnan(row[column]) or 0 <= row[column] <= 100):
            raise ValueError(f"{where}: {column} is {row[column]}; expected 0 to 100 per cent")
    if row["how_read"] not in HOW_READ:
        raise ValueError(f"{where}: {unknown('way of reading', row['how_read'], HOW_READ)}")
    if not (row["paper"] and row["table"]):
        raise ValueError(f"{where}: paper and table are needed; a number without them has no source")
    if row["arxiv"] and not ARXIV.fullmatch(row["arxiv"]):
        raise ValueError(f"{where}: {row['arxiv']!r} is no arXiv id such as 2203.12119")
    if not row["note"] and (row["how_read"] in ("copy", "second-hand") or not row["arxiv"]):
        raise ValueError(f"{where}: the note has to say where a copy, second-hand or paper without arXiv id was read")
    return row


def _number(cell: str, column: str, where: str) -> float:
    try:
        found = float(cell) if cell else math.nan
    except ValueError:
        found = math.inf
    if math.isinf(found) or cell.strip().lower() == "nan":
        raise ValueError(f"{where}: {column} is {cell!r}; expected a number, or nothing where none is printed")
    return found
