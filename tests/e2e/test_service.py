"""The service as a shop meets it: real servers on loopback."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.bundle import Bundle
from pipelines.ranking import RankRequest
from serving.routes import OPERATIONS
from tests.e2e.server import Server, serving

KEYS = {"read": "reader-key-0123456789", "write": "writer-key-0123456789", "admin": "admins-key-0123456789"}

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def guarded(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("guarded")
    digest = hashlib.sha256(KEYS["write"].encode()).hexdigest()
    file = {KEYS["read"]: "read", f"sha256:{digest}": ["write"], KEYS["admin"]: "admin"}
    (home / "keys.json").write_text(json.dumps(file))
    variables = {"FUSELINE_API_KEYS_FILE": str(home / "keys.json"), "FUSELINE_REPLAY": "1"}
    with serving(home, key=KEYS["admin"], FUSELINE_BUNDLE=str(bundle), **variables) as started:
        yield started


def bought(item: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": "purchase-complete", "event_time": "2011-01-01T00:00:00Z", "item_id": item, **fields}


def test_every_answer_carries_the_four_members(server: Server) -> None:
    answers = [
        server.post("/v1/recommend", {"user_id": "u001"}),
        server.post("/v1/rank", {"items": ["i0001"], "user_id": "u001"}),
        server.post("/v1/events", bought("i0001", user_id="somebody")),
        server.ask("GET", "/v1/items/i0001/similar?n=3")[1],
        server.ask("GET", "/v1/suggest?q=thing")[1],
    ]
    for answer in answers:
        assert answer["attribution_token"]
        assert answer["model_version"]
        assert answer["took_ms"] >= 0
        assert answer["fallback"] is None
    assert len({answer["attribution_token"] for answer in answers}) == len(answers)


def test_without_exploration_the_answer_equals_the_bundles_ranking(server: Server, bundle: Path) -> None:
    local = Bundle.load(bundle)
    wanted = local.rank(RankRequest(n=10), local.history(user_id="u002"))
    answer = server.post("/v1/recommend", {"user_id": "u002", "explore": False})
    assert [(i["id"], i["rank"], i["score"], i["propensity"]) for i in answer["items"]] == [
        (i.id, i.rank, i.score, i.propensity) for i in wanted.items
    ]


def test_pages_continue_one_list(server: Server) -> None:
    whole = server.ids(user_id="u003", n=20)
    assert server.ids(user_id="u003", n=10) + server.ids(user_id="u003", n=10, offset=10) == whole
    page = server.post("/v1/recommend", {"user_id": "u003", "offset": 10, "n": 2})["items"]
    assert [item["rank"] for item in page] == [11, 12]


def test_filters_and_exclusions_hold(server: Server) -> None:
    first = server.ids(user_id="u004", n=5)
    assert not set(first) & set(server.ids(user_id="u004", n=50, exclude=first))
    wanted = {"category": "Garden", "brand": "brand0", "price_min": 3, "price_max": 15}
    answer = server.post("/v1/recommend", {"user_id": "u004", "n": 50, "filter": wanted, "details": True})
    assert answer["items"]
    for item in answer["items"]:
        assert item["category"].startswith("Garden")
        assert item["brand"] == "brand0"
        assert 3 <= item["price"] <= 15
        assert item["available"]
    unavailable = {f"i{n:04d}" for n in range(9, 60, 10)}
    assert not unavailable & set(server.ids(user_id="u004", n=60))
    assert unavailable <= set(server.ids(user_id="u004", n=60, filter={"available": False}))


def test_only_new_items_are_shown_when_asked(server: Server, bundle: Path) -> None:
    local = Bundle.load(bundle)
    past = local.history(user_id="u005")
    assert not set(local.features.item_ids.ids(past.seen)) & set(server.ids(user_id="u005", exclude_seen=True, n=60))


def test_explanations_come_when_asked(server: Server) -> None:
    item = server.post("/v1/recommend", {"user_id": "u001", "explain": True})["items"][0]
    assert {"model", "score", "rank", "weight"} == set(item["sources"][0])
    assert "sources" not in server.post("/v1/recommend", {"user_id": "u001"})["items"][0]


def test_unknown_people_and_items_get_an_answer(server: Server) -> None:
    stranger = server.post("/v1/recommend", {"user_id": "nobody"})
    assert (len(stranger["items"]), stranger["fallback"]) == (10, "unknown_user")
    assert len(server.post("/v1/recommend", {})["items"]) == 10
    status, answer, _ = server.ask("GET", "/v1/items/no%2Fsuch%20thing/similar")
    assert (status, answer["fallback"]) == (200, "unknown_item")
    answer = server.post("/v1/rank", {"items": ["zz"], "user_id": "nobody"})
    assert answer["items"] == [{"id": "zz", "rank": 1, "score": None}]


def test_an_event_changes_the_next_answer_of_every_worker(server: Server) -> None:
    before = server.ids(user_id="fresh", n=60)
    last = before[-1]
    assert server.post("/v1/events", [bought(last, user_id="fresh", quantity=n) for n in (1, 2, 3)])["accepted"] == 3
    answers = {tuple(server.ids(user_id="fresh", n=60)) for _ in range(12)}  # each on a connection of its own
    assert len(answers) == 1
    assert answers.pop()[0] == last


def test_two_services_over_one_home_share_events(server: Server, bundle: Path) -> None:
    with serving(server.home, FUSELINE_BUNDLE=str(bundle)) as other:
        server.post("/v1/events", bought("i0058", visitor_id="shared"))
        assert other.ids(visitor_id="shared", n=60) == server.ids(visitor_id="shared", n=60)
        assert other.ids(visitor_id="shared", n=60) != server.ids(visitor_id="unseen", n=60)


def test_events_are_counted_once_and_bad_ones_are_named(server: Server) -> None:
    good = bought("i0001", event_id="once", user_id="counted")
    body = [good, good, {**good, "event_time": "soon"}, {**good, "quantity": 5}, 3]
    answer = server.post("/v1/events", body)
    assert (answer["accepted"], answer["duplicates"]) == (1, 1)
    rejected = [(one["index"], one["field"]) for one in answer["rejected"]]
    assert rejected == [(2, "event_time"), (3, "event_id"), (4, "")]
    assert all(one["reason"] for one in answer["rejected"])


def test_json_lines_are_taken(server: Server) -> None:
    lines = b"\n".join(json.dumps(bought(f"i000{n}", user_id="lines")).encode() for n in range(3))
    assert server.post("/v1/events", lines)["accepted"] == 3


def test_a_list_shown_is_stored_within_a_second(server: Server) -> None:
    answer = server.post("/v1/recommend", {"user_id": "u001", "placement": "home", "n": 7})
    time.sleep(1)
    with sqlite3.connect(server.home / "var/events/events.db") as connection:
        query = "SELECT surface, placement, items, propensities, model_version, user_id FROM impressions"
        found = connection.execute(f"{query} WHERE attribution_token = ?", (answer["attribution_token"],)).fetchone()
    assert found[:2] == ("recommend", "home")
    assert json.loads(found[2]) == [item["id"] for item in answer["items"]]
    assert json.loads(found[3]) == [item["propensity"] for item in answer["items"]]
    assert found[4:] == (answer["model_version"], "u001")


def test_an_impression_says_why_a_list_is_simpler_and_what_it_took_and_metrics_count_it(server: Server) -> None:
    answer = server.post("/v1/recommend", {"user_id": "never met"})
    time.sleep(1)
    with sqlite3.connect(server.home / "var/events/events.db") as connection:
        query = "SELECT fallback, took_ms FROM impressions WHERE attribution_token = ?"
        fallback, took_ms = connection.execute(query, (answer["attribution_token"],)).fetchone()
    assert fallback == answer["fallback"] == "unknown_user"
    assert 0 < took_ms <= answer["took_ms"]
    _, metrics, _ = server.ask("GET", "/metrics")
    assert 'fuseline_fallbacks_total{reason="unknown_user",route="/v1/recommend"}' in metrics


BAD = [
    ("/v1/recommend", {"n": 0}, "n"),
    ("/v1/recommend", {"n": 101}, "n"),
    ("/v1/recommend", {"n": "10"}, "n"),
    ("/v1/recommend", {"n": True}, "n"),
    ("/v1/recommend", {"offset": -1}, "offset"),
    ("/v1/recommend", {"user_id": 7}, "user_id"),
    ("/v1/recommend", {"usr_id": "u"}, "usr_id"),
    ("/v1/recommend", {"recent_items": "i0001"}, "recent_items"),
    ("/v1/recommend", {"recent_items": [1]}, "recent_items.0"),
    ("/v1/recommend", {"filter": {"colour": "red"}}, "filter.colour"),
    ("/v1/recommend", {"filter": {"price_min": -1}}, "filter.price_min"),
    ("/v1/recommend", {"filter": {"price_min": 5, "price_max": 1}}, "filter"),
    ("/v1/recommend", {"event_time": "2010-12-01T00:00:00Z"}, "event_time"),
    ("/v1/recommend", [], "body"),
    ("/v1/recommend", b"{", "body"),
    ("/v1/recommend", b"", "body"),
    ("/v1/recommend", b'{"n": 1e999}', "n"),
    ("/v1/recommend", b'{"user_id": "\\u0000"}', "user_id"),
    ("/v1/recommend", b"\xff\xfe", "body"),
    ("/v1/recommend", b"[" * 100_000, "body"),
    ("/v1/rank", {}, "items"),
    ("/v1/rank", {"items": []}, "items"),
    ("/v1/events", b"nonsense", "body"),
    ("/v1/events", {"events": 3}, "events"),
    ("/v1/events", b"[" * 100_000, "body"),
    ("/v1/models/x/promote", {}, "version"),
]


@pytest.mark.parametrize(("path", "body", "field"), BAD, ids=[f"{p} {f} {n}" for n, (p, _, f) in enumerate(BAD)])
def test_bad_input_is_a_400_that_names_the_field(server: Server, path: str, body: Any, field: str) -> None:
    status, problem, headers = server.ask("POST", path, body)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert problem["field"] == field
    assert problem["status"] == 400
    assert problem["type"]
    assert problem["title"]
    assert field in problem["detail"]


def test_bad_queries_and_routes_are_problems_too(server: Server) -> None:
    for path, status in (("/v1/items/a/similar?n=0", 400), ("/v1/items/a/similar?m=1", 400), ("/nope", 404)):
        found, problem, headers = server.ask("GET", path)
        assert (found, headers["content-type"], problem["status"]) == (status, "application/problem+json", status)
    status, problem, headers = server.ask("GET", "/v1/recommend")
    assert (status, headers["allow"]) == (405, "POST")
    status, problem, _ = server.ask("POST", "/v1/recommend", b"x" * 1_000_001)
    assert (status, problem["field"]) == (413, "body")


def test_another_sites_page_gets_no_answer_from_an_open_service(server: Server) -> None:
    status, problem, _ = server.ask("POST", "/v1/recommend", {}, headers={"Origin": "https://evil.example"})
    assert (status, problem["status"]) == (403, 403)


def test_all_documented_routes_are_served_and_all_served_ones_documented(server: Server) -> None:
    _, document, _ = server.ask("GET", "/openapi.json")
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    table = {(operation.method, operation.path) for operation in OPERATIONS}
    assert documented == table | {("GET", "/"), ("GET", "/openapi.json")}
    for method, path in documented - {("POST", "/v1/models/rollback")}:
        status, answer, _ = server.ask(method, path.replace("{item_id}", "a").replace("{version}", "x"))
        missing = status == 404 and "field" not in answer  # an erasure that nobody asked for names its field
        assert status != 405, (method, path)
        assert not missing, (method, path)


def test_bentoml_answers_its_own_routes_and_shows_our_metrics(server: Server) -> None:
    assert server.ask("GET", "/livez")[0] == server.ask("GET", "/readyz")[0] == 200
    server.ids(user_id="u001")
    _, metrics, _ = server.ask("GET", "/metrics")
    assert 'fuseline_request_duration_seconds_count{route="/v1/recommend",status="200"}' in metrics


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    status, page, headers = server.ask("GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "u001" in page or "u00" in page
    assert "http://" not in page
    assert "https://" not in page


def test_keys_and_roles_are_asked_for(guarded: Server) -> None:
    listing = {"user_id": "u001"}
    for key, path, body, status in (
        ("wrong", "/v1/recommend", listing, 401),
        (KEYS["read"], "/v1/recommend", listing, 200),
        (KEYS["write"], "/v1/recommend", listing, 403),
        (KEYS["read"], "/v1/events", bought("i0001"), 403),
        (KEYS["write"], "/v1/events", bought("i0001"), 202),
        (KEYS["admin"], "/v1/events", bought("i0001"), 202),
        (KEYS["write"], "/v1/models/1/promote", None, 403),
        ("wrong", "/v1/recommend", b"{", 401),
    ):
        found, answer, headers = guarded.ask("POST", path, body, key=key)
        assert found == status, (key, path, answer)
        if status >= 400:
            assert answer["field"] == "X-API-Key"
            assert headers["content-type"] == "application/problem+json"
    assert guarded.ask("GET", "/livez", key="wrong")[0] == 200


def test_with_replay_a_request_may_carry_its_time(guarded: Server) -> None:
    guarded.post("/v1/events", bought("i0058", user_id="replayed", event_time="2011-02-01T00:00:00Z"))
    early = guarded.post("/v1/recommend", {"user_id": "replayed", "event_time": "2011-01-31T00:00:00Z"})
    late = guarded.post("/v1/recommend", {"user_id": "replayed", "event_time": "2011-02-02T00:00:00Z"})
    assert (early["fallback"], late["fallback"]) == ("unknown_user", None)


def test_what_was_acknowledged_survives_kill_9_and_the_next_start_knows_it(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, FUSELINE_BUNDLE=str(bundle)) as server:
        for n in range(20):
            server.post("/v1/events", bought("i0058", user_id="survivor", event_id=str(n)))
        for pid in server.family():
            os.kill(pid, signal.SIGKILL)
    with sqlite3.connect(tmp_path / "var/events/events.db") as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (20,)
    with serving(tmp_path, FUSELINE_BUNDLE=str(bundle)) as again:
        assert again.ids(user_id="survivor")[0] == "i0058"
        family = again.family()
        again.stop(signal.SIGINT)
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]


def test_elsewhere_than_on_loopback_it_demands_keys(bundle: Path, tmp_path: Path) -> None:
    variables = {"FUSELINE_BUNDLE": str(bundle), "BENTOML_HOST": "0.0.0.0"}  # noqa: S104
    with pytest.raises(AssertionError, match="FUSELINE_API_KEYS_FILE"), serving(tmp_path, **variables) as server:
        server.stop()


def test_workers_hold_equally_many_of_the_connections_that_callers_keep(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, FUSELINE_BUNDLE=str(bundle)) as server:
        for n in (20, 40):  # the second time those of the first have gone
            tries = []
            for _ in range(5):  # now and then a worker gets no core for a millisecond and misses a connection
                assert max(held := _connections(server, 0), default=0) == 0, held
                with ExitStack() as kept:
                    for _ in range(n):
                        connection = kept.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port)))
                        connection.connect()
                    tries.append(_connections(server, n))
            assert statistics.median(max(held) - min(held) for held in tries) <= n // 8, tries


def _connections(server: Server, wanted: int) -> list[int]:
    """How many connections each worker holds, once they are ``wanted`` together."""
    workers = [psutil.Process(pid) for pid in server.family()[1:]]
    until = time.monotonic() + 20
    while True:
        found = [
            sum(one.laddr.port == server.port and one.status == "ESTABLISHED" for one in worker.net_connections())
            for worker in workers
        ]
        if sum(found) == wanted or time.monotonic() > until:
            assert sum(found) == wanted, found
            return found
        time.sleep(0.05)
