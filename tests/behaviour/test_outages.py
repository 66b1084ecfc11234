"""What the service does while a server behind it is gone, and how it comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from benchmarks.made_bundle import make
from pipelines.bundle import Bundle
from serving.application import ROUTES
from serving.event_schemas import rows
from serving.event_store import EventStore, Impression, Outcome
from serving.runtime import Runtime, Served
from tests.behaviour.proxies import Proxy
from tests.e2e.senders import sending, wait_for_more
from tests.e2e.server import serving

BOUGHT = {"event_type": "purchase-complete", "event_time": "2011-01-01", "user_id": "u001"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make(tmp_path_factory.mktemp("world") / "bundle"))


@pytest.fixture
def proxy() -> Iterator[Callable[[int], Proxy]]:
    opened: list[Proxy] = []

    def open_one(port: int) -> Proxy:
        opened.append(Proxy(port))
        return opened[-1]

    yield open_one
    for one in opened:
        one.cut()


def eventually(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not recover"
        time.sleep(0.05)


def post(store: EventStore, *events: dict[str, Any]) -> list[Outcome]:
    return store.post([rows({**BOUGHT, **one}, received_at=1) for one in events]).result(30)


def items(store: EventStore, history_id: str = "u001") -> list[str]:
    return [row.item_id for row in store.recent(history_id)]


def outage(bundle: Bundle, url: str, proxy: Proxy, *, seconds: float) -> None:
    """Cut PostgreSQL away from a running service for so long, and ask it all the while."""
    store = EventStore.open(url)
    ROUTES.state.runtime = Runtime(store, None, replay=False, served=Served(bundle, "1", "test", Path()))
    client = TestClient(ROUTES, base_url="http://127.0.0.1", raise_server_exceptions=False)
    acknowledged = []

    def send(number: int) -> int:
        answer = client.post("/v1/events", json={**BOUGHT, "event_id": f"e{number}", "item_id": f"i{number % 60:04d}"})
        if answer.status_code == 202:
            acknowledged.append(f"i{number % 60:04d}")
        else:
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert int(answer.headers["retry-after"]) > 0
        return answer.status_code

    def ask() -> dict[str, Any]:
        answer = client.post("/v1/recommend", json={"user_id": "u001", "explore": False})
        assert answer.status_code == 200
        return dict(answer.json())

    assert send(0) == 202
    assert ask()["fallback"] is None
    proxy.cut()
    end, number, slowest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        number += 1
        started = time.monotonic()
        assert send(number) == 503
        answered = ask()
        slowest = max(slowest, time.monotonic() - started)
        assert (answered["fallback"], len(answered["items"])) == ("history_unavailable", 10)
        time.sleep(0.02)
    assert slowest < 10
    proxy.mend()
    number += 1
    eventually(lambda: send(number) == 202)
    eventually(lambda: ask()["fallback"] is None)
    store.close()
    direct = EventStore.open(url)
    assert items(direct) == acknowledged
    direct.close()


def through(proxy: Proxy, url: str) -> str:
    return url.replace(":5432/", f":{proxy.port}/")


def test_without_postgresql_posts_are_refused_lists_come_from_the_bundle_and_it_recovers_by_itself(
    bundle: Bundle, postgresql: str, proxy: Callable[[int], Proxy]
) -> None:
    server = proxy(5432)
    outage(bundle, through(server, postgresql), server, seconds=2.5)


@pytest.mark.exhaustive
def test_thirty_seconds_without_postgresql(bundle: Bundle, postgresql: str, proxy: Callable[[int], Proxy]) -> None:
    server = proxy(5432)
    outage(bundle, through(server, postgresql), server, seconds=30)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_thirty_seconds_without_postgresql_under_a_thousand_events_a_second_lose_and_double_nothing(
    tmp_path: Path, postgresql: str, proxy: Callable[[int], Proxy]
) -> None:
    between, bundle = proxy(5432), make(tmp_path / "bundle")
    variables = {"FUSELINE_BUNDLE": str(bundle), "FUSELINE_EVENTS_URL": through(between, postgresql)}
    with serving(tmp_path / "home", workers=2, **variables) as server:  # type: ignore[arg-type]
        with sending(server.port, outage=True) as senders:
            rates = [wait_for_more(senders, 5000)]
            between.cut()
            end, lists = time.monotonic() + 30, []
            while time.monotonic() < end:
                lists.append(server.post("/v1/recommend", {"user_id": "u001", "explore": False}))
                time.sleep(0.05)
            refused, taken = senders.refused, len(senders.acknowledged)
            between.mend()
            rates.append(wait_for_more(senders, 5000))
        engine = create_engine(postgresql.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as direct:
            found = list(direct.scalars(text("SELECT event_id FROM events")))
        engine.dispose()
    assert senders.problems.empty(), senders.problems.get()
    assert refused > 0
    assert {len(answer["items"]) for answer in lists} == {10}
    assert {answer["fallback"] for answer in lists} == {"history_unavailable"}
    assert len(found) == len(set(found))
    assert set(found) == senders.acknowledged
    print(
        f"{len(found)} events, {taken} of them by the end of the outage; {rates[0]:.0f} and {rates[1]:.0f} a second "
        f"before and after; {refused} posts refused, {len(lists)} lists meanwhile"
    )


def test_impressions_wait_until_postgresql_is_back(postgresql: str, proxy: Callable[[int], Proxy]) -> None:
    server = proxy(5432)
    store = EventStore.open(through(server, postgresql))
    server.cut()
    store.show(Impression("t", 5, "recommend", "home", "3", "abc", "u", None, "u", 1, ["a"], [1.0]))
    time.sleep(0.6)
    server.mend()
    engine = create_engine(postgresql.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as direct:
        eventually(lambda: direct.scalar(text("SELECT count(*) FROM impressions")) == 1)
    engine.dispose()
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'events.db'}"
    return str(request.getfixturevalue("postgresql"))


def test_a_redis_that_was_down_is_rebuilt_from_the_store_and_no_event_is_lost(
    database_url: str, redis_url: str, proxy: Callable[[int], Proxy]
) -> None:
    server = proxy(6379)
    behind = redis_url.replace(":6379/", f":{server.port}/")
    cut_off, other = (EventStore.open(database_url, state_url=one) for one in (behind, redis_url))
    post(cut_off, {"event_id": "1", "item_id": "a"})
    assert items(cut_off) == items(other) == ["a"]
    server.cut()
    assert post(cut_off, {"event_id": "2", "item_id": "b"}) == [Outcome.ACCEPTED]
    assert items(cut_off) == ["a", "b"]
    eventually(lambda: items(other) == ["a", "b"], seconds=5)
    post(cut_off, {"event_id": "3", "item_id": "c"})
    server.mend()
    eventually(lambda: cut_off._state is not None and cut_off._state.trusted)
    assert items(cut_off) == ["a", "b", "c"]
    eventually(lambda: items(other) == ["a", "b", "c"], seconds=5)
    post(other, {"event_id": "4", "item_id": "d"})
    assert items(cut_off) == items(other) == ["a", "b", "c", "d"]
    cut_off.close()
    other.close()


def test_a_flushed_redis_is_rebuilt_from_the_store(database_url: str, redis_url: str) -> None:
    import redis

    store = EventStore.open(database_url, state_url=redis_url)
    post(store, {"event_id": "1", "item_id": "a"}, {"event_id": "2", "item_id": "b", "visitor_id": "v"})
    assert (items(store), store.linked_user("v")) == (["a", "b"], "u001")
    server = redis.Redis.from_url(redis_url)
    keys = list(server.scan_iter(match=f"fuseline:{store.id}:*"))
    assert server.delete(*keys) == len(keys) >= 2
    server.close()
    assert (items(store), store.linked_user("v")) == (["a", "b"], "u001")
    post(store, {"event_id": "3", "item_id": "c"})
    assert items(store) == ["a", "b", "c"]
    store.close()


def test_sending_again_what_a_killed_worker_stored_brings_it_into_redis(database_url: str, redis_url: str) -> None:
    store, killed = EventStore.open(database_url, state_url=redis_url), EventStore.open(database_url)
    assert items(store) == []
    post(killed, {"event_id": "1", "item_id": "a"})
    assert post(store, {"event_id": "1", "item_id": "a"}) == [Outcome.DUPLICATE]
    assert items(store) == ["a"]
    store.close()
    killed.close()


def test_without_redis_at_the_start_the_store_answers(tmp_path: Path) -> None:
    store = EventStore.open(f"sqlite:///{tmp_path / 'events.db'}", state_url="redis://127.0.0.1:1/0")
    post(store, {"event_id": "1", "item_id": "a"})
    assert items(store) == ["a"]
    store.close()
