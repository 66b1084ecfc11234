"""### Release: which version serves

* **promote** with a version: makes a registered version the champion. Without one: makes sure that the champion of now
  is packaged and served; a promotion by training starts this run by itself.
* **rollback**: back to the version that served before, or to the one that is named.

Running services follow by themselves; `served` waits until the one at `FUSELINE_SERVICE_URL` answers with it, and is
skipped if that is not set.
"""

from __future__ import annotations

import os
from typing import Any

import fuseline_settings as settings
from airflow.sdk import DAG, Param, TriggerRule
from airflow.sdk.exceptions import AirflowSkipException
from fuseline_commands import FuselineCommand

PARAMS = {
    "action": Param("promote", type="string", enum=["promote", "rollback"], title="Action"),
    "version": Param(
        None,
        type=["null", "integer"],
        minimum=1,
        title="Version",
        description="Of the registry. Empty: promote keeps the champion, rollback takes the one before it.",
    ),
    "reason": Param(
        None,
        type=["null", "string"],
        minLength=3,
        maxLength=500,
        title="Reason",
        description="Kept in the champion's history.",
    ),
}


class Move(FuselineCommand):
    """Move the champion, unless this run is only to make sure of the present one."""

    def execute(self, context: Any) -> Any:
        """Skip when no other version is asked for."""
        asked = context["params"]
        if asked["action"] == "promote" and asked["version"] is None:
            raise AirflowSkipException("the champion stays")
        return super().execute(context)


class Served(FuselineCommand):
    """Wait for the running service."""

    def execute(self, context: Any) -> Any:
        """Skip without an address."""
        if not os.environ.get("FUSELINE_SERVICE_URL"):
            raise AirflowSkipException("FUSELINE_SERVICE_URL is not set")
        return super().execute(context)


with DAG(
    "fuseline_release",
    description="Promote a version or roll back; package it and see it served",
    schedule=[settings.CHAMPION],
    params=PARAMS,
    tags=["fuseline", "release"],
    default_args=settings.task_defaults(),
    **settings.dag_settings(__doc__),
) as dag:
    move = Move(
        task_id="move",
        arguments=[
            "rollback", "--json", "--version", "{{ params.version or '' }}", "--reason", "{{ params.reason or '' }}",
        ],
        doc_md="Registry's aliases and the champion's pointer, in one step that may be repeated.",
    )  # fmt: skip
    package = FuselineCommand(
        task_id="package",
        arguments=["package", "--json"],
        trigger_rule=TriggerRule.NONE_FAILED,
        doc_md="The champion's Bento; one that is there already stays.",
    )
    served = Served(
        task_id="served",
        arguments=["served", "--json"],
        doc_md="Waits until the running service answers with the champion's version.",
    )
    move >> package >> served
