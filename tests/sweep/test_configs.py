"""What may be a config and a function of a sweep, and how runs are told apart."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.sweep_cells import Config, square
from vpt_analysis.sweep import configs

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
plain_dicts = st.dictionaries(st.text(), values, max_size=4)


@dataclass
class Open:
    i: int


@given(plain_dicts)
def test_plain_configs_are_left_as_they_are(config):
    assert configs.plain(config) == config
    assert configs.keys("f", [config]) == configs.keys("f", [dict(reversed(config.items()))])


def test_other_configs_have_other_keys():
    others = [1, 1.0, True, "1", [1], {"i": 1}, None, 2, -1, 0, False, "", [], {}]
    assert len(set(configs.keys("f", [{"x": other} for other in others]))) == len(others)
    assert configs.keys("f", [{"x": 1}]) != configs.keys("g", [{"x": 1}])


def test_dataclasses_tuples_and_scalars_become_plain():
    assert configs.plain(Config(3)) == {"i": 3, "rates": [0.1, 0.2]}
    assert configs.plain({"a": (1, Config(2)), "b": np.int64(3)}) == {"a": [1, {"i": 2, "rates": [0.1, 0.2]}], "b": 3}


@pytest.mark.parametrize(
    ("config", "error", "fault"),
    [
        (3, TypeError, "a config is of type int; expected a dict, or an instance of a frozen dataclass"),
        (Open(1), TypeError, "a dataclass that is not frozen .*Open"),
        (Config, TypeError, "a config is"),
        ({"x": Open(1)}, TypeError, r"config\['x'\] is a dataclass that is not frozen"),
        ({"x": np.ones(2)}, TypeError, r"config\['x'\] is of type numpy.ndarray; .*Let an array.*be named"),
        ({"x": [torch.ones(2)]}, TypeError, r"config\['x'\]\[0\] is of type torch.Tensor"),
        ({"x": {1, 2}}, TypeError, "of type set"),
        ({"x": object()}, TypeError, "of type object"),
        ({"x": square}, TypeError, "of type function"),
        ({1: 2}, TypeError, "has the name 1; expected text"),
        ({"x": float("nan")}, ValueError, r"config\['x'\] is nan; expected a finite number"),
        ({"x": "y" * 70000}, ValueError, "takes 70009 bytes as JSON, more than 65536"),
    ],
)
def test_what_is_no_config(config, error, fault):
    with pytest.raises(error, match=fault):
        configs.plain(config)


def test_functions_that_workers_can_import():
    def inner(config):
        return {}

    assert configs.name(square) == "tests.sweep_cells.square"
    for function in (inner, lambda config: {}, Open.__init__):
        with pytest.raises(TypeError, match="cannot be imported by workers; expected a function at the top of a"):
            configs.name(function)
    with pytest.raises(TypeError, match="has no name"):
        configs.name(functools.partial(square, 1))
