"""Rankings on all cores are those of one, and a worker does not take another one's core."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pipelines.errors import ParamsError
from pipelines.parallel import CHUNK, THREADED, mapped, side_by_side


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


@pytest.fixture(autouse=True)
def nothing_threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests before this one may have loaded them; the pieces here use none."""
    for library in THREADED:
        monkeypatch.delitem(sys.modules, library, raising=False)


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


def test_long_pieces_run_in_processes_that_share_the_cores(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def piece(name: str) -> None:
        (tmp_path / name).write_text(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}")
        while not all((tmp_path / other).exists() for other in ("one", "two")):
            time.sleep(0.01)
        print(f"{name} computes\nto its end", flush=True)

    side_by_side(piece, ["one", "two"])
    (first, *threads), (second, *others) = ((tmp_path / name).read_text().split() for name in ("one", "two"))
    assert len({first, second, str(os.getpid())}) == 3
    assert threads == others == ["1"]
    said = capfd.readouterr().out.splitlines()
    assert sorted(said) == ["one: one computes", "one: to its end", "two: to its end", "two: two computes"]


@pytest.mark.parametrize("library", THREADED)
def test_no_process_is_forked_that_would_wait_for_ever(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, ModuleType(library))
    found: list[int] = []
    side_by_side(lambda _: found.append(os.getpid()), ["one", "two"])
    assert found == [os.getpid()] * 2


def test_what_a_long_piece_raises_is_raised_here(tmp_path: Path) -> None:
    def piece(name: str) -> None:
        if name == "bad":
            raise ParamsError("no", do="nothing")
        (tmp_path / name).touch()

    with pytest.raises(ParamsError, match="no"):
        side_by_side(piece, ["bad", "good"])
    assert (tmp_path / "good").exists()


def test_one_long_piece_needs_no_other_process() -> None:
    found: list[int] = []
    side_by_side(lambda _: found.append(os.getpid()), ["alone"])
    assert found == [os.getpid()]
