"""All processes below this one: found, adopted, reaped and ended, whatever session they lead."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every process below whose own parent ends, so that none is lost; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def below(parent: int) -> list[int]:
    """Processes that descend from this one, zombies left out."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, above = file.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                children.setdefault(int(above), []).append(int(file.parent.name))
    found, waiting = [], [parent]
    while waiting:
        next_ones = children.get(waiting.pop(), [])
        found += next_ones
        waiting += next_ones
    return found


def reap() -> None:
    """Take note of children that ended; only when nobody else waits for them."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_all(seconds: float) -> None:
    """End everything that was started below, politely, and by force after ``seconds``; returns when nothing is left."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in below(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            reap()
            if not below(os.getpid()):
                return
            time.sleep(0.1)


def reap_orphans(ours: Collection[int]) -> None:
    """Take note of adopted processes that ended, or they stay as zombies as long as this one runs.

    Args:
        ours: children that somebody waits for.
    """
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in {int(word) for word in file.read_text(encoding="ascii").split()} - set(ours):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
