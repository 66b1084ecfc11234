"""What makes a row bad, per canonical table, and what is merely emptied.

A bad row is left out, counted under the first reason that holds and kept in the quarantine. A row of the
catalogue or of users with a readable but unusable descriptive value (price not above zero, a currency that
is not three capital letters, attributes that are no JSON object) stays with that value emptied, because its
item is real; the original is in the quarantine too, marked ``kept``, and counted as repaired.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from pipelines.contracts import (
    ABOUT_NO_PRODUCT,
    CATALOG,
    EVENT_TYPES,
    EVENTS,
    IMPRESSIONS,
    JUDGMENTS,
    TABLES,
    USERS,
    Table,
)
from pipelines.ingestion.canonical.scans import MALFORMED

BOOKKEEPING = ("_file", "_line", "_origin", "_reason", "_repaired", "_row")
"""Beside the contract's columns, a staged table has: the file, the place of the row in its scan (or null),
0 for the export and 1 for feedback, why the row is bad (or null), why a value was emptied (or null), and the row as
JSON when one of the two is not null."""

CLOCKS_AHEAD = timedelta(days=1)
"""A clock that is wrong or a local time without its zone may be so far ahead; a later event is a slip, which would move
``as_of`` when that is the midnight after the newest event, and with it every instant."""

Condition = tuple[str, Callable[[ir.Table], ir.BooleanValue]]


@ibis.udf.scalar.builtin(name="to_json")  # type: ignore[untyped-decorator]
def _to_json(value) -> dt.json:  # type: ignore[no-untyped-def]  # noqa: ANN001  (of any type)
    """DuckDB's JSON of any value."""


def to_json(value: ir.Value) -> ir.StringValue:
    """JSON text of any value."""
    return _to_json(value).cast("string")


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def json_valid(value: str) -> bool:  # type: ignore[empty-body]
    """Whether a text is JSON (DuckDB)."""


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def json_type(value: str) -> str:  # type: ignore[empty-body]
    """Type of a JSON text (DuckDB)."""


def _blank(column: ir.StringValue) -> ir.BooleanValue:
    return column.fill_null("").strip() == ""


def _missing(name: str) -> Condition:
    return f"missing_{name}", lambda t: _blank(t[name])


BAD: dict[str, tuple[Condition, ...]] = {
    CATALOG.name: (_missing("item_id"), _missing("title")),
    EVENTS.name: (
        _missing("event_type"),
        ("unknown_event_type", lambda t: t.event_type.notin(EVENT_TYPES)),
        ("missing_event_time", lambda t: t.event_time.isnull()),
        ("event_time_in_the_future", lambda t: t.event_time > ibis.literal(datetime.now(UTC) + CLOCKS_AHEAD)),
        ("missing_item_id", lambda t: t.item_id.isnull() & t.event_type.notin(sorted(ABOUT_NO_PRODUCT))),
        ("unknown_item", lambda t: t.item_id.notnull() & t["_known"].isnull()),
        ("negative_quantity", lambda t: t.quantity < 0),
        ("negative_price", lambda t: t.price < 0),
        ("rating_out_of_range", lambda t: (t.rating < 1) | (t.rating > 5)),
        ("position_below_one", lambda t: t.position < 1),
        ("propensity_out_of_range", lambda t: (t.propensity <= 0) | (t.propensity > 1)),
    ),
    JUDGMENTS.name: (
        _missing("query"),
        _missing("item_id"),
        ("missing_gain", lambda t: t.gain.isnull()),
        ("negative_gain", lambda t: t.gain < 0),
        ("unknown_item", lambda t: t["_known"].isnull()),
    ),
    USERS.name: (_missing("user_id"),),
}


def _no_object(t: ir.Table) -> ir.BooleanValue:
    text = t.attributes
    return text.notnull() & ~ibis.ifelse(json_valid(text), json_type(text) == "OBJECT", False)  # noqa: FBT003


EMPTIED: dict[str, tuple[tuple[str, Condition], ...]] = {
    CATALOG.name: (
        ("price", ("price_not_above_zero", lambda t: t.price <= 0)),
        ("currency", ("currency_not_iso_4217", lambda t: ~t.currency.re_search("^[A-Z]{3}$"))),
        ("attributes", ("attributes_not_an_object", _no_object)),
    ),
    EVENTS.name: (("attributes", ("attributes_not_an_object", _no_object)),),
    USERS.name: (("attributes", ("attributes_not_an_object", _no_object)),),
    JUDGMENTS.name: (),
}
"""Columns that are emptied, and when."""

_NEEDS_ITEM = frozenset({EVENTS.name, JUDGMENTS.name})


def first_reason(table: ir.Table, conditions: tuple[Condition, ...]) -> ir.StringValue:
    """The first reason that holds, null when none does; a value that cannot be read comes before all."""
    unreadable = ibis.ifelse(table["_unreadable"] == MALFORMED, "malformed_line", "unparseable_" + table["_unreadable"])
    cases = [(condition(table), reason) for reason, condition in conditions]
    return ibis.cases((table["_unreadable"].notnull(), unreadable), *cases)


def as_text(raw: ir.Value) -> ir.StringValue:
    """The row as it came, as JSON."""
    return raw if isinstance(raw, ir.StringValue) else to_json(raw)


def checked(scanned: ir.Table, contract: Table, *, known: ir.Table | None = None) -> ir.Table:
    """Rows of a scan with their verdict: columns of the contract plus :data:`BOOKKEEPING`.

    Args:
        scanned: a scan with the contract's columns, as ``Reader.load`` hands it over.
        contract: one of the canonical tables.
        known: table with a column ``item_id`` of the catalogue's items; for events and judgments.
    """
    table = scanned
    if contract.name in _NEEDS_ITEM and known is not None:
        named = known.select(_known=known.item_id).distinct()
        table = table.left_join(named, table.item_id == named["_known"])
    table = table.mutate(_reason=first_reason(table, BAD[contract.name]))
    emptied = EMPTIED[contract.name]
    table = table.mutate(_repaired=_repairs(table, [condition for _, condition in emptied]))
    table = table.mutate(
        _row=ibis.ifelse(
            table["_reason"].notnull() | table["_repaired"].notnull(), as_text(table["_raw"]), ibis.null(str)
        ),
        **{
            column: ibis.ifelse(condition(table), ibis.null(table[column].type()), table[column])
            for column, (_, condition) in emptied
        },
    )
    if contract is CATALOG:
        table = table.mutate(available=table.available.fill_null(True))  # noqa: FBT003
    return table.select(*contract.names, *BOOKKEEPING)


def _repairs(table: ir.Table, conditions: list[Condition]) -> ir.StringValue:
    """All reasons that hold in a row that stays, joined by ``+``; null when none does."""
    text = ibis.literal("")
    for reason, condition in conditions:
        text = text + ibis.ifelse(condition(table).fill_null(False), f" {reason}", "")  # noqa: FBT003
    return ibis.ifelse(table["_reason"].isnull(), text.strip().replace(" ", "+"), "").nullif("")


def known_items(catalog: ir.Table) -> ir.Table:
    """Items that the staged catalogue has in any version."""
    return catalog.filter(catalog["_reason"].isnull()).select("item_id").distinct()


def empty(contract: Table) -> ir.Table:
    """A staged table without rows."""
    kinds = dict(zip(contract.names, ibis.schema(contract.schema).types, strict=True))
    kinds |= {name: dt.int64 if name in ("_line", "_origin") else dt.string for name in BOOKKEEPING}
    row = ibis.range(0, 0).unnest().name("_none").as_table()
    return row.select(**{name: ibis.null(kind) for name, kind in kinds.items()})


STAGED = {name: f"staged_{name}" for name in (*TABLES, IMPRESSIONS.name)}
"""Names of the staged tables in the database; impressions are staged as the events that they are."""
