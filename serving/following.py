"""Follow the champion: notice that its pointer moved, load the new bundle beside the old one, then swap.

Each worker follows by itself, in a thread that no request waits for. Between two looks nothing is read but
the pointer's file attributes. A bundle is verified, loaded and warmed aside; only then does one assignment put it
into service. What cannot be loaded is refused, and what serves goes on serving.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TextIO

from pipelines import champion
from pipelines.errors import FuselineError
from pipelines.storage import held
from serving import bundle_choice
from serving.bundle_choice import BundleChoice
from serving.runtime import Runtime, Served, load

logger = logging.getLogger("fuseline.service")

LOOK_S = 0.5
"""Between two looks at the pointer."""

RETRY_S = 30.0
"""After this time a refused bundle is tried again although the pointer did not move: disks fill and recover."""

BREATH_S = 0.02
"""Pause between two steps of loading, in which requests have the interpreter for themselves."""

TURN_S = 1.5
"""How long a worker lets others of the same home load before it."""

Mark = tuple[int, int, int] | None
Load = Callable[..., Served]


class Watcher(Protocol):
    """Who is told what became of a move."""

    def swapped(self, served: Served) -> None:
        """Another bundle serves."""

    def refused(self) -> None:
        """A bundle could not be used."""


@dataclass
class _Refusal:
    mark: Mark
    again_at: float


class _Turn:
    """The right to load; its file says which move of the pointer was verified, so that one worker hashes for all."""

    def __init__(self, file: TextIO, *, mine: bool) -> None:
        self._file = file
        self._mine = mine

    def verified(self, mark: Mark) -> bool:
        self._file.seek(0)
        return self._file.read() == repr(mark)

    def note(self, mark: Mark) -> None:
        if self._mine:
            self._file.truncate(0)
            self._file.write(repr(mark))
            self._file.flush()


class Follower:
    """Keeps one worker's :class:`~serving.runtime.Runtime` at the champion."""

    def __init__(
        self,
        runtime: Runtime,
        environ: Mapping[str, str],
        *,
        watcher: Watcher,
        load: Load = load,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``watcher`` is told of swaps and refusals; ``load`` and ``clock`` are for tests."""
        self._runtime = runtime
        self._environ = environ
        self._watcher = watcher
        self._load = load
        self._clock = clock
        self._pointer = champion.pointer_file(bundle_choice.home(environ))
        self._settled: Mark = None
        self._refusal: _Refusal | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="champion-follower", daemon=True)

    def start(self) -> None:
        """Look every ``LOOK_S`` seconds until :meth:`close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking; a bundle that is being loaded is not put into service any more."""
        self._stop.set()
        self._thread.join(timeout=LOOK_S)

    def _follow(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self.look()
            except Exception:  # the follower must outlive whatever it meets
                logger.exception("following the champion failed")

    def look(self) -> None:
        """Compare what serves with what the pointer says, and follow it if they differ."""
        mark = self._mark()
        if mark is None or mark == self._settled or self._waits(mark):
            return
        try:
            self._follow_to(bundle_choice.choose(self._environ), mark)
        except FuselineError as error:
            if self._mark() == mark:  # else the next look finds another champion, and this one does not matter
                self._refuse(mark, error)

    def _follow_to(self, choice: BundleChoice, mark: Mark) -> None:
        runtime = self._runtime
        if runtime.served is None or not runtime.served.answers(choice):
            kept = runtime.previous
            ready = kept if kept is not None and kept.answers(choice) else self._load_aside(choice, mark)
            if self._mark() != mark or self._stop.is_set():
                return
            runtime.serve(ready)
            self._watcher.swapped(ready)
            logger.info("version %s, bundle %s, serves now (%s)", ready.version, ready.bundle_id, ready.source)
        self._settled, self._refusal = mark, None

    def _load_aside(self, choice: BundleChoice, mark: Mark) -> Served:
        with held(choice.folder), self._turn() as turn:
            if not turn.verified(mark):
                bundle_choice.verify(choice)
                turn.note(mark)
            return self._load(choice, orders=bundle_choice.shared_orders(self._environ), breathe=self._breathe)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[_Turn]:
        """Workers of one home load one after another, so that the others answer at full speed meanwhile.

        Who has waited for ``TURN_S`` goes on without the turn: the last of many workers follows in time too.
        """
        with (self._pointer.parent / ".loading").open("a+") as file:
            until, mine = time.monotonic() + TURN_S, False
            while not mine and time.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    mine = True
                if not mine:
                    self._stop.wait(BREATH_S)
            yield _Turn(file, mine=mine)

    def _breathe(self) -> None:
        self._stop.wait(BREATH_S)

    def _refuse(self, mark: Mark, error: FuselineError) -> None:
        self._refusal = _Refusal(mark, self._clock() + RETRY_S)
        self._watcher.refused()
        served = self._runtime.served
        if served is None:
            self._runtime.failure = str(error)
        logger.error("refused: %s; version %s goes on serving", error, served.version if served else "none")

    def _waits(self, mark: Mark) -> bool:
        refusal = self._refusal
        return refusal is not None and refusal.mark == mark and self._clock() < refusal.again_at

    def _mark(self) -> Mark:
        """What tells one state of the pointer's file from the next; None while there is none."""
        try:
            found = self._pointer.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
