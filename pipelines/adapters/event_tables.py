"""Tables of the event store, for SQLite and PostgreSQL alike.

Column names and types come from ``contracts.EVENTS``. Times are microseconds since 1970 in UTC, so that
both databases sort and return them alike; an absent ``item_id`` is the empty string, because a null
never equals another in a unique key.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, Table, Text, UniqueConstraint
from sqlalchemy.types import TypeEngine

from pipelines import contracts

METADATA = MetaData()

_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")
_TYPES: dict[contracts.Type, TypeEngine[Any]] = {
    contracts.Type.STRING: Text(),
    contracts.Type.JSON: Text(),
    contracts.Type.FLOAT: Float(53),
    contracts.Type.INT: BigInteger(),
    contracts.Type.TIMESTAMP: BigInteger(),
}

EVENT_COLUMNS: tuple[str, ...] = contracts.EVENTS.names
"""Columns that a caller fills; the rest below are the store's own."""

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    *(
        Column(c.name, _TYPES[c.type], nullable=not (c.required or c.name in contracts.EVENTS.key))
        for c in contracts.EVENTS.columns
    ),
    Column("history_id", Text()),
    Column("event_share", Float(53), nullable=False),
    Column("content", Text(), nullable=False),
    Column("received_at", BigInteger(), nullable=False),
    UniqueConstraint(*contracts.EVENTS.key),
    Index("events_by_history", "history_id", "seq"),
    Index("events_by_time", "event_time"),
    sqlite_autoincrement=True,
)
"""``seq`` is the order of arrival and never used twice. ``history_id`` is whose history the row belongs to
at its arrival: the user, else the user linked to the visitor, else the visitor. ``event_share`` is one over
the event's rows. ``content`` is a digest of what the caller sent, which tells a copy from a contradiction."""

LINKS = Table(
    "links",
    METADATA,
    Column("visitor_id", Text(), primary_key=True),
    Column("user_id", Text(), nullable=False),
)
"""The user whom a visitor turned out to be, by the newest event that carried both."""

STORE = Table("store", METADATA, Column("id", Text(), primary_key=True))
"""One row: an id drawn when the store was made, which moves with it to another address."""

STATE = Table("state", METADATA, Column("epoch", BigInteger(), nullable=False))
"""One row: copies of histories elsewhere are valid under this number alone."""

IMPRESSIONS = Table(
    "impressions",
    METADATA,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("attribution_token", Text(), nullable=False, unique=True),
    Column("shown_at", BigInteger(), nullable=False),
    Column("surface", Text(), nullable=False),
    Column("placement", Text()),
    Column("model_version", Text(), nullable=False),
    Column("bundle_id", Text(), nullable=False),
    Column("user_id", Text()),
    Column("visitor_id", Text()),
    Column("history_id", Text()),
    Column("first_position", Integer(), nullable=False),
    Column("items", Text(), nullable=False),
    Column("propensities", Text(), nullable=False),
    Column("fallback", Text()),
    Column("took_ms", Float(53)),
    Column("search_query", Text()),
    Index("impressions_by_time", "shown_at"),
    sqlite_autoincrement=True,
)
"""One row a list shown: ``items`` and ``propensities`` are JSON arrays in order of position. ``fallback`` says why the
list is simpler than it could be, null when it is not; ``took_ms`` is null where it was not measured; ``search_query``
is what a search was asked, null for other lists."""

ERASURES = Table(
    "erasures",
    METADATA,
    Column("id", Text(), primary_key=True),
    Column("user_id", Text()),
    Column("requested_at", BigInteger(), nullable=False),
    Column("deadline", BigInteger(), nullable=False),
    Column("erased_at", BigInteger()),
)
"""Requests to forget a user, whose id goes when the request is carried out."""
