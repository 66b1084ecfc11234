"""### Feedback: what the service showed and what people did becomes training data

Exports the closed hours of the event store into dated partitions under `var/feedback/`, each exactly once. When a
partition landed, training is due: it asks by itself whether enough is new.
"""

from __future__ import annotations

from typing import Any

import fuseline_settings as settings
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowSkipException
from fuseline_commands import FuselineCommand


@task(outlets=[settings.FEEDBACK])
def landed(outcome: Any) -> Any:
    """Mark that partitions landed, which makes training due; skipped when nothing new did."""
    if not partitions(outcome):
        raise AirflowSkipException("no partition is new")
    return partitions(outcome)


def partitions(outcome: Any) -> list[Any]:
    """Partitions that are new or other than before, from what ``fuseline collect --json`` printed."""
    return list(outcome.get("changed") or []) if isinstance(outcome, dict) else []


with DAG(
    "fuseline_feedback",
    description="Export closed hours of events into dated partitions",
    schedule=settings.schedule("feedback"),
    tags=["fuseline", "feedback"],
    default_args=settings.task_defaults(retries=3),
    **settings.dag_settings(__doc__),
) as dag:
    collect = FuselineCommand(
        task_id="collect", arguments=["collect", "--json"], doc_md="Exactly once: a repetition finds what was exported."
    )
    landed(collect.output)
