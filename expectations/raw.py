"""Facts about the canonical tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow.parquet as pq

from expectations.runner import Check, expectation
from pipelines.adapters import frames
from pipelines.contracts import CATALOG, EVENTS, IMPRESSIONS, JUDGMENTS, LABELS, Table

DAY = 86_400.0


FEEDBACK = {
    "events": "events",
    "histories": "histories",
    "share_bad": "share of bad rows",
    "share_of_unknown_items": "share of rows of unknown items",
    "share_of_robots": "share of rows of robots",
    "share_repeated": "share of repeated rows",
    "share_of_the_busiest_history": "share of rows of the busiest history",
    "share_late": "share of rows that came over a day late",
    "share_ahead": "share of rows that came before they happened",
    "worst_median_delay_hours": "median hours from event to receipt, worst day",
}
"""Facts about the feedback by the names that the ingest's report gives them."""


def checks(
    canonical: Path, *, as_of: datetime, target: str | None, feedback: Mapping[str, Any] | None = None
) -> list[Check]:
    """What to judge about the tables in a folder; the rest as the ingest's report says it."""
    with frames.engine() as connection:
        tables = {
            name: frames.read(connection, canonical / f"{name}.parquet") for name in ("catalog", "events", "judgments")
        }
        catalog, events, judgments = tables.values()
        return [
            _check("raw_catalog", CATALOG, canonical, _catalog(catalog, as_of)),
            _check("raw_events", EVENTS, canonical, _events(events, catalog, as_of, target)),
            _check("raw_judgments", JUDGMENTS, canonical, _judgments(judgments, catalog)),
            _feedback(feedback),
            _shown(connection, canonical, as_of),
        ]


def _feedback(found: Mapping[str, Any] | None) -> Check:
    if not found or not found["rows"]:
        return Check("raw_feedback", None, "nothing was collected from the service")
    return Check("raw_feedback", [{name: found[key] for key, name in FEEDBACK.items()}])


def _shown(connection: ibis.BaseBackend, canonical: Path, as_of: datetime) -> Check:
    path = canonical / f"{IMPRESSIONS.name}.parquet"
    if not path.is_file():
        return Check("raw_impressions", None, "no list was shown")
    shown = frames.read(connection, path)
    before = [shown[f"{label}_at"] < shown.shown_at for label in LABELS.values()]
    facts = shown.agg(
        **_common(shown, IMPRESSIONS),
        **{
            "impressions at or after as_of": (shown.shown_at >= ibis.literal(as_of)).sum().fill_null(0),
            "weights below one": (shown.weight < 1).sum().fill_null(0),
            "share without propensity": _share(shown.propensity.isnull()),
            "share without position": _share(shown.position.isnull()),
            "share followed by an event from before": _share(ibis.or_(*before).fill_null(False)),  # noqa: FBT003
        },
    )
    return _check("raw_impressions", IMPRESSIONS, canonical, facts)


def _check(suite: str, table: Table, folder: Path, facts: ir.Table) -> Check:
    """Facts of one row with the contract's structure beside them; nothing to judge in an empty table."""
    path = folder / f"{table.name}.parquet"
    (row,) = facts.to_pyarrow().to_pylist()
    if row["rows"] == 0 and table is not CATALOG:
        return Check(suite, None, f"the shop has no {table.name}")
    found = {field.name: str(field.type) for field in pq.read_schema(path)}
    row |= {f"type of {name}": found.get(name, "missing") for name in table.names}
    return Check(suite, [row], structure=structure(table))


def structure(table: Table) -> tuple[dict[str, Any], ...]:
    """What the contract says about a table's columns, required values and key."""
    again = "run `dvc repro -f ingest`"
    types = [
        expectation(
            "expect_column_values_to_be_in_set",
            f"type of {field.name}",
            value_set=[str(field.type)],
            means="the contract's type",
            do=again,
        )
        for field in table.schema
    ]
    complete = [
        expectation(
            "expect_column_values_to_be_between",
            f"rows without {column.name}",
            max_value=0,
            means="required by the contract",
            do=again,
        )
        for column in table.columns
        if column.required
    ]
    means = f"rows beyond the first of each {', '.join(table.key)}"
    key = expectation("expect_column_values_to_be_between", "repeated keys", max_value=0, means=means, do=again)
    return (*types, *complete, key)


def _common(table: ir.Table, contract: Table) -> dict[str, ir.Scalar]:
    """Facts that every table's structure asks for."""
    empty = {
        f"rows without {c.name}": table[c.name].isnull().sum().fill_null(0) for c in contract.columns if c.required
    }
    key = ibis.struct({name: table[name] for name in contract.key})
    return {"rows": table.count(), "repeated keys": table.count() - key.nunique(), **empty}


def _share(condition: ir.BooleanValue) -> ir.FloatingScalar:
    return condition.cast("float64").mean().fill_null(0.0)


def _catalog(catalog: ir.Table, as_of: datetime) -> ir.Table:
    titles = catalog.group_by("title").agg(items=catalog.item_id.nunique())
    most = titles.items.max().as_scalar()
    prices = catalog.price
    return catalog.agg(
        **_common(catalog, CATALOG),
        **{
            "items": catalog.item_id.nunique(),
            "versions at or after as_of": (catalog.updated_at >= ibis.literal(as_of)).sum().fill_null(0),
            "lowest price": prices.min().fill_null(1.0),
            "share of versions without price": _share(prices.isnull()),
            "share of versions not available": _share(~catalog.available.fill_null(True)),  # noqa: FBT003
            "highest price over median price": (prices.max() / prices.median()).fill_null(1.0),
            "currencies": catalog.currency.nunique(),
            "share of items with the most frequent title": (most / catalog.item_id.nunique()).fill_null(0.0),
        },
    )


def _events(events: ir.Table, catalog: ir.Table, as_of: datetime, target: str | None) -> ir.Table:
    by_day = events.group_by(day=events.event_time.truncate("D")).agg(rows=events.count())
    before = by_day.mutate(
        gap=(by_day.day.epoch_seconds() - by_day.day.epoch_seconds().lag().over(order_by="day")) / DAY
    )
    owner = ibis.coalesce(events.user_id, events.visitor_id)
    owned = events.filter(owner.notnull())
    by_owner = owned.group_by(owner=ibis.coalesce(owned.user_id, owned.visitor_id)).agg(rows=owned.count())
    unknown = events.filter(events.item_id.notnull()).anti_join(catalog, "item_id")
    seconds = events.event_time.max().epoch_seconds()
    return events.agg(
        **_common(events, EVENTS),
        **{
            "events at or after as_of": (events.event_time >= ibis.literal(as_of)).sum().fill_null(0),
            "events of unknown items": unknown.count().as_scalar(),
            "events with a negative quantity": (events.quantity < 0).sum().fill_null(0),
            "events without event_id": events.event_id.isnull().sum().fill_null(0),
            "events of the target type": (events.event_type == (target or "")).sum().fill_null(0),
            "share of events without owner": _share(owner.isnull()),
            "share of events of the busiest owner": (by_owner.rows.max().as_scalar() / events.count()).fill_null(0.0),
            "share of events on the busiest day": (by_day.rows.max().as_scalar() / events.count()).fill_null(0.0),
            "longest gap in days": before.gap.max().as_scalar().fill_null(0.0),
            "days from first to last event": ((seconds - events.event_time.min().epoch_seconds()) / DAY).fill_null(0.0),
            "days from last event to as_of": ((ibis.literal(as_of).epoch_seconds() - seconds) / DAY).fill_null(0.0),
        },
    )


def _judgments(judgments: ir.Table, catalog: ir.Table) -> ir.Table:
    unknown = judgments.anti_join(catalog, "item_id")
    per_query = judgments.group_by("query").agg(best=judgments.gain.max())
    return judgments.agg(
        **_common(judgments, JUDGMENTS),
        **{
            "queries": judgments["query"].nunique(),
            "lowest gain": judgments.gain.min().fill_null(0.0),
            "judgments of unknown items": unknown.count().as_scalar(),
            "share of queries without any gain": per_query.agg(s=_share(per_query.best <= 0)).s.as_scalar(),
        },
    )
