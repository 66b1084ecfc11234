"""What was shown, and what came of it: one row an item shown, with the first event of each kind that followed.

An event that cites a token belongs to that list. One that cites none belongs to the last list that showed its
item to its history before it. Either has to come within the window of its type.
"""

from __future__ import annotations

from datetime import datetime

import ibis
import ibis.expr.types as ir

from pipelines.contracts import IMPRESSIONS, LABELS
from pipelines.ingestion.canonical.database import Database
from pipelines.interactions import with_history
from pipelines.params import FeedbackParams


def labelled(
    database: Database, shown: ir.Table, events: ir.Table, *, end: datetime, params: FeedbackParams
) -> ir.Table:
    """Rows of ``contracts.IMPRESSIONS``.

    Args:
        database: where intermediate tables go.
        shown: rows of ``contracts.EVENTS`` of type ``impression``, identities resolved.
        events: all other events, identities resolved.
        end: nothing is known at or after it; a window that reaches beyond is still open.
        params: windows, maturity, the largest weight.
    """
    owned = with_history(events)
    lists = shown.select(
        "attribution_token",
        "item_id",
        "position",
        "propensity",
        "placement",
        "model_version",
        impression_id=shown.event_id,
        shown_at=shown.event_time,
        history_id=ibis.coalesce(shown.user_id, shown.visitor_id),
        weight=ibis.least(1.0 / ibis.coalesce(shown.propensity, 1.0), params.max_weight),
    )
    table = database.create("shown_lists", lists)
    for event_type, name in LABELS.items():
        hours = params.attribution_hours.get(event_type)
        if hours is None:
            nothing = {name: ibis.null("float64"), f"{name}_at": ibis.null("timestamp('UTC', 6)")}
            table = table.mutate(**nothing)
            continue
        of_type = owned.filter((owned.event_type == event_type) & owned.item_id.notnull())
        first = database.create(f"{name}_followed", _followed(database.table("shown_lists"), of_type, hours))
        table = table.left_join(first, ["impression_id", "item_id"]).drop("impression_id_right", "item_id_right")
        table = table.rename({f"{name}_at": "first_at"})
        over = table.shown_at + ibis.interval(seconds=round((hours + params.maturity_hours) * 3600)) <= ibis.literal(
            end
        )
        label = ibis.ifelse(table[f"{name}_at"].notnull(), 1.0, 0.0)
        table = table.mutate(**{name: ibis.ifelse(over, label, ibis.null("float64"))})
    return table.select(*IMPRESSIONS.names)


def _followed(lists: ir.Table, events: ir.Table, hours: float) -> ir.Table:
    """Per impression and item, ``first_at``: when the first of these events came that belongs to it."""
    window = ibis.interval(seconds=round(hours * 3600))
    keys = lists.select("impression_id", "attribution_token", "item_id", "history_id", "shown_at")
    citing = events.filter(events.attribution_token.notnull())
    citing = citing.select("event_time", _token=citing.attribution_token, _item=citing.item_id)
    by_token = keys.inner_join(
        citing, [keys.attribution_token == citing["_token"], keys.item_id == citing["_item"]]
    ).filter(lambda t: t.event_time <= t.shown_at + window)
    silent = events.filter(events.attribution_token.isnull() & events.history_id.notnull())
    silent = silent.select("event_id", "event_time", _owner=silent.history_id, _item=silent.item_id)
    near = keys.inner_join(silent, [keys.history_id == silent["_owner"], keys.item_id == silent["_item"]]).filter(
        lambda t: (t.event_time >= t.shown_at) & (t.event_time <= t.shown_at + window)
    )
    latest = ibis.window(group_by=["event_id", "_item"], order_by=[ibis.desc("shown_at"), ibis.desc("impression_id")])
    by_history = near.mutate(_place=ibis.row_number().over(latest)).filter(lambda t: t["_place"] == 0)
    columns = ("impression_id", "item_id", "event_time")
    found = by_token.select(*columns).union(by_history.select(*columns))
    return found.group_by(["impression_id", "item_id"]).agg(first_at=found.event_time.min())


def rates(database: Database, impressions: ir.Table, by: str) -> list[dict[str, object]]:
    """Per value of a column: items shown and, per label, how many windows are over and the share of ones.

    At most the 50 values shown most; a rate is null where no window is over.
    """
    known = {f"{name}_known": impressions[name].count() for name in LABELS.values()}
    shares = {f"{name}_rate": impressions[name].mean() for name in LABELS.values()}
    grouped = impressions.group_by(by).agg(shown=impressions.count(), **known, **shares)
    return database.rows(grouped.order_by([ibis.desc("shown"), by]).limit(50))
