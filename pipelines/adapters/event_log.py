"""The event store as a log to be read in bulk: what is new, and the rows of a day in a fixed order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
from sqlalchemy import Column, Connection, Integer, Select, Table, and_, func, select, union
from sqlalchemy.sql.elements import ColumnElement

from pipelines.adapters.event_database import Database
from pipelines.adapters.event_tables import EVENT_COLUMNS, EVENTS, IMPRESSIONS
from pipelines.contracts import EVENTS as CONTRACT
from pipelines.contracts import EventType, Type
from pipelines.feedback import Covered, microseconds

DAY = 86_400_000_000
"""Microseconds."""
ROWS_A_BATCH, LISTS_A_BATCH = 65_536, 4_096
_TIMES = tuple(c.name for c in CONTRACT.columns if c.type is Type.TIMESTAMP)


class Delay(NamedTuple):
    """Of the rows of a day: how many arrived over a day late, or before they happened; median seconds."""

    late: int
    ahead: int
    median_s: float | None


class EventLog:
    """The state of one moment, on one connection."""

    def __init__(self, connection: Connection, database: Database) -> None:
        """``connection``: of ``database.snapshot()``."""
        self._connection = connection
        self._embedded = database.embedded

    def last(self, table: Table) -> int:
        """The highest ``seq``, 0 when there is none."""
        return int(self._connection.scalar(select(func.max(table.c.seq))) or 0)

    def newest(self) -> int | None:
        """When the newest event happened, microseconds since 1970."""
        found = self._connection.scalar(select(func.max(EVENTS.c.event_time)))
        return None if found is None else int(found)

    def open_from(self, seq: int, until: int) -> int:
        """The first ``seq`` that is not covered by ``seq`` and ``until``."""
        rows = select(func.min(EVENTS.c.seq)).where(EVENTS.c.event_time >= until, EVENTS.c.seq <= seq)
        return int(self._connection.scalar(rows) or seq + 1)

    def days(self, table: Table, *, before: Covered, seq: int, until: int) -> list[date]:
        """Days of rows up to ``seq`` and before ``until`` that ``before`` did not cover, sorted."""
        time = _time(table)
        day = (time - (time % DAY + DAY) % DAY) // DAY
        limits = and_(table.c.seq <= seq, time < until)
        arrived = select(day).where(limits, table.c.seq > before.seq)
        opened = select(day).where(limits, time >= before.until)
        epoch = date(1970, 1, 1)
        return sorted(epoch + timedelta(days=int(n)) for n in self._connection.scalars(union(arrived, opened)))

    def delay(self, day: date, *, seq: int, until: int) -> Delay:
        """How long the events of a day took to arrive."""
        where = _of_day(EVENTS, day, seq, until)
        took = EVENTS.c.received_at - EVENTS.c.event_time
        late = func.sum((took > DAY).cast(Integer))
        ahead = func.sum((took < 0).cast(Integer))
        rows, n_late, n_ahead = self._connection.execute(select(func.count(), late, ahead).where(where)).one()
        middle = select(took).where(where).order_by(took).offset(int(rows) // 2).limit(1)
        median = self._connection.scalar(middle)
        return Delay(int(n_late or 0), int(n_ahead or 0), None if median is None else float(median) / 1e6)

    def events(self, day: date, *, seq: int, until: int) -> Iterator[pa.Table]:
        """A day's events up to ``seq`` and before ``until``: tables of ``contracts.EVENTS``, always in one order.

        An event that cites the list of a search, and does not say what was searched for, is told by that list.
        """
        asked = func.coalesce(EVENTS.c.search_query, IMPRESSIONS.c.search_query)
        columns = [asked if name == "search_query" else EVENTS.c[name] for name in EVENT_COLUMNS]
        cited = EVENTS.outerjoin(IMPRESSIONS, EVENTS.c.attribution_token == IMPRESSIONS.c.attribution_token)
        order = [EVENTS.c.event_time, self._bytes(EVENTS.c.event_id), self._bytes(EVENTS.c.item_id)]
        for rows in self._batches(
            select(*columns).select_from(cited).where(_of_day(EVENTS, day, seq, until)).order_by(*order), ROWS_A_BATCH
        ):
            values = dict(zip(EVENT_COLUMNS, zip(*rows, strict=True), strict=True))
            yield _table({**values, "item_id": [item or None for item in values["item_id"]]})

    def impressions(self, day: date, *, seq: int, until: int) -> Iterator[pa.Table]:
        """A day's impressions, one row an item shown, as events of type ``impression``."""
        order = [IMPRESSIONS.c.shown_at, self._bytes(IMPRESSIONS.c.attribution_token)]
        query = select(IMPRESSIONS).where(_of_day(IMPRESSIONS, day, seq, until)).order_by(*order)
        names = IMPRESSIONS.columns.keys()
        for rows in self._batches(query, LISTS_A_BATCH):
            made = [row for shown in rows for row in _items(dict(zip(names, shown, strict=True)))]
            yield _table({name: [row.get(name) for row in made] for name in EVENT_COLUMNS})

    def _bytes(self, column: Column[str]) -> ColumnElement[str]:
        """A text column that sorts byte by byte on every database."""
        return column if self._embedded else column.collate("C")

    def _batches(self, query: Select[Any], size: int) -> Iterator[Any]:
        return self._connection.execution_options(stream_results=True).execute(query).partitions(size)


def _time(table: Table) -> Column[int]:
    return table.c.event_time if table is EVENTS else table.c.shown_at


def _of_day(table: Table, day: date, seq: int, until: int) -> ColumnElement[bool]:
    start = microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
    time = _time(table)
    return and_(time >= start, time < min(start + DAY, until), table.c.seq <= seq)


def _items(shown: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of one list shown."""
    told = {name: shown[name] for name in ("fallback", "took_ms") if shown[name] is not None}
    about = json.dumps({"bundle_id": shown["bundle_id"], "surface": shown["surface"], **told}, sort_keys=True)
    pairs = zip(json.loads(shown["items"]), json.loads(shown["propensities"]), strict=True)
    for place, (item, propensity) in enumerate(pairs, shown["first_position"]):
        yield {
            "event_id": shown["attribution_token"],
            "event_type": EventType.IMPRESSION.value,
            "event_time": shown["shown_at"],
            "user_id": shown["user_id"],
            "visitor_id": shown["visitor_id"],
            "item_id": item,
            "placement": shown["placement"],
            "attribution_token": shown["attribution_token"],
            "model_version": shown["model_version"],
            "search_query": shown["search_query"],
            "position": place,
            "propensity": propensity,
            "attributes": about,
        }


def _table(values: Mapping[str, Any]) -> pa.Table:
    schema = CONTRACT.schema
    arrays = []
    for name in EVENT_COLUMNS:
        kind = schema.field(name).type
        if name in _TIMES:
            arrays.append(pa.array(values[name], pa.int64()).cast(kind))
        else:
            arrays.append(pa.array(values[name], kind))
    return pa.Table.from_arrays(arrays, schema=schema)
