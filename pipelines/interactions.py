"""From events to interactions and targets: whose history an event belongs to, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import ibis
import ibis.expr.types as ir

from pipelines.contracts import INTERACTIONS, SEARCHES
from pipelines.splitting import Instant


def interactions(events: ir.Table, *, target: str | None, strengths: Mapping[str, float]) -> ir.Table:
    """Positive events about a product, one row per product of an event.

    Args:
        events: canonical events (``contracts.EVENTS``).
        target: event type to predict; None when the shop has none.
        strengths: weight per positive event type.

    Returns:
        Rows of ``contracts.INTERACTIONS``.
    """
    owned = with_history(events)
    positive = owned.filter(owned.event_type.isin(sorted(strengths)) & owned.item_id.notnull())
    strength = ibis.literal(0.0)
    for name, weight in sorted(strengths.items()):
        strength = ibis.ifelse(positive.event_type == name, float(weight), strength)
    quantity = ibis.coalesce(positive.quantity, 1.0)
    rows_of_event = positive.count().over(ibis.window(group_by=["event_id", "event_type"]))
    return positive.select(
        history_id=positive.history_id,
        item_id=positive.item_id,
        event_id=positive.event_id,
        event_type=positive.event_type,
        event_time=positive.event_time,
        strength=strength,
        target=ibis.ifelse(positive.event_type == (target or ""), 1.0, 0.0),
        event_share=1.0 / rows_of_event,
        quantity=quantity,
        spend=quantity * positive.price,
        query=positive.search_query,
    ).select(*INTERACTIONS.names)


def with_history(events: ir.Table) -> ir.Table:
    """Events with ``history_id``: the user, else the user that the visitor was last seen as, else the visitor.

    An event that names both links the visitor to the user from then on; what the visitor did before stays
    the visitor's.
    """
    order = ibis.window(group_by="visitor_id", order_by=["event_time", "event_id"], preceding=None, following=0)
    named = (events.visitor_id.notnull() & events.user_id.notnull()).cast("int64")
    linked = events.mutate(link=named.sum().over(order))
    since = ibis.window(group_by=["visitor_id", "link"])
    user = ibis.ifelse(
        linked.visitor_id.notnull() & (linked.link > 0), linked.user_id.max().over(since), ibis.null(str)
    )
    return linked.mutate(history_id=ibis.coalesce(linked.user_id, user, linked.visitor_id)).drop("link")


def cut(rows: ir.Table, time: datetime) -> ir.Table:
    """Interactions before an instant."""
    return rows.filter(rows.event_time < ibis.literal(time))


def cut_catalog(catalog: ir.Table, rows: ir.Table, time: datetime) -> ir.Table:
    """Catalogue versions known before an instant, and the first version of items that had events before it."""
    first = ibis.window(group_by="item_id", order_by=[ibis.asc("updated_at", nulls_first=True), "title"])
    numbered = catalog.mutate(version=ibis.row_number().over(first))
    before = numbered.updated_at.isnull() | (numbered.updated_at < ibis.literal(time))
    had_events = numbered.item_id.isin(cut(rows, time).item_id)
    return numbered.filter(before | ((numbered.version == 0) & had_events)).drop("version")


def targets(rows: ir.Table, instants: Sequence[Instant]) -> ir.Table:
    """What known users did in each instant's window: (instant, history_id, item_id, first_time).

    A known user has at least one event of the target type before the instant.
    """
    parts = []
    for instant in instants:
        wanted = rows.filter((rows.target > 0) & rows.history_id.notnull())
        known = cut(wanted, instant.time)
        inside = wanted.filter(
            (wanted.event_time >= ibis.literal(instant.time)) & (wanted.event_time < ibis.literal(instant.until))
        )
        inside = inside.filter(inside.history_id.isin(known.history_id))
        first = inside.group_by(["history_id", "item_id"]).aggregate(first_time=inside.event_time.min())
        parts.append(first.mutate(instant=ibis.literal(instant.name)))
    return ibis.union(*parts).select("instant", "history_id", "item_id", "first_time")


def searches(rows: ir.Table, instants: Sequence[Instant]) -> ir.Table:
    """What was chosen after a search in each instant's window, rows of ``contracts.SEARCHES``.

    However often and by however many an item was chosen, it has the strength of the strongest event: labels say
    what is right for a query, and not how many people asked.
    """
    parts = []
    for instant in instants:
        inside = rows.filter(
            rows["query"].notnull()
            & (rows.event_time >= ibis.literal(instant.time))
            & (rows.event_time < ibis.literal(instant.until))
        )
        chosen = inside.group_by(["query", "item_id"]).aggregate(
            gain=inside.strength.max(), first_time=inside.event_time.min()
        )
        parts.append(chosen.mutate(instant=ibis.literal(instant.name)))
    return ibis.union(*parts).select(*SEARCHES.names)
