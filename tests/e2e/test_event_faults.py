"""Events under ``kill -9``: whatever was acknowledged is there once, whatever was not is sent again."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.made_bundle import make
from tests.e2e.server import Server, free_port, serving

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive, pytest.mark.timeout(900)]

CLIENTS, A_POST, RATE = 8, 10, 1000
"""Clients, events in one post, events a second over all clients."""


@dataclass
class Senders:
    """Clients who post events at a rate and send again, under the same ids, what was not acknowledged."""

    port: int
    acknowledged: set[str] = field(default_factory=set)
    retried: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    problems: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    started: float = field(default_factory=time.monotonic)

    def send(self, client: int) -> None:
        number = 0
        while not self.stop.is_set():
            ids = [f"{client}-{number}-{n}" for n in range(A_POST)]
            body = json.dumps([_event(one) for one in ids]).encode()
            while not self._acknowledged(body):
                self.retried += 1
                time.sleep(0.1)
            self.acknowledged |= set(ids)
            number += 1
            due = self.started + number * A_POST * CLIENTS / RATE
            time.sleep(max(0.0, due - time.monotonic()))

    def _acknowledged(self, body: bytes) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            connection.request("POST", "/v1/events", body)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            connection.close()
        except (OSError, http.client.HTTPException):
            return False
        if answer.status == 202 and said["accepted"] + said["duplicates"] == A_POST:
            return True
        self.problems.put(f"{answer.status} {said}")
        return False


def _event(event_id: str) -> dict[str, object]:
    about = {"event_type": "purchase-complete", "event_time": "2010-12-05T10:00:00Z", "item_id": "i0001"}
    return {**about, "event_id": event_id, "user_id": f"u{event_id}"}


@contextmanager
def sending(port: int) -> Iterator[Senders]:
    senders = Senders(port)
    threads = [threading.Thread(target=senders.send, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield senders
    finally:
        senders.stop.set()
        for thread in threads:
            thread.join(timeout=120)


def wait_for_more(senders: Senders, events: int) -> float:
    """Until so many more are acknowledged; the rate at which they were."""
    before, started = len(senders.acknowledged), time.monotonic()
    while len(senders.acknowledged) < before + events:
        assert time.monotonic() < started + 120, "no event is acknowledged any more"
        time.sleep(0.05)
    return events / (time.monotonic() - started)


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
            senders.stop.set()
            time.sleep(1)
            found = stored(home)
    assert senders.problems.empty(), senders.problems.get()
    assert senders.retried > 0
    assert len(found) == len(set(found))
    assert set(found) == senders.acknowledged
    print(f"{len(found)} events; {', '.join(f'{rate:.0f}' for rate in rates)} a second; {senders.retried} posts again")
