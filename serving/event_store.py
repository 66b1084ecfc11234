"""The durable store of events and impressions, on SQLite or PostgreSQL.

Writing goes through one thread a process, which commits everything that waits in one transaction (group
commit): a caller is answered after the commit that holds its events, so the cost of a flush to disk is
shared by all that arrive while the one before is under way. Transactions of several processes take turns,
which makes ``seq`` appear in order, so that a reader may take it as a watermark. Reading goes through one
connection a thread and one indexed statement a question, without SQLAlchemy in between.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from pipelines.adapters.event_database import Database, Transaction
from pipelines.adapters.event_tables import EVENT_COLUMNS
from pipelines.errors import ArtifactError
from pipelines.feedback import Covered

logger = logging.getLogger("fuseline.events")

IMPRESSION_LAG_S = 0.25
"""An impression waits at most this long for a commit to join, then gets its own."""

MAX_WAITING_IMPRESSIONS = 100_000
"""Impressions held in memory while the database does not answer; the oldest go first, with a log line."""

Row = dict[str, Any]


class Outcome(StrEnum):
    """What became of one posted event."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """An event with this id and item, but other content, is already there; nothing was stored."""


class Impression(NamedTuple):
    """One list shown; ``first_position`` counts from 1, ``shown_at`` is in microseconds since 1970."""

    attribution_token: str
    shown_at: int
    surface: str
    placement: str | None
    model_version: str
    bundle_id: str
    user_id: str | None
    visitor_id: str | None
    history_id: str | None
    first_position: int
    items: Sequence[str]
    propensities: Sequence[float]


class RecentEvent(NamedTuple):
    """What a history needs of one row; ``event_time`` in microseconds since 1970."""

    seq: int
    event_time: int
    event_type: str
    item_id: str
    quantity: float | None
    price: float | None
    event_share: float


class _Post(NamedTuple):
    events: Sequence[Sequence[Row]]
    done: Future[list[Outcome]]


_RECENT = (
    "SELECT seq, event_time, event_type, item_id, quantity, price, event_share FROM events "
    "WHERE history_id = {0} AND seq >= {0} AND (seq > {0} OR event_time >= {0}) ORDER BY seq DESC LIMIT {0}"
)
_SENT = (*EVENT_COLUMNS, "event_share", "content", "received_at")
_EVENT_ROW = (*_SENT, "history_id")
_RELINK = "ON CONFLICT (visitor_id) DO UPDATE SET user_id = excluded.user_id"
_LINK = "SELECT user_id FROM links WHERE visitor_id = {0}"


class EventStore:
    """Events, links and impressions behind one database URL; thread-safe."""

    def __init__(self, database: Database) -> None:
        """Use :meth:`open`, which also makes the tables."""
        self._database = database
        self._recent = _RECENT.format(database.placeholder)
        self._link = _LINK.format(database.placeholder)
        self._posts: deque[_Post] = deque()
        self._shown: deque[Impression] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._writer = threading.Thread(target=self._write_forever, name="event-writer", daemon=True)

    @classmethod
    def open(cls, url: str) -> EventStore:
        """Connect, make missing tables, start the writer.

        Raises:
            ArtifactError: when the database cannot be reached or used, without its password.
        """
        store = cls(Database.open(url))
        store._writer.start()
        return store

    @property
    def embedded(self) -> bool:
        """Whether reading is a call within this process (microseconds), not over a socket."""
        return self._database.embedded

    def post(self, events: Sequence[Sequence[Row]]) -> Future[list[Outcome]]:
        """Store events, each given by its rows; the future ends after the commit, one outcome an event.

        Each row has the keys of ``contracts.EVENTS`` plus ``event_share``, ``content`` and ``received_at``;
        ``item_id`` is empty for an event about no product.
        """
        done: Future[list[Outcome]] = Future()
        with self._wake:
            if self._closing:
                raise ArtifactError("the event store is closed", do="start the service again")
            self._posts.append(_Post(events, done))
            self._wake.notify()
        return done

    def show(self, impression: Impression) -> None:
        """Store an impression soon (``IMPRESSION_LAG_S``); never waits."""
        self._shown.append(impression)
        if len(self._shown) > MAX_WAITING_IMPRESSIONS:
            self._shown.popleft()
            logger.error("an impression was lost: the event store does not keep up")

    @property
    def id(self) -> str:
        """Drawn when the store was made; moves with it."""
        return self._database.id

    def recent(self, history_id: str, *, beyond: Covered = Covered(), limit: int = 500) -> list[RecentEvent]:  # noqa: B008 - frozen
        """The newest rows of a history by arrival that are not covered by ``beyond``, oldest first."""
        wanted = (history_id, beyond.open_from, beyond.seq, beyond.until, limit)
        rows = self._database.read(self._recent, wanted)
        return [RecentEvent(*row) for row in reversed(rows)]

    def linked_user(self, visitor_id: str) -> str | None:
        """The user whom this visitor turned out to be, or None."""
        rows = self._database.read(self._link, (visitor_id,))
        return rows[0][0] if rows else None

    def close(self) -> None:
        """Commit what waits and disconnect."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join(timeout=30)
        self._database.close()

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                if not self._posts and not self._closing:
                    self._wake.wait(IMPRESSION_LAG_S)
                posts = [self._posts.popleft() for _ in range(len(self._posts))]
                closing = self._closing
            shown = [self._shown.popleft() for _ in range(len(self._shown))]
            if posts or shown:
                self._commit(posts, shown)
            elif closing:
                return

    def _commit(self, posts: Sequence[_Post], shown: Sequence[Impression]) -> None:
        """One transaction for all; when it fails, one for each, so that a bad one harms no other."""
        try:
            outcomes = self._transact(posts, shown)
        except Exception as error:  # the writer must outlive any failure of the database
            if len(posts) + bool(shown) > 1:
                for post in posts:
                    self._commit([post], [])
                if shown:
                    self._commit([], shown)
                return
            logger.exception("the event store refused a write; %d impressions were lost", len(shown))
            for post in posts:
                post.done.set_exception(error)
            return
        for post, outcome in zip(posts, outcomes, strict=True):
            post.done.set_result(outcome)

    def _transact(self, posts: Sequence[_Post], shown: Sequence[Impression]) -> list[list[Outcome]]:
        with self._database.write() as transaction:
            batch = _Batch.read(transaction, [rows for post in posts for rows in post.events])
            outcomes = [[batch.add(rows) for rows in post.events] for post in posts]
            transaction.insert("events", _EVENT_ROW, batch.new_rows)
            transaction.insert("links", ("visitor_id", "user_id"), list(batch.new_links.items()), conflict=_RELINK)
            impressions = [_impression_row(one) for one in shown]
            transaction.insert("impressions", Impression._fields, impressions, conflict="ON CONFLICT DO NOTHING")
        return outcomes


class _Batch:
    """What one transaction adds, decided in order of arrival against what the tables hold."""

    def __init__(self, contents: dict[tuple[str, str], str], links: dict[str, str]) -> None:
        self._contents = contents
        self._links = links
        self.new_rows: list[tuple[Any, ...]] = []
        self.new_links: dict[str, str] = {}

    @classmethod
    def read(cls, transaction: Transaction, events: Sequence[Sequence[Row]]) -> _Batch:
        ids = {row["event_id"] for rows in events for row in rows}
        visitors = {row["visitor_id"] for rows in events for row in rows if row["visitor_id"]}
        known = transaction.select("events", ("event_id", "item_id", "content"), ids)
        links = transaction.select("links", ("visitor_id", "user_id"), visitors)
        return cls({(one, item): content for one, item, content in known}, dict(links))

    def add(self, rows: Sequence[Row]) -> Outcome:
        keys = [(row["event_id"], row["item_id"]) for row in rows]
        before = [self._contents.get(key) for key in keys]
        if any(was is not None and was != row["content"] for was, row in zip(before, rows, strict=True)):
            return Outcome.CONFLICT
        fresh = [row for row, was in zip(rows, before, strict=True) if was is None]
        if not fresh:
            return Outcome.DUPLICATE
        for row in fresh:
            self._contents[row["event_id"], row["item_id"]] = row["content"]
            owner = self._owner(row["user_id"], row["visitor_id"])
            self.new_rows.append((*map(row.__getitem__, _SENT), owner))
        return Outcome.ACCEPTED

    def _owner(self, user: str | None, visitor: str | None) -> str | None:
        if user and visitor and self._links.get(visitor) != user:
            self._links[visitor] = self.new_links[visitor] = user
        return user or (self._links.get(visitor, visitor) if visitor else None)


def _impression_row(impression: Impression) -> tuple[Any, ...]:
    items = orjson.dumps(list(impression.items)).decode()
    propensities = orjson.dumps([float(p) for p in impression.propensities]).decode()
    return (*impression[:-2], items, propensities)
