"""The house style: no global state, series that differ without colour, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from vpt_analysis import plotting


def test_series_differ_in_marker_line_and_lightness():
    from matplotlib.colors import to_rgb

    assert len({s["marker"] for s in plotting.SERIES}) == len({str(s["linestyle"]) for s in plotting.SERIES}) == 6
    grey = [np.dot(to_rgb(s["color"]), (0.2126, 0.7152, 0.0722)) for s in plotting.SERIES]
    assert min(abs(a - b) for a, b in zip(grey, grey[1:], strict=False)) > 0.05


def test_style_leaves_global_settings_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    with plotting.style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [([0.0, 0.0], [1.0], "expected one shape"), ([3.0], [2.0], "ends before it begins")],
)
def test_interval_refuses_nonsense(low, high, message):
    ax = plotting.figure().subplots()
    with pytest.raises(ValueError, match=message):
        plotting.interval(ax, [0.0], [1.0], low, high)


def test_overlay_refuses_pictures_without_colour():
    ax = plotting.figure().subplots()
    with pytest.raises(ValueError, match="expected \\(h, w, 3\\)"):
        plotting.overlay(ax, np.zeros((4, 4)), np.zeros((2, 2)), 0, 1)


def test_unknown_picture_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="figures are written as pdf, png, svg"):
        plotting.save(plotting.figure(), tmp_path / "a.bmp")
    assert list(tmp_path.iterdir()) == []
