"""``make airflow`` for real: REST alone trains, promotes and rolls back; two clones do not meet; nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import champion
from pipelines.process_tree import below
from tests.stages import pipeline, shops

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(5400)]

START_SECONDS, RUN_SECONDS, STOP_SECONDS = 600, 3600, 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
                tasks = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances?limit=100")
                return state, {task["task_id"]: task["state"] for task in tasks["task_instances"]}
            time.sleep(2)
        raise AssertionError(f"{dag} {run} did not end")


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A clone with a small shop, and the environment of this one."""
    folder = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", root, folder], check=True)
    changed = subprocess.run(["git", "diff", "HEAD"], cwd=root, capture_output=True, check=True).stdout
    if changed:
        subprocess.run(["git", "apply"], cwd=folder, input=changed, check=True)
    shops.write_csv(folder / "shop" / "catalog" / "all.csv", shops.catalogue(60))
    shops.write_csv(folder / "shop" / "events" / "all.csv", shops.events(60))
    shipped = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    pipeline.write_params(folder, **{name: values for name, values in shipped.items() if name not in pipeline.QUICK})
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, "commit", "--quiet", "-am", "shop"], cwd=folder, check=True)
    (folder / ".venv").mkdir()
    for path in (root / ".venv").iterdir():
        if not path.name.startswith(".installed"):
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / ".installed-all").touch()  # newer than the clone's files, so that make leaves it alone
    return folder


@contextlib.contextmanager
def started(checkout: Path) -> Iterator[Airflow]:
    """``make airflow`` on a free port, ready; ended at the latest here."""
    port = free_port()
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "FUSELINE_", "AIRFLOW"))}
    log = checkout / "var" / "make-airflow.txt"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as out:
        make = subprocess.Popen(
            ["make", "airflow", f"PORT={port}"],
            cwd=checkout,
            env={**outside, "FUSELINE_SCHEDULE_FEEDBACK": "none", "FUSELINE_SCHEDULE_MONITORING": "none"},
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


def test_rest_alone_trains_promotes_and_rolls_back(checkout: Path) -> None:
    head = subprocess.run(["git", "log", "--all", "--oneline"], cwd=checkout, capture_output=True, check=True).stdout
    with started(checkout) as airflow:
        state, tasks = airflow.ended("fuseline_training", airflow.trigger("fuseline_training"))
        assert state == "success", tasks
        assert set(tasks.values()) == {"success"}, tasks
        first = champion.read(checkout)
        assert first is not None
        assert first.version == 1
        assert not [p for p in (checkout / "var" / "runs").iterdir() if p.is_dir() and p.name != "archive"]

        again = airflow.trigger("fuseline_training", force=True, reason="a second version to roll back from")
        params = yaml.safe_load((checkout / "params.yaml").read_text())
        assert airflow.ended("fuseline_training", again)[0] == "success"
        assert params == yaml.safe_load((checkout / "params.yaml").read_text())

        pipeline.write_params(checkout, **{n: v for n, v in params.items() if n not in pipeline.QUICK}, seed=9)
        forced = airflow.trigger("fuseline_training", force=True, reason="another recipe")
        state, tasks = airflow.ended("fuseline_training", forced)
        assert state == "success", tasks
        second = champion.read(checkout)
        assert second is not None
        assert (second.version, second.previous) == (2, 1)

        back = airflow.trigger("fuseline_release", action="rollback", reason="it was better")
        state, tasks = airflow.ended("fuseline_release", back)
        assert (state, tasks["move"], tasks["package"]) == ("success", "success", "success")
        now = champion.read(checkout)
        assert now is not None
        assert now.version == 1

        with pytest.raises(urllib.error.HTTPError) as refused:
            airflow.trigger("fuseline_training", as_of=5)
        assert refused.value.code == 400
    after = subprocess.run(["git", "log", "--all", "--oneline"], cwd=checkout, capture_output=True, check=True).stdout
    assert after == head


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_airflow_ends_with_everything_that_it_started_a_running_stage_included(checkout: Path, sign: int) -> None:
    with started(checkout) as airflow:
        run = airflow.trigger("fuseline_training")
        until = time.monotonic() + RUN_SECONDS
        while not any((checkout / "var" / "runs").glob("*/artifacts/snapshot")):
            assert time.monotonic() < until, run
            time.sleep(0.5)
        processes = below(airflow.process.pid)
        assert len(processes) > 5
        airflow.process.send_signal(sign)
        airflow.process.wait(STOP_SECONDS)
        assert not [pid for pid in processes if _alive(pid)]
        mine = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert not [line for line in mine.splitlines() if str(checkout) in line and "ps -eo" not in line]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_airflow_of_one_home_is_refused_and_one_of_another_clone_is_not(checkout: Path) -> None:
    with started(checkout) as airflow:
        command = [sys.executable, "-m", "pipelines.airflow_server", "--port", str(free_port())]
        environment = {**os.environ, "FUSELINE_HOME": str(checkout)}
        second = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 5
        assert "an Airflow is at work in" in second.stderr
        elsewhere = {**os.environ, "FUSELINE_HOME": str(checkout.parent / "elsewhere")}
        command[-1] = str(airflow.port)
        taken = subprocess.run(command, cwd=checkout, env=elsewhere, capture_output=True, text=True, check=False)
        assert taken.returncode == 5
        assert f"port {airflow.port} is taken" in taken.stderr
        listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
        ours = {str(pid) for pid in below(airflow.process.pid)}
        addresses = {line.split()[3] for line in listening if any(f"pid={pid}," in line for pid in ours)}
        assert addresses == {f"127.0.0.1:{airflow.port}"}
