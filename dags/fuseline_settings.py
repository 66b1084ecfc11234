"""What all DAGs of Fuseline share: where the checkout lies, when they run, how they retry, the assets between them."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from airflow.sdk import Asset, CronTriggerTimetable
from fuseline_alerts import tell

CHECKOUT = Path(__file__).resolve().parents[1]
POOL = "workspace"
"""One slot: the stages of a run use all cores and most of the memory of a machine."""

FEEDBACK = Asset("fuseline_feedback_partition", uri="fuseline://feedback/partition", group="fuseline")
CHAMPION = Asset("fuseline_champion", uri="fuseline://champion", group="fuseline")

STAGE_HOURS, ACTION_MINUTES = 12, 30


def home() -> Path:
    """``FUSELINE_HOME``, by default the checkout."""
    return Path(os.environ.get("FUSELINE_HOME") or CHECKOUT)


def has_champion() -> bool:
    """Whether anything was promoted yet."""
    return (home() / "var" / "champion" / "current.json").exists()


def python() -> str:
    """The interpreter that has the pipeline's libraries: ``FUSELINE_PYTHON``, else Airflow's own."""
    return os.environ.get("FUSELINE_PYTHON") or sys.executable


def schedule(name: str) -> CronTriggerTimetable | None:
    """When a DAG starts: ``FUSELINE_SCHEDULE_<NAME>``, else ``schedule.<name>`` of params.yaml; ``none`` is never.

    The first start makes up for nothing; after a pause the last tick that was missed counts once. (False for
    ``run_immediately`` still runs a tick of the last tenth of the interval; no time at all does not.)
    """
    text = os.environ.get(f"FUSELINE_SCHEDULE_{name.upper()}")
    if text is None:
        values = yaml.safe_load((CHECKOUT / "params.yaml").read_text(encoding="utf-8"))
        text = (values.get("schedule") or {}).get(name)
    if not text or str(text).lower() in {"none", "null"}:
        return None
    return CronTriggerTimetable(str(text), timezone="UTC", run_immediately=timedelta(0))


def task_defaults(*, retries: int = 2, timeout: timedelta = timedelta(minutes=ACTION_MINUTES)) -> dict[str, Any]:
    """``default_args`` of a DAG; a command that a retry cannot help ends its task at once all the same."""
    return {
        "owner": "fuseline",
        "retries": retries,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timeout,
        "on_failure_callback": tell,
    }


def dag_settings(doc: str | None) -> dict[str, Any]:
    """Arguments that every DAG of Fuseline has."""
    return {
        "doc_md": doc,
        "catchup": False,
        "max_active_runs": 1,
        "is_paused_upon_creation": False,
        "render_template_as_native_obj": False,
    }
