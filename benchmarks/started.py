"""A service in processes of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Started:
    """A service that answers; ``start_s`` from the command to the first ready answer."""

    port: int
    start_s: float
    pid: int


@contextmanager
def serving(service: str, workers: int, scratch: Path, bundle: Path | None, **more: str) -> Iterator[Started]:
    """Start a BentoML service on a free port, yield when it is ready, stop it at the end.

    Args:
        service: ``module:Class``.
        workers: worker processes.
        scratch: folder for the service's own home (named like the class) and log.
        bundle: what it serves; None: the champion of that home.
        more: further environment variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    home = scratch / service.rpartition(":")[2]
    home.mkdir(exist_ok=True)
    named = {} if bundle is None else {"FUSELINE_BUNDLE": str(bundle)}
    environ = {
        **{name: value for name, value in os.environ.items() if name != "FUSELINE_BUNDLE"},
        **named,
        "FUSELINE_HOME": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": f"services.{service.rpartition(':')[2].lower()}.workers={workers}",
        **more,
    }
    command = [sys.executable, "-m", "bentoml", "serve", service, "--port", str(port)]
    started = time.perf_counter()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log)  # noqa: S603 - our own
    try:
        while not _ready(port):
            if process.poll() is not None or time.perf_counter() - started > 120:
                raise SystemExit(f"{service} did not start:\n{(home / 'log').read_text()}")
            time.sleep(0.02)
        yield Started(port, time.perf_counter() - started, process.pid)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
