"""What printed tables say of themselves: T14."""

from __future__ import annotations

from .base import REFUTED, SUPPORTED, Case, Claim, Figure, Results, exact

TOLERANCE = 0.02
FAILING = ("Adapter", "LoRA")


def group_means(results: Results) -> list[Case]:
    """T14: printed means against (7 N + 4 S + 8 T) / 19, row by row; FAILING are stated to fail, the others to hold."""
    rows = results.config["checks"]["means"]
    cases, absent = [], [method for method in FAILING if not any(row.startswith(f"{method} (") for row in rows)]
    if absent:
        raise ValueError(f"no row of {', '.join(absent)} has a printed mean; the rule speaks of them")
    beside = [differences(results, part) for part in ("tasks", "sets")]
    for row, printed, recomputed in pairs(results, "means"):
        off = difference(printed, recomputed)
        holds = abs(off) <= TOLERANCE
        listed = row.startswith(tuple(f"{method} (" for method in FAILING))
        figures = [
            exact("printed mean − recomputed", off),
            exact("printed mean", printed, judged=False, digits=4),
            exact("recomputed from the printed group means", recomputed, judged=False, digits=4),
        ]
        for source, _, other in pairs(results, "source"):
            if source == row:
                figures.append(exact("mean of another run of LoRA (see note)", other, judged=False, digits=4))
        figures += [figure for found in beside for figure in found.get(row, [])]
        said = ("holds" if holds else "does not hold") + (", stated to fail" if listed else ", stated to hold")
        cases.append(Case(row, SUPPORTED if holds != listed else REFUTED, tuple(figures), said))
    return cases


def pairs(results: Results, part: str) -> list[tuple[str, float, float]]:
    """Row, printed number, recomputed number."""
    printed, recomputed = results.finite(f"{part}/printed", f"{part}/recomputed")
    return list(zip(results.config["checks"][part], printed, recomputed, strict=True))


def differences(results: Results, part: str) -> dict[str, list[Figure]]:
    """Printed minus recomputed from single tasks or sets, by the row of means that they lie under."""
    found: dict[str, list[Figure]] = {}
    for name, printed, recomputed in pairs(results, part):
        row, _, what = name.rpartition(": ")
        what = f"printed {what} − recomputed from single {part}"
        found.setdefault(row, []).append(exact(what, difference(printed, recomputed), judged=False))
    return found


def difference(printed: float, recomputed: float) -> float:
    """Without the rounding of the arithmetic.

    >>> 55.00 - 54.98 <= 0.02, difference(55.00, 54.98) <= 0.02
    (False, True)
    """
    return round(float(printed) - float(recomputed), 9) + 0.0


CLAIMS = (
    Claim(
        id="T14",
        statement="Printed means over VTAB's tasks follow from the printed group means, but for Adapter's and LoRA's.",
        source="tables of Jia et al., VPT, arXiv 2203.12119; Zeng et al., VFPT, arXiv 2411.01327; Le et al., VAPT, "
        "arXiv 2501.18936",
        rule="(7 Natural + 4 Specialized + 8 Structured) / 19 against the printed mean, row by row: a row holds where "
        "the two differ by at most 0.02. Supported where all rows hold but those of Adapter and LoRA, which do not; "
        "refuted by any row that does otherwise.",
        study="published",
        cases=group_means,
        notes=(
            "LoRA's 72.25 is likely the mean of another run of LoRA, which V-PEFT Bench lists with 79.49, 84.55 and "
            "59.78 for the groups. Where Adapter's 62.41 comes from is not known.",
            "The VPT paper's group means were read in VFPT's Table 1, its single tasks and means in a copy.",
        ),
    ),
)
