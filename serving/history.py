"""A user's history at the moment of a request: the bundle's, carried on by what was posted since.

Nothing is kept in the process: the events come from the store by one indexed statement, so that what one
worker has acknowledged counts in the next answer of every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from pipelines.adapters.event_availability import StoreUnavailable
from pipelines.bundle import Bundle
from pipelines.features.lookup import LiveEvent
from pipelines.features.state import UserHistory
from pipelines.feedback import Covered, covered_from, instant, microseconds
from serving.event_store import EventStore, RecentEvent

MAX_EVENTS = 500
"""Newest events of one history that a request reads."""

HISTORY_UNAVAILABLE = "history_unavailable"
"""The fallback of an answer that knows nothing of the events since the bundle."""


class Whose(NamedTuple):
    """Whom a request is about: ``user`` is the given one, else the one linked to the visitor."""

    user: str | None
    visitor: str | None

    @property
    def history_id(self) -> str | None:
        """The id that the history goes by."""
        return self.user or self.visitor


def whose(store: EventStore, *, user_id: str | None, visitor_id: str | None) -> Whose:
    """Resolve a visitor who has become a user; a given user is taken as it is."""
    if user_id is None and visitor_id is not None:
        return Whose(store.linked_user(visitor_id), visitor_id)
    return Whose(user_id, visitor_id)


class Known(NamedTuple):
    """What is known of somebody; ``fallback`` says why it is less than it could be."""

    of: Whose
    history: UserHistory
    fallback: str | None


def known(
    bundle: Bundle,
    store: EventStore,
    *,
    user_id: str | None,
    visitor_id: str | None = None,
    recent_items: Sequence[str] = (),
    until: datetime | None = None,
) -> Known:
    """The history of a caller; while the store does not answer, what the bundle and the request say."""
    try:
        of = whose(store, user_id=user_id, visitor_id=visitor_id)
        return Known(of, history(bundle, store, of=of, recent_items=recent_items, until=until), None)
    except StoreUnavailable:
        past = bundle.history(user_id=user_id, visitor_id=visitor_id, recent_items=recent_items)
        return Known(Whose(user_id, visitor_id), past, HISTORY_UNAVAILABLE)


def history(
    bundle: Bundle,
    store: EventStore,
    *,
    of: Whose,
    recent_items: Sequence[str] = (),
    until: datetime | None = None,
) -> UserHistory:
    """The history of ``of``; one read of the store, a second one for a user of whom nothing is known yet.

    ``until`` (replay only) leaves out events after that time.
    """
    rows: list[RecentEvent] = []
    if of.history_id is not None:
        covered = bundle_covers(bundle, store.id)
        rows = store.recent(of.history_id, beyond=covered, limit=MAX_EVENTS)
        if not rows and of.user and of.visitor and bundle.features.user_ids.code(of.user) < 0:
            rows = store.recent(of.visitor, beyond=covered, limit=MAX_EVENTS)
    events = live_events(bundle, rows, until=until) if rows else ()
    return bundle.history(user_id=of.user, visitor_id=of.visitor, events=events, recent_items=recent_items)


def bundle_covers(bundle: Bundle, store_id: str) -> Covered:
    """Which events of a store are in the bundle's own histories already.

    A bundle knows what was collected and lies before its ``as_of``; where that cuts off what was collected,
    nothing is known about the order in which the rest arrived.
    """
    entry = (bundle.manifest.get("data") or {}).get("events_through", {}).get(store_id)
    if entry is None:
        return Covered()
    covered, as_of = covered_from(entry), microseconds(bundle.as_of)
    return covered if covered.until <= as_of else Covered(covered.seq, as_of)


def live_events(bundle: Bundle, rows: Sequence[RecentEvent], *, until: datetime | None = None) -> list[LiveEvent]:
    """Rows as features read them: before the bundle's instant by time, later ones by arrival."""
    strengths, as_of = bundle.features.strengths, microseconds(bundle.features.time)
    last = None if until is None else microseconds(until)
    kept = [r for r in rows if r.item_id and r.event_type in strengths and (last is None or r.event_time <= last)]
    kept.sort(key=lambda row: (min(row.event_time, as_of), row.seq))
    return [
        LiveEvent(
            row.item_id,
            row.event_type,
            instant(row.event_time),
            1.0 if row.quantity is None else row.quantity,
            row.price,
            row.event_share,
        )
        for row in kept
    ]
