"""Open a run's workspace, run stages in it, and close it; every step may be repeated after a kill."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import params as parameters
from pipelines.actions.doctor import remove_torn_files
from pipelines.actions.runs import worktree
from pipelines.actions.runs.places import Run, archived, at_work, folder, forget, one_at_a_time
from pipelines.errors import ArtifactError, FuselineError
from pipelines.params import AllParams
from pipelines.storage import read_json, write_json

Say = Callable[[str], None]
ABANDONED = timedelta(days=2)
"""Age at which an open workspace that nobody works in counts as one of a failed run."""

EXITED = re.compile(r"exited with (-?\d+)")
"""How DVC names the exit status of a stage's command; its own status is always the same."""


class StageFailed(FuselineError):
    """A stage of a run failed; ``exit_code`` is the stage's own, so that a caller knows whether a retry helps."""

    def __init__(self, problem: str, *, exit_code: int, found: object = None, do: str = "") -> None:
        """As :class:`FuselineError`, with the status of the stage's command."""
        super().__init__(problem, found=found, do=do)
        self.exit_code = exit_code


def open_workspace(run: Run, checkout: Path, *, as_of: datetime | None, started: datetime, say: Say) -> None:
    """Make the workspace of a run; one that is there already stays as it is.

    Args:
        run: its home and id.
        checkout: the repository's root; its commit, params.yaml and data are what the run takes.
        as_of: instead of ``data.as_of`` of the parameters.
        started: time that the record notes.
        say: told of each step.

    Raises:
        ParamsError: when params.yaml is not valid, or dvc.yaml is not committed.
        ArtifactError: when git cannot lay out the commit.
    """
    if run.is_open:
        say(f"run {run.id} goes on in {run.workspace}")
        return
    params = parameters.load(checkout / "params.yaml")
    revision = worktree.revision_of(checkout)
    if code := worktree.uncommitted_code(checkout):
        say(f"not committed, so not part of the run: {', '.join(code)}")
    with one_at_a_time(run.home):
        _drop_failed(run.home, checkout, keep=params.training.keep_failed, now=started)
        worktree.add(checkout, run.workspace, revision)
    worktree.lay_params(checkout, run.workspace, as_of=as_of)
    worktree.lay_data(checkout, run.workspace, path=params.data.path, home=run.home)
    worktree.configure_dvc(checkout, run.workspace, home=run.home)
    lock, metrics = _last_results(run.home, checkout)
    taken = worktree.take_over(lock, metrics, run.workspace, environment=environment(run))
    say(f"outputs that did not change come from {lock}" if taken else "nothing to take over: every stage runs")
    write_json(
        run.record_file,
        {
            "run": run.id,
            "revision": revision,
            "as_of": as_of.isoformat() if as_of else None,
            "started": started.isoformat(),
            "state": "open",
        },
    )
    say(f"run {run.id} at {revision[:12]} in {run.workspace}")


def _last_results(home: Path, checkout: Path) -> tuple[Path, Path]:
    """``dvc.lock`` and metrics of the newest archived run, else those of the checkout, which may not exist."""
    if runs := archived(home):
        last: Path = runs[-1]["folder"]
        return last / "dvc.lock", last / "metrics.json"
    return checkout / "dvc.lock", checkout / worktree.METRICS


def environment(run: Run) -> dict[str, str]:
    """The variables under which the stages of a run start; the interpreter of this process comes first."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return known | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "FUSELINE_HOME": str(run.home),
        "FUSELINE_WORKSPACE": str(run.workspace),
        "TF_USE_LEGACY_KERAS": "1",
        "DVC_NO_ANALYTICS": "1",
        "GX_ANALYTICS_ENABLED": "False",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "BENTOML_DO_NOT_TRACK": "True",
    }


def repro(run: Run, *stage: str, force: bool = False, inherit: int) -> None:
    """Run one stage as it is named by DVC (``train@ease``), or without a name whatever is not up to date.

    Args:
        run: open.
        stage: at most one name.
        force: run it although it is up to date.
        inherit: descriptor of the run's lock, from :func:`places.at_work`.

    Raises:
        StageFailed: with the exit status of the stage's command.
    """
    remove_torn_files(run.workspace)
    options = [*(["--force"] if force else []), *(["--single-item"] if stage else [])]
    status, said = worktree.dvc(
        run.workspace,
        ["--wait-for-lock", "repro", *options, *stage],
        environment=environment(run),
        inherit=[inherit],
    )
    if status:
        told = EXITED.findall(said)
        errors = [line.strip() for line in said.splitlines() if line.startswith("error:")]
        failed = StageFailed(
            f"{stage[0] if stage else 'a stage'} of run {run.id} failed",
            exit_code=_status(int(told[-1]) if told else status),
            found=errors[-1] if errors else said.strip().splitlines()[-1:],
            do=f"look at {run.workspace}",
        )
        run.note(failed={"exit_code": failed.exit_code, "found": failed.found})
        raise failed


def _status(code: int) -> int:
    """As a shell says it: a command that a signal ended has 128 and the signal's number."""
    return 128 - code if code < 0 else code


def run_stage(run: Run, stage: str) -> None:
    """Run one stage; waits while another process works in the same run."""
    run.record()
    with at_work(run) as lock:
        repro(run, stage, inherit=lock)


def close(run: Run, checkout: Path, *, keep: bool, now: datetime) -> str:
    """End a run: an archived one's workspace goes, a failed one's stays if ``keep``; says which."""
    if not run.workspace.exists():
        forget(run)
        return f"run {run.id} is closed"
    if keep and not (run.archived / "run.json").exists():
        if run.is_open:
            run.note(state="failed", ended=now.isoformat())
        return f"run {run.id} did not come to its end; its workspace stays: {run.workspace}"
    with one_at_a_time(run.home):
        worktree.remove(checkout, run.workspace)
    forget(run)
    return f"run {run.id} is closed, its workspace removed"


def _drop_failed(home: Path, checkout: Path, *, keep: int, now: datetime) -> None:
    """Remove the workspaces of failed and abandoned runs but for the newest ``keep``."""
    failed: list[tuple[str, Run]] = []
    for path in folder(home).glob("*/var/run.json"):
        record: Mapping[str, Any] = read_json(path)
        started = datetime.fromisoformat(str(record["started"]))
        if record["state"] == "failed" or now - started > ABANDONED:
            failed.append((str(record["started"]), Run(home, str(record["run"]))))
    for _, run in sorted(failed, key=lambda one: one[0], reverse=True)[keep:]:
        with contextlib.suppress(ArtifactError), at_work(run, wait=False):
            worktree.remove(checkout, run.workspace)
            forget(run)


def load_params(run: Run) -> AllParams:
    """The parameters that a run works with."""
    return parameters.load(run.workspace / "params.yaml")


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
