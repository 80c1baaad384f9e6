"""The store of sweeps: values go in and come out as they were, files are whole or absent, nothing is executed."""

from __future__ import annotations

import json
import math
import os
import pickle
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vpt_analysis.sweep.store import STALE, Store, StoreError, decode, encode

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
names = st.text().filter(lambda name: not name.startswith("$"))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
dtypes = st.sampled_from(["f4", "f8", ">f8", "i8", "u1", "?", "c16", "U3", "S2", "M8[s]"])


@given(st.dictionaries(names, values, max_size=4))
def test_values_come_back_as_they_were(value):
    assert decode(encode(value)) == value and encode(decode(encode(value))) == encode(value)


@given(arrays.arrays(dtypes, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))
def test_arrays_come_back_bit_by_bit(array):
    back = decode(encode({"a": array}))["a"]
    assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_numbers_that_json_does_not_know():
    back = decode(encode({"nan": math.nan, "inf": -math.inf, "half": np.float16(0.5), "n": np.int8(3), "b": np.True_}))
    assert math.isnan(back["nan"]) and back["inf"] == -math.inf
    assert (back["half"], back["n"], back["b"]) == (0.5, 3, True) and back["b"] is True


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        ([1], "a run gave list; expected a dict"),
        ({"x": object()}, r"result\['x'\] is builtins.object"),
        ({"x": [1, {2}]}, r"result\['x'\]\[1\] is builtins.set"),
        ({"x": torch.ones(1)}, r"torch.Tensor; .*of a tensor: .item\(\)"),
        ({"x": np.array([{}])}, "numpy.ndarray"),
        ({1: 2}, "has the name 1; expected text"),
        ({"$array": 2}, r"has the name '\$array'; expected text that does not begin with \$"),
    ],
)
def test_what_is_no_result(result, fault):
    with pytest.raises(TypeError, match=fault):
        encode(result)


def test_what_is_read_is_not_executed(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    (store.results / "k.json").write_bytes(pickle.dumps(pytest.fail))
    assert store.read("k") is None


def test_files_are_json_and_know_their_key(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    body = encode({"x": 1, "a": np.arange(2)})
    store.write("one", body, {"config": {}})
    assert store.read("one") == body and store.keys() == {"one"} and store.record("one") == {"config": {}}
    found = json.loads((store.results / "one.json").read_text())
    assert set(found) == {"sha256", "result"} and found["result"]["x"] == 1
    os.rename(store.results / "one.json", store.results / "two.json")
    assert store.read("one") is None and store.read("two") is None


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    old, new = store.results / ".a.json.x.part", store.results / ".b.json.y.part"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - STALE - 9,) * 2)
    store.prepare()
    assert not old.exists() and new.exists() and store.keys() == set()


def test_many_threads_write_one_result(tmp_path):
    store, body = Store(tmp_path), encode({"a": np.arange(2000)})
    store.prepare()
    umask = os.umask(0)
    os.umask(umask)
    work = [threading.Thread(target=store.write, args=(f"k{i % 2}", body, {"i": i})) for i in range(40)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert {p.name for p in store.results.iterdir()} == {"k0.json", "k1.json"}
    assert store.read("k0") == store.read("k1") == body
    assert os.umask(umask) == umask


def test_a_failure_is_kept_until_it_is_cured(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    store.write_failure("k", {"error": "no"})
    assert store.failed() == {"k"} and store.failure("k") == {"error": "no"} and store.keys() == set()
    store.forget_failure("k")
    store.forget_failure("k")
    assert store.failed() == set()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(StoreError, match="cannot write into .*results"):
        Store(tmp_path).prepare()
