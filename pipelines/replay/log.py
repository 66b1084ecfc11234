"""The log that is played: what a shop knew before the period, and what happened on each day of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from pipelines.adapters import frames
from pipelines.contracts import CATALOG, EVENTS, USERS
from pipelines.errors import ParamsError
from pipelines.interactions import with_history

POPULARITY_DAYS = 28
"""Purchases of so many days before a day make its popularity baseline."""

ONE_DAY = timedelta(days=1)


class Order(NamedTuple):
    """One event of the target type with its products, as the service is told of it.

    ``history_id`` is whose history it belongs to, None for nobody's; ``products`` are (item, quantity, price).
    """

    event_id: str
    event_time: datetime
    user_id: str | None
    visitor_id: str | None
    history_id: str | None
    products: tuple[tuple[str, float | None, float | None], ...]

    @property
    def items(self) -> frozenset[str]:
        """What was bought."""
        return frozenset(item for item, _, _ in self.products)


@dataclass(frozen=True)
class Period:
    """Whole days in UTC: ``start`` belongs to it, ``end`` does not."""

    start: date
    end: date

    def __post_init__(self) -> None:
        """Refuse an empty one."""
        if self.start >= self.end:
            raise ParamsError(
                "the period has no day",
                found=f"{self.start} to {self.end}",
                wanted="--from before --to",
                do="swap them",
            )

    def days(self) -> Iterator[date]:
        """Each day, oldest first."""
        for place in range((self.end - self.start).days):
            yield self.start + place * ONE_DAY


def midnight(day: date) -> datetime:
    """The instant at which a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def write_export(canonical: Path, shop: Path, *, start: date) -> None:
    """What the shop's export held at midnight before the period: rows before it, in the canonical form."""
    with frames.engine() as connection:
        time = ibis.literal(midnight(start))
        events = frames.read(connection, canonical / "events.parquet")
        before = events.filter(events.event_time < time)
        frames.write(before.select(*EVENTS.names), shop / "events" / "before.parquet", order=["event_time", "event_id"])
        catalog = frames.read(connection, canonical / "catalog.parquet")
        known = catalog.filter(catalog.updated_at.isnull() | (catalog.updated_at < time))
        _write_catalog(known, shop / "catalog" / "before.parquet")
        users = frames.read(connection, canonical / "users.parquet")
        seen = users.filter(users.user_id.isin(before.user_id))
        frames.write(seen.select(*USERS.names), shop / "users" / "before.parquet", order=["user_id"])


def write_day(canonical: Path, shop: Path, *, day: date) -> None:
    """What the shop adds to its export at the end of a day: products that changed, users who are new."""
    with frames.engine() as connection:
        first, last = ibis.literal(midnight(day)), ibis.literal(midnight(day + ONE_DAY))
        catalog = frames.read(connection, canonical / "catalog.parquet")
        changed = catalog.filter((catalog.updated_at >= first) & (catalog.updated_at < last))
        _write_catalog(changed, shop / "catalog" / f"dt={day}" / "changed.parquet")
        events = frames.read(connection, canonical / "events.parquet")
        days = events.filter(events.user_id.notnull()).group_by("user_id").agg(first_time=events.event_time.min())
        new = days.filter((days.first_time >= first) & (days.first_time < last))
        users = frames.read(connection, canonical / "users.parquet")
        added = users.filter(users.user_id.isin(new.user_id))
        frames.write(added.select(*USERS.names), shop / "users" / f"dt={day}" / "new.parquet", order=["user_id"])


def _write_catalog(rows: ir.Table, path: Path) -> None:
    frames.write(rows.select(*CATALOG.names), path, order=["item_id", "updated_at", "title"])


@dataclass(frozen=True)
class Log:
    """The purchases of a period and what they are measured against.

    Attributes:
        target: event type of a purchase: what the shop's models predict.
        orders: by day, in order of time.
        owned: items that each history had the target event with before the period.
        sold: items by day, counted over the orders of known histories, from :data:`POPULARITY_DAYS` before.
    """

    target: str
    orders: Mapping[date, Sequence[Order]]
    owned: Mapping[str, frozenset[str]]
    sold: Mapping[date, Mapping[str, int]]

    @classmethod
    def read(cls, canonical: Path, period: Period, *, target: str) -> Log:
        """Read the canonical events; the period and the four weeks before it are held in memory."""
        with frames.engine() as connection:
            events = with_history(frames.read(connection, canonical / "events.parquet"))
            events = events.filter((events.event_type == target) & events.item_id.notnull())
            start, end = ibis.literal(midnight(period.start)), ibis.literal(midnight(period.end))
            inside = events.filter((events.event_time >= start) & (events.event_time < end))
            orders = _orders(inside.order_by(["event_time", "event_id", "item_id"]).to_pyarrow().to_pylist())
            named = events.filter(events.history_id.notnull())
            before = named.filter(named.event_time < start)
            owned = before.select("history_id", "item_id").distinct().to_pyarrow()
            since = ibis.literal(midnight(period.start - POPULARITY_DAYS * ONE_DAY))
            recent = named.filter((named.event_time >= since) & (named.event_time < end))
            sold = recent.mutate(day=recent.event_time.date()).group_by(["day", "item_id"]).agg(n=lambda t: t.count())
            counted = sold.order_by(["day", "item_id"]).to_pyarrow()
        return cls(target, orders, _by_history(owned), _by_day(counted))

    def popular(self, day: date, n: int, *, without: frozenset[str] = frozenset()) -> list[str]:
        """Items most often bought in the days before, ties by id."""
        total: dict[str, int] = {}
        for back in range(1, POPULARITY_DAYS + 1):
            for item, count in self.sold.get(day - back * ONE_DAY, {}).items():
                total[item] = total.get(item, 0) + count
        ranked = sorted((item for item in total if item not in without), key=lambda item: (-total[item], item))
        return ranked[:n]


def _orders(rows: list[dict[str, Any]]) -> dict[date, list[Order]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["event_id"], []).append(row)
    by_day: dict[date, list[Order]] = {}
    for event_id, lines in found.items():
        time = lines[0]["event_time"].astimezone(UTC)
        products = tuple((line["item_id"], line["quantity"], line["price"]) for line in lines)
        who = (lines[0]["user_id"], lines[0]["visitor_id"], lines[0]["history_id"])
        order = Order(event_id, time, *who, products)
        by_day.setdefault(time.date(), []).append(order)
    return by_day


def _by_history(owned: pa.Table) -> dict[str, frozenset[str]]:
    items: dict[str, set[str]] = {}
    for history, item in zip(owned["history_id"].to_pylist(), owned["item_id"].to_pylist(), strict=True):
        items.setdefault(history, set()).add(item)
    return {history: frozenset(found) for history, found in items.items()}


def _by_day(counted: pa.Table) -> dict[date, dict[str, int]]:
    sold: dict[date, dict[str, int]] = {}
    for day, item, n in zip(*(counted[name].to_pylist() for name in ("day", "item_id", "n")), strict=True):
        sold.setdefault(day, {})[item] = n
    return sold
