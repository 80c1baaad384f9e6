"""Shapes: the same bytes each time, labels that the factors and the pixels bear out, nothing that gives them away."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vpt_analysis import data
from vpt_analysis.data.raster import FACTORS, KINDS, coverage, rgb
from vpt_analysis.data.shapes import CLASS_NAMES, TASKS

load = lru_cache(data.load)


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task, head",
    [
        ("count", "185165b1b2350963"),
        ("position", "44ee8324be7c9a10"),
        ("orientation", "c811f1d234679b68"),
        ("colour", "6bef348b60ff2303"),
    ],
)
def test_digests_are_pinned(task, head):
    """Results carry them; a change here changes every result on shapes."""
    assert data.shapes(task, 64).digest[:16] == head


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_bytes(task):
    a, b, other = data.shapes(task, 50), data.shapes(task, 50), data.shapes(task, 50, seed=7)
    assert (a.images == b.images).all() and a.digest == b.digest != other.digest
    assert not (a.images == other.images).flatten(1).all(1).any()
    assert data.shapes(task, 50, size=40).digest != a.digest and not set(a.files) & set(other.files)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n", [1, 37, 128, 300])
def test_a_larger_set_begins_with_the_smaller(task, n):
    small, large = data.shapes(task, n, size=24), data.shapes(task, 301, size=24)
    assert (small.images == large.images[:n]).all() and (small.labels == large.labels[:n]).all()
    assert (data.factors(task, n) == data.factors(task, 301)[:n]).all()


@pytest.mark.parametrize("task", TASKS)
def test_another_size_shows_the_same_scenes(task):
    small, large = data.factors(task, 40), data.factors(task, 40, size=64)
    for field in FACTORS.names:
        expected = small[field] * 2 if field in ("x", "y", "size") else small[field]
        np.testing.assert_array_equal(large[field], expected)
    shrunk = data.shapes(task, 40, size=64).images.float().unflatten(2, (32, 2)).unflatten(4, (32, 2)).mean((3, 5))
    assert (shrunk - data.shapes(task, 40).images).abs().mean() < 12, "they differ by noise and edges"


def test_train_and_test_are_disjoint_and_need_no_files(monkeypatch):
    monkeypatch.delenv("VPT_ANALYSIS_DATA", raising=False)
    for task in TASKS:
        name = f"shapes-{task}"
        train, test = load(name), load(name, "test")
        assert name in data.names() and (len(train), len(test)) == (3000, 2000)
        assert train.name == f"{name}/train" and data.shapes(task, 9).name == name
        assert train.files[0] == f"{name}/0/0" and test.files[0] == f"{name}/1/0" and train.digest != test.digest
        images = {image.tobytes() for made in (train, test) for image in made.images.numpy()}
        assert len(images) == 5000, "no image twice, in one split or in both"
        assert not set(train.files) & set(test.files)
    assert data.load("shapes-count", "test", None).images.shape[2:] == (32, 32)


# --- labels -----------------------------------------------------------------------------------------------------------


@given(task=st.sampled_from(list(TASKS)), n=st.integers(1, 200), seed=st.integers(-(2**70), 2**70))
def test_classes_are_as_equal_as_n_allows(task, n, seed):
    counts = data.shapes(task, n, size=24, seed=seed).counts
    assert int(counts.max() - counts.min()) <= 1 and len(counts) == len(CLASS_NAMES[task])


def expected_label(task: str, scene: np.ndarray) -> int:
    """By the rule of the task, from the factors of a 32 pixel image."""
    here = scene[scene["kind"] != ""]
    if task == "count":
        return len(here) - 1
    if task == "position":
        (target,) = here[here["kind"] == "triangle"]
        return int(target["y"] // 8) * 4 + int(target["x"] // 8)
    if task == "orientation":
        (target,) = here
        return round(target["angle"] / 22.5) % 16
    sizes = np.sort(here["size"])
    assert sizes[-1] ** 2 * 0.52 > sizes[-2] ** 2, "one is clearly the largest"
    hues = np.round(here["hue"] / 45) % 8
    assert (hues == hues[here["size"].argmax()]).sum() == 1, "the others have other hues"
    return int(hues[here["size"].argmax()])


@pytest.mark.parametrize("task", TASKS)
def test_labels_follow_from_the_factors(task):
    made, scenes = load(f"shapes-{task}"), data.factors(task, 3000)
    assert [expected_label(task, scene) for scene in scenes] == made.labels.tolist()
    absent = scenes[scenes["kind"] == ""]
    assert (absent == np.zeros((), dtype=FACTORS)).all()


@pytest.mark.parametrize("task", TASKS)
def test_shapes_lie_inside_apart_and_are_large_enough(task):
    for scene in data.factors(task, 3000, seed=3):
        here = scene[scene["kind"] != ""]
        radius = np.array([KINDS[kind][1] for kind in here["kind"]]) * here["size"]
        at = np.stack([here["x"], here["y"]], axis=1)
        assert (at - radius[:, None] > 0.5).all() and (at + radius[:, None] < 31.5).all()
        apart = np.sqrt(((at[:, None] - at) ** 2).sum(-1)) - radius[:, None] - radius
        assert (apart[~np.eye(len(here), dtype=bool)] > 1.2).all(), "more than a pixel of background between them"
        assert here["size"].min() > 2.8


def test_pixels_show_the_count():
    """The connected parts of the coloured pixels, by Otsu's threshold: no knowledge of the scenes."""
    made = data.shapes("count", 160, size=64)
    for image, label in zip(made.images.numpy(), made.labels.tolist(), strict=True):
        clean = np.stack([ndimage.median_filter(channel.astype(float), 3) for channel in image])
        chroma = clean.max(0) - clean.min(0)
        levels = np.unique(chroma)[1:]
        split = [chroma >= level for level in levels]
        between = [m.mean() * (1 - m.mean()) * (chroma[m].mean() - chroma[~m].mean()) ** 2 for m in split]
        parts, _ = ndimage.label(split[int(np.argmax(between))])
        assert (np.bincount(parts.ravel())[1:] >= 8).sum() == label + 1


def test_pixels_show_the_hue_of_the_largest():
    made, scenes = data.shapes("colour", 160, size=64), data.factors("colour", 160, size=64)
    for image, scene in zip(made.images.numpy(), scenes, strict=True):
        target = scene[[scene["size"].argmax()]]
        colour = image[:, coverage(target, 64)[0] == 1].mean(1)
        hue = colorsys.rgb_to_hsv(*(colour / 255))[0] * 360
        assert abs((hue - target["hue"][0] + 180) % 360 - 180) < 5


def mean_colour(made: data.ImageSet) -> np.ndarray:
    means = made.images.float().mean((2, 3)).numpy() / 255
    return np.concatenate([means, means.mean(1, keepdims=True), means**2], axis=1)


def accuracy_from_mean_colour(task: str) -> float:
    train, test = load(f"shapes-{task}"), load(f"shapes-{task}", "test")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(mean_colour(train), train.labels)
    return model.score(mean_colour(test), test.labels)


@pytest.mark.parametrize("task", ["count", "position", "orientation"])
def test_mean_colour_and_brightness_tell_nothing(task):
    chance = 1 / len(CLASS_NAMES[task])
    assert accuracy_from_mean_colour(task) < chance + 4 * np.sqrt(chance * (1 - chance) / 2000)


def test_mean_colour_tells_something_of_the_largest_colour():
    """So the classifier above would find what there is."""
    assert accuracy_from_mean_colour("colour") > 0.2


# --- drawing ----------------------------------------------------------------------------------------------------------

OUTLINES = {
    "disc": [(np.cos(t), np.sin(t)) for t in np.linspace(0, 2 * np.pi, 500, endpoint=False)],
    "square": [(1, 1), (-1, 1), (-1, -1), (1, -1)],
    "triangle": [(np.cos(t), np.sin(t)) for t in np.radians([0, 120, 240])],
    "cross": [
        (x * c - y * s, x * s + y * c)
        for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))
        for x, y in ((5, -2), (5, 2), (2, 2))
    ],
    "arrow": [(1, 0), (0.2, 0.55), (0.2, 0.17), (-1, 0.17), (-1, -0.17), (0.2, -0.17), (0.2, -0.55)],
    "dart": [(1, 0), (-1, 0.6), (-0.5, 0), (-1, -0.6)],
}


def outline(shape: np.ndarray) -> np.ndarray:
    """Corners of a shape in pixels, (corners, 2), scaled to its area by the shoelace formula."""
    p = np.array(OUTLINES[str(shape["kind"])], dtype=float)
    ahead = np.roll(p, -1, axis=0)
    p *= shape["size"] / np.sqrt(abs((p[:, 0] * ahead[:, 1] - p[:, 1] * ahead[:, 0]).sum()) / 2)
    a = np.radians(shape["angle"])
    x, y = p[:, 0] * np.cos(a) - p[:, 1] * np.sin(a), p[:, 0] * np.sin(a) + p[:, 1] * np.cos(a)
    return np.stack([shape["x"] + x, shape["y"] - y], axis=1)


def naive_coverage(shape: np.ndarray, size: int, fine: int = 8) -> np.ndarray:
    """The share of ``fine`` × ``fine`` points a pixel that lie inside the outline, by crossings to the right."""
    at = (np.arange(size * fine) + 0.5) / fine
    x, y = at[None], at[:, None]
    inside = np.zeros((size * fine, size * fine), dtype=bool)
    corners = outline(shape)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return inside.reshape(size, fine, size, fine).mean((1, 3))


@given(
    kind=st.sampled_from(list(KINDS)),
    x=st.floats(14, 18),
    y=st.floats(14, 18),
    size=st.floats(6, 10),
    angle=st.floats(0, 360),
)
def test_coverage_is_that_of_the_outline(kind, x, y, size, angle):
    shape = np.array([(kind, x, y, size, angle, 0)], dtype=FACTORS)
    fast, naive, centre = coverage(shape, 32)[0], naive_coverage(shape[0], 32), naive_coverage(shape[0], 32, 1)
    off = np.abs(fast - 0.5) > 1e-3  # pixels whose centre is not on the outline
    assert ((fast > 0.5) == centre)[off].all() and off.mean() > 0.9, "exactly, at the centres of pixels"
    assert np.abs(fast - naive).max() < 0.45, "corners are the worst"
    assert np.abs(fast - naive).sum() < 0.6 * size, "the rest agrees: an outline has about 4 pixels a unit of size"
    assert abs(fast.sum() / size**2 - 1) < 0.4 / size, "the size is the root of the area"
    assert np.linalg.norm(outline(shape[0]) - [x, y], axis=1).max() == pytest.approx(KINDS[kind][1] * size, rel=1e-4)


@pytest.mark.parametrize("angle, row, column", [(0, 16, 28), (90, 3, 16), (180, 16, 3), (270, 28, 16)])
def test_angles_turn_counter_clockwise_from_the_right(angle, row, column):
    """The dart's point is that far from its centre; its tails are not."""
    covered = coverage(np.array([("dart", 16, 16, 12, angle, 0)], dtype=FACTORS), 32)[0]
    opposite = covered[31 - row, 31 - column] if angle % 180 else covered[row, 31 - column]
    assert covered[row - 1 : row + 1, column - 1 : column + 1].max() > 0 and opposite == 0


def test_hues_are_those_of_colorsys():
    hues, saturation, value = np.linspace(0, 359, 50), np.linspace(0, 1, 50), np.linspace(1, 0.3, 50)
    expected = [colorsys.hsv_to_rgb(h / 360, s, v) for h, s, v in zip(hues, saturation, value, strict=True)]
    np.testing.assert_allclose(rgb(hues, saturation, value), expected, atol=1e-12)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: data.shapes("color", 8), ValueError, "unknown task of shapes 'color'; did you mean 'colour'"),
        (lambda: data.factors("size", 8), ValueError, "unknown task of shapes 'size'.*Known: colour, count"),
        (lambda: data.shapes("count", 0), ValueError, "shapes-count: n is 0; expected an integer ≥ 1"),
        (lambda: data.shapes("count", 8.0), ValueError, "shapes-count: n is 8.0; expected an integer ≥ 1"),
        (lambda: data.factors("count", -1), ValueError, "shapes-count: n is -1"),
        (lambda: data.shapes("colour", 8, size=23), ValueError, "shapes-colour: size is 23; expected an integer ≥ 24"),
        (lambda: data.shapes("colour", 8, seed=0.5), TypeError, "shapes-colour: seed is 0.5; expected an integer"),
        (lambda: data.load("shapes-count", "val"), ValueError, "shapes-count: unknown split 'val'; Known: test, train"),
        (lambda: data.load("shapes-counts"), ValueError, "unknown data set 'shapes-counts'; did you mean 'shapes-cou"),
        (lambda: data.load("shapes-count", size=8), ValueError, "shapes-count: size is 8; expected an integer ≥ 24"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
