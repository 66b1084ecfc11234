"""People who shop while the champion moves, and what every worker says of what it serves."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipelines import champion
from tests.e2e.server import Server

WITHIN_S = 5.0
"""What is promised, on a machine that is not several times overbooked: the exhaustive test holds it."""
PATIENCE_S = 30.0
"""What the quick tests allow, which run beside whatever else a machine does."""
CLIENTS = 16
PAUSE_S = 0.05
"""Between two requests of a client: traffic, not a measurement of the machine."""
USERS = tuple(f"u{number:03d}" for number in range(CLIENTS))
"""Customers of the made bundle."""


@dataclass
class Shoppers:
    """Clients who ask for lists again and again, each answer's version kept with its time."""

    server: Server
    users: Sequence[str]
    seen: list[tuple[float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def shop(self, number: int) -> None:
        while not self.stop.is_set():
            try:
                status, answer, _ = self.server.ask("POST", "/v1/recommend", {"user_id": self.users[number]})
            except OSError as error:
                self.failed.append(repr(error))
                continue
            time.sleep(PAUSE_S)
            if status == 200:
                self.seen.append((time.monotonic(), answer["model_version"]))
            else:
                self.failed.append(f"{status} {answer}")


@contextmanager
def shopping(server: Server, *, users: Sequence[str] = USERS) -> Iterator[Shoppers]:
    shoppers = Shoppers(server, users)
    threads = [threading.Thread(target=shoppers.shop, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield shoppers
    finally:
        shoppers.stop.set()
        for thread in threads:
            thread.join(timeout=30)


def workers(server: Server) -> dict[str, str]:
    """Version by the process that serves it, as ``/metrics`` has it."""
    lines = re.findall(r"^fuseline_bundle_info\{(.*)\} 1\.0$", server.ask("GET", "/metrics")[1], re.MULTILINE)
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in lines]
    return {one["pid"]: one["version"] for one in labels}


def counted(server: Server, name: str) -> float:
    found = re.findall(rf"^{name} (\S+)$", server.ask("GET", "/metrics")[1], re.MULTILINE)
    return float(found[0]) if found else 0.0


def all_serve(server: Server, version: int, *, workers_wanted: int = 2) -> float:
    """Wait until every worker serves a version; seconds from the pointer's move to the last worker's swap.

    By the workers' own time stamps: how soon this test is answered says more of the machine.
    """
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = workers(server)
        if len(found) == workers_wanted and set(found.values()) == {str(version)}:
            page = server.ask("GET", "/metrics")[1]
            loaded = re.findall(r"^fuseline_bundle_loaded_timestamp_seconds\{.*\} (\S+)$", page, re.MULTILINE)
            return max(map(float, loaded)) - champion.pointer_file(server.home).stat().st_mtime
        time.sleep(0.05)
    raise AssertionError(f"not every worker serves version {version}: {workers(server)}")
