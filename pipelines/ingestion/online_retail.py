"""The raw UCI table Online Retail (data sets 352 and 502): one row per line of an invoice.

A product's id is its stock code in capitals; products are the codes that start with five digits. Lines that
are no purchase of a product (cancellations, postage, samples, corrections, nothing or less of it, for nothing
or less) are quarantined under their reason. Lines without a customer are purchases by nobody in particular.

The catalogue is derived, without looking ahead: a product has one version from its first sale, and one per
calendar month in which it was sold, dated by the last sale of that month, with the month's most frequent
description (ties: the alphabetically first) and median price. A product that never has a description has no
title, and its lines are quarantined.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath

import ibis
import ibis.expr.types as ir

from pipelines.contracts import CATALOG, EVENTS, USERS, Column, EventType, Table, Type
from pipelines.ingestion.canonical import rules
from pipelines.ingestion.canonical.adapter import Adapter, Source
from pipelines.ingestion.canonical.database import Database
from pipelines.ingestion.canonical.reading import Reader
from pipelines.ingestion.canonical.rules import BOOKKEEPING, to_json

SALES = Table(
    "sales",
    (
        Column("Invoice", Type.STRING, required=True),
        Column("StockCode", Type.STRING, required=True),
        Column("Description", Type.STRING),
        Column("Quantity", Type.FLOAT, required=True),
        Column("InvoiceDate", Type.TIMESTAMP, required=True),
        Column("Price", Type.FLOAT, required=True),
        Column("Customer ID", Type.STRING),
        Column("Country", Type.STRING),
    ),
    key=("Invoice", "StockCode"),
)

SPELLINGS = {
    "Invoice": ("InvoiceNo",),
    "Price": ("UnitPrice",),
    "Customer ID": ("CustomerID",),
}

PRODUCT_CODE = "^[0-9]{5}"
CURRENCY = "GBP"

NOT_A_PURCHASE: tuple[rules.Condition, ...] = (
    ("missing_event_id", lambda t: t["Invoice"].isnull()),
    ("missing_item_id", lambda t: t.item_id.fill_null("") == ""),
    ("missing_event_time", lambda t: t["InvoiceDate"].isnull()),
    ("cancellation", lambda t: t["Invoice"].upper().startswith("C")),
    ("not_a_product", lambda t: ~t.item_id.re_search(PRODUCT_CODE)),
    ("quantity_not_above_zero", lambda t: t["Quantity"].fill_null(0) <= 0),
    ("price_not_above_zero", lambda t: t["Price"].fill_null(0) <= 0),
)


def _sold(scanned: ir.Table) -> ir.Table:
    """Lines with cleaned values and their verdict."""
    table = scanned.mutate(
        item_id=scanned["StockCode"].strip().upper(),
        title=scanned["Description"].re_replace(r"\s+", " ").strip().nullif(""),
        user_id=scanned["Customer ID"].strip().re_replace(r"\.0$", "").nullif(""),
        customer_country=scanned["Country"].strip().nullif(""),
    )
    table = table.mutate(_reason=rules.first_reason(table, NOT_A_PURCHASE))
    return table.select(
        "item_id",
        "title",
        "user_id",
        "customer_country",
        "_file",
        "_line",
        "_origin",
        "_reason",
        event_id=table["Invoice"],
        event_time=table["InvoiceDate"],
        quantity=table["Quantity"],
        price=table["Price"],
        _repaired=ibis.null(str),
        _row=ibis.ifelse(table["_reason"].notnull(), rules.as_text(table["_raw"]), ibis.null(str)),
        _text=rules.as_text(table["_raw"]),
    )


def _stage(database: Database, reader: Reader, as_of: datetime | None) -> None:
    reader.load(SALES.name, "sales", _sold, numbered=False)
    sales = database.table("sales")
    good = sales.filter(sales["_reason"].isnull())
    if as_of is not None:
        good = good.filter(good.event_time < ibis.literal(as_of))
    database.create(rules.STAGED[CATALOG.name], _staged(_versions(good), CATALOG))
    database.create(rules.STAGED[USERS.name], _staged(_users(good), USERS))
    database.create(rules.STAGED[EVENTS.name], _events(sales, database.table(rules.STAGED[CATALOG.name])))


def _events(sales: ir.Table, catalog: ir.Table) -> ir.Table:
    """All lines as events; those of products without any title get their reason here."""
    titled = catalog.select(_titled=catalog.item_id).distinct()
    table = sales.left_join(titled, sales.item_id == titled["_titled"])
    untitled = table["_reason"].isnull() & table["_titled"].isnull()
    table = table.mutate(
        _reason=ibis.ifelse(untitled, "missing_title", table["_reason"]),
        _row=ibis.ifelse(untitled, table["_text"], table["_row"]),
        event_type=ibis.literal(EventType.PURCHASE_COMPLETE.value),
    )
    return _filled(table, EVENTS)


def _versions(good: ir.Table) -> ir.Table:
    """Versions of products; ``updated_at`` is never later than the last line that a version was made of."""
    monthly = _described(good.mutate(_period=good.event_time.truncate("M").cast(good.event_time.type())))
    opening = good.event_time.min().over(ibis.window(group_by="item_id"))
    first = good.mutate(_period=opening)
    first = _described(first.filter(first.event_time == first["_period"]))
    versions = monthly.union(first).distinct()
    pick = ibis.window(group_by=["item_id", "updated_at"], order_by=ibis.desc("_period"))
    versions = versions.mutate(_place=ibis.row_number().over(pick))
    return versions.filter(versions["_place"] == 0).mutate(
        currency=ibis.literal(CURRENCY),
        available=ibis.literal(True),  # noqa: FBT003
    )


def _described(lines: ir.Table) -> ir.Table:
    """Title, price and date per item and ``_period``; none where no line has a description."""
    by = ["item_id", "_period"]
    facts = lines.group_by(by).agg(price=lines.price.median(), updated_at=lines.event_time.max())
    titles = lines.filter(lines.title.notnull()).group_by([*by, "title"]).agg(_times=lambda t: t.count())
    pick = ibis.window(group_by=by, order_by=[ibis.desc("_times"), ibis.asc("title")])
    titles = titles.mutate(_place=ibis.row_number().over(pick))
    titles = titles.filter(titles["_place"] == 0).select(*by, "title")
    return titles.join(facts, by).select(*by, "title", "price", "updated_at")


def _users(good: ir.Table) -> ir.Table:
    """The country of each customer's first line: a later one would change what lies before an instant."""
    known = good.filter(good.user_id.notnull() & good.customer_country.notnull())
    pick = ibis.window(
        group_by="user_id", order_by=[ibis.asc("event_time"), ibis.asc("event_id"), ibis.asc("customer_country")]
    )
    first = known.mutate(_place=ibis.row_number().over(pick))
    first = first.filter(first["_place"] == 0)
    return first.select("user_id", attributes=to_json(ibis.struct({"country": first.customer_country})))


def _staged(table: ir.Table, contract: Table) -> ir.Table:
    """Derived rows: all good, from no file."""
    nothing = {name: ibis.null(str) for name in ("_reason", "_repaired", "_row")}
    return _filled(
        table.mutate(_file=ibis.literal(""), _line=ibis.null("int64"), _origin=ibis.literal(0), **nothing), contract
    )


def _filled(table: ir.Table, contract: Table) -> ir.Table:
    """Contract columns that the raw table has no word for are null."""
    types = dict(zip(contract.names, ibis.schema(contract.schema).types, strict=True))
    missing = {name: ibis.null(kind) for name, kind in types.items() if name not in table.columns}
    return table.mutate(**missing).select(*contract.names, *BOOKKEEPING)


def _source_of(path: PurePosixPath) -> str | None:
    return SALES.name if path.suffix.lower() in (".parquet", ".csv", ".jsonl") else None


ADAPTER = Adapter(
    sources={SALES.name: Source(SALES, required=True, aliases=SPELLINGS, ids_may_be_numbers=True)},
    source_of=_source_of,
    layout="the UCI table as .parquet or .csv files (an .xlsx saved as CSV in UTF-8)",
    stage=_stage,
)
