"""Airflow on one machine, for ``make airflow``: scheduler, DAG processor, triggerer and web server on loopback.

Like ``airflow standalone``, with what that lacks: it listens on loopback only (the log servers that it would
start listen everywhere), says the password each time, makes the pool, and ends with all its children, those
of running tasks included. Two checkouts do not meet: everything lies in ``FUSELINE_HOME/var/airflow``, and the
web server's is the only port.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipelines import champion, process_tree
from pipelines.errors import ArtifactError
from pipelines.stages.running import run
from pipelines.storage import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
WEB = "api-server"
BEHIND = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
"""Components that talk to the web server, and what each is started with."""

POOLS = {"workspace": {"slots": 1, "description": "stages of runs, one at a time", "include_deferred": False}}

DAYS_OF_A_TASK = 7
START_SECONDS = 180.0
STOP_SECONDS = 12.0
LOOK_SECONDS = 0.5
LOUD = ("[warning", "[error", "[critical")
EXPECTED = ("GitWildMatchPattern", "Starting call to", "SimpleAuthManager")
"""Warnings of Airflow's own that nobody can do anything about."""
ADMIN = "admin"
LAST_LINES = 20


def environment(home: Path, *, port: int, outside: Mapping[str, str]) -> dict[str, str]:
    """Airflow's settings; whoever sets one of them outside keeps it, but for address and folders.

    Args:
        home: ``FUSELINE_HOME``.
        port: of the web server.
        outside: the variables of this process.
    """
    folder, address = home / "var" / "airflow", f"http://127.0.0.1:{port}"
    ours = {
        "AIRFLOW_HOME": folder,
        "AIRFLOW__CORE__DAGS_FOLDER": ROOT / "dags",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": folder / "passwords.json",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": folder / "logs",
        "FUSELINE_HOME": home,
    }
    defaults = {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "0",
        "AIRFLOW__API__WORKERS": "1",
        # must exceed the longest task: it is not renewed while the task waits for its child (apache/airflow#67939)
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": str(DAYS_OF_A_TASK * 86_400),
        # while a model is fitted on all cores an answer of the web server may take long: that is no failure
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "600",
        # a change of params.yaml is a change of the DAG
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCARF_ANALYTICS": "false",
        "FUSELINE_PYTHON": sys.executable,
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), outside.get("PATH", os.defpath)])
    return {**defaults, **outside, **{name: str(value) for name, value in ours.items()}, "PATH": path}


def kept_secret(file: Path, name: str, *, length: int) -> str:
    """A secret that was drawn once and is kept where only its owner reads it."""
    if not file.exists():
        write_json(file, {name: secrets.token_urlsafe(length)})
        file.chmod(0o600)
    return str(read_json(file)[name])


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder: a second scheduler on one SQLite file would stop both."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"an Airflow is at work in {folder} already", do="stop it, or set FUSELINE_HOME"
            ) from None
        yield


def check_port(port: int) -> None:
    """Refuse a port that somebody listens on.

    Raises:
        ArtifactError: naming the port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ArtifactError(f"port {port} is taken", found=error, do="make airflow PORT=8081") from None


def prepare(folder: Path, environ: Mapping[str, str]) -> None:
    """Make or migrate the metadata database and the pools; nothing when this version did so before."""
    done, wanted = folder / "prepared.json", {"airflow": importlib.metadata.version("apache-airflow"), "pools": POOLS}
    if done.exists() and read_json(done) == wanted:
        return
    print("airflow: preparing its database", flush=True)
    write_json(folder / "pools.json", POOLS)
    for command in (["db", "migrate"], ["pools", "import", str(folder / "pools.json")]):
        answer = subprocess.run(  # noqa: S603 - fixed words
            [sys.executable, "-m", "airflow", *command], env=dict(environ), capture_output=True, text=True, check=False
        )
        if answer.returncode:
            said = " / ".join((answer.stderr or answer.stdout).strip().splitlines()[-3:])
            raise ArtifactError(f"airflow {command[0]} failed", found=said, do=f"move {folder} away to start afresh")
    write_json(done, wanted)


def pass_on(name: str, part: subprocess.Popen[str], log: Path) -> None:
    """Keep all that a component says, and print its warnings and errors with its name."""
    with log.open("w", encoding="utf-8") as kept:
        for line in part.stdout or ():
            kept.write(line)
            kept.flush()
            if any(level in line for level in LOUD) and not any(known in line for known in EXPECTED):
                print(f"{name:13} | {line.rstrip()}", flush=True)


def healthy(port: int, *parts: str) -> bool:
    """Whether the web server says that these parts of Airflow are at work."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as answer:
            found = json.load(answer)
    except (OSError, ValueError):
        return False
    return all(found[part]["status"] == "healthy" for part in parts)


def serve(home: Path, *, port: int) -> int:
    """Run until told to end, or until a component ends by itself; the exit status."""
    told = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: told.set())
    process_tree.adopt_orphans()
    folder = home / "var" / "airflow"
    with only_one(folder):
        check_port(port)
        environ = environment(home, port=port, outside=os.environ)
        folder.chmod(0o700)
        secret = kept_secret(folder / "passwords.json", ADMIN, length=12)
        environ["AIRFLOW__API_AUTH__JWT_SECRET"] = kept_secret(folder / "jwt.json", "secret", length=64)
        prepare(folder, environ)
        log_of(environ, WEB).parent.mkdir(parents=True, exist_ok=True)
        parts = {WEB: _start(WEB, ["api-server"], environ)}
        try:
            if not (ended := _wait_for(parts, "metadatabase", port=port, told=told)):
                parts |= {name: _start(name, arguments, environ) for name, arguments in BEHIND.items()}
                ended = _watch(parts, port=port, told=told, secret=secret)
        finally:
            process_tree.end_all(STOP_SECONDS)
    if ended:
        said = log_of(environ, ended).read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        print("\n".join([*said, f"airflow: {ended} ended by itself; its last words stand above"]), file=sys.stderr)
    return 1 if ended else 0


def log_of(environ: Mapping[str, str], part: str) -> Path:
    """Where all that a component says is kept."""
    return Path(environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / f"{part}.log"


def _start(name: str, arguments: list[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
    part = subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-m", "airflow", *arguments],
        env=dict(environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    threading.Thread(target=pass_on, args=(name, part, log_of(environ, name)), daemon=True).start()
    return part


def _wait_for(parts: Mapping[str, subprocess.Popen[str]], *wanted: str, port: int, told: threading.Event) -> str | None:
    """Wait until these parts are healthy, or told to end; the name of a component that ended by itself, or None."""
    since = time.monotonic()
    while not told.wait(LOOK_SECONDS) and not healthy(port, *wanted):
        if ended := _ended(parts):
            return ended
        if time.monotonic() - since > START_SECONDS:
            print(f"airflow: not ready after {START_SECONDS:.0f} s, waiting on", flush=True)
            since = time.monotonic()
    return None


def _watch(parts: Mapping[str, subprocess.Popen[str]], *, port: int, told: threading.Event, secret: str) -> str | None:
    """Say when all is ready, then wait for the end; the name of a component that ended by itself, or None."""
    if ended := _wait_for(parts, "metadatabase", "scheduler", "dag_processor", port=port, told=told):
        return ended
    if not told.is_set():
        address = f"http://127.0.0.1:{port}"
        print(f"airflow: ready on {address} as {ADMIN}, password {secret}; Ctrl-C stops it", flush=True)
    while not told.wait(LOOK_SECONDS):
        if ended := _ended(parts):
            return ended
        process_tree.reap_orphans([part.pid for part in parts.values()])
    return None


def _ended(parts: Mapping[str, subprocess.Popen[str]]) -> str | None:
    return next((name for name, part in parts.items() if part.poll() is not None), None)


def main(argv: list[str] | None = None) -> None:
    """Parse, then serve."""
    parser = ArgumentParser(description="Airflow with this project's DAGs, on loopback.")
    parser.add_argument("--port", type=int, default=8080, help="of the web server (default: %(default)s)")
    raise SystemExit(serve(champion.home_from_environment(), port=parser.parse_args(argv).port))


if __name__ == "__main__":
    run(main)
