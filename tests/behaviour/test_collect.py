"""What is collected: every closed hour, exactly once, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import create_engine, text

from pipelines import feedback
from pipelines.actions.collect import Collection, collect
from pipelines.contracts import EVENTS
from pipelines.errors import ArtifactError
from pipelines.ingestion.canonical.snapshot import take
from pipelines.params import DataParams
from serving.event_schemas import rows
from serving.event_store import EventStore, Impression
from tests.behaviour.killing import killed_at

MORNING = datetime(2010, 12, 5, 9, 30, tzinfo=UTC)
Post = Callable[..., None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    catalog = tmp_path / "shop" / "catalog" / "all.csv"
    catalog.parent.mkdir(parents=True)
    catalog.write_text("item_id,title\na,Apple\n")
    return tmp_path


@pytest.fixture
def post(url: str) -> Post:
    """Post one event an id, in order; ``time`` of all."""

    def posted(*ids: str, time: datetime = MORNING, **fields: Any) -> None:
        store = EventStore.open(url)
        raw = {"event_type": "purchase-complete", "event_time": time.isoformat(), "user_id": "u", "item_id": "a"}
        received = feedback.microseconds(time + timedelta(seconds=2))
        events = [rows({**raw, "event_id": one, **fields}, received_at=received) for one in ids]
        store.post(events).result(30)
        store.close()

    return posted


def run(home: Path, url: str, *, now: datetime, **options: Any) -> Collection:
    return collect(home=home, url=url, now=now, **options)


def collected(home: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows by partition, as one finds them by looking for files."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((home / "var" / "feedback").glob("dt=*/*.parquet")):
        found.setdefault(path.parent.name, []).extend(pq.read_table(path, partitioning=None).to_pylist())
    return found


def ids(home: Path) -> dict[str, list[str]]:
    return {day: [row["event_id"] for row in rows] for day, rows in collected(home).items()}


def tree(home: Path) -> dict[str, bytes]:
    root = home / "var" / "feedback"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def snapshot(home: Path) -> tuple[set[str], dict[str, Any]]:
    """Ids of the events in what a run would read, and the watermarks beside them."""
    taken = take(DataParams(adapter="shop", path=str(home / "shop")), home=home)
    tables = [pq.read_table(home / file.path, partitioning=None) for file in taken.feedback]
    return {one for table in tables for one in table["event_id"].to_pylist()}, taken.collected


def test_closed_hours_are_exported_by_the_day_of_the_event_with_the_contracts_columns(
    home: Path, url: str, post: Post
) -> None:
    post("1", quantity=2)
    post("2", time=MORNING + timedelta(days=1))
    post("open", time=MORNING + timedelta(days=1, hours=1))
    done = run(home, url, now=MORNING + timedelta(days=1, hours=1, minutes=5))
    assert ids(home) == {"dt=2010-12-05": ["1"], "dt=2010-12-06": ["2"]}
    assert (done.rows, len(done.changed)) == (2, 2)
    (row,) = collected(home)["dt=2010-12-05"]
    assert tuple(row) == EVENTS.names
    assert (row["event_time"], row["quantity"], row["search_query"]) == (MORNING, 2.0, None)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_collecting_again_changes_no_byte(home: Path, url: str, post: Post) -> None:
    post("1", "2")
    run(home, url, now=MORNING + timedelta(hours=1))
    before = tree(home)
    assert run(home, url, now=MORNING + timedelta(days=3)).changed == ()
    assert tree(home) == before


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_hour_that_closes_completes_its_day(home: Path, url: str, post: Post) -> None:
    post("1")
    post("2", time=MORNING + timedelta(hours=1))
    run(home, url, now=MORNING + timedelta(hours=1))
    assert ids(home) == {"dt=2010-12-05": ["1"]}
    assert run(home, url, now=MORNING + timedelta(hours=2)).rows == 1
    assert ids(home) == {"dt=2010-12-05": ["1", "2"]}


def test_a_late_event_rebuilds_only_the_day_that_it_belongs_to(home: Path, url: str, post: Post) -> None:
    post("1")
    post("2", time=MORNING + timedelta(days=2))
    run(home, url, now=MORNING + timedelta(days=3))
    before = tree(home)
    post("late", time=MORNING - timedelta(hours=1))
    done = run(home, url, now=MORNING + timedelta(days=3))
    assert [one.day for one in done.changed] == ["2010-12-05"]
    assert ids(home) == {"dt=2010-12-05": ["late", "1"], "dt=2010-12-07": ["2"]}
    unchanged = {name for name, content in tree(home).items() if before.get(name) == content}
    assert [name for name in unchanged if name.startswith("dt=")] == [
        n for n in before if n.startswith("dt=2010-12-07")
    ]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_an_event_from_a_fast_clock_waits_for_its_hour(home: Path, url: str, post: Post) -> None:
    post("1")
    post("ahead", time=MORNING + timedelta(hours=1))
    post("2", time=MORNING + timedelta(minutes=1))
    run(home, url, now=MORNING + timedelta(hours=1))
    assert ids(home) == {"dt=2010-12-05": ["1", "2"]}
    run(home, url, now=MORNING + timedelta(hours=2))
    assert ids(home) == {"dt=2010-12-05": ["1", "2", "ahead"]}


def test_impressions_are_exported_one_row_an_item(home: Path, url: str) -> None:
    store = EventStore.open(url)
    at = feedback.microseconds(MORNING)
    store.show(Impression("t", at, "recommend", "home", "3", "abc", "u", None, "u", 6, ["b", "a"], [1.0, 0.25]))
    store.close()
    assert run(home, url, now=MORNING + timedelta(hours=1)).rows == 2
    one, other = collected(home)["dt=2010-12-05"]
    assert one["event_type"] == other["event_type"] == "impression"
    assert [(r["item_id"], r["position"], r["propensity"]) for r in (one, other)] == [("b", 6, 1.0), ("a", 7, 0.25)]
    assert {r["attribution_token"] for r in (one, other)} == {r["event_id"] for r in (one, other)} == {"t"}
    assert (one["model_version"], one["placement"], one["user_id"], one["event_time"]) == ("3", "home", "u", MORNING)
    assert json.loads(one["attributes"]) == {"bundle_id": "abc", "surface": "recommend"}


def test_an_event_that_cites_the_list_of_a_search_is_told_what_was_asked(home: Path, url: str) -> None:
    store = EventStore.open(url)
    at = feedback.microseconds(MORNING)
    shown = Impression("t", at, "search", "search", "3", "abc", "u", None, "u", 1, ["a"], [1.0], None, 2.0, "red mug")
    store.show(shown)
    raw = {"event_type": "detail-page-view", "event_time": MORNING.isoformat(), "user_id": "u", "item_id": "a"}
    told = [
        raw | {"event_id": "cites", "attribution_token": "t"},
        raw | {"event_id": "says", "attribution_token": "t", "search_query": "mug"},
        raw | {"event_id": "neither", "attribution_token": "unknown"},
    ]
    store.post([rows(one, received_at=1) for one in told]).result(30)
    store.close()
    run(home, url, now=MORNING + timedelta(hours=1))
    found = {row["event_id"]: row["search_query"] for row in collected(home)["dt=2010-12-05"]}
    assert found == {"t": "red mug", "cites": "red mug", "says": "mug", "neither": None}


def test_the_same_rows_are_the_same_files_whatever_their_order_and_database(
    home: Path, url: str, post: Post, tmp_path: Path
) -> None:
    odd = ("é", "Z", "a", "_", "10", "9")
    for one in odd:
        post(one)
    run(home, url, now=MORNING + timedelta(hours=1))
    other = EventStore.open(f"sqlite:///{tmp_path / 'other' / 'events.db'}")
    raw = {"event_type": "purchase-complete", "event_time": MORNING.isoformat(), "user_id": "u", "item_id": "a"}
    other.post([rows({**raw, "event_id": one}, received_at=1) for one in reversed(odd)]).result(30)
    other.close()
    elsewhere = tmp_path / "elsewhere"
    run(elsewhere, f"sqlite:///{tmp_path / 'other' / 'events.db'}", now=MORNING + timedelta(hours=1))
    data = [{k: v for k, v in tree(root).items() if k.startswith("dt=")} for root in (home, elsewhere)]
    assert data[0] == data[1]
    assert ids(home)["dt=2010-12-05"] == sorted(odd)


def test_the_snapshot_names_partitions_and_watermark_of_one_moment(home: Path, url: str, post: Post) -> None:
    post("1", "2")
    post("open", time=MORNING + timedelta(hours=1))
    done = run(home, url, now=MORNING + timedelta(hours=1))
    seen, through = snapshot(home)
    assert seen == {"1", "2"}
    assert {key: value["seq"] for key, value in through.items()} == {done.store: 3}
    assert through[done.store or ""]["until"] == "2010-12-05T10:00:00+00:00"
    assert through[done.store or ""]["open_from"] == 3


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_replaced_partition_is_still_found_by_a_run_that_began_with_it(home: Path, url: str, post: Post) -> None:
    from pipelines.ingestion.canonical.ingest import ingest

    post("1")
    run(home, url, now=MORNING + timedelta(hours=1))
    data = DataParams(adapter="shop", path=str(home / "shop"))
    taken = take(data, home=home)
    post("2")
    run(home, url, now=MORNING + timedelta(hours=1))
    ingest(taken, data, home=home, artifacts=home / "artifacts")
    assert pq.read_table(home / "artifacts" / "canonical" / "events.parquet")["event_id"].to_pylist() == ["1"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_partition_that_people_put_there_counts_and_stays(home: Path, url: str, post: Post) -> None:
    own = home / "var" / "feedback" / "dt=2010-01-01" / "old.parquet"
    own.parent.mkdir(parents=True)
    pq.write_table(EVENTS.schema.empty_table(), own)
    post("1")
    run(home, url, now=MORNING + timedelta(hours=1))
    run(home, url, now=MORNING + timedelta(hours=2))
    taken = take(DataParams(adapter="shop", path=str(home / "shop")), home=home)
    assert own.exists()
    assert "var/feedback/dt=2010-01-01/old.parquet" in {file.path for file in taken.feedback}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_lost_partition_stops_the_snapshot(home: Path, url: str, post: Post) -> None:
    post("1")
    run(home, url, now=MORNING + timedelta(hours=1))
    next((home / "var" / "feedback").glob("dt=*/*.parquet")).unlink()
    with pytest.raises(ArtifactError, match=r"has lost dt=2010-12-05/events-.*restore"):
        snapshot(home)


def test_a_store_that_lost_rows_does_not_take_them_from_the_partitions(home: Path, url: str, post: Post) -> None:
    post("1", "2")
    run(home, url, now=MORNING + timedelta(hours=1))
    before = tree(home)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM events"))
    engine.dispose()
    post("late")
    with pytest.raises(ArtifactError, match=r"fewer events of 2010-12-05 than were collected; found: 1 rows"):
        run(home, url, now=MORNING + timedelta(hours=1))
    assert tree(home) == before


def test_two_at_once_end_as_one(home: Path, url: str, post: Post) -> None:
    post(*map(str, range(50)))
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(run, home, url, now=MORNING + timedelta(hours=1)) for _ in range(4)]
    assert sorted(one.result().rows for one in done) == [0, 0, 0, 50]
    assert sorted(ids(home)["dt=2010-12-05"]) == sorted(map(str, range(50)))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_killed_at_any_point_the_next_run_completes_it_and_no_reader_sees_a_half(
    home: Path, url: str, post: Post
) -> None:
    post("1")
    post("2", time=MORNING + timedelta(days=1))
    until = MORNING + timedelta(days=1, hours=1)
    step = 0
    while killed_at(step, lambda: run(home, url, now=until)):
        step += 1
        seen, through = snapshot(home)
        assert (seen, [entry["seq"] for entry in through.values()]) in [(set(), []), ({"1", "2"}, [2])]
    assert step > 8
    run(home, url, now=until)
    post("late")
    post("3", time=MORNING + timedelta(days=1))
    step = 0
    while killed_at(step, lambda: run(home, url, now=until)):
        step += 1
        seen, through = snapshot(home)
        assert (seen, [entry["seq"] for entry in through.values()]) in [
            ({"1", "2"}, [2]),
            ({"1", "2", "late", "3"}, [4]),
        ]
    run(home, url, now=until)
    assert ids(home) == {"dt=2010-12-05": ["1", "late"], "dt=2010-12-06": ["2", "3"]}
    assert not list((home / "var" / "collect").rglob("*unnamed*"))


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_full_disk_leaves_what_was_collected_and_the_next_run_completes_it(home: Path, url: str, post: Post) -> None:
    post("1")
    run(home, url, now=MORNING + timedelta(hours=1))
    before = tree(home)
    for one in range(2, 40):
        post(str(one), text=random.Random(one).randbytes(8_000).hex())  # noqa: S311 - filler
    program = f"""
import resource, signal, sys
from datetime import datetime
from pathlib import Path
from pipelines.actions.collect import collect
from pipelines.errors import ArtifactError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    collect(home=Path({str(home)!r}), url={url!r}, now=datetime.fromisoformat("2010-12-05T11:00:00+00:00"))
except ArtifactError as error:
    sys.exit(str(error))
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False)
    assert os.strerror(errno.EFBIG) in done.stderr
    assert "free some space and run `fuseline collect` again" in done.stderr
    assert tree(home) == before
    run(home, url, now=MORNING + timedelta(hours=2))
    assert len(ids(home)["dt=2010-12-05"]) == 39
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_in_replay_the_newest_event_is_the_clock(home: Path, url: str, post: Post) -> None:
    post("1")
    post("2", time=MORNING + timedelta(hours=2))
    run(home, url, now=datetime(2026, 1, 1, tzinfo=UTC), by_events=True)
    assert ids(home) == {"dt=2010-12-05": ["1"]}
    until = datetime(2010, 12, 6, tzinfo=UTC)
    run(home, url, now=datetime(2026, 1, 1, tzinfo=UTC), by_events=True, until=until)
    assert ids(home) == {"dt=2010-12-05": ["1", "2"]}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_clock_does_not_run_backwards(home: Path, url: str, post: Post) -> None:
    post("1")
    run(home, url, now=MORNING + timedelta(days=1))
    post("2", time=MORNING + timedelta(hours=5))
    run(home, url, now=MORNING)
    assert ids(home) == {"dt=2010-12-05": ["1", "2"]}


def test_without_a_store_nothing_is_made(home: Path) -> None:
    done = collect(home=home, url=f"sqlite:///{home / 'var' / 'events' / 'events.db'}", now=MORNING)
    assert (done.store, done.rows, done.changed) == (None, 0, ())
    assert not (home / "var" / "events").exists()
