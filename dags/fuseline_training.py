"""### Training: from the shop's export and the feedback to a promoted version

One task for each stage of `dvc.yaml`, in a worktree of its own below `var/runs/`; then the gate's verdict decides
about the promotion. A verdict other than `promote` leaves the run green with the promotion skipped.

* **Starts** by the clock (`schedule.training` in params.yaml, or `FUSELINE_SCHEDULE_TRAINING`), when feedback landed,
  and by hand. Unless started by hand, `due` asks whether enough is new, and skips the run with the reason if not.
* **Failed?** The workspace stays. Repair what the log names, clear the failed task: everything finished is kept.
* **Kept** of every run: `var/runs/archive/<run>/` with dvc.lock, parameters, metrics, verdict.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dvc_graph
import fuseline_settings as settings
from airflow.sdk import DAG, AssetOrTimeSchedule, Param, TaskGroup, TriggerRule
from airflow.sdk.exceptions import AirflowSkipException
from fuseline_commands import FuselineCommand, Promotion

RUN = ["--run-id", "{{ run_id }}"]
BY_HAND = "manual"

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Train as of",
        description="Events at or after this instant are left out; empty: as params.yaml says.",
    ),
    "force": Param(
        default=False,
        type="boolean",
        title="Promote over the verdict",
        description="Makes the candidate the champion whatever the gate says; needs a reason.",
    ),
    "reason": Param(
        None,
        type=["null", "string"],
        minLength=3,
        maxLength=500,
        title="Reason",
        description="Kept with the version in the registry.",
    ),
}


class Due(FuselineCommand):
    """Ask whether training is worth it; a run that a person started always is."""

    def execute(self, context: Any) -> Any:
        """Skip the run, with the reason, when too little is new."""
        run_type = context["dag_run"].run_type
        if getattr(run_type, "value", run_type) == BY_HAND:
            return {"train": True, "reason": "started by hand"}
        decision = super().execute(context)
        if not decision["train"]:
            raise AirflowSkipException(decision["reason"])
        return decision


def when() -> Any:
    """Feedback that landed, and the clock if it is asked for."""
    clock = settings.schedule("training")
    return AssetOrTimeSchedule(timetable=clock, assets=[settings.FEEDBACK]) if clock else [settings.FEEDBACK]


def add_stages() -> tuple[list[FuselineCommand], list[FuselineCommand]]:
    """A task for each stage instance, in the order of dvc.yaml; gives those without any before, and after, them."""
    stages = dvc_graph.read(settings.CHECKOUT)
    groups: dict[str, TaskGroup] = {}
    tasks: dict[str, FuselineCommand] = {}
    for stage in stages:
        name = stage.group
        if name and name not in groups:
            groups[name] = TaskGroup(name, tooltip=stage.description)
        tasks[stage.name] = FuselineCommand(
            task_id=stage.name.partition("@")[2] or stage.name,
            task_group=groups[name] if name else None,
            arguments=["workspace", "stage", stage.name, *RUN],
            doc_md=f"{stage.description}. Stage `{stage.name}` of dvc.yaml.",
            pool=settings.POOL,
            execution_timeout=timedelta(hours=settings.STAGE_HOURS),
        )
    edges = dvc_graph.direct(dvc_graph.edges(stages))
    for before, after in edges:
        tasks[before] >> tasks[after]
    first = [task for name, task in tasks.items() if name not in {after for _, after in edges}]
    last = [task for name, task in tasks.items() if name not in {before for before, _ in edges}]
    return first, last


with DAG(
    "fuseline_training",
    description="One task per DVC stage, then promotion if the gate allows it",
    schedule=when(),
    params=PARAMS,
    tags=["fuseline", "training", "dvc"],
    default_args=settings.task_defaults(),
    **settings.dag_settings(__doc__),
) as dag:
    due = Due(task_id="due", arguments=["fresh", "--json", *RUN], doc_md="Is enough new since the last run?")
    opened = FuselineCommand(
        task_id="open",
        arguments=["workspace", "open", *RUN, "--as-of", "{{ params.as_of or '' }}"],
        doc_md="Worktree of the commit, with the parameters, the data and the last run's results.",
    )
    first, last = add_stages()
    promote = Promotion(
        task_id="promote",
        arguments=[
            "workspace", "promote", *RUN,
            "{{ '--force' if params.force else '' }}", "--reason", "{{ params.reason or '' }}",
        ],
        outlets=[settings.CHAMPION],
        pool=settings.POOL,
        execution_timeout=timedelta(hours=settings.STAGE_HOURS),
        doc_md="Registers the candidate and makes it the champion, if the verdict is `promote`; else it is skipped.",
    )  # fmt: skip
    archive = FuselineCommand(
        task_id="archive",
        arguments=["workspace", "archive", *RUN],
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        doc_md="dvc.lock, parameters, metrics, verdict under `var/runs/archive/`; `dvc push` if there is a remote.",
    )
    close = FuselineCommand(
        task_id="close",
        arguments=["workspace", "close", *RUN],
        doc_md="Removes the workspace; that of a failed run stays for a look.",
    ).as_teardown(setups=opened)
    due >> opened >> first
    last >> promote
    [*last, promote] >> archive >> close
