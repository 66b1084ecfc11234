"""Workers take connections so that each holds as many as the others.

All workers accept from one socket, and whoever wakes first takes what is there: of 32 connections that a shop's backend
keeps open, one worker was seen with all of them. Requests follow their connection, so the others would stand idle.
Here a worker that holds more connections than another leaves a new one to that other for a moment; if nobody takes it,
it does. Who holds how many stands in memory that the workers share: a slot each.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

CONNECTIONS = "FUSELINE_CONNECTIONS"
"""Names the file of :class:`Held`; ``serving.start.share`` makes one. Where none is named, uvicorn listens as ever."""

SLOTS = 64
"""Workers that can be told apart; a slot more is taken by the first again."""

PAUSE_S = 0.001
"""How long a connection is left to others. An idle worker takes it in a tenth of that."""

BREATH_S = 1.0
"""Pause when the system gives no more connections, as asyncio's own servers make."""

TOGETHER_S = 2.0
"""How long a worker that is ready waits for those that are not: callers come at once, and stay where they are."""

STARTING, NOBODY = -2, -1
"""Instead of a number: a worker that takes no connections yet; none, or one that takes no more."""

logger = logging.getLogger("fuseline.service")


class Held:
    """How many connections each worker holds, in a file that all workers map: by worker, its process and its number."""

    EMPTY = struct.pack("=ii", 0, NOBODY) * SLOTS
    """Content of the file before there are workers."""

    def __init__(self, path: Path, worker: int) -> None:
        """``worker``: from 0; it is about to start."""
        with path.open("r+b") as file:
            whole = memoryview(mmap.mmap(file.fileno(), len(self.EMPTY))).cast("i")
        self._processes, self._numbers = whole[::2], whole[1::2]
        self._own = worker % SLOTS
        self._processes[self._own] = os.getpid()
        self.say(STARTING)

    def say(self, n: int) -> None:
        """This worker holds ``n`` connections; or :data:`STARTING`, or :data:`NOBODY`."""
        self._numbers[self._own] = n

    def fewest(self) -> int:
        """The least that a worker holds, this one among them."""
        return min((n for n in self._living() if n >= 0), default=0)

    def starting(self) -> bool:
        """Whether a worker is about to start."""
        return STARTING in self._living()

    def _living(self) -> list[int]:
        """What the workers say that are there; of one that was killed, that there is nobody."""
        for place, n in enumerate(self._numbers):
            if n != NOBODY and not _runs(self._processes[place]):
                self._numbers[place] = NOBODY
        return list(self._numbers)

    async def together(self) -> None:
        """Be ready, and wait until the others are, or :data:`TOGETHER_S` if one does not get ready."""
        self.say(0)
        until = time.monotonic() + TOGETHER_S
        while self.starting() and time.monotonic() < until:  # noqa: ASYNC110 - other processes set it
            await asyncio.sleep(TOGETHER_S / 100)


def _runs(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


class Listener:
    """One worker's ear on the socket of all."""

    def __init__(
        self,
        everybody: Held,
        listening: socket.socket,
        held: Callable[[], int],
        take: Callable[[socket.socket], None],
    ) -> None:
        """Begin to accept, in the running loop.

        Args:
            everybody: what all workers hold.
            listening: bound; made to listen.
            held: how many connections this worker holds; whoever knows says a change to ``everybody``.
            take: makes one of its own of an accepted one.
        """
        self._everybody, self._socket, self._held, self._take = everybody, listening, held, take
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        listening.settimeout(0)
        self._listen()

    def close(self) -> None:
        """Accept no more; the socket stays open."""
        self._loop.remove_reader(self._socket)
        if self._paused is not None:
            self._paused.cancel()

    def _listen(self) -> None:
        self._paused = None
        self._loop.add_reader(self._socket, self._wanted)

    def _wanted(self) -> None:
        """Somebody wants to connect."""
        if self._held() > self._everybody.fewest():
            self._leave(PAUSE_S, self._accept)
        else:
            self._accept()

    def _leave(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._socket)
        self._paused = self._loop.call_later(seconds, then)

    def _accept(self) -> None:
        if self._paused is not None:
            self._listen()
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was there first, or the caller has gone
        except OSError as error:
            logger.error("no connection can be accepted for a moment: %s", error)  # noqa: TRY400 - it says it all
            self._leave(BREATH_S, self._listen)
            return
        self._take(connection)
