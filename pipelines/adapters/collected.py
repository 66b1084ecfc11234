"""Collected partitions, counted in the engine: what monitoring asks of days that may not fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from pipelines import feedback
from pipelines.adapters import frames
from pipelines.monitoring.traffic import ShownDay, Sold, Traffic


def traffic(home: Path, *, since: datetime, days: int, target: str) -> Traffic:
    """The newest days with events at or after ``since``; without any partition, nothing.

    Args:
        home: ``FUSELINE_HOME``.
        since: the champion's ``as_of``.
        days: at most so many.
        target: event type that the models predict.
    """
    partitions = [one for entry in (feedback.read(home) or {}).values() for one in entry.partitions]
    files: dict[str, dict[str, list[Path]]] = {feedback.EVENTS: {}, feedback.IMPRESSIONS: {}}
    for one in sorted(partitions, key=lambda partition: partition.path):
        files[one.kind].setdefault(one.day, []).append(home / feedback.FEEDBACK / one.path)
    first = since.astimezone(UTC).date().isoformat()
    newest = [day for day in sorted(files[feedback.EVENTS]) if day >= first][-days:]
    if not newest:
        return Traffic()
    before = sorted(day for day in files[feedback.EVENTS] if day < first)[-days:]
    with frames.engine() as connection:
        events = _of(connection, files[feedback.EVENTS], newest)
        lists = _of(connection, files[feedback.IMPRESSIONS], newest)
        assert events is not None  # noqa: S101 - there are days
        events = events.filter(events.event_time >= ibis.literal(since.astimezone(UTC)))
        return Traffic(
            days=newest,
            newest=_newest(events),
            types=_counted(events.group_by("event_type").agg(n=events.event_id.nunique())),
            types_before=_types(_of(connection, files[feedback.EVENTS], before)),
            sold=_sold(events.filter(events.event_type == target)),
            **(_exposure(lists, events.filter(events.event_type == target)) if lists is not None else {}),
        )


def _of(connection: ibis.BaseBackend, by_day: Mapping[str, list[Path]], days: Iterable[str]) -> ir.Table | None:
    paths = [str(path) for day in days for path in by_day.get(day, ())]
    return connection.read_parquet(paths) if paths else None


def _newest(events: ir.Table) -> datetime | None:
    found: datetime | None = events.event_time.max().to_pyarrow().as_py()
    return found


def _types(events: ir.Table | None) -> dict[str, int]:
    return {} if events is None else _counted(events.group_by("event_type").agg(n=events.event_id.nunique()))


def _counted(table: ir.Table) -> dict[str, int]:
    """A table of a name and ``n``."""
    rows = table.to_pyarrow().to_pylist()
    name = next(column for column in table.columns if column != "n")
    return {str(row[name]): int(row["n"]) for row in sorted(rows, key=lambda row: str(row[name]))}


def _sold(events: ir.Table) -> list[Sold]:
    named = events.filter(events.item_id.notnull())
    rows = named.group_by(["item_id", "price"]).agg(n=named.count()).to_pyarrow().to_pylist()
    return [Sold(row["item_id"], row["price"], int(row["n"])) for row in rows]


def _exposure(shown: ir.Table, targets: ir.Table) -> dict[str, Any]:
    """What was shown: by item, by day with conversions, by fallback, and how long it took."""
    about = shown.attributes.cast("json")
    shown = shown.mutate(day=shown.event_time.date(), fallback=about["fallback"].str, took_ms=about["took_ms"].float)
    lists = shown.group_by("event_id").agg(
        day=shown.day.min(), fallback=shown.fallback.max(), took_ms=shown.took_ms.max()
    )
    cited = targets.filter(targets.attribution_token.notnull()).select(cited_by="attribution_token").distinct()
    joined = lists.left_join(cited, lists.event_id == cited.cited_by)
    by_day = joined.group_by("day").agg(lists=joined.count(), converted=joined.cited_by.count())
    simpler = lists.filter(lists.fallback.notnull())
    days = by_day.order_by("day").to_pyarrow().to_pylist()
    return {
        "shown": _counted(shown.group_by("item_id").agg(n=shown.count())),
        "by_day": [ShownDay(row["day"].isoformat(), int(row["lists"]), int(row["converted"])) for row in days],
        "fallbacks": _counted(simpler.group_by("fallback").agg(n=simpler.count())),
        "p99_ms": lists.took_ms.quantile(0.99).to_pyarrow().as_py(),
    }
