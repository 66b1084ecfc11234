"""A whole run in one process: what the training DAG does in tasks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pipelines.actions.runs.ending import Outcome, archive, promote_run
from pipelines.actions.runs.places import RECORD, Run, at_work
from pipelines.actions.runs.workspace import Say, close, open_workspace, repro, utc_now
from pipelines.storage import read_json


def run_whole(
    run: Run,
    checkout: Path,
    *,
    as_of: datetime | None = None,
    force: bool = False,
    reason: str | None = None,
    say: Say,
) -> Outcome:
    """Open, run all stages, promote, archive, close; the same id again goes on where a killed one ended.

    Args:
        run: its home and id.
        checkout: the repository's root.
        as_of: instead of the parameters'.
        force: promote over the verdict; needs ``reason``.
        reason: kept in the registry.
        say: told of each step.

    Raises:
        StageFailed: with the stage's exit code; the workspace stays.
        ArtifactError: when the run is at work in another process.
    """
    if (run.archived / RECORD).exists():
        say(close(run, checkout, keep=False, now=utc_now()))
        return Outcome(**read_json(run.archived / RECORD)["outcome"])
    with at_work(run, wait=False):
        open_workspace(run, checkout, as_of=as_of, started=utc_now(), say=say)
    try:
        with at_work(run, wait=False) as lock:
            repro(run, inherit=lock)
        outcome = promote_run(run, force=force, reason=reason, say=say)
        archive(run, ended=utc_now(), say=say)
    finally:
        say(close(run, checkout, keep=True, now=utc_now()))
    return outcome
