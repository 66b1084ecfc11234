"""The aggregates, declared once for training and for serving.

An aggregate is a mergeable fold over the rows of ``contracts.INTERACTIONS`` that share a key. Its state
over two disjoint sets of rows is the merge of the two states, which is what lets the service carry on
where the offline engine stopped. ``age`` is max(0, instant - event_time) in days, so a state belongs
to one instant.

To add a feature, add a line here; the offline engine (``history``), the online one (``lookup``) and the
test that holds them equal read this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fold(StrEnum):
    """How rows fold into a number, and hence how two states merge."""

    SUM = "sum"
    """Sum of the column; merge: +; empty: 0."""
    DECAYED = "decayed"
    """Sum of column · exp(-age / days); merge: +; empty: 0."""
    RECENT = "recent"
    """Sum of the column over rows with age <= days; merge: +; empty: 0."""
    MIN = "min"
    """Smallest value; merge: min; empty: +inf."""
    MAX = "max"
    """Largest value; merge: max; empty: -inf."""


@dataclass(frozen=True)
class Aggregate:
    """One fold over one column; ``days`` is the decay's time constant or the window's length."""

    name: str
    column: str
    fold: Fold = Fold.SUM
    days: float = 0.0

    @property
    def empty(self) -> float:
        """State over no rows."""
        return {Fold.MIN: float("inf"), Fold.MAX: float("-inf")}.get(self.fold, 0.0)


def _decays(name: str, column: str, *days: int) -> tuple[Aggregate, ...]:
    return tuple(Aggregate(f"{name}_decay{d}", column, Fold.DECAYED, d) for d in days)


def _recent(name: str, column: str, *days: int) -> tuple[Aggregate, ...]:
    return tuple(Aggregate(f"{name}_last{d}", column, Fold.RECENT, d) for d in days)


USER_ITEM: tuple[Aggregate, ...] = (
    Aggregate("strength", "strength"),
    *_decays("strength", "strength", 30, 90),
    Aggregate("bought", "target"),
    *_decays("bought", "target", 15, 30, 90, 365),
    Aggregate("quantity", "quantity"),
    Aggregate("spend", "spend"),
    Aggregate("first_age", "age", Fold.MAX),
    Aggregate("last_age", "age", Fold.MIN),
)
"""Keyed by (history, item). ``bought`` counts rows of the target type, whatever that is in this shop."""

ITEM: tuple[Aggregate, ...] = (
    Aggregate("strength", "strength"),
    *_decays("strength", "strength", 30, 90),
    Aggregate("bought", "target"),
    *_decays("bought", "target", 15, 30, 90),
    *_recent("bought", "target", 7, 28, 56, 90),
    *_recent("known_bought", "known_target", 28),
    Aggregate("quantity", "quantity"),
    Aggregate("spend", "spend"),
    Aggregate("first_age", "age", Fold.MAX),
    Aggregate("last_age", "age", Fold.MIN),
)
"""Keyed by item, over all rows; ``known_target`` is the target of rows that have a history."""

USER: tuple[Aggregate, ...] = (
    Aggregate("events", "event_share"),
    Aggregate("bought", "target"),
    Aggregate("strength", "strength"),
    *_decays("events", "event_share", 30, 90),
    *_recent("events", "event_share", 28),
    Aggregate("quantity", "quantity"),
    Aggregate("spend", "spend"),
    Aggregate("first_age", "age", Fold.MAX),
    Aggregate("last_age", "age", Fold.MIN),
)
"""Keyed by history."""
