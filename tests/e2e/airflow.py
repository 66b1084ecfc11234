"""``make airflow`` as tests start it, and its REST API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.service_process import free_port
from tests.stages import pipeline, shops

SCHEDULED = ("TRAINING", "FEEDBACK", "MONITORING", "ERASURE")
START_SECONDS, RUN_SECONDS, STOP_SECONDS = 600, 3600, 60


@dataclass
class Airflow:
    """A running ``make airflow`` and its REST API."""

    checkout: Path
    port: int
    process: subprocess.Popen[bytes]
    token: str = field(default="", repr=False)

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.token}"} if self.token else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    def log_in(self) -> None:
        kept = json.loads((self.checkout / "var" / "airflow" / "passwords.json").read_text())
        self.token = self.call("POST", "/auth/token", {"username": "admin", "password": kept["admin"]})["access_token"]

    def trigger(self, dag: str, **conf: object) -> str:
        answer = self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        return str(answer["dag_run_id"])

    def ended(self, dag: str, run: str) -> tuple[str, dict[str, str]]:
        """State of a run, and of its tasks, once it is over."""
        until = time.monotonic() + RUN_SECONDS
        while time.monotonic() < until:
            state = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
            if state in {"success", "failed"}:
                return state, {task["task_id"]: task["state"] for task in self.tasks(dag, run)}
            time.sleep(2)
        raise AssertionError(f"{dag} {run} did not end")

    def tasks(self, dag: str, run: str) -> list[dict[str, Any]]:
        """The newest try of each task of a run."""
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=100")
        return list(found["task_instances"])


def clone(root: Path, folder: Path) -> Path:
    """A clone of the checkout as it lies there, with its environment."""
    subprocess.run(["git", "clone", "--quiet", root, folder], check=True)
    changed = subprocess.run(["git", "diff", "HEAD"], cwd=root, capture_output=True, check=True).stdout
    if changed:
        subprocess.run(["git", "apply"], cwd=folder, input=changed, check=True)
        commit(folder)
    (folder / ".venv").mkdir()
    for path in (root / ".venv").iterdir():
        if not path.name.startswith(".installed"):
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / ".installed-all").touch()  # newer than the clone's files, so that make leaves it alone
    return folder


def small_shop(root: Path, folder: Path) -> Path:
    """A clone whose shop takes a minute."""
    clone(root, folder)
    shops.write_csv(folder / "shop" / "catalog" / "all.csv", shops.catalogue(60))
    shops.write_csv(folder / "shop" / "events" / "all.csv", shops.events(60))
    pipeline.write_watched_params(folder, root / "params.yaml")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    """All changes of tracked files."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, "commit", "--quiet", "-am", "shop"], cwd=folder, check=True)


@contextlib.contextmanager
def started(checkout: Path, *, service: str | None = None, **schedules: str) -> Iterator[Airflow]:
    """``make airflow`` on a free port, ready; ended at the latest here.

    Args:
        checkout: whose DAGs run.
        service: address of a running service that releases wait for.
        schedules: by name, else none.
    """
    port = free_port()
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "FUSELINE_", "AIRFLOW"))}
    ours = {f"FUSELINE_SCHEDULE_{name}": schedules.get(name, "none") for name in SCHEDULED}
    if service:
        ours["FUSELINE_SERVICE_URL"] = service
    log = checkout / "var" / "make-airflow.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as out:
        make = subprocess.Popen(
            ["make", "airflow", f"PORT={port}"],
            cwd=checkout,
            env=outside | ours,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )
    airflow = Airflow(checkout, port, make)
    try:
        until = time.monotonic() + START_SECONDS
        while "airflow: ready" not in log.read_text():
            assert make.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(1)
        airflow.log_in()
        yield airflow
    finally:
        if make.poll() is None:
            make.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                make.wait(STOP_SECONDS)
