"""One house style for all pictures: rc settings in a context, series that differ without colour, and three helpers.

Nothing here changes matplotlib's global state. Figures are made with ``figure()`` and not through pyplot, so they need
no display and nothing has to be closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

COLUMN, PAGE = 3.35, 6.9  # widths of one and two columns of a paper, in inches

# Okabe and Ito's colours, ordered so that neighbours differ in lightness too; each series also has its own marker and
# line style, so that a grey print and any kind of colour vision tell them apart.
SERIES = (
    {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    {"color": "#E69F00", "marker": "s", "linestyle": "--"},
    {"color": "#000000", "marker": "^", "linestyle": "-."},
    {"color": "#009E73", "marker": "D", "linestyle": ":"},
    {"color": "#56B4E9", "marker": "v", "linestyle": (0, (5, 1, 1, 1, 1, 1))},
    {"color": "#D55E00", "marker": "P", "linestyle": (0, (1, 2))},
)
MASS = "magma"  # lightness rises with the value: readable in grey
QUIET = "#6b6b6b"  # stamps and reference lines

STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine sets the same text
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "image.cmap": MASS,
    "image.interpolation": "nearest",
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "pdf.fonttype": 42,  # text stays text
    "ps.fonttype": 42,
    "svg.hashsalt": "vpt_analysis",
    "path.simplify": True,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The house style inside the block, whatever was set before outside it.

    >>> import matplotlib
    >>> before = matplotlib.rcParams["font.size"]
    >>> with style(): inside = matplotlib.rcParams["font.size"]
    >>> inside, matplotlib.rcParams["font.size"] == before
    (7.5, True)
    """
    import matplotlib

    with matplotlib.rc_context():
        # A user's matplotlibrc must not reach the paper's figures; the backend is the one setting that stays theirs.
        matplotlib.rcParams.update({k: v for k, v in matplotlib.rcParamsDefault.items() if k not in _KEPT})
        matplotlib.rcParams.update(STYLE)
        yield


_KEPT = {"backend", "backend_fallback", "interactive", "toolbar", "timezone"}


def figure(width: float = COLUMN, height: float = 2.4):
    """An empty figure, sizes in inches, with its parts laid out so that labels do not overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def interval(ax, x, centre, low, high, series: int = 0, label: str | None = None, size: float = 3.5) -> None:
    """One series with its intervals: a line with markers, and a bar from ``low`` to ``high`` at each ``x``.

    ``size`` is that of the markers, in points. An interval need not hold its centre (a bootstrap of a biased estimate
    may not). Raises ``ValueError`` where the shapes differ or ``low`` exceeds ``high``.
    """
    x, centre, low, high = (np.asarray(v, dtype=float) for v in (x, centre, low, high))
    if not x.shape == centre.shape == low.shape == high.shape:
        shapes = [v.shape for v in (x, centre, low, high)]
        raise ValueError(f"x, centre, low and high have shapes {shapes}; expected one shape")
    if (low > high).any():
        raise ValueError("an interval ends before it begins: expected low ≤ high")
    look = SERIES[series % len(SERIES)]
    bars = {"color": look["color"], "elinewidth": 0.9, "capsize": 1.5, "capthick": 0.7, "zorder": 2}
    ax.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", **bars)
    ax.plot(x, centre, label=label, markersize=size, markeredgecolor="white", markeredgewidth=0.4, zorder=3, **look)


def overlay(ax, image: np.ndarray, values: np.ndarray, vmin: float, vmax: float, title: str = ""):
    """Values per patch laid over their image. Returns the artist to hang a colour bar on.

    ``image``: (h, w, 3) in [0, 1] or uint8; ``values``: (rows, columns), one a patch. The picture below is shown in
    pale grey, so that colour means the value and nothing else.
    """
    image, values = np.asarray(image), np.asarray(values)
    if image.ndim != 3 or image.shape[-1] != 3 or values.ndim != 2:
        raise ValueError(f"image {image.shape} and values {values.shape}; expected (h, w, 3) and (rows, columns)")
    grey = image.astype(float).mean(-1) / (255 if image.dtype == np.uint8 else 1)
    h, w = grey.shape
    ax.imshow(grey, cmap="gray", vmin=-1, vmax=1, extent=(0, w, h, 0))
    artist = ax.imshow(values, vmin=vmin, vmax=vmax, alpha=0.7, cmap=MASS, extent=(0, w, h, 0))
    bare(ax, title)
    return artist


def bare(ax, title: str = "") -> None:
    """A picture's axes: no ticks, no grid, no frame."""
    ax.set(xticks=[], yticks=[], title=title)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def save(fig, path: str | Path) -> None:
    """Write a figure whole or not at all, in the format of its suffix, without dates: same figure, same bytes."""
    from .storage import atomic

    path = Path(path)
    kind = path.suffix.lstrip(".")
    nothing = {"pdf": {"CreationDate": None}, "png": {"Software": None}, "svg": {"Date": None}}
    if kind not in nothing:
        raise ValueError(f"{path.name}: figures are written as {', '.join(nothing)}; give one of these suffixes")
    with style(), atomic(path) as part:
        fig.savefig(part, format=kind, metadata=nothing[kind])
