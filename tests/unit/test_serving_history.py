from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_bundle import AS_OF, make
from pipelines.bundle import Bundle
from pipelines.feedback import microseconds
from pipelines.ranking import RankRequest
from serving import handlers, history
from serving.event_schemas import rows
from serving.event_store import EventStore, RecentEvent
from serving.history import whose
from serving.schemas import RankRequest as ScoreRequest
from serving.schemas import RecommendRequest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(make(tmp_path_factory.mktemp("world") / "bundle"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore.open(f"sqlite:///{tmp_path / 'events.db'}")
    yield opened
    opened.close()


def post(store: EventStore, *raw: dict[str, Any]) -> None:
    store.post([rows({"event_time": "2011-01-01", **one}, received_at=1) for one in raw]).result(30)


def known(bundle: Bundle, store: EventStore, **who: str | None) -> list[str]:
    of = whose(store, **{"user_id": None, "visitor_id": None, **who})
    return bundle.features.item_ids.ids(history.history(bundle, store, of=of).items)


def buy(item: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": "purchase-complete", "item_id": item, **fields}


def test_a_posted_event_comes_first_in_the_history(bundle: Bundle, store: EventStore) -> None:
    before = known(bundle, store, user_id="u001")
    post(store, buy("i0059", user_id="u001"))
    assert known(bundle, store, user_id="u001") == ["i0059", *(item for item in before if item != "i0059")]


def test_an_event_without_meaning_for_the_models_changes_nothing(bundle: Bundle, store: EventStore) -> None:
    before = known(bundle, store, user_id="u001")
    post(store, buy("unknown", user_id="u001"), {"event_type": "search", "user_id": "u001", "search_query": "x"})
    assert known(bundle, store, user_id="u001") == before


def test_a_visitor_has_a_history_of_their_own_until_linked(bundle: Bundle, store: EventStore) -> None:
    post(store, buy("i0001", visitor_id="v"))
    assert known(bundle, store, visitor_id="v") == ["i0001"]
    post(store, buy("i0059", visitor_id="v", user_id="u001"))
    assert known(bundle, store, visitor_id="v") == known(bundle, store, user_id="u001")


def test_a_user_never_met_has_the_visitors_history(bundle: Bundle, store: EventStore) -> None:
    post(store, buy("i0001", visitor_id="v"))
    assert known(bundle, store, user_id="new", visitor_id="v") == ["i0001"]


def test_events_before_the_bundle_are_ordered_by_time_and_later_ones_by_arrival(bundle: Bundle) -> None:
    as_of = microseconds(AS_OF)
    times = {1: as_of + 9, 2: as_of - 5_000_000, 3: as_of + 1, 4: as_of - 9_000_000}
    posted = [RecentEvent(seq, time, "purchase-complete", f"i{seq}", None, None, 1.0) for seq, time in times.items()]
    assert [event.item_id for event in history.live_events(bundle, posted)] == ["i4", "i2", "i1", "i3"]


def test_replay_leaves_out_what_had_not_happened(bundle: Bundle) -> None:
    as_of = microseconds(AS_OF)
    posted = [RecentEvent(n, as_of + n, "purchase-complete", f"i{n}", None, None, 1.0) for n in (1, 2)]
    until = AS_OF + timedelta(microseconds=1)
    assert [event.item_id for event in history.live_events(bundle, posted, until=until)] == ["i1"]


def test_without_exploration_the_list_is_that_of_the_evaluation(bundle: Bundle) -> None:
    past = bundle.history(user_id="u001")
    asked = RecommendRequest(user_id="u001", explore=False)
    answered = handlers.recommend(asked, bundle=bundle, history=past, token="any")  # noqa: S106
    assert answered == bundle.rank(RankRequest(n=10), past)


def test_one_token_always_explores_alike_and_never_above_the_sixth_place(bundle: Bundle) -> None:
    past = bundle.history(user_id="u001")
    plain = [item.id for item in bundle.rank(RankRequest(n=10), past).items]
    changed = 0
    for n in range(200):
        twice = [handlers.recommend(RecommendRequest(), bundle=bundle, history=past, token=f"t{n}") for _ in range(2)]
        assert twice[0] == twice[1]
        differs = [place for place, item in enumerate(twice[0].items) if item.id != plain[place]]
        assert len(differs) <= 1
        assert all(place >= 5 for place in differs)
        changed += bool(differs)
    assert 1 <= changed <= 30  # 5 % of 200 lists are 10


def test_ranked_items_are_all_there_best_first_and_unknown_ones_last(bundle: Bundle) -> None:
    past = bundle.history(user_id="u001")
    items, fallback = handlers.rank(ScoreRequest(items=["zz", "i0001", "i0002", "i0001"]), bundle=bundle, history=past)
    assert fallback is None
    assert [item["rank"] for item in items] == [1, 2, 3]
    assert items[-1] == {"id": "zz", "rank": 3, "score": None}
    assert items[0]["score"] >= items[1]["score"]
