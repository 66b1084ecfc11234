"""Run a server in the foreground of ``make``, and end it with all its children when make is told to end.

GNU make hands SIGTERM on, but not a SIGINT that is sent to it alone: it then waits for its child, which has
not heard of it. So the child looks whether make is inside its handler, or gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

STOP_SECONDS = 20.0
"""What a server gets to end by itself."""

LOOK_SECONDS = 0.2


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server that leads a process group of its own: politely, then by force."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
            return


def interrupted(pid: int) -> bool:
    """Whether a process is gone, or inside its handler of SIGINT (which is blocked meanwhile); Linux only."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return Path("/proc/self").exists()
    blocked = next((int(line.split()[1], 16) for line in lines if line.startswith("SigBlk:")), 0)
    return bool(blocked >> (signal.SIGINT - 1) & 1)


def serve(command: Sequence[str], *, parent: int) -> int:
    """Run a command until it ends or this process, or ``parent``, is told to end.

    Returns:
        The command's exit status; 0 when it was asked to end.
    """
    told = False

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True

    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, tell)
    server = subprocess.Popen(command, start_new_session=True)  # noqa: S603 - the command line is ours
    seen = 0  # make blocks signals for a moment when it starts a child, so once is not enough
    while server.poll() is None and not told:
        time.sleep(LOOK_SECONDS)
        seen = seen + 1 if interrupted(parent) else 0
        told |= seen > 1
    stop(server)
    return 0 if told else server.returncode


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], parent=os.getppid()))
