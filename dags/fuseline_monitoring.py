"""### Monitoring: drift, label rates, what is shown, latency, fallbacks, age of the model

Thresholds stand in params.yaml. An alert is a line in the log, a message to `FUSELINE_ALERT_WEBHOOK` if that is set,
and a red task `alerts`, so that it is seen here.
"""

from __future__ import annotations

from typing import Any

import fuseline_settings as settings
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from fuseline_alerts import log
from fuseline_commands import FuselineCommand


class Monitor(FuselineCommand):
    """Measure, once something serves."""

    def execute(self, context: Any) -> Any:
        """Skip before the first promotion."""
        if not settings.has_champion():
            raise AirflowSkipException("there is no champion yet")
        return super().execute(context)


@task(retries=0, on_failure_callback=log)
def alerts(found: Any) -> int:
    """Fail when something is out of its limits; the command has told the webhook by then."""
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
    monitor = Monitor(task_id="monitor", arguments=["monitor", "--json"], doc_md="Measure; changes nothing.")
    alerts(monitor.output)
