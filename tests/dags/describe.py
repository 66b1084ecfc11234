"""Run by tests in a process with an AIRFLOW_HOME of its own: what Airflow makes of dags/, as JSON on stdout.

The argument is JSON too: tasks to execute, each with what the command that it starts answers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "dags"))


def described(task: Any) -> dict[str, Any]:
    return {
        "upstream": sorted(task.upstream_task_ids),
        "pool": task.pool,
        "retries": task.retries,
        "backoff": bool(task.retry_exponential_backoff),
        "timeout": task.execution_timeout.total_seconds() if task.execution_timeout else None,
        "owner": task.owner,
        "outlets": [outlet.uri for outlet in task.outlets],
        "teardown": task.is_teardown,
        "trigger_rule": task.trigger_rule.value,
        "callback": bool(task.on_failure_callback),
        "arguments": list(getattr(task, "arguments", [])),
    }


def attempt(task: Any, asked: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What executing it does when the command answers like this: its value, or what it raises."""
    script = folder / "python"
    script.write_text(
        f"#!/bin/sh\nprintf '%s' '{asked.get('prints', '')}'\n"
        f"printf '%s\\n' '{asked.get('says', '')}' >&2\nexit {asked.get('status', 0)}\n"
    )
    script.chmod(0o755)
    os.environ["FUSELINE_PYTHON"] = str(script)
    context = {"dag_run": SimpleNamespace(run_type=asked.get("run_type", "manual")), "params": asked.get("params", {})}
    try:
        if "argument" in asked:
            return {"value": task.python_callable(asked["argument"])}
        return {"value": task.execute(context)}
    except Exception as error:  # noqa: BLE001 - the kind is what is tested
        return {"raises": type(error).__name__, "says": str(error)}


def main() -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"))
    found = {
        name: {
            "tasks": {task.task_id: described(task) for task in dag.tasks},
            "params": {key: {"value": dag.params[key], **dag.params.get_param(key).schema} for key in dag.params},
            "tags": sorted(dag.tags),
            "doc": dag.doc_md,
            "catchup": dag.catchup,
            "max_active_runs": dag.max_active_runs,
            "paused": dag.is_paused_upon_creation,
            "timetable": type(dag.timetable).__name__,
            "clock": getattr(getattr(dag.timetable, "timetable", dag.timetable), "expression", None),
            "assets": [asset.uri for asset in getattr(getattr(dag.timetable, "asset_condition", None), "objects", ())],
        }
        for name, dag in bag.dags.items()
    }
    asked = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        attempts = {
            name: attempt(bag.dags[one["dag"]].get_task(one["task"]), one, Path(folder)) for name, one in asked.items()
        }
    print("\n" + json.dumps({"errors": bag.import_errors, "dags": found, "attempts": attempts}, default=str))


if __name__ == "__main__":
    main()
