"""``make airflow`` for real: REST alone trains, promotes and rolls back; two clones do not meet; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest
import yaml

from pipelines import champion
from pipelines.process_tree import below
from pipelines.service_process import free_port
from tests.e2e.airflow import RUN_SECONDS, STOP_SECONDS, small_shop, started

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(5400)]


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A clone with a small shop, and the environment of this one."""
    return small_shop(root, tmp_path / "clone")


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

        params = yaml.safe_load((checkout / "params.yaml").read_text())
        (checkout / "params.yaml").write_text(yaml.safe_dump(params | {"fusion": {"method": "best_single"}}))
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
