"""Rows that came back from the service: impressions set apart, robots quarantined, and facts for the checks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from pipelines.contracts import EVENTS, IMPRESSIONS, LABELS, USERS, EventType
from pipelines.exclusions import USER, VISITOR, Exclusions
from pipelines.ingestion.canonical.database import Database
from pipelines.ingestion.canonical.identity import content
from pipelines.ingestion.canonical.impressions import rates
from pipelines.ingestion.canonical.rules import BOOKKEEPING, STAGED
from pipelines.params import FeedbackParams

ROBOT = "faster_than_a_person"
BY = ("position", "model_version")
"""What rates of impressions are reported by."""
FROM_FEEDBACK = 1
"""``_origin`` of rows that came back from the service."""


def quarantine_robots(work: Database, params: FeedbackParams) -> None:
    """Mark the feedback of histories that did more in an hour than a person can: all rows of such a day.

    The export is left alone: there, an hour may be a day's batch.
    """
    staged = _owned(work.table(STAGED[EVENTS.name]))
    candidates = staged.filter(
        (staged["_origin"] == FROM_FEEDBACK)
        & staged["_reason"].isnull()
        & staged["_owner"].notnull()
        & staged.event_type.isin(sorted(params.max_events_an_hour))
    )
    by = ["_owner", "_day", "event_type"]
    hourly = candidates.group_by(by, _hour=candidates.event_time.truncate("h")).agg(
        events=candidates.event_id.nunique() + candidates.event_id.isnull().sum()
    )
    limit = ibis.cases(*[(hourly.event_type == name, most) for name, most in sorted(params.max_events_an_hour.items())])
    fast = work.create("robots", hourly.filter(hourly.events > limit).select("_owner", "_day").distinct())
    if not work.value(fast.count()):
        return
    fast = fast.select(_robot=fast["_owner"], _at=fast["_day"])
    joined = staged.left_join(fast, [staged["_owner"] == fast["_robot"], staged["_day"] == fast["_at"]])
    found = joined["_robot"].notnull() & joined["_reason"].isnull() & (joined["_origin"] == FROM_FEEDBACK)
    marked = joined.mutate(
        _reason=ibis.ifelse(found, ROBOT, joined["_reason"]),
        _row=ibis.ifelse(found, content(joined, EVENTS.names), joined["_row"]),
    )
    _replace(work, EVENTS.name, marked)


def leave_out(work: Database, excluded: Exclusions) -> int:
    """Drop the rows of users who are to be forgotten, the quarantine's too; the number of rows.

    Of events those before the erasure, with the rows without user of visitors that the user was met as;
    of users those on the list.
    """
    if not excluded.entries:
        return 0
    until = pa.array([datetime.fromisoformat(one.erased_at) for one in excluded.entries], pa.timestamp("us", tz="UTC"))
    listed = work.put("excluded", pa.table({"_hash": [one.hash for one in excluded.entries], "_until": until}))
    events = work.table(STAGED[EVENTS.name])
    ids = {
        kind: work.create(f"excluded_{kind}s", _listed(events[f"{kind}_id"], kind, excluded.salt, listed))
        for kind in (USER, VISITOR)
    }
    theirs = events.inner_join(ids[USER], events.user_id == ids[USER].id)
    met = theirs.filter(theirs.visitor_id.notnull()).group_by(id=theirs.visitor_id).agg(_until=theirs["_until"].max())
    visitors = work.create(
        "excluded_met", ids[VISITOR].union(met).group_by("id").agg(_until=lambda t: t["_until"].max())
    )
    by_user = ids[USER].rename(_user="id", _user_end="_until")
    by_visitor = visitors.rename(_visitor="id", _visitor_end="_until")
    marked = events.left_join(by_user, events.user_id == by_user["_user"])
    marked = marked.left_join(by_visitor, marked.visitor_id == by_visitor["_visitor"])
    end = ibis.ifelse(marked.user_id.notnull(), marked["_user_end"], marked["_visitor_end"])
    before = int(work.value(events.count()))
    _replace(work, EVENTS.name, marked.filter(end.isnull() | (marked.event_time >= end).fill_null(False)))  # noqa: FBT003
    users = work.table(STAGED[USERS.name])
    gone = _listed(users.user_id, USER, excluded.salt, listed)
    _replace(work, USERS.name, users.anti_join(gone, users.user_id == gone.id), columns=USERS.names)
    return before - int(work.value(work.table(STAGED[EVENTS.name]).count()))


def _listed(ids: ir.StringColumn, kind: str, salt: str, listed: ir.Table) -> ir.Table:
    """Those of the ids that are on the list: ``id``, ``_until``."""
    distinct = ids.name("id").as_table().filter(lambda t: t.id.notnull()).distinct()
    hashed = distinct.mutate(_hash=(ibis.literal(f"{salt}:{kind}:") + distinct.id).hexdigest("sha256"))
    return hashed.inner_join(listed, "_hash").group_by("id").agg(_until=lambda t: t["_until"].max())


def set_impressions_apart(work: Database) -> bool:
    """Move good rows of type ``impression`` to a staged table of their own; whether there are any.

    Bad ones stay: they came with the events, and count among them.
    """
    staged = work.table(STAGED[EVENTS.name])
    good = ((staged.event_type == EventType.IMPRESSION) & staged["_reason"].isnull()).fill_null(False)  # noqa: FBT003
    shown = work.create(STAGED[IMPRESSIONS.name], staged.filter(good))
    if not work.value(shown.count()):
        return False
    _replace(work, EVENTS.name, staged.filter(~good))
    return True


def facts(work: Database, collected: Mapping[str, Any], impressions: ir.Table | None) -> dict[str, Any]:
    """What the checks and the report say about the feedback; JSON-able."""
    staged = work.table(STAGED[EVENTS.name]).union(work.table(STAGED[IMPRESSIONS.name]))
    rows = _owned(staged.filter(staged["_origin"] == FROM_FEEDBACK))
    known = rows.filter(rows["_reason"].isnull())
    events = known.filter(known.event_type != EventType.IMPRESSION)
    key = ibis.struct({"event_id": events.event_id, "item_id": events.item_id})
    busiest = events.filter(events["_owner"].notnull()).group_by("_owner").agg(rows=lambda t: t.count())
    counts = work.rows(
        rows.agg(
            rows=rows.count(),
            bad=rows["_reason"].notnull().sum().fill_null(0),
            unknown=(rows["_reason"] == "unknown_item").sum().fill_null(0),
            robots=(rows["_reason"] == ROBOT).sum().fill_null(0),
        )
    )[0]
    kept = work.rows(events.agg(events=events.count(), distinct=key.nunique(), owners=events["_owner"].nunique()))[0]
    most = work.value(busiest.rows.max().fill_null(0))
    total, usable = max(int(counts["rows"]), 1), max(int(kept["events"]), 1)
    return {
        "rows": int(counts["rows"]),
        "events": int(kept["events"]),
        "impressions": int(work.value((known.event_type == EventType.IMPRESSION).sum().fill_null(0))),
        "histories": int(kept["owners"]),
        "share_bad": int(counts["bad"]) / total,
        "share_of_unknown_items": int(counts["unknown"]) / total,
        "share_of_robots": int(counts["robots"]) / total,
        "share_repeated": (int(kept["events"]) - int(kept["distinct"])) / usable,
        "share_of_the_busiest_history": int(most or 0) / usable,
        **_delays(collected),
        "rates": {by: rates(work, impressions, by) for by in BY} if impressions is not None else {},
        "labels": sorted(LABELS.values()),
    }


def _delays(collected: Mapping[str, Any]) -> dict[str, float | None]:
    """Of the days whose arrival says something: shares of late and early rows, the worst day's median in hours."""
    days = [one for entry in collected.values() for one in entry["partitions"] if one["late"] is not None]
    rows = sum(day["rows"] for day in days)
    medians = [day["median_delay_s"] for day in days if day["median_delay_s"] is not None]
    return {
        "share_late": sum(day["late"] for day in days) / rows if rows else None,
        "share_ahead": sum(day["ahead"] for day in days) / rows if rows else None,
        "worst_median_delay_hours": max(medians) / 3600 if medians else None,
    }


def _owned(staged: ir.Table) -> ir.Table:
    return staged.mutate(_owner=ibis.coalesce(staged.user_id, staged.visitor_id), _day=staged.event_time.truncate("D"))


def _replace(work: Database, name: str, rows: ir.Table, columns: tuple[str, ...] = EVENTS.names) -> None:
    work.create("replacing", rows.select(*columns, *BOOKKEEPING))
    work.run(f'DROP TABLE "{STAGED[name]}"')
    work.run(f'ALTER TABLE replacing RENAME TO "{STAGED[name]}"')
