"""What was collected of the newest days, counted: the input of the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple


class Sold(NamedTuple):
    """Rows of the target event type with one item and price; ``price`` None: the event did not say."""

    item_id: str
    price: float | None
    rows: int


class ShownDay(NamedTuple):
    """Lists shown on one day (``YYYY-MM-DD``), and those of them that a target event cites."""

    day: str
    lists: int
    converted: int


@dataclass(frozen=True)
class Traffic:
    """Of days that the champion has not learned from.

    Attributes:
        days: with events, ``YYYY-MM-DD``, sorted.
        newest: time of the newest event; None without any.
        sold: of the target event type.
        types: events a type.
        types_before: the same of collected days that the champion has learned from.
        shown: how often each item was shown.
        by_day: lists a day, sorted by day.
        fallbacks: lists by the reason why they were simpler, without those that were not.
        p99_ms: of what the lists took; None when it was not recorded.
    """

    days: Sequence[str] = ()
    newest: datetime | None = None
    sold: Sequence[Sold] = ()
    types: Mapping[str, int] = field(default_factory=dict)
    types_before: Mapping[str, int] = field(default_factory=dict)
    shown: Mapping[str, int] = field(default_factory=dict)
    by_day: Sequence[ShownDay] = ()
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    p99_ms: float | None = None

    @property
    def lists(self) -> int:
        """Lists shown."""
        return sum(day.lists for day in self.by_day)
