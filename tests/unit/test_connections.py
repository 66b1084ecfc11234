"""Workers share connections evenly: several listeners on one socket, as several workers have it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving import connections
from serving.connections import NOBODY, Held, Listener

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "connections"
    path.write_bytes(Held.EMPTY)
    return path


class Worker:
    """Keeps what its listener takes."""

    def __init__(self, file: Path, number: int, listening: socket.socket) -> None:
        self.everybody = Held(file, number)
        self.everybody.say(0)
        self.taken: list[socket.socket] = []
        self.listener = Listener(self.everybody, listening.dup(), lambda: len(self.taken), self._take)

    def _take(self, connection: socket.socket) -> None:
        self.taken.append(connection)
        self.everybody.say(len(self.taken))


def _numbers(workers: list[Worker]) -> list[int]:
    return [len(one.taken) for one in workers]


async def _come(stack: ExitStack, listening: socket.socket, n: int, workers: list[Worker]) -> None:
    """Connect ``n`` times; returns when all are taken."""
    wanted = sum(_numbers(workers)) + n
    for _ in range(n):
        stack.enter_context(socket.create_connection(listening.getsockname()))
        await asyncio.sleep(0)
    until = time.monotonic() + 10
    while sum(_numbers(workers)) < wanted and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert sum(_numbers(workers)) == wanted


def test_each_worker_holds_as_many_connections_as_the_others(file: Path) -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            workers = [Worker(file, number, listening) for number in range(3)]
            await _come(stack, listening, 30, workers)
            assert max(_numbers(workers)) - min(_numbers(workers)) <= 1
            workers[1].taken.clear()  # its callers have gone
            workers[1].everybody.say(0)
            await _come(stack, listening, 9, workers)
            assert _numbers(workers)[1] >= 8
            for one in workers:
                one.listener.close()

    asyncio.run(scene())


def test_connections_are_taken_where_the_worker_with_the_fewest_never_answers(file: Path) -> None:
    async def scene() -> None:
        with ExitStack() as stack:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            Held(file, 0).say(0)
            awake = Worker(file, 1, listening)
            await _come(stack, listening, 20, [awake])
            awake.listener.close()

    asyncio.run(scene())


def test_a_worker_that_has_ended_or_is_about_to_start_is_not_waited_for(file: Path) -> None:
    ended, own = Held(file, 0), Held(file, 1)
    Held(file, 2)
    own.say(5)
    assert own.fewest() == 5
    ended.say(3)
    assert own.fewest() == 3
    ended.say(NOBODY)
    assert own.fewest() == 5


def test_a_worker_that_was_killed_holds_none_and_is_waited_for_no_more(file: Path) -> None:
    own = Held(file, 0)
    own.say(5)
    program = "import sys, os; from pathlib import Path; from serving.connections import Held; "
    for last in ("Held(Path(sys.argv[1]), 1).say(2)", "Held(Path(sys.argv[1]), 1)"):
        command = [sys.executable, "-c", f"{program}{last}; os.kill(os.getpid(), 9)", str(file)]
        subprocess.run(command, cwd=ROOT, check=False)
        assert own.fewest() == 5
        assert not own.starting()


def test_workers_begin_together_but_for_one_that_does_not_get_ready(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Held(file, 0), Held(file, 1)

    async def both() -> list[float]:
        async def later() -> float:
            await asyncio.sleep(0.05)
            await second.together()
            return time.monotonic()

        async def soon() -> float:
            await first.together()
            return time.monotonic()

        return list(await asyncio.gather(soon(), later()))

    at_once, late = asyncio.run(both())
    assert abs(at_once - late) < 0.05
    Held(file, 1)
    monkeypatch.setattr(connections, "TOGETHER_S", 0.02)
    asyncio.run(asyncio.wait_for(first.together(), 10))
    assert first.fewest() == 0
