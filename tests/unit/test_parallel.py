"""Rankings on all cores are those of one, and a worker does not take another one's core."""

from __future__ import annotations

import os

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pipelines.parallel import CHUNK, mapped


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def test_results_come_in_order_and_from_other_processes() -> None:
    found = list(mapped(lambda number: (number * number, os.getpid()), range(3 * CHUNK)))
    assert [square for square, _ in found] == [number * number for number in range(3 * CHUNK)]
    assert os.getpid() not in {worker for _, worker in found}


def test_a_worker_computes_with_one_thread() -> None:
    def threads(_: int) -> int:
        np.ones((2, 2)) @ np.ones((2, 2))
        return max((one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"), default=1)

    assert set(mapped(threads, range(2 * CHUNK))) == {1}


def test_a_few_items_need_no_other_process() -> None:
    assert list(mapped(lambda _: os.getpid(), range(CHUNK - 1))) == [os.getpid()] * (CHUNK - 1)
