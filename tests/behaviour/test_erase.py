"""A user who is erased is in nothing that anybody reads or trains on, and nobody else is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from pipelines import exclusions, feedback
from pipelines.actions.collect import collect
from pipelines.actions.doctor import _erasures
from pipelines.actions.erase import Erased, erase
from pipelines.cli import app
from pipelines.evaluation import kept_lists
from pipelines.evaluation.kept_lists import KeptLists, Lists
from pipelines.ingestion.canonical.ingest import ingest
from pipelines.ingestion.canonical.snapshot import take
from pipelines.params import DataParams
from pipelines.storage import write_json
from serving.application import ROUTES
from serving.auth import Keys, Role
from serving.event_schemas import rows
from serving.event_store import EventStore, Impression
from serving.runtime import Runtime
from tests.behaviour.killing import killed_at

THEN = datetime(2010, 12, 5, 9, 30, tzinfo=UTC)
NOW = THEN + timedelta(days=3)
SECRET = "somebody-private"  # noqa: S105 - the id of a user
EXPORT = f"""event_id,event_type,event_time,user_id,visitor_id,item_id
old-1,purchase-complete,2010-11-01,{SECRET},,a
old-2,purchase-complete,2010-11-02,other,,a
old-3,detail-page-view,2010-11-03,,cookie,a
old-4,detail-page-view,2010-11-03,{SECRET},laptop,a
old-5,detail-page-view,2010-11-04,,laptop,a
old-6,detail-page-view,2010-11-04,,passer-by,a
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, content in {
        "catalog/all.csv": "item_id,title\na,Apple\n",
        "events/all.csv": EXPORT,
        "users/all.csv": f"user_id,attributes\n{SECRET},{{}}\nother,{{}}\n",
    }.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.fixture
def store(addresses: tuple[str, str | None]) -> Iterator[EventStore]:
    opened = EventStore.open(addresses[0], state_url=addresses[1])
    yield opened
    opened.close()


def happened(store: EventStore) -> None:
    """The user as a visitor and by name, another user on the same device afterwards, and strangers."""
    bought = {"event_type": "purchase-complete", "event_time": THEN.isoformat(), "item_id": "a"}
    who = [
        {"visitor_id": "cookie"},
        {"visitor_id": "cookie", "user_id": SECRET},
        {"visitor_id": "cookie"},
        {"visitor_id": "cookie", "user_id": "other"},
        {"visitor_id": "cookie"},
        {"user_id": "other"},
        {"visitor_id": "passer-by"},
    ]
    store.post([rows({**bought, "event_id": str(n), **one}, received_at=1) for n, one in enumerate(who)]).result(30)
    at = feedback.microseconds(THEN)
    for token, user in (("t1", SECRET), ("t2", "other")):
        store.show(Impression(token, at, "recommend", None, "3", "b", user, None, user, 1, ["a"], [1.0]))


def forget(home: Path, addresses: tuple[str, str | None], **options: Any) -> list[Erased]:
    return erase(home=home, url=addresses[0], state_url=addresses[1], **{"now": NOW, "user": SECRET, **options})


def collected_ids(home: Path) -> list[str]:
    files = sorted((home / "var" / "feedback").rglob("*.parquet"))
    return sorted(one for file in files for one in pq.read_table(file, partitioning=None)["event_id"].to_pylist())


def trained_on(home: Path) -> set[str]:
    data = DataParams(adapter="shop", path=str(home / "shop"))
    report = ingest(take(data, home=home), data, home=home, artifacts=home / "artifacts")
    assert sum(report.tables["events"].bad.values()) == 0
    for file in (home / "artifacts").rglob("*.parquet"):
        assert SECRET not in str(pq.read_table(file).to_pylist())
    return set(pq.read_table(home / "artifacts" / "canonical" / "events.parquet")["event_id"].to_pylist())


BOTH_ENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive), "postgresql and redis"]


@pytest.mark.parametrize("addresses", BOTH_ENDS, indirect=True)
def test_an_erased_user_is_in_no_store_no_partition_no_copy_and_no_later_training(
    home: Path, addresses: tuple[str, str | None], store: EventStore
) -> None:
    happened(store)
    store.close()
    store = EventStore.open(addresses[0], state_url=addresses[1])
    assert len(store.recent(SECRET)) == 2
    assert store.linked_user("cookie") == "other"
    collect(home=home, url=addresses[0], now=NOW)
    assert collected_ids(home) == ["0", "1", "2", "3", "4", "5", "6", "t1", "t2"]
    made = Lists.of([([0], [1.0], None)], 1)
    KeptLists(home, code="c").completed(["s"], [SECRET], lambda _: made)
    (done,) = forget(home, addresses)
    assert not (home / kept_lists.FOLDER).exists()
    assert (done.rows, done.partition_rows) == (4, 5)
    assert (store.recent(SECRET), len(store.recent("other")), len(store.recent("passer-by"))) == ([], 3, 1)
    store.close()
    assert collected_ids(home) == ["3", "5", "6", "t2"]
    assert not [f for f in (home / "var").rglob("*") if f.is_file() and SECRET.encode() in f.read_bytes()]
    again = EventStore.open(addresses[0])
    late = {"event_type": "purchase-complete", "event_time": THEN.isoformat(), "item_id": "a", "user_id": "other"}
    again.post([rows({**late, "event_id": "late"}, received_at=1)]).result(30)
    again.close()
    assert trained_on(home) == {"old-2", "old-6", "3", "5", "6"}


@pytest.mark.parametrize("addresses", ["sqlite"], indirect=True)
def test_who_comes_back_is_a_new_customer(home: Path, addresses: tuple[str, str | None], store: EventStore) -> None:
    forget(home, addresses)
    back = {"event_type": "purchase-complete", "event_time": (NOW + timedelta(hours=1)).isoformat(), "item_id": "a"}
    store.post([rows({**back, "event_id": "new", "user_id": SECRET}, received_at=1)]).result(30)
    collect(home=home, url=addresses[0], now=NOW + timedelta(days=1))
    data = DataParams(adapter="shop", path=str(home / "shop"))
    report = ingest(take(data, home=home), data, home=home, artifacts=home / "artifacts")
    events = pq.read_table(home / "artifacts" / "canonical" / "events.parquet")["event_id"].to_pylist()
    assert sorted(events) == ["new", "old-2", "old-3", "old-6"]
    assert {w.reason: w.rows for w in report.warnings}["erased"] == 3


@pytest.mark.parametrize("addresses", ["sqlite"], indirect=True)
def test_killed_at_any_point_an_erasure_is_carried_out_by_the_next_call(
    home: Path, addresses: tuple[str, str | None], store: EventStore
) -> None:
    happened(store)
    store.close()
    collect(home=home, url=addresses[0], now=NOW)
    step = 0
    while killed_at(step, lambda: forget(home, addresses)):
        step += 3
    assert step > 9
    assert forget(home, addresses, user=None) == []
    assert collected_ids(home) == ["3", "5", "6", "t2"]
    assert not [f for f in (home / "var" / "feedback").rglob("*") if f.is_file() and SECRET.encode() in f.read_bytes()]


@pytest.mark.parametrize("addresses", ["sqlite"], indirect=True)
def test_an_erasure_is_asked_for_by_http_carried_out_by_command_and_looked_up(
    home: Path, addresses: tuple[str, str | None], store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys({_digest("administrator-key"): frozenset(Role), _digest("a-reader-s-own-key"): frozenset({Role.READ})})
    ROUTES.state.runtime = Runtime(store, keys, replay=False, served=None)
    client = TestClient(ROUTES, base_url="http://127.0.0.1", headers={"X-API-Key": "administrator-key"})
    asked = client.delete("/v1/users/with%2Fslash")
    assert (asked.status_code, asked.json()["state"]) == (202, "waiting")
    erasure = asked.json()["erasure_id"]
    assert client.delete("/v1/users/with%2Fslash").json()["erasure_id"] == erasure
    found = client.get(f"/v1/erasures/{erasure}").json()
    assert datetime.fromisoformat(found["deadline"]) - datetime.fromisoformat(found["requested_at"]) == timedelta(30)
    assert "with/slash" not in str(found)
    assert client.get("/v1/erasures/none").status_code == 404
    assert client.delete("/v1/users/u", headers={"X-API-Key": "a-reader-s-own-key"}).status_code == 403
    monkeypatch.setenv("FUSELINE_HOME", str(home))
    monkeypatch.setenv("FUSELINE_EVENTS_URL", addresses[0])
    done = CliRunner().invoke(app, ["erase", "--due", "--json"])
    assert [one["erasure_id"] for one in json.loads(done.output)] == [erasure]
    assert client.get(f"/v1/erasures/{erasure}").json()["state"] == "erased"
    assert "no erasure waits" in CliRunner().invoke(app, ["erase", "--due"]).output
    assert CliRunner().invoke(app, ["erase"]).exit_code == 2


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


@pytest.mark.parametrize("addresses", ["sqlite"], indirect=True)
def test_a_champion_that_has_learned_from_an_erased_user_is_named_and_past_the_deadline_fails(
    home: Path, addresses: tuple[str, str | None]
) -> None:
    bundle = home / "var" / "bundles" / "b" / "bundle"
    write_json(bundle / "manifest.json", {"data": {"exclusions": 0}})
    forget(home, addresses)
    listed = exclusions.read(home)
    assert listed.remark(bundle, now=NOW) == "1, gone by 2011-01-07"
    assert listed.remark(bundle, now=NOW + timedelta(days=31)) == "1, gone by 2011-01-07, OVERDUE"
    pointer = {"version": 1, "bundle": "var/bundles/b/bundle", "bundle_id": "b", "recipe": "r"}
    write_json(home / "var" / "champion" / "current.json", pointer)
    assert [check.state for check in _erasures(home, now=NOW)] == ["warn"]
    assert [check.state for check in _erasures(home, now=NOW + timedelta(days=31))] == ["fail"]
    write_json(bundle / "manifest.json", {"data": {"exclusions": len(listed.entries)}})
    assert [check.state for check in _erasures(home, now=NOW)] == ["ok"]


@pytest.mark.parametrize("addresses", ["sqlite"], indirect=True)
def test_partitions_that_people_put_there_lose_the_user_too(home: Path, addresses: tuple[str, str | None]) -> None:
    own = home / "var" / "feedback" / "dt=2010-01-01" / "old.parquet"
    own.parent.mkdir(parents=True)
    pq.write_table(pa.table({"event_id": ["1", "2"], "user_id": [SECRET, "other"], "visitor_id": [None, "x"]}), own)
    forget(home, addresses)
    assert pq.read_table(own, partitioning=None)["event_id"].to_pylist() == ["2"]
