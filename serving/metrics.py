"""Counts and durations by route and status, beside BentoML's own on ``/metrics``."""

from __future__ import annotations

from typing import Any

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Seconds; fine where the targets lie."""


class Metrics:
    """``fuseline_request_duration_seconds``; a label is a route's pattern, never a path."""

    def __init__(self) -> None:
        """Nothing is registered before the first request: prometheus_client must see the worker's environment."""
        self._histogram: Any = None
        self._children: dict[tuple[str, int], Any] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        child = self._children.get((route, status))
        if child is None:
            child = self._children[route, status] = self._family().labels(route, str(status))
        child.observe(seconds)

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
