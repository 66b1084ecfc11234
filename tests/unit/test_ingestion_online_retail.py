"""The raw UCI table: purchases, what is none, and a catalogue that does not look ahead."""

# ruff: noqa: S608  (queries of our own)
from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.ingestion.canonical.ingest import Report, ingest
from pipelines.ingestion.canonical.snapshot import take
from pipelines.params import DataParams

SHIPPED = Path(__file__).parents[2] / "data" / "online_retail_ii"
HOLDOUT = "TIMESTAMPTZ '2010-11-03 00:00:00+00'"
HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"


def run(folder: Path, into: Path, **data: Any) -> Report:
    params = DataParams(**{"adapter": "online_retail", "path": str(folder), "max_bad_share": 0.9, **data})
    return ingest(take(params, home=into), params, home=into, artifacts=into)


def rows(into: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(into / "canonical" / f"{table}.parquet").to_pylist()


def sold(tmp_path: Path, lines: Sequence[str], *, header: str = HEADER, **data: Any) -> Report:
    folder = tmp_path / "raw"
    folder.mkdir(exist_ok=True)
    (folder / "sales.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return run(folder, tmp_path, **data)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    into = tmp_path_factory.mktemp("shipped")
    return run(SHIPPED, into, max_bad_share=0.2), into


def count(into: Path, query: str) -> int:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in ("events", "catalog"):
            path = into / "canonical" / f"{name}.parquet"
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
        ((found,),) = connection.execute(query).fetchall()
    return int(found)


def test_the_shipped_year_has_the_benchmarks_holdout_users(shipped: tuple[Report, Path]) -> None:
    users = count(
        shipped[1],
        f"SELECT count(DISTINCT user_id) FROM events WHERE event_time >= {HOLDOUT}"
        f" AND user_id IN (SELECT user_id FROM events WHERE event_time < {HOLDOUT})",
    )
    assert users == 1250


def test_the_shipped_year_has_the_benchmarks_candidates(shipped: tuple[Report, Path]) -> None:
    items = f"SELECT count(DISTINCT item_id) FROM events WHERE user_id IS NOT NULL AND event_time < {HOLDOUT}"
    assert count(shipped[1], items) == 3939


def test_of_the_shipped_year_every_line_is_accounted_for(shipped: tuple[Report, Path]) -> None:
    events = shipped[0].tables["events"]
    assert events.read == 502_938 == events.rows + events.merged_lines + sum(events.bad.values())
    assert events.bad == {
        "cancellation": 9877,
        "not_a_product": 2388,
        "quantity_not_above_zero": 2038,
        "price_not_above_zero": 1415,
    }
    assert shipped[0].as_of == datetime(2010, 12, 1, tzinfo=UTC)


def test_at_any_time_an_item_sold_before_has_a_version_in_the_catalogue(shipped: tuple[Report, Path]) -> None:
    orphans = count(
        shipped[1],
        "SELECT count(*) FROM events ANTI JOIN catalog"
        " ON events.item_id = catalog.item_id AND catalog.updated_at <= events.event_time",
    )
    assert orphans == 0


def test_two_runs_on_the_shipped_year_give_equal_bytes(shipped: tuple[Report, Path], tmp_path: Path) -> None:
    run(SHIPPED, tmp_path, max_bad_share=0.2)
    for table in ("canonical/catalog", "canonical/events", "canonical/users", "quarantine/events"):
        name = f"{table}.parquet"
        assert (tmp_path / name).read_bytes() == (shipped[1] / name).read_bytes(), name


def test_a_line_becomes_a_purchase_with_the_code_in_capitals(tmp_path: Path) -> None:
    sold(tmp_path, ["489434,  84596b , RED   MUG ,2,2009-12-01 07:45:00,1.5,13085.0,France"])
    (event,) = rows(tmp_path, "events")
    told = {name: value for name, value in event.items() if value is not None}
    assert told == {
        "event_id": "489434",
        "event_type": "purchase-complete",
        "event_time": datetime(2009, 12, 1, 7, 45, tzinfo=UTC),
        "user_id": "13085",
        "item_id": "84596B",
        "quantity": 2.0,
        "price": 1.5,
    }
    (item,) = rows(tmp_path, "catalog")
    assert (item["item_id"], item["title"], item["price"], item["currency"]) == ("84596B", "RED MUG", 1.5, "GBP")
    assert rows(tmp_path, "users") == [{"user_id": "13085", "attributes": '{"country":"France"}'}]


def test_a_customer_who_moves_keeps_the_first_country(tmp_path: Path) -> None:
    moves = [
        "1,84596B,MUG,1,2009-12-02 08:00:00,1.5,13085,Italy",
        "2,84596B,MUG,1,2010-05-01 08:00:00,1.5,13085,France",
    ]
    sold(tmp_path, moves)
    assert rows(tmp_path, "users") == [{"user_id": "13085", "attributes": '{"country":"Italy"}'}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("C1,22041,MUG,1,2010-01-01,1,1,UK", "cancellation"),
        ("1,22041,MUG,-1,2010-01-01,1,1,UK", "quantity_not_above_zero"),
        ("1,22041,MUG,1,2010-01-01,0,1,UK", "price_not_above_zero"),
        ("1,POST,POSTAGE,1,2010-01-01,1,1,UK", "not_a_product"),
        ("1,TEST001,This is a test product.,1,2010-01-01,1,1,UK", "not_a_product"),
        ("1,33333,,1,2010-01-01,1,1,UK", "missing_title"),
        ("1,22041,MUG,1,someday,1,1,UK", "unparseable_InvoiceDate"),
        (",22041,MUG,1,2010-01-01,1,1,UK", "missing_event_id"),
        ("1,,MUG,1,2010-01-01,1,1,UK", "missing_item_id"),
    ],
)
def test_a_line_that_is_no_purchase_is_quarantined_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    report = sold(tmp_path, ["0,22041,MUG,1,2010-01-01,1,1,UK", line])
    assert report.tables["events"].bad == {reason: 1}
    (row,) = pq.read_table(tmp_path / "quarantine" / "events.parquet").to_pylist()
    assert json.loads(row["row"])["StockCode"] == (line.split(",")[1] or None)
    assert row["file"] == "sales.csv"


def test_lines_of_an_invoice_add_up_even_a_minute_apart(tmp_path: Path) -> None:
    sold(tmp_path, ["1,22041,MUG,2,2010-01-01 10:01,1,1,UK", "1,22041,MUG,6,2010-01-01 10:00,2,1,UK"])
    (event,) = rows(tmp_path, "events")
    # 2 at 1.00 and 6 at 2.00: 8 for 14.00
    assert (event["quantity"], event["price"], event["event_time"].minute) == (8, 1.75, 0)


def test_a_line_without_customer_is_a_purchase_without_owner(tmp_path: Path) -> None:
    report = sold(tmp_path, ["1,22041,MUG,2,2010-01-01,1,,UK"])
    assert rows(tmp_path, "events")[0]["user_id"] is None
    assert rows(tmp_path, "users") == []
    assert [warning.reason for warning in report.warnings] == ["no_user_and_no_visitor"]


def test_the_older_spelling_and_american_dates_are_understood(tmp_path: Path) -> None:
    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    sold(tmp_path, ["536365,85123A,HOLDER,6,12/1/2010 8:26,2.55,17850,UK"], header=header)
    assert rows(tmp_path, "events")[0]["event_time"] == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def test_numbers_as_ids_in_parquet_become_their_digits(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    time = pa.array([datetime(2010, 1, 1)], pa.timestamp("us"))  # noqa: DTZ001
    columns = {"Invoice": [1], "StockCode": [22041], "Quantity": [1], "InvoiceDate": time, "Price": [1.0]}
    pq.write_table(pa.table({**columns, "Description": ["MUG"], "Customer ID": [7.0]}), tmp_path / "raw" / "a.parquet")
    run(tmp_path / "raw", tmp_path)
    (event,) = rows(tmp_path, "events")
    assert (event["event_id"], event["item_id"], event["user_id"]) == ("1", "22041", "7")


MONTHS = (
    "1,22041,NEW MUG,1,2010-01-05 10:00:00,3,1,UK",
    "2,22041,MUG,1,2010-01-10 10:00:00,1,1,France",
    "3,22041,MUG,1,2010-01-20 10:00:00,2,1,France",
    "4,22041,CUP,1,2010-02-02 10:00:00,5,1,UK",
    "5,22041,BOWL,1,2010-02-03 10:00:00,7,1,Spain",
)


def test_a_product_has_a_version_from_its_first_sale_and_one_a_month_dated_by_its_last_sale(tmp_path: Path) -> None:
    sold(tmp_path, MONTHS)
    assert [(r["title"], r["price"], r["updated_at"].strftime("%m-%d")) for r in rows(tmp_path, "catalog")] == [
        ("NEW MUG", 3, "01-05"),
        ("MUG", 2, "01-20"),  # twice of three; median of 3, 1, 2
        ("BOWL", 6, "02-03"),  # one each: the alphabetically first; median of 5, 7
    ]


def test_catalogue_and_users_know_nothing_at_or_after_as_of(tmp_path: Path) -> None:
    sold(tmp_path, MONTHS, as_of="2010-02-03")
    assert [row["title"] for row in rows(tmp_path, "catalog")] == ["NEW MUG", "MUG", "CUP"]
    assert json.loads(rows(tmp_path, "users")[0]["attributes"]) == {"country": "UK"}
    assert len(rows(tmp_path, "events")) == 4
