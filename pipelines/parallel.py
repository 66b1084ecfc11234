"""Work on all cores: forked workers that share the parent's memory-mapped arrays.

Many small pieces are :func:`mapped`; a few long ones go :func:`side_by_side`.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

CHUNK = 32
"""Items handed to a worker at once."""

THREADED = ("tensorflow", "xgboost")
"""Libraries whose threads do not survive a fork: a child of a process that has loaded them waits for ever."""

_state: dict[str, Callable[[Any], Any]] = {}


def mapped(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """``map(function, items)`` in order; the same results on one core or many.

    The function may be a closure, since workers are forked and inherit it; its results are pickled. It must
    not use TensorFlow, whose threads do not survive a fork. Few items, one core, or no fork: no workers.
    """
    workers = min(_cores(), len(items) // CHUNK)
    if workers < 2:
        yield from map(function, items)
        return
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    _state["function"] = function
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _one_thread) as pool:
            for results in pool.map(_call, chunks):
                yield from results
    finally:
        _state.clear()


def side_by_side(function: Callable[[str], None], names: Sequence[str]) -> None:
    """Call the function with each name, in as many processes as there are cores, which share these among them.

    The function may be a closure and may use :data:`THREADED` libraries. What it prints comes with its name in front.
    With one name, one core, no fork, or such a library loaded already: one after the other in this process.

    Raises:
        Exception: the first that a call raised; the others end first.
    """
    workers = min(_cores(), len(names))
    if workers < 2 or not sys.modules.keys().isdisjoint(THREADED):
        for name in names:
            function(name)
        return
    _state["function"] = function
    try:
        with ProcessPoolExecutor(
            workers, multiprocessing.get_context("fork"), _some_threads, (_cores() // workers,)
        ) as pool:
            for done in [pool.submit(_called, name) for name in names]:
                done.result()
    finally:
        _state.clear()


def _cores() -> int:
    """How many this process may use; 1 where it cannot fork."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _one_thread() -> None:
    """Each worker has a core; threads of linear algebra in all of them would fight for it and take thrice as long."""
    from threadpoolctl import threadpool_limits  # a service scores with this library's code and has no workers

    threadpool_limits(1)


def _call(chunk: Sequence[Any]) -> list[Any]:
    function = _state["function"]
    return [function(item) for item in chunk]


def _some_threads(count: int) -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(count)
    # read by libraries that are loaded from here on
    os.environ.update({name: str(count) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")})
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # or the first would take all memory of a GPU


def _called(name: str) -> None:
    with contextlib.redirect_stdout(_Named(name, sys.stdout)):
        _state["function"](name)


class _Named(io.TextIOBase):
    """Writes whole lines with a name in front, so that those of several processes can be told apart."""

    def __init__(self, name: str, out: io.TextIOBase | Any) -> None:
        self._name, self._out, self._line = name, out, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._out.write(f"{self._name}: {line}\n")
        return len(text)

    def flush(self) -> None:
        self._out.flush()
