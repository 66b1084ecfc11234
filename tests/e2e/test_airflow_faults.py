"""What happens to the loop when its parts are killed, and when it is asked for twice at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines import champion
from pipelines.actions.runs.places import archived
from pipelines.process_tree import below
from tests.e2e.airflow import RUN_SECONDS, Airflow, small_shop, started

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(5400)]

A_STAGE = "pipelines.stages.train"
A_COMMAND = "pipelines workspace stage"
A_TASK = "airflow worker"
THE_SCHEDULER = "airflow scheduler"


def met(airflow: Airflow, what: str) -> int:
    """Wait for a process below ``make airflow`` whose command line says so."""
    return int(eventually(lambda: [pid for pid in below(airflow.process.pid) if what in command(pid)])[0])


def task_at_work(airflow: Airflow) -> int:
    """Wait for Airflow's process of a task that runs a stage; the command that it started lives on without it."""

    def found() -> list[int]:
        return [above(pid) for pid in below(airflow.process.pid) if A_COMMAND in command(pid)]

    return int(eventually(lambda: [pid for pid in found() if A_TASK in command(pid)])[0])


def above(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def command(pid: int) -> str:
    try:
        return " ".join(Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"))
    except OSError:
        return ""


def eventually(look: Callable[[], Any]) -> Any:
    until = time.monotonic() + RUN_SECONDS
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_a_killed_stage_a_killed_scheduler_and_two_triggers_at_once_end_as_two_whole_runs(
    root: Path, tmp_path: Path
) -> None:
    checkout = small_shop(root, tmp_path / "clone")
    with started(checkout) as airflow:
        with ThreadPoolExecutor(2) as pool:
            runs = list(pool.map(lambda _: airflow.trigger("fuseline_training"), range(2)))
        assert len(set(runs)) == 2
        os.kill(met(airflow, A_STAGE), signal.SIGKILL)
        eventually(lambda: len(list((checkout / "var" / "runs").glob("*/artifacts/members/*"))) > 1)
        os.kill(task_at_work(airflow), signal.SIGKILL)
        eventually(lambda: any((checkout / "var" / "runs").glob("*/artifacts/judged")))
        os.kill(met(airflow, THE_SCHEDULER), signal.SIGKILL)
        for run in runs:
            state, tasks = airflow.ended("fuseline_training", run)
            assert state == "success", tasks
            assert set(tasks.values()) <= {"success", "skipped"}, tasks
        tries = [task["try_number"] for run in runs for task in airflow.tasks("fuseline_training", run)]
        assert sum(tries) >= len(tries) + 2, "the killed stage and the killed task were tried again"
    ended = archived(checkout)
    assert {record["run"] for record in ended} == set(runs)
    now = champion.read(checkout)
    assert now is not None
    assert now.version == 1, "the second run's candidate is the champion already"
    assert {record["outcome"]["version"] for record in ended} == {1}
    assert not [p for p in (checkout / "var" / "runs").iterdir() if p.is_dir() and p.name != "archive"]
