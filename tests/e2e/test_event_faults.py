"""Events under ``kill -9`` and from wrong clocks: what was acknowledged is there once, the rest is sent again."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.made_bundle import make
from pipelines.actions.collect import collect
from pipelines.service_process import free_port
from tests.e2e.senders import sending, wait_for_more
from tests.e2e.server import Server, serving

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive, pytest.mark.timeout(900)]


def stored(home: Path) -> list[str]:
    with sqlite3.connect(home / "var" / "events" / "events.db") as connection:
        return [row[0] for row in connection.execute("SELECT event_id FROM events")]


def workers(server: Server) -> list[int]:
    return server.family()[1:]


def test_no_acknowledged_event_is_lost_or_doubled_by_kill_9_of_a_worker_or_of_all(tmp_path: Path) -> None:
    bundle, home, port = make(tmp_path / "bundle"), tmp_path / "home", free_port()
    options = {"workers": 2, "port": port, "FUSELINE_BUNDLE": str(bundle)}
    with serving(home, **options) as server, sending(port) as senders:  # type: ignore[arg-type]
        rates = [wait_for_more(senders, 2000)]
        for _ in range(2):
            os.kill(workers(server)[-1], signal.SIGKILL)
            rates.append(wait_for_more(senders, 2000))
        for pid in server.family():
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
        time.sleep(1)
        with serving(home, **options):  # type: ignore[arg-type]
            rates.append(wait_for_more(senders, 2000))
            senders.finish()
            found = stored(home)
    assert senders.problems.empty(), senders.problems.get()
    assert senders.retried > 0
    assert len(found) == len(set(found))
    assert set(found) == senders.acknowledged
    print(f"{len(found)} events; {', '.join(f'{rate:.0f}' for rate in rates)} a second; {senders.retried} posts again")


def collected(home: Path) -> list[tuple[str, str]]:
    """Day and id of the events in all partitions."""
    found = sorted((home / "var" / "feedback").glob("dt=*/events-*.parquet"))
    tables = {path.parent.name: pq.read_table(path, partitioning=None) for path in found}
    return [(day, one) for day, table in tables.items() for one in table["event_id"].to_pylist()]


def test_a_client_whose_clock_is_an_hour_ahead_changes_the_next_list_and_is_collected_once_when_its_hour_is_over(
    tmp_path: Path,
) -> None:
    home, now = tmp_path / "home", datetime.now(UTC)
    ahead = now + timedelta(hours=1)
    url = f"sqlite:///{home / 'var' / 'events' / 'events.db'}"
    with serving(home, workers=2, FUSELINE_BUNDLE=str(make(tmp_path / "bundle"))) as server:
        last = server.ids(user_id="ahead", n=60)[-1]
        about = {"event_type": "purchase-complete", "user_id": "ahead", "item_id": last}
        events = [{**about, "event_id": f"a{n}", "event_time": ahead.isoformat()} for n in range(3)]
        assert server.post("/v1/events", events)["accepted"] == 3
        assert {server.ids(user_id="ahead", n=60)[0] for _ in range(12)} == {last}
        on_time = {**about, "event_id": "now", "event_time": now.isoformat(), "user_id": "somebody"}
        assert server.post("/v1/events", on_time)["accepted"] == 1
        collect(home=home, url=url, now=ahead)
        assert collected(home) == [(f"dt={now.date()}", "now")]
        assert server.post("/v1/events", events)["duplicates"] == 3
        for _ in range(2):
            collect(home=home, url=url, now=ahead + timedelta(hours=1))
        late = [(f"dt={ahead.date()}", f"a{n}") for n in range(3)]
        assert sorted(collected(home)) == sorted([(f"dt={now.date()}", "now"), *late])
