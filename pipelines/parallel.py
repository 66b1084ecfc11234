"""Many independent rankings on all cores: forked workers that share the parent's memory-mapped arrays."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

CHUNK = 32
"""Items handed to a worker at once."""

_state: dict[str, Callable[[Any], Any]] = {}


def mapped(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """``map(function, items)`` in order; the same results on one core or many.

    The function may be a closure, since workers are forked and inherit it; its results are pickled. It must
    not use TensorFlow, whose threads do not survive a fork. Few items, one core, or no fork: no workers.
    """
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(items) // CHUNK)
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


def _one_thread() -> None:
    """Each worker has a core; threads of linear algebra in all of them would fight for it and take thrice as long."""
    from threadpoolctl import threadpool_limits  # a service scores with this library's code and has no workers

    threadpool_limits(1)


def _call(chunk: Sequence[Any]) -> list[Any]:
    function = _state["function"]
    return [function(item) for item in chunk]
