"""A service in processes of its own for as long as somebody needs it: the demo, a replay, a benchmark."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ArtifactError
from pipelines.foreground import stop

SERVICE = "serving.service:Fuseline"
"""What ``bentoml serve`` and a Bento start, found from the checkout or within the Bento."""

START_SECONDS = 120.0
"""The service is given up when it has not answered by then; it takes seconds on an idle machine."""

LOOK_SECONDS = 0.02

PORTS = range(20_000, 32_000)
"""Below those of outgoing connections, one of which could take a port in the second before a service binds it."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on.

    Raises:
        ArtifactError: when a hundred draws find none.
    """
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closed connection may linger
            probe.bind(("127.0.0.1", port))
            return port
    raise ArtifactError("no free port", found=f"100 of {PORTS} are taken", do="stop what listens there")


@dataclass(frozen=True)
class Started:
    """A service that answers; ``start_s`` from the command to the first ready answer."""

    port: int
    start_s: float
    pid: int

    @property
    def address(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(target: str, *, environment: Mapping[str, str], cwd: Path, log: Path) -> Iterator[Started]:
    """Run ``bentoml serve`` on a free loopback port, yield when it is ready, stop all its processes at the end.

    Args:
        target: a Bento's tag, or ``module:Class`` found from ``cwd``.
        environment: all of it.
        cwd: where it starts.
        log: what it says goes there.

    Raises:
        ArtifactError: when it does not get ready; says its last words.
    """
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]
    began = time.perf_counter()
    with log.open("ab") as stream:
        service = subprocess.Popen(  # noqa: S603 - our own service
            command, cwd=cwd, env=dict(environment), stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        while not _ready(port):
            if service.poll() is not None or time.perf_counter() - began > START_SECONDS:
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
                raise ArtifactError(f"the service {target} did not get ready", found=" / ".join(said), do=f"see {log}")
            time.sleep(LOOK_SECONDS)
        yield Started(port, time.perf_counter() - began, service.pid)
    finally:
        stop(service)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # refused, or another's answer
        return False
