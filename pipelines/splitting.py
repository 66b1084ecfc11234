"""Instants in time, and the one place that cuts at them.

Fusion learns on rolling windows that end at t2; the bundle judged on the holdout [t2, t3) knows
nothing at or after t2; the bundle that serves knows everything before t3 = ``as_of``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.errors import InputError
from pipelines.params import SplitParams

JUDGED = "judged"
"""Name of the instant whose bundle is judged."""

SHORT_LOG = timedelta(weeks=8)
"""Below this length of the log, t2 lies on a midnight instead of the weekly grid."""


@dataclass(frozen=True)
class Instant:
    """Members are fitted on what lies before ``time``; their lists are compared with [time, until)."""

    name: str
    time: datetime
    until: datetime

    def as_json(self) -> dict[str, str]:
        """Times as ISO strings."""
        return {"name": self.name, "time": self.time.isoformat(), "until": self.until.isoformat()}

    @classmethod
    def from_json(cls, value: dict[str, str]) -> Instant:
        """Inverse of :meth:`as_json`."""
        return cls(value["name"], datetime.fromisoformat(value["time"]), datetime.fromisoformat(value["until"]))


@dataclass(frozen=True)
class Instants:
    """``windows``: oldest first, may be empty; ``judged`` (t2): None when nothing can be held out; ``served`` (t3).

    :attr:`before_holdout` has a judged instant all the same, at t3: what people judged of a search has no time, and
    is judged on a bundle like any other.
    """

    windows: tuple[Instant, ...]
    judged: Instant | None
    served: Instant

    @property
    def before_holdout(self) -> tuple[Instant, ...]:
        """Every instant at which members are fitted without having seen the holdout; the judged one comes last."""
        return (*self.windows, self.judged or Instant(JUDGED, self.served.time, self.served.time))

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value."""
        return {
            "windows": [window.as_json() for window in self.windows],
            "judged": self.judged.as_json() if self.judged else None,
            "served": self.served.as_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Instants:
        """Inverse of :meth:`as_json`."""
        return cls(
            tuple(Instant.from_json(window) for window in value["windows"]),
            Instant.from_json(value["judged"]) if value["judged"] else None,
            Instant.from_json(value["served"]),
        )


def midnight_after(time: datetime) -> datetime:
    """The first midnight UTC strictly after a time."""
    day = time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=1)


def instants(params: SplitParams, *, first: datetime | None, as_of: datetime) -> Instants:
    """Place t3, t2 and the windows for a log whose oldest positive event is ``first``.

    Args:
        params: lengths in days, number of windows, anchor of the weekly grid.
        first: time of the oldest positive event, or None without any.
        as_of: t3; exclusive end of everything that may be read.

    Returns:
        The instants. The holdout is at most half the log. Windows are ``window_days``
        long, or half of what lies before t2 when that is shorter, as many as leave at least one
        window's length of history before the first. Logs of less than two days get no holdout.

    Raises:
        InputError: when ``as_of`` lies before the first event.
    """
    served = Instant("served", as_of, as_of)
    if first is None:
        return Instants((), None, served)
    length = as_of - first
    if length <= timedelta(0):
        raise InputError(
            "data.as_of lies before all events",
            found=as_of.isoformat(),
            wanted=f"a time after {first.isoformat()}",
            do="correct data.as_of in params.yaml, or set it to null",
        )
    if length < timedelta(days=2):
        return Instants((), None, served)
    latest = as_of - min(timedelta(days=params.holdout_days), length / 2)
    judged_time = _on_grid(latest, params) if length >= SHORT_LOG else _day(latest)
    if judged_time <= first:
        judged_time = latest
    judged = Instant(JUDGED, judged_time, as_of)
    before = judged_time - first
    window = min(timedelta(days=params.window_days), before / 2)
    count = min(params.windows, max(0, math.floor(before / window) - 1))
    if window < timedelta(days=1):
        count = 0
    starts = [judged_time - window * k for k in range(count, 0, -1)]
    windows = tuple(Instant(f"window_{n}", start, start + window) for n, start in enumerate(starts, 1))
    return Instants(windows, judged, served)


def _on_grid(latest: datetime, params: SplitParams) -> datetime:
    anchor = datetime.fromisoformat(params.grid_anchor).replace(tzinfo=UTC)
    weeks = math.floor((latest - anchor) / timedelta(weeks=1))
    return anchor + timedelta(weeks=weeks)


def _day(time: datetime) -> datetime:
    return time.replace(hour=0, minute=0, second=0, microsecond=0)
