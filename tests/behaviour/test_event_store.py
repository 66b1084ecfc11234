"""What the event store promises, held by every database behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from pipelines.feedback import Covered, microseconds
from serving.event_schemas import rows
from serving.event_store import EventStore, Impression, Outcome


@pytest.fixture
def url(addresses: tuple[str, str | None]) -> str:
    return addresses[0]


@pytest.fixture
def opened(addresses: tuple[str, str | None]) -> Iterator[Callable[[], EventStore]]:
    """Another worker's view of the same store."""
    stores: list[EventStore] = []

    def open_one() -> EventStore:
        url, state_url = addresses
        stores.append(EventStore.open(url, state_url=state_url))
        return stores[-1]

    yield open_one
    for one in stores:
        one.close()


@pytest.fixture
def store(opened: Callable[[], EventStore]) -> EventStore:
    return opened()


def event(event_id: str | None = None, *, item: str = "a", **fields: Any) -> list[dict[str, Any]]:
    raw = {"event_id": event_id, "event_type": "purchase-complete", "event_time": "2010-12-05T10:00:00Z"}
    return rows({**raw, "item_id": item, **fields}, received_at=1)


def post(store: EventStore, *events: list[dict[str, Any]]) -> list[Outcome]:
    return store.post(events).result(timeout=30)


def items(store: EventStore, history_id: str, **options: Any) -> list[str]:
    return [row.item_id for row in store.recent(history_id, **options)]


def test_a_posted_event_is_read_back_with_its_time_and_quantity(store: EventStore) -> None:
    post(store, event("1", user_id="u", quantity=3, price=2.5))
    (found,) = store.recent("u")
    assert (found.item_id, found.event_type, found.quantity, found.price) == ("a", "purchase-complete", 3.0, 2.5)
    assert found.event_time == 1_291_543_200_000_000  # 2010-12-05T10:00:00Z


def test_the_same_event_again_is_a_duplicate_and_counts_once(store: EventStore) -> None:
    assert post(store, event("1", user_id="u")) == [Outcome.ACCEPTED]
    assert post(store, event("1", user_id="u"), event("1", user_id="u")) == [Outcome.DUPLICATE, Outcome.DUPLICATE]
    assert items(store, "u") == ["a"]


def test_the_same_event_twice_in_one_post_counts_once(store: EventStore) -> None:
    assert post(store, event("1", user_id="u"), event("1", user_id="u")) == [Outcome.ACCEPTED, Outcome.DUPLICATE]
    assert items(store, "u") == ["a"]


def test_an_event_without_id_posted_again_is_a_duplicate(store: EventStore) -> None:
    assert post(store, event(user_id="u"), event(user_id="u")) == [Outcome.ACCEPTED, Outcome.DUPLICATE]


def test_a_copy_with_other_content_is_a_conflict_and_changes_nothing(store: EventStore) -> None:
    post(store, event("1", user_id="u", quantity=1))
    assert post(store, event("1", user_id="u", quantity=9)) == [Outcome.CONFLICT]
    assert [row.quantity for row in store.recent("u")] == [1.0]


def test_one_event_id_may_be_about_several_items(store: EventStore) -> None:
    assert post(store, event("1", item="a", user_id="u"), event("1", item="b", user_id="u")) == [Outcome.ACCEPTED] * 2
    assert items(store, "u") == ["a", "b"]


def test_recent_gives_the_newest_rows_oldest_first(store: EventStore) -> None:
    post(store, *(event(str(n), item=f"i{n}", user_id="u") for n in range(5)))
    assert items(store, "u", limit=3) == ["i2", "i3", "i4"]


def test_recent_leaves_out_what_is_covered_by_arrival_and_time(store: EventStore) -> None:
    times = {"old": "2010-12-05T10:00:00Z", "open": "2010-12-05T12:30:00Z"}
    post(store, *(event(name, item=name, user_id="u", event_time=time) for name, time in times.items()))
    seen = store.recent("u")[-1].seq
    late = event("late", item="late", user_id="u", event_time="2010-12-05T09:00:00Z")
    post(store, late)
    noon = microseconds(datetime(2010, 12, 5, 12, tzinfo=UTC))
    assert items(store, "u", beyond=Covered(seen, noon, seen)) == ["open", "late"]
    assert items(store, "u", beyond=Covered(seen, noon)) == ["open", "late"]
    assert items(store, "u", beyond=Covered(seen, noon + 3_600_000_000, seen + 1)) == ["late"]


def test_a_store_keeps_its_id_and_another_has_another(
    store: EventStore, opened: Callable[[], EventStore], tmp_path: Path
) -> None:
    other = EventStore.open(f"sqlite:///{tmp_path / 'other.db'}")
    assert store.id == opened().id != other.id
    other.close()


def test_an_event_belongs_to_the_user_and_else_to_the_visitor(store: EventStore) -> None:
    post(store, event("1", item="a", user_id="u", visitor_id="v1"), event("2", item="b", visitor_id="v2"))
    assert (items(store, "u"), items(store, "v1"), items(store, "v2")) == (["a"], [], ["b"])


def test_an_event_with_both_ids_links_the_visitor_from_then_on(store: EventStore) -> None:
    before = event("1", item="before", visitor_id="v")
    link = event("2", item="link", visitor_id="v", user_id="u")
    after = event("3", item="after", visitor_id="v")
    post(store, before, link, after)
    post(store, event("4", item="later", visitor_id="v"))
    assert store.linked_user("v") == "u"
    assert items(store, "u") == ["link", "after", "later"]
    assert items(store, "v") == ["before"]


def test_a_link_is_seen_by_who_has_looked_before(store: EventStore, opened: Callable[[], EventStore]) -> None:
    other = opened()
    assert (other.linked_user("v"), store.linked_user("v")) == (None, None)
    post(store, event("1", visitor_id="v", user_id="u"))
    assert (other.linked_user("v"), store.linked_user("v")) == ("u", "u")


def test_a_history_longer_than_any_copy_is_exact(store: EventStore) -> None:
    early, late = "2010-12-05T10:00:00Z", "2010-12-05T12:00:00Z"
    post(store, event("first", item="first", user_id="u", event_time=late))
    post(store, *(event(str(n), item=f"i{n}", user_id="u", event_time=early) for n in range(800)))
    newest = store.recent("u", limit=3)
    assert [row.item_id for row in newest] == ["i797", "i798", "i799"]
    noon = microseconds(datetime(2010, 12, 5, 11, tzinfo=UTC))
    for _ in range(2):
        assert items(store, "u", beyond=Covered(newest[-1].seq, noon)) == ["first"]
        assert items(store, "u", beyond=Covered(newest[0].seq, noon, newest[0].seq)) == ["i798", "i799"]


def test_the_newest_link_wins(store: EventStore) -> None:
    post(store, event("1", visitor_id="v", user_id="first"), event("2", visitor_id="v", user_id="second"))
    assert store.linked_user("v") == "second"


def test_an_unknown_visitor_is_linked_to_nobody(store: EventStore) -> None:
    assert store.linked_user("nobody") is None


def test_an_event_about_no_product_is_kept(store: EventStore) -> None:
    raw = {"event_type": "search", "event_time": "2010-12-05", "user_id": "u", "search_query": "spade"}
    assert post(store, rows(raw, received_at=1)) == [Outcome.ACCEPTED]
    assert items(store, "u") == [""]


def test_ids_keep_every_byte(store: EventStore) -> None:
    for odd in ("00123", "a'b\"c", "ü/☃?&", " x ", "%s", "?"):
        post(store, event(odd, item=odd, user_id=odd))
        assert items(store, odd) == [odd]


def test_two_stores_see_each_others_events_at_once(store: EventStore, opened: Callable[[], EventStore]) -> None:
    other = opened()
    assert items(store, "u") == items(other, "u") == []
    post(other, event("1", item="elsewhere", user_id="u"))
    assert items(store, "u") == ["elsewhere"]
    assert post(store, event("1", item="elsewhere", user_id="u")) == [Outcome.DUPLICATE]
    assert items(other, "u") == ["elsewhere"]


def test_many_posts_at_once_all_end_accepted(store: EventStore) -> None:
    waiting = [store.post([event(f"{n}", item=f"i{n}", user_id="u")]) for n in range(300)]
    assert {one.result(timeout=30)[0] for one in waiting} == {Outcome.ACCEPTED}
    assert len(store.recent("u", limit=1000)) == 300


def test_a_post_that_the_database_refuses_fails_alone(store: EventStore) -> None:
    bad = event("bad", user_id="u")
    bad[0]["position"] = 2**70
    results = [store.post([event("good", user_id="u")]), store.post([bad]), store.post([event("2", user_id="u")])]
    assert results[0].result(30) == [Outcome.ACCEPTED]
    with pytest.raises(Exception, match=r".+"):
        results[1].result(30)
    assert results[2].result(30) == [Outcome.ACCEPTED]


def test_an_impression_is_durable_after_close(url: str) -> None:
    store = EventStore.open(url)
    store.show(Impression("t", 5, "recommend", "home", "3", "abc", "u", None, "u", 1, ["a", "b"], [1.0, 0.25]))
    store.close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        query = "SELECT attribution_token, first_position, items, propensities, placement FROM impressions"
        found = connection.execute(text(query)).one()
    engine.dispose()
    assert tuple(found) == ("t", 1, '["a","b"]', "[1.0,0.25]", "home")


def test_a_store_of_an_earlier_release_gets_the_newer_columns_and_keeps_its_rows(url: str) -> None:
    store = EventStore.open(url)
    store.show(Impression("old", 5, "recommend", "home", "3", "abc", "u", None, "u", 1, ["a"], [1.0]))
    store.close()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for column in ("fallback", "took_ms"):
            connection.execute(text(f"ALTER TABLE impressions DROP COLUMN {column}"))
    for _ in range(2):
        store = EventStore.open(url)
        store.show(Impression("new", 6, "recommend", None, "3", "abc", "u", None, "u", 1, ["a"], [1.0], "odd", 1.5))
        store.close()
    with engine.connect() as connection:
        query = "SELECT attribution_token, fallback, took_ms FROM impressions ORDER BY seq"
        found = connection.execute(text(query)).all()
    engine.dispose()
    assert [tuple(row) for row in found] == [("old", None, None), ("new", "odd", 1.5)]


def test_accepted_events_survive_kill_9(url: str) -> None:
    program = """
import os, signal, sys
from serving.event_store import EventStore
from serving.event_schemas import rows
store = EventStore.open(sys.argv[1])
raw = {"event_type": "purchase-complete", "event_time": "2010-12-05", "user_id": "u"}
for n in range(50):
    store.post([rows({**raw, "event_id": str(n), "item_id": "a"}, received_at=1)]).result(30)
os.kill(os.getpid(), signal.SIGKILL)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program, url], env=environ, check=False, timeout=60)
    assert done.returncode == -9
    store = EventStore.open(url)
    assert len(store.recent("u")) == 50
    store.close()


def test_opening_twice_at_once_makes_the_tables_once(tmp_path: Path) -> None:
    program = "import sys; from serving.event_store import EventStore; EventStore.open(sys.argv[1]).close()"
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, f"sqlite:///{tmp_path / 'events.db'}"]
    children = [subprocess.Popen(command, env=environ) for _ in range(3)]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]


def test_what_a_post_costs_does_not_grow_with_a_table_that_nobody_analysed(postgresql: str) -> None:
    store = EventStore.open(postgresql)
    for number in range(200):  # a prepared statement keeps the plan that was best while the table was empty
        post(store, event(str(number), user_id="u", visitor_id="v"))
        store.recent("u")
    store.close()
    engine = create_engine(postgresql.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        schema = connection.scalar(text("SELECT current_schema()"))
        scans = "SELECT seq_tup_read FROM pg_stat_user_tables WHERE schemaname = :schema AND relname = 'events'"
        rows_scanned = connection.scalar(text(scans), {"schema": schema})
    engine.dispose()
    assert rows_scanned < 200 * 10
