from __future__ import annotations

from typing import Any

import orjson
import pytest

from serving.event_schemas import BadEvent, events_of, rows

FLAT = {"event_type": "detail-page-view", "event_time": "2010-12-05T10:00:00Z", "item_id": "a"}


def one(**fields: Any) -> dict[str, Any]:
    (row,) = rows({**FLAT, **fields}, received_at=7)
    return row


def refusal(raw: Any) -> BadEvent:
    with pytest.raises(BadEvent) as caught:
        rows(raw, received_at=7)
    return caught.value


def test_both_spellings_give_the_same_row() -> None:
    google = {
        "eventType": "add-to-cart",
        "visitorId": "v",
        "userInfo": {"userId": "u"},
        "eventTime": "2010-12-05T10:00:00Z",
        "productDetails": [{"product": {"id": "a"}, "quantity": 2}],
        "attributionToken": "t",
        "sessionId": "s",
        "searchQuery": "spade",
    }
    ours = {
        "event_type": "add-to-cart",
        "visitor_id": "v",
        "user_id": "u",
        "event_time": "2010-12-05T10:00:00Z",
        "item_id": "a",
        "quantity": 2,
        "attribution_token": "t",
        "session_id": "s",
        "search_query": "spade",
    }
    assert rows(google, received_at=7) == rows(ours, received_at=7)


def test_an_event_of_two_products_is_two_rows_of_half_an_event_each() -> None:
    details = [{"product": {"id": "a"}, "quantity": 1}, {"product": {"id": "b"}, "quantity": 2}]
    made = rows({**FLAT, "item_id": None, "productDetails": details}, received_at=7)
    assert [(row["item_id"], row["quantity"], row["event_share"]) for row in made] == [("a", 1, 0.5), ("b", 2, 0.5)]
    assert made[0]["event_id"] == made[1]["event_id"]


def test_repeated_lines_of_one_product_add_up() -> None:
    details = [{"product": {"id": "a"}, "quantity": 1}, {"product": {"id": "a"}, "quantity": 2}]
    (row,) = rows({**FLAT, "item_id": None, "productDetails": details}, received_at=7)
    assert row["quantity"] == 3


def test_an_event_without_id_gets_one_from_its_content() -> None:
    assert one()["event_id"] == one()["event_id"] != one(user_id="u")["event_id"]


def test_a_time_without_offset_is_utc_and_one_with_offset_is_converted() -> None:
    assert one(event_time="2010-12-05T10:00:00") == one() == one(event_time="2010-12-05T12:00:00+02:00")


def test_late_and_future_times_are_taken() -> None:
    assert one(event_time="1999-01-01")["event_time"] < one(event_time="2999-01-01")["event_time"]


@pytest.mark.parametrize("field", ["event_type", "event_time"])
def test_a_missing_required_field_is_named(field: str) -> None:
    assert refusal({name: value for name, value in FLAT.items() if name != field}).field == field


@pytest.mark.parametrize("value", ["yesterday", "", 1291543200, None, "2010-13-01", "0001-01-01T00:00:00+20:00"])
def test_a_malformed_time_is_refused_by_name(value: Any) -> None:
    assert refusal({**FLAT, "event_time": value}).field == "event_time"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_type", "stare"),
        ("quantity", -1),
        ("quantity", 0),
        ("price", -0.01),
        ("rating", 6),
        ("position", 0),
        ("propensity", 0),
        ("propensity", 1.5),
        ("user_id", 17),
        ("item_id", 17),
        ("item_id", ""),
        ("item_id", "x" * 2000),
        ("user_id", "a\x00b"),
        ("session_id", ["s"]),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    assert refusal({**FLAT, field: value}).field == field


def test_a_bad_field_is_named_as_the_caller_spelt_it() -> None:
    google = {"eventType": "add-to-cart", "eventTime": "soon", "productDetails": [{"product": {"id": "a"}}]}
    assert refusal(google).field == "eventTime"
    google = {**google, "eventTime": "2010-12-05", "productDetails": [{"product": {}}]}
    assert refusal(google).field == "productDetails.0.product.id"
    google = {**google, "productDetails": [{"product": {"id": "a"}, "quantity": 0}]}
    assert refusal(google).field == "productDetails.0.quantity"
    assert refusal({**google, "productDetails": 3}).field == "productDetails"
    google = {**google, "productDetails": [{"product": {"id": "a"}}], "userInfo": {"userId": 3}}
    assert refusal(google).field == "userInfo.userId"


def test_an_event_about_a_product_needs_one_and_a_search_does_not() -> None:
    assert refusal({**FLAT, "item_id": None}).field == "item_id"
    (row,) = rows({"event_type": "search", "event_time": "2010-12-05", "search_query": "x"}, received_at=7)
    assert row["item_id"] == ""


def test_an_empty_user_is_no_user() -> None:
    assert one(user_id="")["user_id"] is None


def test_what_no_column_holds_is_kept_in_attributes() -> None:
    assert orjson.loads(one(pageCategories=["Garden"], attributes={"a": 1})["attributes"]) == {
        "a": 1,
        "pageCategories": ["Garden"],
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"event_type":"x"}',
        b'[{"event_type":"x"}]',
        b'{"events":[{"event_type":"x"}]}',
        b'{"event_type":"x"}\n',
    ],
)
def test_one_event_may_come_in_every_form(body: bytes) -> None:
    assert events_of(body) == [{"event_type": "x"}]


def test_a_bad_line_among_json_lines_is_refused_alone() -> None:
    first, bad, last = events_of(b'{"a":1}\nnonsense\n\n{"a":2}\n')
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(bad, BadEvent)


@pytest.mark.parametrize(("body", "field"), [(b"nonsense", "body"), (b"", "body"), (b"3", "events")])
def test_a_body_that_holds_no_events_is_refused(body: bytes, field: str) -> None:
    with pytest.raises(BadEvent) as caught:
        events_of(body)
    assert caught.value.field == field


def test_more_events_than_one_request_may_hold_are_refused() -> None:
    with pytest.raises(BadEvent, match="at most 10000"):
        events_of(b"[" + b",".join([b"1"] * 10_001) + b"]")
