"""The end of a run: promotion if the gate allows it, then the archive."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines import champion
from pipelines.actions.candidate import PROMOTE
from pipelines.actions.runs import worktree
from pipelines.actions.runs.places import RECORD, Run, at_work
from pipelines.actions.runs.workspace import Say, StageFailed, environment, load_params, repro
from pipelines.errors import ArtifactError
from pipelines.ingestion.canonical.snapshot import Snapshot
from pipelines.recipe import recipe_of
from pipelines.storage import read_json, replacing_folder, write_json

KEPT = {
    "dvc.lock": "dvc.lock",
    "params.yaml": "params.yaml",
    "artifacts/evaluation/metrics.json": "metrics.json",
    "artifacts/gate/verdict.json": "verdict.json",
    "artifacts/snapshot/manifest.json": "snapshot.json",
}
"""What is archived, by its path in the workspace."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run's candidate; ``version`` is the champion's when it was promoted."""

    promoted: bool
    verdict: str
    reason: str
    version: int | None = None


def promote_run(run: Run, *, force: bool, reason: str | None, say: Say) -> Outcome:
    """Promote the candidate of a run, or keep it in the registry's runs with the reason why not.

    When the champion moved since the gate looked, because another run or a person promoted, the candidate is
    judged once more, against the new one.

    Raises:
        StageFailed: when judging again or the promotion fails; with its exit code, 6 when it was refused.
    """
    run.record()
    with at_work(run) as lock:
        if not force and _verdict(run)["champion"] != _serving(run.home):
            say("the champion moved since the gate looked: judging again")
            repro(run, "reference", force=True, inherit=lock)
            repro(run, "gate", inherit=lock)
        verdict = _verdict(run)
        if verdict["verdict"] != PROMOTE and not force:
            kept = _fuseline(run, "record")
            failed = ", ".join(one["check"] for one in verdict["reasons"] if not one["passed"]) or "no check failed"
            why = f"the verdict is {verdict['verdict']}: {failed}; MLflow {kept}"
            return _noted(run, Outcome(promoted=False, verdict=verdict["verdict"], reason=why))
        options = [*(["--force"] if force else []), *(["--reason", reason] if reason else [])]
        done = json.loads(_fuseline(run, "promote", "--json", *options))
    why = reason if force and reason else ("promoted" if done["changed"] else "it is the champion already")
    return _noted(run, Outcome(done["changed"], verdict["verdict"], why, done["version"]))


def _fuseline(run: Run, *arguments: str) -> str:
    """Run one of our commands by the run's own code, which also goes into the Bento; what it printed.

    Raises:
        StageFailed: with its exit code and its message.
    """
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=run.workspace, env=environment(run), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().removeprefix("error: ")
        raise StageFailed(f"fuseline {arguments[0]} of run {run.id} failed", exit_code=done.returncode, found=said)
    return done.stdout.strip()


def _noted(run: Run, outcome: Outcome) -> Outcome:
    run.note(outcome=vars(outcome))
    return outcome


def _verdict(run: Run) -> dict[str, Any]:
    return dict(read_json(run.artifacts / "gate" / "verdict.json"))


def _serving(home: Path) -> str | None:
    now = champion.read(home)
    return now.bundle_id if now else None


def archive(run: Run, *, ended: datetime, say: Say) -> Path:
    """Keep what tells how the run came about, then push its outputs if DVC has a remote; gives the folder.

    Raises:
        ArtifactError: when a file is missing, or the push fails (the archive is there by then).
    """
    known = run.record()
    for path in KEPT:
        if not (run.workspace / path).exists():
            raise ArtifactError(f"run {run.id} lacks {path}", do="run the stages that are missing")
    taken = Snapshot.read(run.workspace / "artifacts" / "snapshot" / "manifest.json")
    kept = known | {
        "state": "archived",
        "ended": known.get("ended") or ended.isoformat(),
        "recipe": recipe_of(load_params(run), run.workspace)["id"],
        "rows": {one.path: rows(run.workspace / one.path) for one in taken.feedback},
    }
    with replacing_folder(run.archived) as aside:
        for path, name in KEPT.items():
            shutil.copyfile(run.workspace / path, aside / name)
        write_json(aside / RECORD, kept)
    say(f"archived: {run.archived}")
    push(run, say=say)
    return run.archived


def rows(partition: Path) -> int:
    """Rows of a Parquet file."""
    return int(pq.read_metadata(partition).num_rows)


def push(run: Run, *, say: Say) -> None:
    """``dvc push`` when a default remote is configured, else nothing."""
    command = [sys.executable, "-m", "dvc", "config", "core.remote"]
    found = subprocess.run(  # noqa: S603 - fixed words
        command, cwd=run.workspace, env=environment(run), capture_output=True, text=True, check=False
    )
    if found.returncode or not found.stdout.strip():
        return
    say(f"pushing to {found.stdout.strip()}")
    status, said = worktree.dvc(run.workspace, ["push"], environment=environment(run))
    if status:
        raise ArtifactError("dvc push failed", found=" ".join(said.split())[-300:], do="repeat the archive step")
