"""The canonical export: every rule of the contract on shops of a few rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts import TABLES
from pipelines.errors import InputError, ParamsError
from pipelines.ingestion.canonical.ingest import Report, ingest
from pipelines.ingestion.canonical.snapshot import take
from pipelines.params import DataParams

CATALOG = "item_id,title\na,Apple\nb,Bread\n"
NOON = "2024-01-02T12:00:00Z"


@dataclass(frozen=True)
class Ingested:
    report: Report
    artifacts: Path

    def rows(self, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.artifacts / "canonical" / f"{table}.parquet").to_pylist()

    def quarantine(self, table: str) -> list[dict[str, Any]]:
        return pq.read_table(self.artifacts / "quarantine" / f"{table}.parquet").to_pylist()

    def warnings(self) -> dict[str, int]:
        return {warning.reason: warning.rows for warning in self.report.warnings}


class Shop:
    """An export below a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, content: str | bytes | pa.Table | list[dict[str, Any]], below: str = "export") -> Shop:
        path = self.root / below / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list) and path.suffix == ".parquet":
            content = pa.Table.from_pylist(content)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self

    def ingest(self, **data: Any) -> Ingested:
        params = DataParams(**{"adapter": "shop", "path": str(self.root / "export"), "max_bad_share": 0.9, **data})
        artifacts = self.root / "artifacts"
        home = self.root / "home"
        return Ingested(ingest(take(params, home=home), params, home=home, artifacts=artifacts), artifacts)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path).put("catalog/a.csv", CATALOG)


def event(**values: Any) -> dict[str, Any]:
    return {"event_type": "purchase-complete", "event_time": NOON, "user_id": "u", "item_id": "a", **values}


def balances(report: Report) -> bool:
    return all(
        t.read == t.rows + t.cut + sum(t.bad.values()) + t.duplicates + t.merged_lines for t in report.tables.values()
    )


def test_only_a_catalogue_is_enough_and_other_tables_are_empty_with_their_schema(shop: Shop) -> None:
    done = shop.ingest()
    assert [row["item_id"] for row in done.rows("catalog")] == ["a", "b"]
    for name, table in TABLES.items():
        assert pq.read_schema(done.artifacts / "canonical" / f"{name}.parquet").equals(table.schema)
    assert done.report.target is None
    assert done.report.as_of == datetime(1970, 1, 1, tzinfo=UTC)


def test_as_of_of_a_dated_catalogue_is_midnight_after_its_newest_version(tmp_path: Path) -> None:
    shop = Shop(tmp_path).put("catalog/a.csv", "item_id,title,updated_at\na,A,2024-05-01T10:00:00Z\n")
    assert shop.ingest().report.as_of == datetime(2024, 5, 2, tzinfo=UTC)


def test_csv_keeps_ids_byte_for_byte_in_any_script_with_bom_quotes_and_windows_lines(tmp_path: Path) -> None:
    text = '\ufeffitem_id,title,description\r\n00123,Лампа,"two\r\nlines, ""quoted"""\r\n 7 ,台灯,\r\n1e5,x,y\r\n'
    shop = Shop(tmp_path).put("catalog/a.csv", text)
    rows = {row["item_id"]: row for row in shop.ingest().rows("catalog")}
    assert set(rows) == {"00123", " 7 ", "1e5"}
    assert rows["00123"]["title"] == "Лампа"
    assert rows["00123"]["description"].replace("\r", "") == 'two\nlines, "quoted"'
    assert rows[" 7 "]["title"] == "台灯"
    assert rows[" 7 "]["description"] is None


def test_semicolons_and_tabs_are_understood(tmp_path: Path) -> None:
    shop = Shop(tmp_path).put("catalog/a.csv", "item_id;title\na;A, B\n").put("catalog/b.csv", "item_id\ttitle\nb\tB\n")
    assert [row["title"] for row in shop.ingest().rows("catalog")] == ["A, B", "B"]


def test_a_column_without_a_name_as_pandas_writes_its_index_is_ignored(tmp_path: Path) -> None:
    done = Shop(tmp_path).put("catalog/a.csv", ",item_id,title\n0,a,A\n1,b,B\n").ingest()
    assert [row["title"] for row in done.rows("catalog")] == ["A", "B"]


def test_the_three_formats_in_any_nesting_give_the_same_rows(tmp_path: Path) -> None:
    price = {"item_id": "00123", "title": "T", "price": 1.5, "available": False, "attributes": '{"k": "v"}'}
    csv = 'item_id,title,price,available,attributes\n00123,T,1.5,false,"{""k"": ""v""}"\n'
    found = []
    for number, (name, content) in enumerate({"x/y/a.parquet": [price], "a.CSV": csv, "dt=1/a.jsonl": [price]}.items()):
        found.append(Shop(tmp_path / str(number)).put(f"catalog/{name}", content).ingest().rows("catalog"))
    assert found[0] == found[1] == found[2]
    assert found[0][0]["price"] == 1.5
    assert found[0][0]["available"] is False


def test_attributes_may_be_a_map_a_struct_or_a_json_object(tmp_path: Path) -> None:
    as_map = pa.table(
        {"item_id": ["a"], "title": ["A"], "attributes": pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))}
    )
    shop = Shop(tmp_path).put("catalog/a.parquet", as_map)
    shop.put("catalog/b.parquet", [{"item_id": "b", "title": "B", "attributes": {"k": "v"}}])
    shop.put("catalog/c.jsonl", [{"item_id": "c", "title": "C", "attributes": {"k": "v"}}])
    assert [json.loads(row["attributes"]) for row in shop.ingest().rows("catalog")] == [{"k": "v"}] * 3


def test_available_defaults_to_true(shop: Shop) -> None:
    assert all(row["available"] for row in shop.ingest().rows("catalog"))


def test_catalogue_values_that_make_no_sense_are_emptied_counted_and_kept_in_the_quarantine(tmp_path: Path) -> None:
    text = "item_id,title,price,currency,attributes\na,A,-1,euro,nope\nb,B,0,EUR,\nc,C,2,EUR,{}\n"
    done = Shop(tmp_path).put("catalog/a.csv", text).ingest()
    assert [(r["price"], r["currency"], r["attributes"]) for r in done.rows("catalog")] == [
        (None, None, None),
        (None, "EUR", None),
        (2.0, "EUR", "{}"),
    ]
    report = done.report.tables["catalog"]
    assert report.bad == {}
    assert report.repaired == {
        "price_not_above_zero": 1,
        "price_not_above_zero+currency_not_iso_4217+attributes_not_an_object": 1,
    }
    assert [json.loads(row["row"])["price"] for row in done.quarantine("catalog") if row["kept"]] == ["0", "-1"]


def test_versions_before_as_of_are_kept_the_last_of_equal_dates_wins_and_later_ones_are_cut(tmp_path: Path) -> None:
    text = "item_id,title,updated_at\na,undated,\na,old,2024-01-01\na,new,2024-01-05\n"
    text += "a,newer,2024-01-05\na,late,2024-02-01\n"
    done = Shop(tmp_path).put("catalog/a.csv", text).ingest(as_of="2024-02-01")
    assert [row["title"] for row in done.rows("catalog")] == ["undated", "old", "newer"]
    report = done.report.tables["catalog"]
    assert (report.duplicates, report.cut) == (1, 1)
    assert balances(done.report)


def test_an_item_met_before_as_of_keeps_its_oldest_version_even_if_all_are_later(tmp_path: Path) -> None:
    text = "item_id,title,updated_at\na,first,2024-06-01\na,second,2024-07-01\nb,not met,2024-06-01\n"
    done = Shop(tmp_path).put("catalog/a.csv", text).put("events/e.jsonl", [event()]).ingest()
    assert [(row["title"], row["updated_at"]) for row in done.rows("catalog")] == [("first", None)]
    assert done.warnings()["only_later_versions"] == 1
    assert done.report.tables["catalog"].cut == 2
    assert balances(done.report)


BAD_EVENTS: dict[str, dict[str, Any]] = {
    "unknown_event_type": {"event_type": "bought"},
    "missing_event_type": {"event_type": None},
    "unparseable_event_time": {"event_time": "yesterday"},
    "missing_event_time": {"event_time": None},
    "event_time_in_the_future": {"event_time": "2199-12-31T00:00:00Z"},
    "missing_item_id": {"item_id": None},
    "unknown_item": {"item_id": "zzz"},
    "negative_quantity": {"quantity": -1},
    "negative_price": {"price": -0.5},
    "rating_out_of_range": {"event_type": "review", "rating": 6},
    "position_below_one": {"event_type": "impression", "position": 0},
    "propensity_out_of_range": {"event_type": "impression", "propensity": 0},
    "unparseable_position": {"event_type": "impression", "position": 1.5},
    "unparseable_user_id": {"user_id": 7},
    "unparseable_quantity": {"quantity": "many"},
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    rows = [event(event_id=f"good-{n}", quantity=1, price=2, rating=5, position=1, propensity=1) for n in range(3)]
    rows += [event(event_id=reason, **values) for reason, values in BAD_EVENTS.items()]
    shop = Shop(tmp_path_factory.mktemp("bad")).put("catalog/a.csv", CATALOG).put("events/e.jsonl", rows)
    shop.put("events/broken.jsonl", '{"event_type": "search", "event_time": "2024-01-02"}\n{"cut of\n[1]\n\n')
    return shop.ingest()


@pytest.mark.parametrize("reason", BAD_EVENTS)
def test_a_bad_event_is_quarantined_with_its_reason_its_file_and_the_row_as_it_came(bad: Ingested, reason: str) -> None:
    (row,) = [row for row in bad.quarantine("events") if row["reason"] == reason]
    assert row["file"] == "events/e.jsonl"
    assert json.loads(row["row"]) == event(event_id=reason, **BAD_EVENTS[reason])
    assert bad.report.tables["events"].bad[reason] == 1


def test_one_event_of_the_far_future_does_not_move_the_end_of_the_data(bad: Ingested) -> None:
    assert bad.report.as_of.year == 2024


def test_lines_that_are_no_json_object_are_bad_rows_and_blank_lines_are_nothing(bad: Ingested) -> None:
    assert bad.report.tables["events"].bad["malformed_line"] == 2
    assert {row["row"] for row in bad.quarantine("events") if row["reason"] == "malformed_line"} == {'{"cut of', "[1]"}


def test_good_rows_beside_bad_ones_stay_and_the_counts_balance(bad: Ingested) -> None:
    assert {row["event_id"] for row in bad.rows("events") if row["item_id"]} == {"good-0", "good-1", "good-2"}
    assert balances(bad.report)


def test_csv_lines_with_too_few_or_too_many_fields_are_bad_rows(shop: Shop) -> None:
    shop.put("catalog/b.csv", "item_id,title\nc,C\nonly\nd,D,E,F\n")
    done = shop.ingest()
    assert [row["item_id"] for row in done.rows("catalog")] == ["a", "b", "c"]
    assert done.report.tables["catalog"].bad == {"malformed_line": 2}
    assert {json.loads(row["row"])["line"] for row in done.quarantine("catalog")} == {"only", "d,D,E,F"}


def test_an_event_about_no_product_needs_no_item(shop: Shop) -> None:
    rows = [event(event_type=kind, item_id=None) for kind in ("search", "home-page-view", "category-page-view")]
    assert len(shop.put("events/e.jsonl", rows).ingest().rows("events")) == 3


def test_times_are_utc_with_zone_without_and_as_a_day(shop: Shop) -> None:
    times = ["2024-01-02T01:00:00+01:00", "2024-01-02 00:00:00", "2024-01-02", "2024-01-02T00:00:00.000Z"]
    rows = [event(event_id=str(n), event_time=time) for n, time in enumerate(times)]
    assert {row["event_time"] for row in shop.put("events/e.jsonl", rows).ingest().rows("events")} == {
        datetime(2024, 1, 2, tzinfo=UTC)
    }


def test_a_null_typed_column_and_dictionary_text_are_read(tmp_path: Path) -> None:
    columns = {
        "item_id": pa.array(["a"]).dictionary_encode(),
        "title": ["A"],
        "price": pa.nulls(1),
        "brand": pa.nulls(1),
    }
    (row,) = Shop(tmp_path).put("catalog/a.parquet", pa.table(columns)).ingest().rows("catalog")
    assert (row["item_id"], row["price"], row["brand"]) == ("a", None, None)


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("ms", "America/New_York"), pa.date32()])
def test_every_timestamp_type_of_parquet_is_read(shop: Shop, kind: pa.DataType) -> None:
    value = date(2024, 1, 2) if kind == pa.date32() else datetime(2024, 1, 2, tzinfo=UTC if kind.tz else None)
    columns = {"event_type": ["search"], "event_time": pa.array([value], kind)}
    (row,) = shop.put("events/e.parquet", pa.table(columns)).ingest().rows("events")
    assert row["event_time"] == datetime(2024, 1, 2, tzinfo=UTC)


def test_nan_is_missing_and_infinity_cannot_be_read(shop: Shop) -> None:
    rows = [event(event_id="nan", price=float("nan")), event(event_id="inf", price=float("inf"))]
    table = pa.Table.from_pylist([{**row, "event_time": datetime(2024, 1, 2, tzinfo=UTC)} for row in rows])
    done = shop.put("events/e.parquet", table).ingest()
    assert [row["price"] for row in done.rows("events")] == [None]
    assert done.report.tables["events"].bad == {"unparseable_price": 1}


def test_without_event_id_it_is_the_hash_of_the_row_in_every_format(tmp_path: Path) -> None:
    row = event(quantity=2.0, price=1.5)
    csv = "event_type,event_time,user_id,item_id,quantity,price\npurchase-complete,2024-01-02 12:00:00,u,a,2,1.50\n"
    typed = {**row, "event_time": datetime(2024, 1, 2, 12, tzinfo=UTC)}
    ids = set()
    for number, (name, content) in enumerate({"e.jsonl": [row], "e.csv": csv, "e.parquet": [typed]}.items()):
        shop = Shop(tmp_path / str(number)).put("catalog/a.csv", CATALOG).put(f"events/{name}", content)
        ids |= {r["event_id"] for r in shop.ingest().rows("events")}
    assert len(ids) == 1
    assert len(ids.pop()) == 32


def test_repeated_lines_of_a_file_add_up_and_their_price_is_the_weighted_mean(shop: Shop) -> None:
    # 2 at 1.00 and 1 at 4.00: 3 pieces for 6.00, 2.00 each
    rows = [event(event_id="1", quantity=2, price=1), event(event_id="1", quantity=1, price=4)]
    done = shop.put("events/e.jsonl", [*rows, event(event_id="1", item_id="b")]).ingest()
    assert [(r["item_id"], r["quantity"], r["price"]) for r in done.rows("events")] == [("a", 3, 2), ("b", None, None)]
    assert done.report.tables["events"].merged_lines == 1
    assert balances(done.report)


def test_a_copy_in_a_later_file_is_a_duplicate_and_another_content_is_quarantined_without_stopping(shop: Shop) -> None:
    first, other = event(event_id="1", quantity=1), event(event_id="1", quantity=5)
    shop.put("events/1.jsonl", [first]).put("events/2.jsonl", [first]).put("events/3.jsonl", [other])
    done = shop.ingest(max_bad_share=0.0)
    assert [row["quantity"] for row in done.rows("events")] == [1]
    report = done.report.tables["events"]
    assert (report.duplicates, report.bad) == (1, {"conflicting_copy": 1})
    (row,) = done.quarantine("events")
    assert row["file"] == "events/3.jsonl"
    assert json.loads(row["row"])["quantity"] == 5
    assert balances(done.report)


def test_lines_of_one_identity_with_different_owners_conflict(shop: Shop) -> None:
    rows = [event(event_id="1", quantity=1), event(event_id="1", quantity=1, user_id="v", event_time="2024-01-03")]
    done = shop.put("events/e.jsonl", rows).ingest()
    assert [row["user_id"] for row in done.rows("events")] == ["u"]
    assert done.report.tables["events"].bad == {"conflicting_copy": 1}


def test_events_without_owner_are_kept_with_a_warning(shop: Shop) -> None:
    done = shop.put("events/e.jsonl", [event(user_id=None), event(user_id=None, visitor_id="v")]).ingest(
        max_bad_share=0.0
    )
    assert len(done.rows("events")) == 2
    assert done.warnings()["no_user_and_no_visitor"] == 1


def test_as_of_is_midnight_after_the_newest_good_event(shop: Shop) -> None:
    rows = [event(event_time="2024-01-02T00:00:00Z"), event(event_time="2024-03-01", item_id="unknown")]
    assert shop.put("events/e.jsonl", rows).ingest().report.as_of == datetime(2024, 1, 3, tzinfo=UTC)


def test_rows_at_or_after_as_of_are_cut_and_are_not_bad(shop: Shop) -> None:
    rows = [event(event_id=str(n), event_time=f"2024-01-0{n}") for n in (1, 2, 3)]
    rows.append(event(event_id="late and bad", event_time="2024-01-03", item_id="unknown"))
    done = shop.put("events/e.jsonl", rows).ingest(as_of="2024-01-02", max_bad_share=0.0)
    assert [row["event_id"] for row in done.rows("events")] == ["1"]
    assert done.report.tables["events"].cut == 3
    assert balances(done.report)


def test_an_as_of_before_all_events_stops_and_names_both_times(shop: Shop) -> None:
    shop.put("events/e.jsonl", [event()])
    with pytest.raises(InputError, match=r"as_of 2020-01-01.*first event 2024-01-02.*next: correct data.as_of"):
        shop.ingest(as_of="2020-01-01")


def test_feedback_partitions_are_read_beside_the_export_and_come_after_it(shop: Shop) -> None:
    shown = {**event(event_id="t", event_type="impression"), "position": 1, "propensity": 0.5}
    known = event(event_id="1")
    for row in (shown, known):
        row["event_time"] = datetime(2024, 1, 2, 12, tzinfo=UTC)
    shop.put("events/e.jsonl", [event(event_id="1")])
    shop.put("var/feedback/dt=2024-01-02/p.parquet", [shown, known], below="home")
    done = shop.ingest()
    assert {row["event_type"] for row in done.rows("events")} == {"purchase-complete"}
    assert [(row["impression_id"], row["item_id"], row["position"]) for row in done.rows("impressions")] == [
        ("t", "a", 1)
    ]
    assert done.report.tables["events"].duplicates == 1
    assert balances(done.report)


def test_too_many_bad_rows_stop_the_run_and_leave_the_last_good_outputs_whole(shop: Shop) -> None:
    good = shop.put("events/e.jsonl", [event()]).ingest()
    before = {path: path.read_bytes() for path in sorted(good.artifacts.rglob("*.*")) if path.is_file()}
    shop.put("events/e.jsonl", [event(), event(item_id="x"), event(item_id="y"), event(event_time="?")])
    with pytest.raises(
        InputError,
        match=r"events: 3 of 4 rows \(75.0%\) are bad; found: unknown_item in 2 rows; unparseable_event_time in 1 rows"
        r"; the first: events/e.jsonl.*at most 50.0% \(data.max_bad_share\).*quarantine_rejected/events.parquet",
    ):
        shop.ingest(max_bad_share=0.5)
    assert {path: path.read_bytes() for path in before} == before
    assert pq.read_table(good.artifacts / "quarantine_rejected" / "events.parquet").num_rows == 3
    assert not (good.artifacts / ".ingest.partial").exists()


def test_a_table_without_a_single_good_row_stops_whatever_the_share(shop: Shop) -> None:
    shop.put("events/e.jsonl", [event(item_id="x")])
    with pytest.raises(InputError, match=r"1 of 1 rows \(100.0%\).*at least one usable row"):
        shop.ingest(max_bad_share=1.0)


def test_a_catalogue_without_rows_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the catalogue has no rows"):
        Shop(tmp_path).put("catalog/a.csv", "item_id,title\n").ingest()


UNREADABLE: Mapping[str, tuple[str, Any, str]] = {
    "empty file": ("a.parquet", b"", "catalog/a.parquet is empty"),
    "empty csv": ("a.csv", "\n", "catalog/a.csv is empty"),
    "truncated parquet": ("a.parquet", b"PAR1 and no more", "catalog/a.parquet cannot be read.*whole parquet file"),
    "latin 1": ("a.csv", "item_id,title\n1,café\n".encode("latin-1"), "catalog/a.csv is not UTF-8.*iconv"),
    "missing column": (
        "a.csv",
        "id,title\n1,x\n",
        "catalog/a.csv: required column 'item_id' is missing; found: columns id, title",
    ),
    "missing key": ("a.jsonl", [{"item_id": "1"}], "catalog/a.jsonl: required column 'title' is missing"),
    "same column twice": ("a.csv", "item_id,title,title\n1,x,y\n", "a column is there twice; found: title"),
    "number as id, parquet": (
        "a.parquet",
        [{"item_id": 1, "title": "x"}],
        "column 'item_id' has the wrong type; found: int64; wanted: string",
    ),
    "number as id, json": (
        "a.jsonl",
        [{"item_id": 1, "title": "x"}],
        "column 'item_id' has the wrong type; found: int 1; wanted: string",
    ),
    "text as price": (
        "a.parquet",
        [{"item_id": "1", "title": "x", "price": "9"}],
        "column 'price' has the wrong type; found: string; wanted: float",
    ),
    "number as time": (
        "a.parquet",
        [{"item_id": "1", "title": "x", "updated_at": 5}],
        "column 'updated_at' has the wrong type; found: int64; wanted: timestamp",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_as_promised_stops_naming_file_column_found_and_wanted(
    tmp_path: Path, case: str
) -> None:
    name, content, message = UNREADABLE[case]
    with pytest.raises(InputError, match=message):
        Shop(tmp_path).put(f"catalog/{name}", content).ingest()


def test_one_number_among_text_ids_is_a_bad_row_not_a_wrong_column(shop: Shop) -> None:
    done = shop.put("catalog/b.jsonl", [{"item_id": "c", "title": "C"}, {"item_id": 4, "title": "D"}]).ingest()
    assert done.report.tables["catalog"].bad == {"unparseable_item_id": 1}


def test_a_file_changed_after_the_snapshot_is_refused(shop: Shop) -> None:
    params = DataParams(adapter="shop", path=str(shop.root / "export"))
    snapshot = take(params, home=shop.root)
    shop.put("catalog/a.csv", CATALOG.replace("Apple", "Pear!"))
    with pytest.raises(InputError, match=r"catalog/a.csv is not what the snapshot recorded; found: other bytes"):
        ingest(snapshot, params, home=shop.root, artifacts=shop.root / "artifacts")


def test_columns_and_files_that_are_not_read_are_named(shop: Shop) -> None:
    shop.put("catalog/b.csv", "item_id,title,colour\nc,C,red\n").put("catalog/old.xlsx", "x")
    messages = [warning.message for warning in shop.ingest().report.warnings]
    assert messages == ["columns not read: colour", "1 files not read: catalog/old.xlsx"]


def test_judgments_of_unknown_items_are_bad_copies_duplicates_and_other_gains_conflicts(shop: Shop) -> None:
    shop.put("judgments/a.csv", "query,item_id,gain\nq,a,1\nq,a,1\nq,a,0\nq,b,0\nq,zzz,1\nr,a,-1\n,a,1\n")
    done = shop.ingest()
    assert [(r["item_id"], r["gain"]) for r in done.rows("judgments")] == [("a", 1), ("b", 0)]
    report = done.report.tables["judgments"]
    assert report.duplicates == 1
    assert report.bad == {"conflicting_copy": 1, "missing_query": 1, "negative_gain": 1, "unknown_item": 1}


def test_of_users_the_last_row_wins(shop: Shop) -> None:
    shop.put("users/a.jsonl", [{"user_id": "u", "attributes": {"n": 1}}, {"user_id": "u", "attributes": {"n": 2}}])
    shop.put("users/b.jsonl", [{"user_id": "v", "attributes": "no object"}])
    done = shop.ingest()
    assert [(r["user_id"], r["attributes"]) for r in done.rows("users")] == [("u", '{"n":2}'), ("v", None)]
    assert done.report.tables["users"].duplicates == 1


def test_the_target_is_purchases_else_carts_else_views(tmp_path: Path) -> None:
    kinds = ["detail-page-view", "add-to-cart", "purchase-complete"]
    for number in (1, 2, 3):
        rows = [event(event_type=kind) for kind in kinds[:number]]
        shop = Shop(tmp_path / str(number)).put("catalog/a.csv", CATALOG).put("events/e.jsonl", rows)
        report = shop.ingest().report
        assert report.target == kinds[number - 1]
        assert report.strengths == {"purchase-complete": 1.0, "add-to-cart": 0.3, "detail-page-view": 0.1}


def test_target_and_strengths_of_the_parameters_come_first(shop: Shop) -> None:
    shop.put("events/e.jsonl", [event(), event(event_type="review", rating=4)])
    report = shop.ingest(target="review", strengths={"review": 2.0}).report
    assert (report.target, report.strengths) == ("review", {"review": 2.0})
    with pytest.raises(ParamsError, match=r"data\.target 'review' has no weight"):
        shop.ingest(target="review", strengths={"purchase-complete": 1.0})


def test_views_only_of_positive_types_count_for_the_target(shop: Shop) -> None:
    done = shop.put("events/e.jsonl", [event(event_type="remove-from-cart")]).ingest()
    assert done.report.target is None
    assert done.warnings()["no_target"] == 1
