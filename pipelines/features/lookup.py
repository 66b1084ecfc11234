"""The online side of the aggregates: a user's state carried on by the events posted since."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from pipelines.features.definitions import USER, USER_ITEM, Aggregate, Fold
from pipelines.features.state import FeatureState, UserHistory

SECONDS_A_DAY = 86_400.0

_MERGE = {
    Fold.SUM: np.add,
    Fold.DECAYED: np.add,
    Fold.RECENT: np.add,
    Fold.MIN: np.minimum,
    Fold.MAX: np.maximum,
}


@dataclass(frozen=True)
class LiveEvent:
    """One row of an event posted since the bundle was made, oldest first in any list of them.

    ``event_share`` is one over the number of rows of its event; ``price`` None when not given.
    """

    item_id: str
    event_type: str
    event_time: datetime
    quantity: float = 1.0
    price: float | None = None
    event_share: float = 1.0


def fold(aggregate: Aggregate, columns: Mapping[str, np.ndarray], groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Fold rows by group: float64 ``[n_groups]``; the same meaning as the offline engine's SQL."""
    values = np.asarray(columns[aggregate.column], np.float64)
    if aggregate.fold is Fold.DECAYED:
        values = values * np.exp(-columns["age"] / aggregate.days)
    elif aggregate.fold is Fold.RECENT:
        values = np.where(columns["age"] <= aggregate.days, values, 0.0)
    out = np.full(n_groups, aggregate.empty)
    _MERGE[aggregate.fold].at(out, groups, values)
    return out


def merge(aggregate: Aggregate, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """State over the union of two disjoint sets of rows."""
    merged: np.ndarray = _MERGE[aggregate.fold](one, other)
    return merged


def update(state: FeatureState, history: UserHistory, events: Sequence[LiveEvent]) -> UserHistory:
    """Carry a history on by events, oldest first; the input is not changed.

    Events of types without a strength and of items unknown to the state leave no trace. Events later
    than the state's instant have age 0; the last event comes first among the items.
    """
    rows = [(state.item_ids.code(e.item_id), e) for e in events if e.event_type in state.strengths]
    rows = [(code, event) for code, event in rows if code >= 0]
    if not rows:
        return history
    codes = np.array([code for code, _ in rows], np.int64)
    columns = _columns(state, [event for _, event in rows])
    newest_first = list(dict.fromkeys(codes[::-1].tolist()))
    fresh = set(newest_first)
    items = np.array(newest_first + [c for c in history.items.tolist() if c not in fresh], np.int64)
    place = {code: row for row, code in enumerate(items.tolist())}
    groups = np.array([place[code] for code in codes.tolist()], np.int64)
    kept = np.array([place[code] for code in history.items.tolist()], np.int64)
    aggregates = {}
    for aggregate in USER_ITEM:
        before = np.full(len(items), aggregate.empty)
        before[kept] = history.aggregates[aggregate.name]
        live = fold(aggregate, columns, groups, len(items))
        aggregates[aggregate.name] = merge(aggregate, before, live).astype(np.float32)
    order = _most_recent_first(items, aggregates["last_age"])
    whole = np.zeros(len(rows), np.int64)
    user = {
        a.name: float(merge(a, np.array([history.user[a.name]]), fold(a, columns, whole, 1))[0].astype(np.float32))
        for a in USER
    }
    return UserHistory(items[order], {name: v[order] for name, v in aggregates.items()}, user, history.attributes)


def _most_recent_first(items: np.ndarray, last_age: np.ndarray) -> np.ndarray:
    """Order by age, ties by code as offline; at age 0, where the clock stands still, by arrival."""
    arrival = np.where(last_age > 0, 0, np.arange(len(items)))
    return np.lexsort((items, arrival, last_age))


def _columns(state: FeatureState, events: Sequence[LiveEvent]) -> dict[str, np.ndarray]:
    now = int(state.time.timestamp())
    age = [max(0.0, (now - math.floor(e.event_time.timestamp())) / SECONDS_A_DAY) for e in events]
    quantity = np.array([e.quantity for e in events], np.float64)
    price = np.array([0.0 if e.price is None else e.price for e in events], np.float64)
    return {
        "age": np.array(age, np.float64),
        "strength": np.array([state.strengths[e.event_type] for e in events], np.float64),
        "target": np.array([e.event_type == state.target for e in events], np.float64),
        "event_share": np.array([e.event_share for e in events], np.float64),
        "quantity": quantity,
        "spend": quantity * price,
    }
