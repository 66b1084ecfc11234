"""The durable store of events and impressions, on SQLite or PostgreSQL.

Writing goes through one thread a process, which commits everything that waits in one transaction (group
commit): a caller is answered after the commit that holds its events, so the cost of a flush to disk is
shared by all that arrive while the one before is under way. Transactions of several processes take turns,
which makes ``seq`` appear in order, so that a reader may take it as a watermark. Reading goes through one
connection a thread and one indexed statement a question, without SQLAlchemy in between, or through copies
of recent histories in Redis (``pipelines.adapters.recent_state``).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from pipelines import contracts
from pipelines.adapters import erasures
from pipelines.adapters.erasures import Erasure
from pipelines.adapters.event_availability import StoreUnavailable
from pipelines.adapters.event_database import Database, Transaction
from pipelines.adapters.event_tables import EVENT_COLUMNS
from pipelines.adapters.recent_state import COMPLETE, ROWS_A_KEY, RedisState
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
    """One list shown; ``first_position`` counts from 1, ``shown_at`` is in microseconds since 1970.

    ``took_ms``: from the request's arrival until the list was there. ``search_query``: what a search was asked.
    """

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
    fallback: str | None = None
    took_ms: float | None = None
    search_query: str | None = None


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

    def __init__(self, database: Database, state: RedisState | None = None) -> None:
        """Use :meth:`open`, which also makes the tables."""
        self._database = database
        self._state = state
        self._recent = _RECENT.format(database.placeholder)
        self._link = _LINK.format(database.placeholder)
        self._posts: deque[_Post] = deque()
        self._shown: deque[Impression] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._writer = threading.Thread(target=self._write_forever, name="event-writer", daemon=True)

    @classmethod
    def open(cls, url: str, *, state_url: str | None = None) -> EventStore:
        """Connect, make missing tables, start the writer.

        Args:
            url: SQLAlchemy URL of the database.
            state_url: a Redis that keeps recent histories; None: they are read from the database.

        Raises:
            ArtifactError: when the database cannot be reached or used, without its password.
        """
        database = Database.open(url)
        store = cls(database, RedisState(state_url, database.id) if state_url else None)
        if store._state is not None:
            store._state.look(store._epoch)
        store._writer.start()
        return store

    @property
    def embedded(self) -> bool:
        """Whether reading is a call within this process (microseconds), not over a socket."""
        return self._database.embedded and self._state is None

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
        """The newest rows of a history by arrival that are not covered by ``beyond``, oldest first.

        Raises:
            StoreUnavailable: neither the database nor a copy of the history answers.
        """
        if self._state is not None:
            found = self._state.rows("history", history_id, lambda: self._copied(history_id))
            if found is not None and (rows := _uncovered(found, beyond, limit)) is not None:
                return rows
        wanted = (history_id, beyond.open_from, beyond.seq, beyond.until, limit)
        return [RecentEvent(*row) for row in reversed(self._database.read(self._recent, wanted))]

    def _copied(self, history_id: str) -> list[bytes]:
        """The rows of a history as copies of it are kept."""
        rows = self._database.read(self._recent, (history_id, 1, 0, 0, ROWS_A_KEY))
        whole = [COMPLETE] if len(rows) < ROWS_A_KEY else []
        return [*whole, *(orjson.dumps(tuple(row)) for row in reversed(rows))]

    def linked_user(self, visitor_id: str) -> str | None:
        """The user whom this visitor turned out to be, or None.

        Raises:
            StoreUnavailable: neither the database nor a copy answers.
        """
        if self._state is not None:
            found = self._state.rows("link", visitor_id, lambda: [COMPLETE, *map(str.encode, self._linked(visitor_id))])
            if found is not None:
                return found[1].decode() if len(found) > 1 else None
        return next(iter(self._linked(visitor_id)), None)

    def _linked(self, visitor_id: str) -> list[str]:
        return [row[0] for row in self._database.read(self._link, (visitor_id,))]

    def _epoch(self) -> int:
        return int(self._database.read("SELECT epoch FROM state", ())[0][0])

    def request_erasure(self, user_id: str, *, now: int) -> Erasure:
        """Remember that a user is to be forgotten; durable when this returns. ``now``: microseconds since 1970."""
        with self._database.guarded():
            return erasures.request(self._database, user_id, now=now)

    def erasure(self, erasure_id: str) -> Erasure | None:
        """The request of this id."""
        with self._database.guarded():
            return erasures.find(self._database, erasure_id)

    def close(self) -> None:
        """Commit what waits and disconnect."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._writer.join(timeout=30)
        self._database.close()
        if self._state is not None:
            self._state.close()

    def _write_forever(self) -> None:
        while True:
            with self._wake:
                if not self._posts and not self._closing:
                    self._wake.wait(IMPRESSION_LAG_S)
                posts = [self._posts.popleft() for _ in range(len(self._posts))]
                closing = self._closing
            shown = [self._shown.popleft() for _ in range(len(self._shown))]
            self._look_at_state()
            if posts or shown:
                self._commit(posts, shown)
            elif closing:
                return

    def _commit(self, posts: Sequence[_Post], shown: Sequence[Impression]) -> None:
        """One transaction for all; when it fails, one for each, so that a bad one harms no other.

        While the database does not answer, impressions wait; posts are refused, so that nothing acknowledged is lost.
        """
        try:
            outcomes = self._transact(posts, shown)
        except StoreUnavailable as error:
            self._put_back(shown)
            for post in posts:
                post.done.set_exception(error)
            return
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

    def _put_back(self, shown: Sequence[Impression]) -> None:
        if not self._closing:
            self._shown.extendleft(reversed(shown))
        elif shown:
            logger.error("the event store does not answer: %d impressions were lost", len(shown))

    def _transact(self, posts: Sequence[_Post], shown: Sequence[Impression]) -> list[list[Outcome]]:
        with self._database.write() as transaction:
            batch = _Batch.read(transaction, [rows for post in posts for rows in post.events])
            outcomes = [[batch.add(rows) for rows in post.events] for post in posts]
            if self._state is None:
                transaction.load("events", _EVENT_ROW, batch.new_rows)
                arrived = {}
            else:
                arrived = transaction.insert_returning("events", _EVENT_ROW, batch.new_rows, key=contracts.EVENTS.key)
            transaction.insert("links", ("visitor_id", "user_id"), list(batch.new_links.items()), conflict=_RELINK)
            impressions = [_impression_row(one) for one in shown]
            transaction.insert("impressions", Impression._fields, impressions, conflict="ON CONFLICT DO NOTHING")
            if posts and self._state is not None and not self._state.trusted:
                transaction.move_epoch()
        if posts and self._state is not None and self._state.trusted:
            self._copy(batch, arrived)
        return outcomes

    def _copy(self, batch: _Batch, arrived: Mapping[tuple[Any, ...], int]) -> None:
        """Write through what was committed; a copy that did not get it must not be believed by anybody."""
        assert self._state is not None  # noqa: S101 - the caller looked
        stale = [("link", visitor) for visitor in batch.new_links]
        stale += [("history", owner) for owner in batch.repeated]
        if not self._state.write_through(_copies(batch.new_rows, arrived), stale=stale):
            with self._database.write() as transaction:
                transaction.move_epoch()

    def _look_at_state(self) -> None:
        """Follow the epoch of the copies; with a database that does not answer nobody can move it on."""
        if self._state is not None:
            with contextlib.suppress(StoreUnavailable):
                self._state.look(self._epoch)


def _copies(rows: Sequence[tuple[Any, ...]], arrived: Mapping[tuple[Any, ...], int]) -> dict[str, list[bytes]]:
    """Rows as copies of histories keep them, by history."""
    copies: dict[str, list[bytes]] = {}
    for values in rows:
        row = dict(zip(_EVENT_ROW, values, strict=True))
        if row["history_id"] is not None:
            row["seq"] = arrived[tuple(row[name] for name in contracts.EVENTS.key)]
            copies.setdefault(row["history_id"], []).append(orjson.dumps([row[f] for f in RecentEvent._fields]))
    return copies


def _uncovered(found: Sequence[bytes], beyond: Covered, limit: int) -> list[RecentEvent] | None:
    """What :meth:`EventStore.recent` gives, from a copy; None when the copy does not reach back far enough."""
    whole = found[0] == COMPLETE
    rows = sorted({row[0]: RecentEvent(*row) for row in map(orjson.loads, found[whole:])}.values())
    kept = [row for row in rows if row.seq > beyond.seq or row.event_time >= beyond.until]
    if whole or len(kept) >= limit or (rows and rows[0].seq <= beyond.open_from):
        return kept[-limit:]
    return None


class _Batch:
    """What one transaction adds, decided in order of arrival against what the tables hold."""

    def __init__(self, contents: dict[tuple[str, str], str], links: dict[str, str]) -> None:
        self._contents = contents
        self._links = links
        self.new_rows: list[tuple[Any, ...]] = []
        self.new_links: dict[str, str] = {}
        self.repeated: set[str] = set()
        """Histories with an event that was there already: its first sender may not have lived to copy it."""

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
            owners = {self._owner(row["user_id"], row["visitor_id"], link=False) for row in rows}
            self.repeated |= {owner for owner in owners if owner is not None}
            return Outcome.DUPLICATE
        for row in fresh:
            self._contents[row["event_id"], row["item_id"]] = row["content"]
            owner = self._owner(row["user_id"], row["visitor_id"])
            self.new_rows.append((*map(row.__getitem__, _SENT), owner))
        return Outcome.ACCEPTED

    def _owner(self, user: str | None, visitor: str | None, *, link: bool = True) -> str | None:
        if link and user and visitor and self._links.get(visitor) != user:
            self._links[visitor] = self.new_links[visitor] = user
        return user or (self._links.get(visitor, visitor) if visitor else None)


def _impression_row(impression: Impression) -> tuple[Any, ...]:
    items = orjson.dumps(list(impression.items)).decode()
    propensities = orjson.dumps([float(p) for p in impression.propensities]).decode()
    return tuple(impression._replace(items=items, propensities=propensities))  # type: ignore[arg-type]
