"""A replay asks with what was known, posts what was bought, and compares the same customers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contracts import CATALOG, EVENTS, USERS, Table
from pipelines.errors import ArtifactError, ParamsError
from pipelines.replay import report
from pipelines.replay.log import Log, Order, Period, write_day, write_export
from pipelines.replay.quality import FROZEN, POPULARITY, RETRAINED, Visit, by_customer, scores, summary
from pipelines.replay.shop import Shop, Shown

START, END = date(2020, 3, 2), date(2020, 3, 4)
PURCHASE = "purchase-complete"


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2020, 3, day, hour, tzinfo=UTC)


def bought(order: str, user: str | None, item: str, time: datetime) -> dict[str, Any]:
    return {"event_id": order, "event_type": PURCHASE, "event_time": time, "user_id": user, "item_id": item}


@pytest.fixture
def canonical(tmp_path: Path) -> Path:
    """Two customers and a stranger; item c appears on the first day of the period, d changes on the second."""
    events = [
        bought("1", "ann", "a", at(1)),
        bought("2", "bob", "b", at(1)),
        bought("3", "ann", "a", at(2)),
        bought("3", "ann", "c", at(2)),
        bought("4", None, "b", at(2, 13)),
        bought("5", "eve", "c", at(3)),
        bought("6", "ann", "b", at(4)),
    ]
    products = [
        {"item_id": "a", "title": "A", "updated_at": None},
        {"item_id": "b", "title": "B", "updated_at": at(1, 1)},
        {"item_id": "c", "title": "C", "updated_at": at(2, 12)},
        {"item_id": "d", "title": "D", "updated_at": at(1, 1)},
        {"item_id": "d", "title": "D, better", "updated_at": at(3, 5)},
    ]
    folder = tmp_path / "canonical"
    write(folder, EVENTS, events)
    write(folder, CATALOG, products)
    write(folder, USERS, [{"user_id": user, "attributes": "{}"} for user in ("ann", "bob", "eve")])
    return folder


def write(folder: Path, table: Table, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / f"{table.name}.parquet")


def column(path: Path, name: str) -> list[Any]:
    return list(pq.read_table(path)[name].to_pylist())


def test_the_first_export_holds_nothing_of_the_period(canonical: Path, tmp_path: Path) -> None:
    write_export(canonical, tmp_path / "shop", start=START)
    assert column(tmp_path / "shop" / "events" / "before.parquet", "event_id") == ["1", "2"]
    assert column(tmp_path / "shop" / "catalog" / "before.parquet", "title") == ["A", "B", "D"]
    assert column(tmp_path / "shop" / "users" / "before.parquet", "user_id") == ["ann", "bob"]


def test_a_day_adds_the_products_that_changed_and_the_users_who_are_new(canonical: Path, tmp_path: Path) -> None:
    for day in Period(START, END).days():
        write_day(canonical, tmp_path / "shop", day=day)
    changed = {
        day: tmp_path / "shop" / "catalog" / f"dt={day}" / "changed.parquet" for day in Period(START, END).days()
    }
    assert [column(path, "title") for path in changed.values()] == [["C"], ["D, better"]]
    new = {day: tmp_path / "shop" / "users" / f"dt={day}" / "new.parquet" for day in Period(START, END).days()}
    assert [column(path, "user_id") for path in new.values()] == [[], ["eve"]]


def test_the_log_holds_the_orders_of_the_period_and_what_was_owned_before_it(canonical: Path) -> None:
    log = Log.read(canonical, Period(START, END), target=PURCHASE)
    assert {day: [order.event_id for order in orders] for day, orders in log.orders.items()} == {
        date(2020, 3, 2): ["3", "4"],
        date(2020, 3, 3): ["5"],
    }
    assert log.orders[START][0].items == {"a", "c"}
    assert log.owned == {"ann": {"a"}, "bob": {"b"}}


def test_popularity_counts_the_days_before_and_nobodys_orders_do_not_count(canonical: Path) -> None:
    log = Log.read(canonical, Period(START, END), target=PURCHASE)
    assert log.popular(date(2020, 3, 3), 5) == ["a", "b", "c"]
    assert log.popular(date(2020, 3, 2), 5) == ["a", "b"]
    assert log.popular(date(2020, 3, 3), 1, without=frozenset("a")) == ["b"]


def test_an_empty_period_is_refused() -> None:
    with pytest.raises(ParamsError, match="the period has no day"):
        Period(END, START)


def visit(customer: str, retrained: str, frozen: str, wanted: str, day: str = "2020-03-02") -> Visit:
    lists = {RETRAINED: tuple(retrained), FROZEN: tuple(frozen), POPULARITY: ("z",)}
    return Visit(day, customer, "recommend", frozenset(wanted), lists, {RETRAINED: "2", FROZEN: "1"})


def test_a_hit_counts_by_its_place_and_a_missing_item_counts_in_the_ideal() -> None:
    found = scores([visit("ann", "xa", "ax", "a"), visit("bob", "a", "", "ab")], RETRAINED)["ndcg@10"]
    # second place: 1 / log2(3); first of two relevant: 1 / (1 + 1 / log2(3))
    np.testing.assert_allclose(found, [1 / np.log2(3), 1 / (1 + 1 / np.log2(3))])


def test_a_customer_with_many_days_counts_once() -> None:
    visits = [visit("ann", "a", "x", "a"), visit("ann", "x", "x", "a"), visit("bob", "a", "x", "a")]
    assert by_customer(visits, scores(visits, RETRAINED)["ndcg@10"]).tolist() == [0.5, 1.0]


def test_the_summary_is_paired_and_follows_the_days() -> None:
    visits = [visit(f"u{k}", "a", "xa", "a", day=f"2020-03-0{2 + k % 2}") for k in range(40)]
    found = summary(visits, seed=1, draws=200)["recommend"]
    gain = found["differences"][FROZEN]["ndcg@10"]
    assert gain["mean_difference"] == pytest.approx(1 - 1 / np.log2(3), abs=1e-6)
    assert gain["ci_low"] == pytest.approx(gain["ci_high"])
    assert [(day["day"], day["visits"], day["versions"]) for day in found["days"]] == [
        ("2020-03-02", 20, ["2"]),
        ("2020-03-03", 20, ["2"]),
    ]
    assert summary(visits, seed=1, draws=200)["recommend_new"] == {
        "not_applicable": "nobody bought anything that counts"
    }


def test_a_visit_survives_its_file() -> None:
    one = visit("ann", "ab", "", "ca")
    assert Visit.from_json(json.loads(json.dumps(one.as_json()))) == one


def test_the_page_shows_systems_differences_and_turns() -> None:
    surfaces = summary([visit(f"u{k}", "a", "xa", "a") for k in range(9)], seed=1, draws=100)
    turn = {"as_of": "2020-03-02", "verdict": "promote", "reason": "promoted", "serves": "1", "promoted": True}
    page = report.page({"start": "s", "end": "e", "every_days": 7, "surfaces": surfaces, "turns": [turn]})
    assert "retrained − popularity" in page
    assert "<svg" in page
    assert "promoted" in page


class _Service(BaseHTTPRequestHandler):
    answers: list[tuple[int, dict[str, Any]]]
    asked: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        status, answer = self.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[tuple[Shop, type[_Service]]]:
    handler = type("Service", (_Service,), {"answers": [], "asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Shop(f"http://127.0.0.1:{server.server_port}"), handler
    server.shutdown()
    server.server_close()


ORDER = Order("7", at(2), "ann", None, "ann", (("a", 2.0, 1.5),))


def test_the_shop_asks_without_exploration_at_the_time_of_the_replay(service: tuple[Shop, type[_Service]]) -> None:
    shop, handler = service
    answer = {"attribution_token": "t", "model_version": "3", "fallback": None, "items": [{"id": "a"}, {"id": "b"}]}
    handler.answers.append((200, answer))
    assert shop.ask(ORDER, new_only=True, n=20, at=at(2, 0)) == Shown("t", "3", None, ("a", "b"))
    ((path, body),) = handler.asked
    assert path == "/v1/recommend"
    assert body["user_id"] == "ann"
    assert body["event_time"] == "2020-03-02T00:00:00+00:00"
    assert (body["n"], body["explore"], body["exclude_seen"]) == (20, False, True)


def test_an_order_cites_the_list_that_held_its_product(service: tuple[Shop, type[_Service]]) -> None:
    shop, handler = service
    handler.answers += [(202, {"accepted": 1, "rejected": []})] * 2
    shop.tell([ORDER], PURCHASE, {"ann": Shown("t", "3", None, ("a",))})
    shop.tell([ORDER], PURCHASE, {"ann": Shown("t", "3", None, ("b",))})
    tokens = [body["events"][0]["attribution_token"] for _, body in handler.asked]
    assert tokens == ["t", None]
    assert handler.asked[0][1]["events"][0]["product_details"] == [{"item_id": "a", "quantity": 2.0, "price": 1.5}]


def test_an_order_that_the_service_refuses_stops_the_replay(service: tuple[Shop, type[_Service]]) -> None:
    shop, handler = service
    handler.answers.append((202, {"accepted": 0, "rejected": [{"field": "event_time", "reason": "bad"}]}))
    with pytest.raises(ArtifactError, match="refused an order"):
        shop.tell([ORDER], PURCHASE, {})


def test_a_wrong_request_is_not_repeated_and_says_what_the_service_said(service: tuple[Shop, type[_Service]]) -> None:
    shop, handler = service
    handler.answers.append((400, {"detail": "n: too large"}))
    with pytest.raises(ArtifactError, match="answered 400") as told:
        shop.ask(ORDER, new_only=False, n=1000, at=at(2))
    assert "too large" in str(told.value)
