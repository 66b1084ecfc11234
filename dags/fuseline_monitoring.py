"""### Monitoring: drift, label rates, what is shown, latency, fallbacks, age of the model

Thresholds stand in params.yaml. An alert is a line in the log, a message to `FUSELINE_ALERT_WEBHOOK` if that is set,
and a red task `alerts`, so that it is seen here.
"""

from __future__ import annotations

from typing import Any

import fuseline_settings as settings
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException
from fuseline_commands import FuselineCommand


@task(retries=0)
def alerts(found: Any) -> int:
    """Fail when something is out of its limits; the failure's callback tells it."""
    raised = list((found if isinstance(found, dict) else {}).get("alerts") or [])
    if raised:
        raise AirflowFailException(f"{len(raised)} alerts: " + "; ".join(map(in_words, raised)))
    return 0


def in_words(alert: Any) -> str:
    """One alert as a phrase."""
    if not isinstance(alert, dict):
        return str(alert)
    return str(alert.get("message") or ", ".join(f"{name} {value}" for name, value in alert.items()))


with DAG(
    "fuseline_monitoring",
    description="Compare what happens with the limits in params.yaml",
    schedule=settings.schedule("monitoring"),
    tags=["fuseline", "monitoring"],
    default_args=settings.task_defaults(),
    **settings.dag_settings(__doc__),
) as dag:
    monitor = FuselineCommand(task_id="monitor", arguments=["monitor", "--json"], doc_md="Measure; changes nothing.")
    alerts(monitor.output)
