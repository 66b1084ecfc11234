"""What this service counts, beside BentoML's own on ``/metrics``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from serving.runtime import Served

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Seconds; fine where the targets lie."""


class Metrics:
    """Durations, statuses and fallbacks of requests; a label is a route's pattern, never a path."""

    def __init__(self) -> None:
        """Nothing is registered before the first request: prometheus_client must see the worker's environment."""
        self._histogram: Any = None
        self._children: dict[tuple[str, int], Any] = {}
        self._fallbacks: Any = None

    def observe(self, route: str, status: int, seconds: float, *, fallback: str | None = None) -> None:
        """Count one request, and why its answer was simpler than it could be."""
        child = self._children.get((route, status))
        if child is None:
            child = self._children[route, status] = self._family().labels(route, str(status))
        child.observe(seconds)
        if fallback is not None:
            self._counter().labels(route, fallback).inc()

    def _counter(self) -> Any:
        if self._fallbacks is None:
            from prometheus_client import Counter

            described = "Answers that were simpler than they could be, by reason"
            self._fallbacks = Counter("fuseline_fallbacks_total", described, ["route", "reason"])
        return self._fallbacks

    def _family(self) -> Any:
        if self._histogram is None:
            from prometheus_client import Histogram

            self._histogram = Histogram(
                "fuseline_request_duration_seconds",
                "Time from the request's head to the answer, without the network",
                ["route", "status"],
                buckets=BUCKETS,
            )
        return self._histogram


class BundleMetrics:
    """Which bundle each worker serves, how old it is, and what became of the champion's moves.

    ``fuseline_bundle_info`` is 1 for the version that the worker with the label ``pid`` serves. The age of
    what is served is ``time() - fuseline_bundle_as_of_timestamp_seconds``, the oldest of all workers.
    """

    def __init__(self) -> None:
        """Make the families; once a worker, after BentoML has set prometheus_client's environment."""
        from prometheus_client import Counter, Gauge

        _forget_dead_workers()
        self._info = Gauge(
            "fuseline_bundle_info",
            "1 for the bundle that a worker serves",
            ["version", "bundle_id"],
            multiprocess_mode="liveall",
        )
        self._as_of = Gauge(
            "fuseline_bundle_as_of_timestamp_seconds",
            "The instant that the served bundle knows everything before",
            multiprocess_mode="livemin",
        )
        self._loaded = Gauge(
            "fuseline_bundle_loaded_timestamp_seconds",
            "When a worker put the bundle that it serves into service",
            multiprocess_mode="liveall",
        )
        self._swaps = Counter("fuseline_bundle_swaps_total", "Bundles put into service after the first")
        self._refused = Counter("fuseline_bundle_refused_total", "Bundles that could not be loaded")
        self._shown: Any = None

    def serving(self, served: Served) -> None:
        """A worker serves this bundle from now on."""
        self._as_of.set(served.bundle.as_of.timestamp())
        self._loaded.set_to_current_time()
        if self._shown is not None:
            self._shown.set(0)
        self._shown = self._info.labels(served.version, served.bundle_id)
        self._shown.set(1)

    def swapped(self, served: Served) -> None:
        """The champion moved, and the worker followed."""
        self._swaps.inc()
        self.serving(served)

    def refused(self) -> None:
        """The champion moved to a bundle that cannot be used."""
        self._refused.inc()


def _forget_dead_workers() -> None:
    """Take the live gauges of killed workers off ``/metrics``; BentoML does so only for those that end well."""
    from prometheus_client import multiprocess

    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            multiprocess.mark_process_dead(int(pid))  # type: ignore[no-untyped-call]
