"""``/v1/search`` as a shop's search box meets it: a real server on loopback."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.ranking import RankRequest
from tests.e2e.server import Server, serving

pytestmark = pytest.mark.e2e


def search(server: Server, query: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = server.post("/v1/search", {"query": query, "explore": False, **options})
    return found


def test_the_answer_equals_the_bundles_ranking(server: Server, bundle: Path) -> None:
    local = Bundle.load(bundle)
    for query in ("thing i0007", "brand1", "garden tools"):
        wanted = local.rank(RankRequest(surface=Surface.SEARCH, query=query, n=20), local.history())
        answer = search(server, query, n=20)
        assert [(item["id"], item["rank"]) for item in answer["items"]] == [(i.id, i.rank) for i in wanted.items]
        assert answer["total"] == wanted.total
        assert (answer["fallback"], answer["rewritten_query"]) == (None, None)


def test_what_is_called_so_comes_first(server: Server) -> None:
    assert search(server, "Thing I0007")["items"][0]["id"] == "i0007"


def test_pages_under_one_token_hold_every_item_once(server: Server) -> None:
    first = server.post("/v1/search", {"query": "thing", "n": 7})
    token, total = first["attribution_token"], first["total"]
    seen = [item["id"] for item in first["items"]]
    for offset in range(7, total, 7):
        page = server.post("/v1/search", {"query": "thing", "n": 7, "offset": offset, "page_of": token})
        assert page["total"] == total
        seen += [item["id"] for item in page["items"]]
    assert len(seen) == len(set(seen)) == total


def test_filters_and_facets_agree(server: Server) -> None:
    whole = search(server, "thing", facets=["brand", "category", "price", "available"])
    counts = {one["value"]: one["count"] for one in whole["facets"]["brand"]}
    assert sum(counts.values()) == whole["total"]
    for brand, count in counts.items():
        assert search(server, "thing", filter={"brand": brand})["total"] == count
    assert search(server, "thing", filter={"price_max": 0.5})["items"] == []


def test_filters_and_facets_on_attributes_agree_on_every_list(server: Server) -> None:
    whole = search(server, "thing", facets=["attributes.color", "attributes.size"])
    counts = {one["value"].lower(): one["count"] for one in whole["facets"]["attributes.color"]}
    assert set(counts) == {"red", "blue", "green"}
    for color, count in counts.items():
        assert search(server, "thing", filter={"attributes": {"color": color.upper()}})["total"] == count
    either = {"attributes": {"color": ["red", "blue"], "size": 1}}
    assert 0 < search(server, "thing", filter=either)["total"] < counts["red"] + counts["blue"]
    listed = server.post("/v1/recommend", {"filter": {"attributes": {"color": "green"}}, "n": 100})["items"]
    assert len(listed) == counts["green"]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/recommend"])
def test_a_field_that_the_catalogue_has_not_is_refused_with_those_that_it_has(server: Server, path: str) -> None:
    body: dict[str, Any] = {"filter": {"attributes": {"weight": 1}}}
    if path == "/v1/search":
        body |= {"query": "cup", "facets": ["brand", "attributes.weight", "colour"]}
    status, problem, _ = server.ask("POST", path, body)
    assert status == 400
    facets = ["facets.1", "facets.2"] if path == "/v1/search" else []
    assert [error["field"] for error in problem["errors"]] == ["filter.attributes.weight", *facets]
    for error in problem["errors"]:
        assert "brand, category, available, price, attributes.color, attributes.size" in error["reason"]


@pytest.mark.parametrize(
    ("query", "options", "fallback", "n_found"),
    [
        ("xyzzy", {}, "what_sells", 54),
        ("xyzzy gard", {}, "words_relaxed", 27),
        ("thing i0009", {"filter": {"brand": "brand1"}}, None, None),
        ("garden", {"filter": {"category": "Kitchen"}}, "filter_excludes_matches", 0),
        ("thing", {"filter": {"price_max": 0.5}}, "nothing_passes_filter", 0),
    ],
)
def test_a_search_that_its_words_do_not_answer_says_how_it_was_rescued(
    server: Server, query: str, options: dict[str, Any], fallback: str | None, n_found: int | None
) -> None:
    answer = search(server, query, n=5, **options)
    assert answer["fallback"] == fallback
    assert n_found in {None, answer["total"]}
    assert len(answer["items"]) == min(5, answer["total"])


def test_pages_of_a_rescue_under_one_token_hold_every_item_once(server: Server) -> None:
    first = server.post("/v1/search", {"query": "xyzzy", "n": 9})
    seen = [item["id"] for item in first["items"]]
    for offset in range(9, first["total"], 9):
        body = {"query": "xyzzy", "n": 9, "offset": offset, "page_of": first["attribution_token"]}
        seen += [item["id"] for item in server.post("/v1/search", body)["items"]]
    assert len(seen) == len(set(seen)) == first["total"]


def test_what_a_query_names_is_told_with_explain(server: Server) -> None:
    answer = search(server, "brand1 spade", explain=True)
    assert answer["understood"] == {
        "brands": ["brand1"],
        "categories": ["Garden > Tools > Spades"],
        "unwanted": [],
        "beside": [],
    }
    assert "understood" not in search(server, "brand1 spade")


def test_a_list_shown_for_a_query_is_stored_as_an_impression_of_the_search(server: Server) -> None:
    token = search(server, "brand2", user_id="u001")["attribution_token"]
    until = time.monotonic() + 10
    with sqlite3.connect(server.home / "var" / "events" / "events.db") as store:
        statement = "SELECT surface, placement FROM impressions WHERE attribution_token = ?"
        while (row := store.execute(statement, (token,)).fetchone()) is None:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert row == ("search", "search")


def test_while_somebody_types_the_catalogue_goes_on_and_nothing_is_recorded(server: Server) -> None:
    status, answer, _ = server.ask("GET", "/v1/suggest?q=BRA&n=2")
    assert status == 200
    assert [one["text"] for one in answer["suggestions"]] == ["brand0", "brand1"]
    assert answer["suggestions"][0] == {"text": "brand0", "kind": "brand", "value": "brand0"}
    assert answer["fallback"] is None
    assert answer["attribution_token"]
    assert answer["model_version"]
    assert 0 <= answer["took_ms"] < 100
    time.sleep(1)
    with sqlite3.connect(server.home / "var" / "events" / "events.db") as store:
        statement = "SELECT count(*) FROM impressions WHERE attribution_token = ?"
        assert store.execute(statement, (answer["attribution_token"],)).fetchone() == (0,)


@pytest.mark.parametrize(
    ("typed", "first"),
    [("gar", "Garden"), ("gadren to", "garden tools"), ("thing i0007", "Thing i0007"), ("", "Garden"), ("xyzzy", None)],
)
def test_suggestions_are_of_the_catalogue(server: Server, typed: str, first: str | None) -> None:
    offered = server.ask("GET", f"/v1/suggest?q={quote(typed)}")[1]["suggestions"]
    assert next((one["text"] for one in offered), None) == first


@pytest.mark.parametrize(
    "typed",
    ["%F0%9F%98%80", "%00", "%ff%fe", "%3Cscript%3E", "'%3B%20DROP%20TABLE%20events%3B--", "%E2%80%AEcup", "%25"],
)
def test_whatever_is_typed_so_far_is_answered(server: Server, typed: str) -> None:
    assert server.ask("GET", f"/v1/suggest?q={typed}")[0] == 200


@pytest.mark.parametrize(
    ("asked", "field"), [("n=0", "n"), ("n=x", "n"), ("n=21", "n"), ("m=1", "m"), ("q=" + "a" * 501, "q")]
)
def test_a_wrong_question_for_suggestions_is_refused_by_the_name_of_its_field(
    server: Server, asked: str, field: str
) -> None:
    status, problem, headers = server.ask("GET", f"/v1/suggest?{asked}")
    assert (status, headers["content-type"], problem["field"]) == (400, "application/problem+json", field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "   "}, "query"),
        ({"query": "\u0000\u0007"}, "query"),
        ({"query": "a" * 10_000}, "query"),
        ({"query": 5}, "query"),
        ({"query": "cup", "n": 0}, "n"),
        ({"query": "cup", "n": 101}, "n"),
        ({"query": "cup", "offset": -1}, "offset"),
        ({"query": "cup", "filter": {"colour": "red"}}, "filter.colour"),
        ({"query": "cup", "facets": ["colour"]}, "facets.0"),
        ({"query": "cup", "facets": [7]}, "facets.0"),
        ({"query": "cup", "facets": ["brand"] * 11}, "facets"),
        ({"query": "cup", "filter": {"attributes": {"color": []}}}, "filter.attributes.color"),
        ({"query": "cup", "filter": {"attributes": {"color": {"is": "red"}}}}, "filter.attributes.color"),
        ({"query": "cup", "filter": {"attributes": {"color": None}}}, "filter.attributes.color"),
        ({"query": "cup", "filter": {"attributes": ["color"]}}, "filter.attributes"),
        ({"query": "cup", "filter": {"price_min": "cheap"}}, "filter.price_min"),
        ({"query": "cup", "offset": 10_001}, "offset"),
        ({"query": "cup", "n": "10"}, "n"),
        ({"query": None}, "query"),
        ({"query": "cup", "user_id": "a\u0000"}, "user_id"),
        ({"query": "cup", "page": 2}, "page"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_the_name_of_its_field(
    server: Server, body: dict[str, Any], field: str
) -> None:
    status, answer, headers = server.ask("POST", "/v1/search", body)
    assert status == 400
    assert headers["content-type"].startswith("application/problem+json")
    assert field in {error["field"] for error in answer["errors"]}, answer


@pytest.mark.parametrize(
    "query",
    [
        "😀",
        "?!",
        "'; DROP TABLE events;--",
        "<script>alert(1)</script>",
        "красный",
        "红色手机",
        "หูฟัง",
        "\u202ecup",
        "cup\u0000\u0007\n\t",
        "1/2 in",
        "%00",
        "-" * 500,
        "a" * 500,
        "a b " * 125,
        "1." * 250,
        '{"query": {}}',
        "../../etc/passwd",
        "\\",
    ],
)
def test_whatever_is_typed_is_answered(server: Server, query: str) -> None:
    answer = search(server, query, facets=["brand", "attributes.color"], explain=True)
    assert answer["total"] >= len(answer["items"])
    assert server.post("/v1/rank", {"items": ["i0001"], "query": query})["items"][0]["id"] == "i0001"


@pytest.mark.parametrize(
    "body", [b'{"query": "\\ud800"}', b'{"query": "\xff"}', b'{"query": "cup"', b"[]", b"", b"null"]
)
def test_a_body_that_is_no_request_is_refused(server: Server, body: bytes) -> None:
    status, problem, _ = server.ask("POST", "/v1/search", body)
    assert (status, problem["status"]) == (400, 400)


def test_given_items_are_ranked_for_a_query(server: Server) -> None:
    answer = server.post("/v1/rank", {"items": ["i0001", "i0002", "nowhere"], "query": "thing i0002"})
    assert [item["id"] for item in answer["items"]] == ["i0002", "i0001", "nowhere"]
    assert answer["fallback"] is None


def test_workers_share_the_orders_of_searches_in_a_folder_that_goes_with_the_service(
    bundle: Path, tmp_path: Path
) -> None:
    places = tmp_path / "tmp"
    places.mkdir()
    with serving(tmp_path / "home", workers=2, FUSELINE_BUNDLE=str(bundle), TMPDIR=str(places)) as started:
        (folder,) = places.glob("fuseline-shared-*/orders")
        (kept,) = folder.iterdir()
        warmed = kept.stat().st_mtime_ns
        answers = [search(started, "garden tools", n=20)["items"] for _ in range(12)]
        assert all(answer == answers[0] for answer in answers)
        asked_once = kept.stat().st_mtime_ns
        assert asked_once > warmed
        search(started, "garden tools")
        assert kept.stat().st_mtime_ns == asked_once
        started.stop()
    assert not list(places.iterdir())
