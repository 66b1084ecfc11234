"""What ``make airflow`` sets, keeps and refuses, without starting it."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.airflow_server import MOST_ENDS, Components, check_port, environment, kept_secret, only_one
from pipelines.errors import ArtifactError


def test_addresses_follow_the_port_and_folders_the_home(tmp_path: Path) -> None:
    found = environment(tmp_path, port=8123, outside={"PATH": "/bin", "AIRFLOW__API__PORT": "1"})
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert found["AIRFLOW__API__PORT"] == "8123"
    assert found["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8123"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert Path(found["AIRFLOW_HOME"]) == tmp_path / "var" / "airflow"
    assert found["PATH"].endswith(":/bin")


def test_a_token_outlives_the_longest_task_and_an_operators_setting_counts(tmp_path: Path) -> None:
    found = environment(tmp_path, port=1, outside={"AIRFLOW__CORE__PARALLELISM": "9"})
    assert int(found["AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME"]) > 12 * 3600
    assert found["AIRFLOW__CORE__PARALLELISM"] == "9"
    assert found["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"


def test_a_secret_stays_the_same_and_is_its_owners_alone(tmp_path: Path) -> None:
    first = kept_secret(tmp_path / "secret.json", "admin", length=12)
    assert kept_secret(tmp_path / "secret.json", "admin", length=12) == first
    assert stat.S_IMODE((tmp_path / "secret.json").stat().st_mode) == 0o600


def test_one_folder_has_one_airflow(tmp_path: Path) -> None:
    with (
        only_one(tmp_path),
        pytest.raises(ArtifactError, match=r"an Airflow is at work in .*; next: stop it"),
        only_one(tmp_path),
    ):
        pass


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ArtifactError, match=f"port {taken.getsockname()[1]} is taken"):
            check_port(taken.getsockname()[1])


def test_processes_that_lost_their_parent_and_lead_a_session_of_their_own_are_ended_too(
    tmp_path: Path, root: Path
) -> None:
    grandchild = "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"  # noqa: E501
    script = f"""
import subprocess, sys, time
from pathlib import Path
from pipelines import process_tree
process_tree.adopt_orphans()
code = {grandchild!r}
child = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
subprocess.run([sys.executable, "-c", child, sys.executable, "-c", code, sys.argv[1]], check=True)
while not Path(sys.argv[1]).exists() or not Path(sys.argv[1]).read_text(): time.sleep(0.02)
process_tree.end_all(0.5)
print("ended")
"""
    note = tmp_path / "pid"
    done = subprocess.run(
        [sys.executable, "-c", script, str(note)], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "ended\n", done.stderr
    status = Path(f"/proc/{note.read_text()}/stat")  # one that ended may wait to be noticed, as a zombie
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_component_that_ends_is_started_again_and_one_that_ends_each_time_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def start(self: Components, name: str) -> None:
        started.append(name)
        self.parts[name] = subprocess.Popen(["false"], stdout=subprocess.PIPE, text=True)
        self.parts[name].wait()

    monkeypatch.setattr(Components, "start", start)
    (tmp_path / "scheduler.log").write_text("the database is locked\n")
    components = Components(1, {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path)}, threading.Event())
    components.start("scheduler")
    components.tend()
    assert started == ["scheduler", "scheduler"]
    for _ in range(MOST_ENDS - 1):
        components.tend()
    with pytest.raises(ArtifactError, match=r"scheduler ends again and again; found: the database is locked"):
        components.tend()
