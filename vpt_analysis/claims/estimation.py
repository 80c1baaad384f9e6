"""Claims about how fast prompts are estimated: C12, C13. Both judge slopes on log-log axes, of lines only.

What the rules leave open was decided before any result of the full tier was seen:

- **Lines.** The slope of a bent curve (``slopes``) means nothing, so no verdict rests on one: its case is inconclusive
  unless another curve settles it, and how it bends is printed.
- **Bands.** A slope "contains −0.5 ± 0.05" where its interval meets the band from −0.55 to −0.45; it contradicts it
  where the whole interval lies outside, on either side.
- **Cells that are not there.** An estimate may have no atom alone in its cell, or none that shares one; its distance
  is then NaN. Such replicates are left out at that size if at least 90 % remain; otherwise the slope is not judged, and
  its case is inconclusive unless another curve refutes it.
- **Fits.** All fits count in the medians, certified or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..stats.intervals import Interval
from ..stats.slopes import Slope, loglog_slope
from ..studies.estimation import CERTIFIED, FLAT, HELD, NEITHER
from .base import INCONCLUSIVE, REFUTED, SUPPORTED, Case, Claim, Figure, Results, exact, number

RESAMPLES = 10_000
PLAIN = -0.5  # slope of what is estimated at n^-1/2
SLOW = -0.1  # C12: a slope above it is called slow
BANDS = {"d_1": -0.5, "exact": -0.5, "over": -0.25}  # C13: centres; "over" only where there is an atom too many
HALF = 0.05  # half the width of a band
ENOUGH = 0.9  # share of the replicates that must have such a cell
LABELS = {
    "function": "function error", "d_1": "D₁", "d_2": "D₂", "d_3": "D₃", "d_4": "D₄", "exact": "exact atoms",
    "over": "over-fitted atoms",
}  # fmt: skip
SOMETIMES_NONE = ("exact", "over")
NOT_THERE = float(np.finfo(np.float64).max)  # in place of NaN, which is refused; larger than any distance


@dataclass(frozen=True)
class Curve:
    """Where the numbers of one curve lie: parts ``<family>:<d>:<specification>:<start>:<n><box>`` for every n."""

    family: str
    d: int
    specification: str
    start: str
    box: str = ""

    def sizes(self, config: dict) -> list[int]:
        """The n it was measured at: random starts may end earlier."""
        last = config["random_up_to"].get(str(self.d)) if self.start == "random" else None
        return [n for n in config["sizes"] if last is None or n <= last]

    def stack(self, results: Results, name: str) -> np.ndarray:
        """One array at every size, (S, R)."""
        head = f"{self.family}:{self.d}:{self.specification}:{self.start}"
        return np.stack(results.get(*(f"{head}:{n}{self.box}/{name}" for n in self.sizes(results.config))))

    @property
    def name(self) -> str:
        start = {"near": "started near the truth", "random": "random starts"}[self.start]
        return f"{self.family}, {self.specification}, d = {self.d}, {start}"


def slope(results: Results, curve: Curve, quantity: str, resamples: int | None = None) -> Slope | None:
    """The slope of medians over replicates; ``n`` is the smallest number of them at any size. None where fewer than
    ``ENOUGH`` have such a cell. Raises ``ValueError`` where arrays are missing or other values are not finite.

    Resamples draw among all replicates; those without such a cell drop out of each resample's median.
    """
    values, resamples = curve.stack(results, quantity), resamples or RESAMPLES
    absent = np.isnan(values) & (quantity in SOMETIMES_NONE)
    if not absent.any():
        return loglog_slope(curve.sizes(results.config), values, resamples=resamples)
    there = int((~absent).sum(axis=1).min())
    if there < ENOUGH * values.shape[1]:
        return None
    filled = np.where(absent, NOT_THERE, values)
    return replace(loglog_slope(curve.sizes(results.config), filled, median_of_those_there, resamples), n=there)


def median_of_those_there(values: np.ndarray, axis: int) -> np.ndarray:
    """The median of those below ``NOT_THERE``.

    >>> median_of_those_there(np.array([[3.0, NOT_THERE, 1.0], [3.0, 2.0, 1.0]]), axis=1).tolist()
    [2.0, 2.0]
    """
    ordered, count = np.sort(values, axis=axis), (values < NOT_THERE).sum(axis=axis, keepdims=True)
    lower, upper = (np.take_along_axis(ordered, np.maximum(i, 0), axis) for i in ((count - 1) // 2, count // 2))
    return np.squeeze(lower / 2 + upper / 2, axis)


def prediction_and_parameters(results: Results) -> list[Case]:
    """C12: slopes of the function error and of D₂, untied, one atom too many; D₁, D₃, D₄ and NoRGa's gate beside."""
    cases = []
    for curve in curves(results, ("untied",), ("over",)):
        function, loss = (slope(results, curve, quantity) for quantity in ("function", "d_2"))
        slow, falls = loss.straight and loss.low > SLOW, loss.straight and loss.high < SLOW
        plain = function.straight and function.low <= PLAIN <= function.high
        verdict = SUPPORTED if slow and plain else REFUTED if falls else INCONCLUSIVE
        figures = [*shown("function", function), *shown("d_2", loss)]
        for quantity in ("d_1", "d_3", "d_4"):
            figures += shown(quantity, slope(results, curve, quantity), judged=False)
        for which in (replace(curve, family="norga"), *wide(results, curve)):
            said = "NoRGa: " if which.family == "norga" else "wide box: "
            for quantity in ("function", "d_2"):
                figures += shown(quantity, slope(results, which, quantity), judged=False, before=said)
        words = f"{prediction_words(function)}; {parameter_words(loss)}"
        cases.append(Case(curve.name, verdict, (*figures, *certificates(results, curve)), words))
    return cases


def prediction_words(found: Slope) -> str:
    if not found.straight:
        return "prediction: no line"
    if math.isnan(found.low):
        return "prediction: no interval"
    return "prediction at n^−1/2" if found.low <= PLAIN <= found.high else "prediction not at n^−1/2"


def parameter_words(found: Slope) -> str:
    if not found.straight:
        return "parameters: D₂ is no line"
    if found.low > SLOW:
        return "parameters slow"
    return "parameters fall like a power of n" if found.high < SLOW else "parameters undecided"


def parametric_rates(results: Results) -> list[Case]:
    """C13: slopes of D₁ and of atoms, tied and non-linear adaptive prompts, against the bands."""
    cases = []
    for curve in curves(results, ("tied", "nonlinear"), ("exact", "over")):
        judged = [q for q in BANDS if q != "over" or curve.specification == "over"]
        found = {quantity: slope(results, curve, quantity) for quantity in judged}
        said = {quantity: place(s, BANDS[quantity]) for quantity, s in found.items()}
        verdict = SUPPORTED if all(word == "in its band" for word in said.values()) else INCONCLUSIVE
        if {"steeper", "flatter"} & set(said.values()):
            verdict = REFUTED
        figures = [figure for quantity, s in found.items() for figure in shown(quantity, s)]
        figures += shown("function", slope(results, curve, "function"), judged=False)
        for which in wide(results, curve):
            for quantity in judged:
                figures += shown(quantity, slope(results, which, quantity), judged=False, before="wide box: ")
        words = "; ".join(f"{LABELS[quantity]} {word}" for quantity, word in said.items())
        cases.append(Case(curve.name, verdict, (*figures, *certificates(results, curve)), words))
    return cases


def place(found: Slope | None, centre: float) -> str:
    """Where the interval lies beside the band around ``centre``. Only the last three words judge."""
    if found is None:
        return "in too few replicates"
    if not found.straight:
        return "no line"
    if math.isnan(found.low):
        return "without interval"
    return "steeper" if found.high < centre - HALF else "flatter" if found.low > centre + HALF else "in its band"


def curves(results: Results, families: tuple[str, ...], specifications: tuple[str, ...]) -> list[Curve]:
    config = results.config
    return [
        Curve(family, d, specification, start)
        for family in families
        for specification in specifications
        for d in config["dimensions"]
        for start in config["starts"]
    ]


def wide(results: Results, curve: Curve) -> list[Curve]:
    """The same in the box with smaller masses, where the study has it."""
    there = curve.family in results.config["wide"].get(str(curve.d), ())
    return [replace(curve, box=":wide")] if there and (curve.specification, curve.start) == ("over", "near") else []


def shown(quantity: str, found: Slope | None, judged: bool = True, before: str = "") -> tuple[Figure, ...]:
    """A slope, and how its curve bends if it does; nothing where there is none."""
    if found is None:
        return ()
    label = before + LABELS[quantity]
    slopes = number(f"slope of {label}" + ("" if found.straight else " (no line)"), found, judged)
    if found.straight or not judged:
        return (slopes,)
    bends = {"curvature": found.curvature, "cubic": found.cubic}
    return (
        slopes,
        exact(f"{label}: change of the local slope", found.change, judged=False),
        *(bend_figure(f"{label}: {name}", bend) for name, bend in bends.items() if bend is not None),
    )


def bend_figure(what: str, found: Interval) -> Figure:
    """To four decimals, of which 0.0001 changes nothing that matters: smaller ones would not fit on a line."""
    estimate, low, high = (round(float(x), 4) for x in (found.estimate, found.low, found.high))
    return Figure(what, estimate, low, high, found.n, judged=False, digits=2)


def certificates(results: Results, curve: Curve) -> tuple[Figure, ...]:
    """How many of the fits at all sizes are certified, and what the box holds; with random starts how many agree."""
    from ..studies.estimation import ATOMS
    from ..theory import regression
    from ..theory.frozen import frozen

    known = frozen(curve.d, results.config["outputs"])
    size = regression.model(curve.family, known, ATOMS[curve.specification]).parameters
    certified, flat, held = (curve.stack(results, name).mean() for name in ("converged", "flat", "held"))
    shares = {CERTIFIED: certified, FLAT: flat, NEITHER: 1 - certified - flat, HELD: held / size}
    if curve.start == "random":
        shares["random starts at the best minimum found, %"] = curve.stack(results, "agreeing").mean()
    return tuple(exact(what, round(100 * share, 9) + 0.0, judged=False) for what, share in shares.items())


LINES = "Slopes are those of log-medians over replicates against log n; a bent curve's slope decides nothing."

CLAIMS = (
    Claim(
        id="C12",
        statement="Untied prompts are estimated slowly (“slower than any polynomial”).",
        source="Le et al., arXiv 2410.02200; Le et al., VAPT, arXiv 2501.18936, as we understand them",
        rule="Least squares with one atom too many. Supported, of the parameters and not of prediction, where the "
        "interval of the function error's slope contains −0.5 while that of the slope of D₂ lies above −0.1. Refuted, "
        f"as far as these n show, where the interval of D₂'s slope lies below −0.1. {LINES}",
        study="estimation",
        cases=prediction_and_parameters,
        notes=(
            "“Supported” says that the parameters are hard to tell apart while predictions are learned at the usual "
            "rate, so that the slow rate is none of prediction; “refuted” that the parameter loss falls like a power "
            "of n too.",
            "The theorem, as we understand it, is a minimax bound: no estimator is faster at the worst truth, which "
            "may move with n. A slope at one truth and finite n neither proves nor contradicts it.",
            "NoRGa's gate, D₁, D₃ and D₄ are reported beside and not judged.",
        ),
    ),
    Claim(
        id="C13",
        statement="Tied (VPT) and non-linear adaptive (VAPT) prompts are estimated at n^−1/2 in D₁ and where one atom "
        "is fitted by one, at n^−1/4 where one is fitted by several.",
        source="Le et al., arXiv 2410.02200; Le et al., VAPT, arXiv 2501.18936, as we understand them",
        rule="Least squares, exact and with one atom too many: supported where the slopes' intervals meet −0.5 ± 0.05 "
        "(D₁, atoms alone in their cell) and −0.25 ± 0.05 (atoms that share a cell, with one atom too many); refuted "
        f"where one lies wholly outside its band. {LINES}",
        study="estimation",
        cases=parametric_rates,
        notes=(
            "A wide interval meets a band more easily than a narrow one; widths are printed. The theorem's rates are "
            "upper bounds, so a slope that is steeper than its band contradicts the numbers and not the bound.",
            "Estimates without an atom alone in its cell, or without any that share one, are left out where that "
            "distance is asked for, at sizes where at least 90 % of the replicates remain.",
        ),
    ),
)
