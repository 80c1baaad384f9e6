"""Levels for few seeds: coverage of both, and the limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.planted_curves import agrees
from vpt_analysis import stats
from vpt_analysis.stats import few_seeds


@pytest.mark.parametrize("seeds", few_seeds.COVERAGE)
def test_coverage_is_what_the_file_says(seeds):
    values = np.random.default_rng(2).normal(1.0, 0.1, size=(seeds, 1500))
    levels = (0.95, stats.expanded(0.95, seeds))
    for level, share in zip(levels, few_seeds.COVERAGE[seeds], strict=True):
        found = stats.bootstrap(values, resamples=2000, level=level)
        assert agrees((found.low <= 1) & (found.high >= 1), share)


def test_more_is_asked_for_the_fewer_there_are():
    levels = [stats.expanded(0.9, seeds) for seeds in (2, 3, 5, 10, 100)]
    assert levels == sorted(levels, reverse=True) and 0.9 < levels[-1] < levels[0] < 1


@pytest.mark.parametrize(("level", "seeds"), [(95, 5), (0.95, 1)])
def test_what_has_no_level_is_refused(level, seeds):
    with pytest.raises(ValueError, match="at least two seeds"):
        stats.expanded(level, seeds)
