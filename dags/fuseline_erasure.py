"""### Erasure: remove a person's data everywhere

Without a user id: all requests that are due. With one: that user at once. Removes from event store, raw partitions and
recent history; the next training no longer contains them, and models older than the deadline are flagged.
"""

from __future__ import annotations

import fuseline_settings as settings
from airflow.sdk import DAG, Param
from fuseline_commands import FuselineCommand

with DAG(
    "fuseline_erasure",
    description="Carry out requests for erasure",
    schedule=settings.schedule("erasure"),
    params={
        "user_id": Param(
            None,
            type=["null", "string"],
            minLength=1,
            title="User id",
            description="Erase this user now; empty: carry out the requests that are due.",
        )
    },
    tags=["fuseline", "erasure", "privacy"],
    default_args=settings.task_defaults(retries=3),
    **settings.dag_settings(__doc__),
) as dag:
    FuselineCommand(
        task_id="erase",
        arguments=["erase", "{{ '' if params.user_id else '--due' }}", "--user", "{{ params.user_id or '' }}"],
        pool=settings.POOL,
        doc_md="May be repeated: what is gone is gone. Waits while a run is at work.",
    )
