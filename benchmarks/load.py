"""A load generator that costs little: raw HTTP/1.1 over kept connections in one event loop.

Closed loop: every client sends its next request when the answer to the last one is there; it finds the rate
at which a service is saturated. Open loop: requests are due at times drawn beforehand, whether or not the
service keeps up, and a latency runs from the time a request was due, so that waiting is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

CLIENTS = 32
_TOOK = b'"took_ms":'


@dataclass
class Outcome:
    """What one run measured; times in milliseconds, ``took`` as the service reports it."""

    seconds: float = 0.0
    latency: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    errors: int = 0
    generator_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latency) / self.seconds

    def percentile(self, share: float, *, took: bool = False) -> float:
        """Latency (or ``took``) that this share of the answers stayed within."""
        values = sorted(self.took if took else self.latency)
        return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


class Client(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, outcome: Outcome) -> None:
        """``outcome`` collects what this client sees."""
        self._outcome = outcome
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> asyncio.Future[None]:
        """Send a request that was due at a time of ``time.perf_counter``; ends with its answer."""
        assert self._transport is not None  # noqa: S101 - connected before it is used
        self._due = due
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._done

    def data_received(self, data: bytes) -> None:
        """Collect an answer; note its time when it is whole."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = bytes(self._received[:head]).lower()
        start = lower.index(b"content-length:") + 15
        end = lower.find(b"\r", start)
        length = int(lower[start : end if end > 0 else head])
        if len(self._received) < head + 4 + length:
            return
        self._finish(bytes(self._received))
        self._received.clear()

    def _finish(self, answer: bytes) -> None:
        self._outcome.latency.append((time.perf_counter() - self._due) * 1000)
        if answer[9:10] != b"2":
            self._outcome.errors += 1
        if (place := answer.find(_TOOK)) > 0:
            digits = answer[place + len(_TOOK) : place + len(_TOOK) + 16]
            self._outcome.took.append(float(digits.split(b",")[0]))
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that never came is an error."""
        if self._done is not None and not self._done.done():
            self._outcome.errors += 1
            self._done.set_exception(exc or ConnectionError("the service closed the connection"))


def post(path: str, body: bytes) -> bytes:
    """The bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _connect(port: int, outcome: Outcome, clients: int, kind: type[Client] = Client) -> list[Client]:
    loop = asyncio.get_running_loop()
    pairs = [await loop.create_connection(lambda: kind(outcome), "127.0.0.1", port) for _ in range(clients)]
    return [client for _, client in pairs]


async def closed_loop(port: int, requests: Iterable[bytes], *, seconds: float, clients: int = CLIENTS) -> Outcome:
    """All clients as fast as they are answered."""
    outcome = Outcome()
    connected = await _connect(port, outcome, clients)
    queue = itertools.cycle(requests)
    started, cpu = time.perf_counter(), time.process_time()

    async def work(client: Client) -> None:
        while time.perf_counter() - started < seconds:
            await client.send(next(queue), time.perf_counter())

    await asyncio.gather(*(work(client) for client in connected))
    return _ended(outcome, started, cpu)


async def open_loop(
    port: int,
    requests: Iterable[bytes],
    *,
    rate: float,
    seconds: float,
    seed: int,
    clients: int = CLIENTS,
    kind: type[Client] = Client,
) -> Outcome:
    """Requests due at Poisson times of ``rate`` a second; one that finds no free client waits, on its own account."""
    outcome = Outcome()
    free = deque(await _connect(port, outcome, clients, kind))
    queue, waiting = itertools.cycle(requests), deque[float]()
    running: set[asyncio.Task[None]] = set()
    started, cpu = time.perf_counter(), time.process_time()

    async def work(client: Client, due: float) -> None:
        await client.send(next(queue), due)
        while waiting:
            await client.send(next(queue), waiting.popleft())
        free.append(client)

    for due in _due_times(started, rate, seconds, seed):
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        if free:
            task = asyncio.create_task(work(free.popleft(), due))
            running.add(task)
            task.add_done_callback(running.discard)
        else:
            waiting.append(due)
    await asyncio.gather(*running)
    return _ended(outcome, started, cpu)


def _due_times(started: float, rate: float, seconds: float, seed: int) -> Iterator[float]:
    draw, due = random.Random(seed), started  # noqa: S311 - arrival times
    while (due := due + draw.expovariate(rate)) < started + seconds:
        yield due


def _ended(outcome: Outcome, started: float, cpu: float) -> Outcome:
    outcome.seconds = time.perf_counter() - started
    outcome.generator_cpu = (time.process_time() - cpu) / outcome.seconds
    return outcome


def run(coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run in uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(coroutine)
    outcome: Outcome = uvloop.run(coroutine)
    return outcome
