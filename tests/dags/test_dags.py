"""The DAGs as Airflow reads them, and what their tasks make of what a command answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from closure import stages

DESCRIBE = Path(__file__).with_name("describe.py")
DAGS = {"fuseline_training", "fuseline_feedback", "fuseline_monitoring", "fuseline_release", "fuseline_erasure"}
AROUND = {"due", "open", "promote", "archive", "close"}
"""Tasks of the training DAG that are no stages."""


ATTEMPTS: dict[str, dict[str, Any]] = {
    "rejected": {
        "dag": "fuseline_training",
        "task": "promote",
        "prints": '{"promoted": false, "reason": "the verdict is reject: coverage"}',
    },
    "promoted": {"dag": "fuseline_training", "task": "promote", "prints": '{"promoted": true, "version": 4}'},
    "bad data": {"dag": "fuseline_training", "task": "ingest", "says": "error: the export has no title", "status": 3},
    "killed": {"dag": "fuseline_training", "task": "train.ease", "status": 137},
    "nothing new": {
        "dag": "fuseline_training",
        "task": "due",
        "run_type": "scheduled",
        "prints": '{"train": false, "reason": "nothing is new"}',
    },
    "by hand": {
        "dag": "fuseline_training",
        "task": "due",
        "run_type": "manual",
        "prints": '{"train": false, "reason": "nothing is new"}',
    },
    "nothing landed": {"dag": "fuseline_feedback", "task": "landed", "argument": {"changed": []}},
    "landed": {"dag": "fuseline_feedback", "task": "landed", "argument": {"changed": [{"day": "2010-11-03"}]}},
    "alerts": {"dag": "fuseline_monitoring", "task": "alerts", "argument": {"alerts": [{"message": "drift of price"}]}},
    "nothing serves": {"dag": "fuseline_monitoring", "task": "monitor"},
    "calm": {"dag": "fuseline_monitoring", "task": "alerts", "argument": {"alerts": []}},
    "champion stays": {"dag": "fuseline_release", "task": "move", "params": {"action": "promote", "version": None}},
    "rolled back": {
        "dag": "fuseline_release",
        "task": "move",
        "params": {"action": "rollback", "version": None},
        "prints": '{"version": 1}',
    },
}
"""Tasks to execute: what the command that each starts prints, says and ends with."""


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process with an AIRFLOW_HOME of its own tells everything: importing Airflow takes seconds."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    settings = {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "SCARF_ANALYTICS": "false",
        "FUSELINE_HOME": str(tmp_path_factory.mktemp("home")),
        "FUSELINE_SCHEDULE_TRAINING": "*/10 * * * *",
    }
    done = subprocess.run(
        [sys.executable, DESCRIBE, json.dumps(ATTEMPTS)],
        env={**known, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def attempts(bag: dict[str, Any]) -> dict[str, Any]:
    """What became of each of :data:`ATTEMPTS`."""
    found: dict[str, Any] = bag["attempts"]
    return found


@pytest.fixture(scope="module")
def dags(bag: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bag["dags"]
    return found


def test_every_dag_file_is_read_without_an_error(bag: dict[str, Any]) -> None:
    assert bag["errors"] == {}
    assert set(bag["dags"]) == DAGS


def test_training_has_a_task_for_each_stage_instance_and_the_graph_of_dvc(dags: dict[str, Any], root: Path) -> None:
    tasks = dags["fuseline_training"]["tasks"]
    names = {stage.name.replace("@", ".") for stage in stages()}
    assert set(tasks) - AROUND == names
    dot = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--dot"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    edges = [line.strip().rstrip(";").split(" -> ") for line in dot.splitlines() if "->" in line]
    drawn = {(before.strip('"').replace("@", "."), after.strip('"').replace("@", ".")) for before, after in edges}
    ours = {(before, after) for after, task in tasks.items() for before in task["upstream"]}
    inner = {edge for edge in ours if not AROUND & set(edge)}
    assert inner <= drawn
    assert order(inner) == order(drawn)
    assert ("code", "train.ease") not in inner, "every stage depends on the code; to draw it hides the rest"


def order(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """All pairs of which one must come first."""
    found = set(edges)
    while more := {(a, d) for a, b in found for c, d in edges if b == c} - found:
        found |= more
    return found


def test_a_stage_task_runs_the_stage_that_dvc_knows(dags: dict[str, Any]) -> None:
    tasks = dags["fuseline_training"]["tasks"]
    for stage in stages():
        arguments = tasks[stage.name.replace("@", ".")]["arguments"]
        assert arguments == ["workspace", "stage", stage.name, "--run-id", "{{ run_id }}"]


def test_stages_take_the_one_slot_of_the_workspace_pool(dags: dict[str, Any]) -> None:
    tasks = dags["fuseline_training"]["tasks"]
    assert {task["pool"] for name, task in tasks.items() if name not in AROUND} == {"workspace"}


def test_nothing_runs_without_an_end_an_owner_retries_and_a_callback(dags: dict[str, Any]) -> None:
    for name, dag in dags.items():
        for task_id, task in dag["tasks"].items():
            assert task["timeout"], (name, task_id)
            assert task["owner"] == "fuseline"
            assert task["callback"]
            assert task["backoff"]
            assert task["retries"] > 0 or task_id == "alerts"


def test_dags_are_documented_tagged_and_ready_and_run_once_at_a_time(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag["doc"].startswith("### ")
        assert "fuseline" in dag["tags"]
        assert (dag["catchup"], dag["max_active_runs"], dag["paused"]) == (False, 1, False)


def test_feedback_that_landed_makes_training_due_and_a_promotion_makes_release_due(dags: dict[str, Any]) -> None:
    assert dags["fuseline_feedback"]["tasks"]["landed"]["outlets"] == dags["fuseline_training"]["assets"]
    assert dags["fuseline_training"]["tasks"]["promote"]["outlets"] == dags["fuseline_release"]["assets"]
    assert not any(task["outlets"] for task in dags["fuseline_release"]["tasks"].values())


def test_a_schedule_is_set_by_a_variable_of_the_environment(dags: dict[str, Any]) -> None:
    assert dags["fuseline_training"]["clock"] == "*/10 * * * *"
    assert dags["fuseline_feedback"]["timetable"] == "CronTriggerTimetable"
    assert dags["fuseline_feedback"]["makes_up"] == "0:00:00"


@pytest.mark.parametrize(
    ("dag", "param", "types"),
    [
        ("fuseline_training", "as_of", ["null", "string"]),
        ("fuseline_training", "force", "boolean"),
        ("fuseline_training", "reason", ["null", "string"]),
        ("fuseline_release", "action", "string"),
        ("fuseline_release", "version", ["null", "integer"]),
        ("fuseline_release", "reason", ["null", "string"]),
        ("fuseline_erasure", "user_id", ["null", "string"]),
    ],
)
def test_a_field_of_a_form_has_a_type_and_a_title(dags: dict[str, Any], dag: str, param: str, types: object) -> None:
    field = dags[dag]["params"][param]
    assert field["type"] == types
    assert field["title"]


def test_the_workspace_is_closed_whatever_happens_and_a_closed_one_makes_no_failed_run_green(
    dags: dict[str, Any],
) -> None:
    tasks = dags["fuseline_training"]["tasks"]
    assert tasks["close"]["teardown"]
    assert tasks["archive"]["trigger_rule"] == "none_failed_min_one_success"


def test_a_verdict_other_than_promote_skips_the_promotion_with_the_reason(attempts: dict[str, Any]) -> None:
    skipped = {"raises": "AirflowSkipException", "says": "the verdict is reject: coverage"}
    assert attempts["rejected"] == skipped
    assert attempts["promoted"]["value"]["version"] == 4


def test_an_error_of_the_data_is_not_tried_again(attempts: dict[str, Any]) -> None:
    assert attempts["bad data"]["raises"] == "AirflowFailException"
    assert "the export has no title" in attempts["bad data"]["says"]


def test_a_stage_that_was_killed_is_tried_again(attempts: dict[str, Any]) -> None:
    assert attempts["killed"]["raises"] == "AirflowException"


def test_a_scheduled_run_without_anything_new_is_skipped_and_one_by_hand_is_not(attempts: dict[str, Any]) -> None:
    assert attempts["nothing new"] == {"raises": "AirflowSkipException", "says": "nothing is new"}
    assert attempts["by hand"]["value"]["train"]


def test_training_is_due_only_when_a_partition_landed(attempts: dict[str, Any]) -> None:
    assert attempts["nothing landed"]["raises"] == "AirflowSkipException"
    assert attempts["landed"]["value"] == [{"day": "2010-11-03"}]


def test_an_alert_makes_its_task_red_and_names_what_is_wrong(attempts: dict[str, Any]) -> None:
    assert attempts["alerts"] == {"raises": "AirflowFailException", "says": "1 alerts: drift of price"}
    assert attempts["calm"] == {"value": 0}


def test_before_the_first_promotion_there_is_nothing_to_monitor(attempts: dict[str, Any]) -> None:
    assert attempts["nothing serves"] == {"raises": "AirflowSkipException", "says": "there is no champion yet"}


def test_a_release_that_a_promotion_started_leaves_the_champion_where_it_is(attempts: dict[str, Any]) -> None:
    assert attempts["champion stays"]["raises"] == "AirflowSkipException"
    assert attempts["rolled back"]["value"] == {"version": 1}
