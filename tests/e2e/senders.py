"""Clients who post events for as long as it takes, and know what was acknowledged."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CLIENTS, A_POST, RATE = 8, 10, 1000
"""Clients, events in one post, events a second over all clients."""
PAUSE_S = A_POST * CLIENTS / RATE
"""Between two posts of one client, refused ones too: an outage does not lower the rate."""
PATIENCE_S = 120.0


@dataclass
class Senders:
    """Clients who post events at a rate and send again, under the same ids, what was not acknowledged.

    ``outage``: that the service refuses them for a while with 503 is no problem, but is counted.
    """

    port: int
    outage: bool = False
    acknowledged: set[str] = field(default_factory=set)
    retried: int = 0
    refused: int = 0
    problems: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    _stop: threading.Event = field(default_factory=threading.Event)
    _started: float = field(default_factory=time.monotonic)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self.send, args=(client,)) for client in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop once what is under way is acknowledged."""
        self._stop.set()
        until = time.monotonic() + PATIENCE_S
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))
            assert not thread.is_alive(), "an event is not acknowledged any more"

    def send(self, client: int) -> None:
        number = 0
        while not self._stop.is_set():
            ids = [f"{client}-{number}-{n}" for n in range(A_POST)]
            body = json.dumps([_event(one) for one in ids]).encode()
            while not self._acknowledged(body):
                self.retried += 1
                time.sleep(PAUSE_S)
            self.acknowledged |= set(ids)
            number += 1
            due = self._started + number * PAUSE_S
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
        if self.outage and answer.status == 503:
            self.refused += 1
            return False
        self.problems.put(f"{answer.status} {said}")
        return False


def _event(event_id: str) -> dict[str, object]:
    about = {"event_type": "purchase-complete", "event_time": "2010-12-05T10:00:00Z", "item_id": "i0001"}
    return {**about, "event_id": event_id, "user_id": f"u{event_id}"}


@contextmanager
def sending(port: int, *, outage: bool = False) -> Iterator[Senders]:
    senders = Senders(port, outage=outage)
    senders.start()
    try:
        yield senders
    finally:
        senders.finish()


def wait_for_more(senders: Senders, events: int) -> float:
    """Until so many more are acknowledged; the rate at which they were."""
    before, started = len(senders.acknowledged), time.monotonic()
    while len(senders.acknowledged) < before + events:
        assert time.monotonic() < started + PATIENCE_S, "no event is acknowledged any more"
        time.sleep(0.05)
    return events / (time.monotonic() - started)
