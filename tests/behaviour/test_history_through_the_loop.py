"""What a person did counts once: in the bundle when it was collected, else from the store, and never in both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import feedback
from pipelines.actions.collect import collect
from pipelines.bundle import Bundle
from pipelines.features.state import FeatureState, UserHistory
from pipelines.storage import read_json
from serving.event_schemas import rows
from serving.event_store import EventStore
from serving.history import history, live_events, whose
from tests.stages import pipeline, shops

STAGES = ("snapshot", "ingest", "split", "encode", "encode_queries", "features --served")
USERS = [f"0{n}" for n in range(8)]
DAY_60 = shops.START + timedelta(days=60)


def log(n: int, *, first: datetime, last: datetime, seed: int) -> list[dict[str, Any]]:
    """Events in a random order of arrival: some late, some of the open hour, some from a fast clock."""
    draw = random.Random(seed)  # noqa: S311 - a world, not a secret
    span = (last - first).total_seconds()
    return [
        {
            "event_id": f"live-{seed}-{k}",
            "event_type": draw.choice(["purchase-complete", "purchase-complete", "add-to-cart", "search"]),
            "event_time": (first + timedelta(seconds=draw.randrange(int(span)))).isoformat(),
            "user_id": draw.choice(USERS),
            "item_id": f"{draw.randrange(30):05d}",
            "quantity": draw.randint(1, 4),
        }
        for k in range(n)
    ]


def post(store: EventStore, events: Sequence[dict[str, Any]]) -> None:
    store.post([rows(one, received_at=1) for one in events]).result(30)


def bundle_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The served side of a run, with the manifest's word about what it has learned from."""
    artifacts = pipeline.run(root, monkeypatch, stages=STAGES)
    through = feedback.through(read_json(artifacts / "snapshot" / "manifest.json"))
    return Bundle({"data": {"events_through": through}}, FeatureState.load(artifacts / "features_served"), {}, {})


def shop(root: Path, events: Sequence[dict[str, Any]], **data: Any) -> None:
    shops.write_csv(root / "shop" / "catalog" / "all.csv", shops.catalogue(30))
    shops.write_jsonl(root / "shop" / "events" / "all.jsonl", events)
    pipeline.write_params(root, data={**pipeline.QUICK["data"], **data})


def assert_alike(one: UserHistory, other: UserHistory) -> None:
    assert sorted(one.items.tolist()) == sorted(other.items.tolist())
    order, wanted = np.argsort(one.items), np.argsort(other.items)
    for name, values in one.aggregates.items():
        np.testing.assert_allclose(values[order], other.aggregates[name][wanted], rtol=1e-4, atol=1e-5, err_msg=name)
    assert one.user == pytest.approx(other.user, rel=1e-4)


LATE_IN_THE_DAY = DAY_60 + timedelta(hours=15)
CASES = [
    pytest.param("sqlite", None, LATE_IN_THE_DAY, id="as_of after what was collected"),
    pytest.param("sqlite", DAY_60 - timedelta(hours=30), LATE_IN_THE_DAY, id="as_of cuts what was collected"),
    pytest.param("postgresql", None, LATE_IN_THE_DAY, id="postgresql", marks=pytest.mark.exhaustive),
    pytest.param(
        "sqlite",
        DAY_60 + timedelta(days=1),
        DAY_60 - timedelta(hours=3),
        id="as_of long after",
        marks=pytest.mark.exhaustive,
    ),
]


@pytest.mark.parametrize(("url", "as_of", "until"), CASES, indirect=["url"])
def test_bundle_and_store_together_are_the_one_log(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, as_of: datetime | None, until: datetime
) -> None:
    base = shops.events(30, users=8, days=58)
    span = {"first": DAY_60 - timedelta(days=4), "last": DAY_60 + timedelta(hours=20)}
    before, between, after = (log(60, **span, seed=seed) for seed in (1, 2, 3))
    cut = None if as_of is None else as_of.isoformat()
    shop(tmp_path / "loop", base, as_of=cut)
    home, store = tmp_path / "loop", EventStore.open(url)
    post(store, before)
    collect(home=home, url=url, now=until - timedelta(hours=20))
    post(store, between)
    collect(home=home, url=url, now=until)
    post(store, after)
    loop = bundle_of(home, monkeypatch)

    everything = [*before, *between, *after]
    past = [one for one in everything if datetime.fromisoformat(one["event_time"]) < loop.as_of]
    shop(tmp_path / "one", [*base, *past], as_of=loop.as_of.isoformat())
    one_log = bundle_of(tmp_path / "one", monkeypatch)
    assert one_log.as_of == loop.as_of
    future = [one for one in everything if one not in past]
    for user in USERS:
        served = history(loop, store, of=whose(store, user_id=user, visitor_id=None))
        own = [one for one in future if one["user_id"] == user]
        other = EventStore.open(f"sqlite:///{tmp_path / f'{user}.db'}")
        post(other, own)
        wanted = one_log.history(user_id=user, events=live_events(one_log, other.recent(user)))
        other.close()
        assert_alike(served, wanted)
    store.close()


def test_another_store_is_not_taken_for_the_one_that_was_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop(tmp_path, shops.events(30, users=8, days=58))
    url = f"sqlite:///{tmp_path / 'events.db'}"
    first = EventStore.open(url)
    post(first, log(20, first=DAY_60 - timedelta(days=2), last=DAY_60, seed=1))
    collect(home=tmp_path, url=url, now=DAY_60.replace(tzinfo=UTC))
    bundle = bundle_of(tmp_path, monkeypatch)
    assert history(bundle, first, of=whose(first, user_id="new", visitor_id=None)).items.size == 0
    other = EventStore.open(f"sqlite:///{tmp_path / 'other.db'}")
    bought = {"event_type": "purchase-complete", "event_time": DAY_60.isoformat(), "item_id": "00001"}
    post(other, [{**bought, "user_id": "new"}])
    assert history(bundle, other, of=whose(other, user_id="new", visitor_id=None)).items.size == 1
    first.close()
    other.close()
