"""One thread inside, the old number outside, also where blocks overlap in several threads."""

from __future__ import annotations

import threading

import pytest
import torch

from vpt_analysis.threads import available_cores, one_thread


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_one_inside_and_the_setting_comes_back(two_threads):
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread():
        _ = 1 / 0
    assert torch.get_num_threads() == 2


def test_blocks_that_overlap(two_threads):
    inside, leave, seen = threading.Barrier(3), [threading.Event(), threading.Event()], []

    def work(which: int) -> None:
        with one_thread():
            inside.wait(30)
            leave[which].wait(30)
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(30)
    for event, thread in zip(leave, threads, strict=True):
        event.set()
        thread.join(30)
    assert seen == [1, 2, 1, 2] and torch.get_num_threads() == 2


def test_there_is_a_core():
    assert available_cores() >= 1
