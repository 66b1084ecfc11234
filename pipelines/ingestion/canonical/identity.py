"""Which rows are the same event, product, judgment or user, and which of them stays.

Events are identified by (``event_id``, ``item_id``). Within one file the lines of one identity are parts of
one row: quantities add up, the price becomes their quantity-weighted mean, the earliest line speaks for the
rest. Across files (the export before the feedback, each in order of paths) the first file's row stays; an
equal one is a duplicate, one with other content is quarantined as ``conflicting_copy``, as is a line whose
event type or owner differs from the line that speaks.

Versions of a product are identified by (``item_id``, ``updated_at``), users by ``user_id``: the last wins.
Judgments by (``query``, ``item_id``): the first wins, another gain is a conflict.
"""

from __future__ import annotations

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from pipelines.contracts import EVENTS, Table
from pipelines.ingestion.canonical.database import Database
from pipelines.ingestion.canonical.rules import BOOKKEEPING, to_json

CONFLICT = "conflicting_copy"
_OWN = ("event_type", "user_id", "visitor_id")


@ibis.udf.scalar.builtin(name="hash")  # type: ignore[untyped-decorator]
def hash_of(value: str) -> int:  # type: ignore[empty-body]
    """DuckDB's 64-bit hash; equal keys have equal hashes, and a collision only costs time."""


@dataclass(frozen=True)
class Resolved:
    """``kept``: the rows that stay; ``conflicts``: rows with :data:`BOOKKEEPING`; counts of rows dropped or merged."""

    kept: ir.Table
    conflicts: ir.Table | None = None
    duplicates: int = 0
    merged_lines: int = 0


def content(table: ir.Table, columns: tuple[str, ...]) -> ir.StringValue:
    """The values of these columns as one text: equal exactly when they are equal."""
    return to_json(ibis.struct({name: table[name] for name in columns}))


def with_event_ids(table: ir.Table) -> ir.Table:
    """Give rows without ``event_id`` the MD5 of their other values."""
    others = tuple(name for name in EVENTS.names if name != "event_id")
    derived = ibis.ifelse(table.event_id.isnull(), content(table, others).hexdigest("md5"), table.event_id)
    return table.mutate(event_id=derived)


def resolve_events(database: Database, good: ir.Table, *, name: str = EVENTS.name) -> Resolved:
    """One row an identity, of good rows that all have an ``event_id``; ``name`` marks intermediate tables."""
    key = good.event_id + "\x1f" + good.item_id.fill_null("\x1e")
    keyed = good.mutate(_key=hash_of(key))
    again = database.create(f"repeated_keys_of_{name}", keyed.group_by("_key").having(keyed.count() > 1).agg())
    alone = keyed.anti_join(again, "_key").select(*EVENTS.names)
    lines = database.create(f"repeated_lines_of_{name}", _spoken_for(keyed.semi_join(again, "_key")))
    merged = database.create(f"merged_lines_of_{name}", _merged(lines.filter(~lines["_conflict"])))
    first = merged.filter(merged["_place"] == 0)
    later = merged.filter((merged["_place"] > 0) & (merged["_content"] != merged["_first_content"]))
    conflicts = (
        lines.filter(lines["_conflict"])
        .select(*EVENTS.names, *BOOKKEEPING)
        .union(later.select(*EVENTS.names, *BOOKKEEPING))
    )
    conflicts = database.create(f"conflicting_{name}", _as_conflicts(conflicts, EVENTS))
    counts = database.rows(
        merged.agg(
            rows=merged.count(),
            duplicates=((merged["_place"] > 0) & (merged["_content"] == merged["_first_content"])).sum().fill_null(0),
            lines=merged["_lines"].sum().fill_null(0),
        )
    )[0]
    kept = alone.union(first.select(*EVENTS.names))
    return Resolved(kept, conflicts, int(counts["duplicates"]), int(counts["lines"] - counts["rows"]))


def _spoken_for(repeated: ir.Table) -> ir.Table:
    """Lines with ``_conflict``: whether they contradict the earliest line of their identity and file."""
    repeated = repeated.mutate(_content=content(repeated, EVENTS.names))
    window = ibis.window(
        group_by=["_origin", "_file", "event_id", "item_id"],
        order_by=["event_time", "_content"],
        preceding=None,
        following=0,
    )
    firsts = {f"_first_{name}": repeated[name].fill_null("").first(include_null=True).over(window) for name in _OWN}
    table = repeated.mutate(**firsts)
    differs = [table[name].fill_null("") != table[f"_first_{name}"] for name in _OWN]
    return table.mutate(_conflict=differs[0] | differs[1] | differs[2])


def _merged(lines: ir.Table) -> ir.Table:
    """One row per identity and file, with its place among the files of the identity."""
    order = [lines.event_time, lines["_content"]]
    weight = lines.quantity.fill_null(1.0)
    has_price = lines.price.notnull()
    speaks = {
        name: lines[name].first(order_by=order, include_null=True)
        for name in EVENTS.names
        if name not in ("event_id", "item_id", "quantity", "price")
    }
    grouped = lines.group_by(["_origin", "_file", "event_id", "item_id"]).agg(
        **speaks,
        _quantities=lines.quantity.collect(order_by=order),
        _prices=lines.price.collect(order_by=order),
        _spends=(lines.price * weight).collect(order_by=order),
        _weights=weight.collect(order_by=order, where=has_price),
        _lines=lines.count(),
    )
    weights = grouped["_weights"].sums()
    price = ibis.ifelse(weights > 0, grouped["_spends"].sums() / weights, grouped["_prices"].means())
    price = ibis.ifelse(grouped["_prices"].mins() == grouped["_prices"].maxs(), grouped["_prices"].mins(), price)
    grouped = grouped.mutate(quantity=grouped["_quantities"].sums(), price=price)
    grouped = grouped.mutate(_content=content(grouped, EVENTS.names))
    files = ibis.window(group_by=["event_id", "item_id"], order_by=["_origin", "_file"], preceding=None, following=0)
    placed = grouped.mutate(
        _place=ibis.row_number().over(files), _first_content=grouped["_content"].first(include_null=True).over(files)
    )
    nothing = {name: ibis.null(str) for name in ("_reason", "_repaired", "_row")}
    return placed.mutate(_line=ibis.null("int64"), **nothing)


def _as_conflicts(rows: ir.Table, contract: Table) -> ir.Table:
    return rows.mutate(_reason=ibis.literal(CONFLICT), _row=content(rows, contract.names))


def last_wins(database: Database, good: ir.Table, contract: Table) -> Resolved:
    """Of rows with one key the last (by file, then line) stays."""
    ordered = good.mutate(
        _back=ibis.row_number().over(
            ibis.window(
                group_by=list(contract.key), order_by=[ibis.desc("_origin"), ibis.desc("_file"), ibis.desc("_line")]
            )
        )
    )
    stored = database.create(f"ranked_{contract.name}", ordered)
    return Resolved(
        stored.filter(stored["_back"] == 0), None, int(database.value((stored["_back"] > 0).sum().fill_null(0)))
    )


def first_wins(database: Database, good: ir.Table, contract: Table) -> Resolved:
    """Of rows with one key the first stays; equal ones are duplicates, others conflicts."""
    told = good.mutate(_content=content(good, contract.names))
    window = ibis.window(
        group_by=list(contract.key), order_by=["_origin", "_file", "_line"], preceding=None, following=0
    )
    told = told.mutate(
        _place=ibis.row_number().over(window), _first=told["_content"].first(include_null=True).over(window)
    )
    stored = database.create(f"ranked_{contract.name}", told)
    conflicts = stored.filter((stored["_place"] > 0) & (stored["_content"] != stored["_first"]))
    same = ((stored["_place"] > 0) & (stored["_content"] == stored["_first"])).sum().fill_null(0)
    return Resolved(
        stored.filter(stored["_place"] == 0),
        _as_conflicts(conflicts.select(*contract.names, *BOOKKEEPING), contract),
        int(database.value(same)),
    )
