"""A service in processes of its own, as tests start and ask it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.service_process import free_port

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]
    home: Path
    key: str | None = None

    def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        used = {"X-API-Key": key or self.key or "", **(headers or {})}
        connection.request(method, path, sent, used)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        is_json = "json" in (answer.headers["content-type"] or "")
        return answer.status, json.loads(raw) if is_json else raw.decode(), answer.headers

    def post(self, path: str, body: Any, **options: Any) -> Any:
        status, value, _ = self.ask("POST", path, body, **options)
        assert status in {200, 202}, value
        return value

    def ids(self, **body: Any) -> list[str]:
        return [item["id"] for item in self.post("/v1/recommend", {"explore": False, **body})["items"]]

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(sign)
        return self.process.wait(timeout=30)

    def family(self) -> list[int]:
        """The supervisor and its workers."""
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
        return [self.process.pid, *(pid for pid, parent in pairs if parent == self.process.pid)]


@contextmanager
def serving(
    home: Path,
    *,
    workers: int = 1,
    key: str | None = None,
    until: str = "/readyz",
    port: int | None = None,
    **environ: str,
) -> Iterator[Server]:
    """A service of its own; yielded when ``until`` answers 200, ended with all its children."""
    port = port or free_port()
    home.mkdir(parents=True, exist_ok=True)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FUSELINE_")},
        "FUSELINE_HOME": str(home),
        # one each: a service that starts clears the metrics of another in the same folder
        "BENTOML_HOME": str(home / "var" / f"bentoml-{port}"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": f"services.fuseline.workers={workers}",
        **environ,
    }
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Fuseline", "--port", str(port)]
    log = home / "service.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=out, stderr=out, start_new_session=True)
    server = Server(port, process, home, key)
    try:
        wait_until_up(server, log, path=until)
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_up(server: Server, log: Path, *, path: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert server.process.poll() is None, log.read_text()
        try:
            if server.ask("GET", path)[0] == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.05)
    raise AssertionError(log.read_text())
