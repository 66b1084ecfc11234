"""Is it worth training: what lies there now, compared with what the last run read."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines import params as parameters
from pipelines.actions.runs import worktree
from pipelines.actions.runs.ending import rows
from pipelines.actions.runs.places import Run, archived, folder
from pipelines.actions.runs.workspace import load_params
from pipelines.errors import ArtifactError, ExpectationError, FuselineError, InputError, ParamsError
from pipelines.ingestion.canonical import snapshot
from pipelines.ingestion.canonical.snapshot import Snapshot
from pipelines.params import AllParams, TrainingParams
from pipelines.recipe import recipe_of
from pipelines.storage import read_json

REFUSED = frozenset(error.exit_code for error in (ParamsError, InputError, ExpectationError))
"""Exit codes of a stage that no repetition changes."""

SHOWN = "impressions"
"""Partitions with what was shown: ten rows for each list, and by themselves no news."""


@dataclass(frozen=True)
class Worth:
    """The answer, and why."""

    train: bool
    reason: str


@dataclass(frozen=True)
class Change:
    """What happened to a run's input since the last run.

    Attributes:
        export: files of the shop's export that are new, gone or other than they were.
        erased: whether other people than then are to be left out.
        recipe: whether parameters or code that shape a bundle changed.
        added: events of feedback that are new.
        removed: events of feedback that are gone.
        age: of the last run.
    """

    export: int
    erased: bool
    recipe: bool
    added: int
    removed: int
    age: timedelta


def judge(change: Change, limits: TrainingParams) -> Worth:
    """Whether that is enough; the first rule that holds is the reason."""
    days = change.age / timedelta(days=1)
    if change.export:
        return Worth(train=True, reason=f"{change.export} files of the export changed")
    if change.erased:
        return Worth(train=True, reason="somebody was erased since the last run")
    if change.recipe:
        return Worth(train=True, reason="parameters or code that shape a bundle changed")
    if change.removed:
        return Worth(train=True, reason=f"{change.removed} events of feedback were taken out")
    if change.added and change.added >= limits.min_new_events:
        return Worth(train=True, reason=f"{change.added} new events, {limits.min_new_events} are enough")
    if change.added and days >= limits.max_age_days:
        return Worth(train=True, reason=f"{change.added} new events, and the last run is {days:.1f} days old")
    if not change.added:
        return Worth(train=False, reason="nothing is new since the last run")
    wanted = f"{limits.min_new_events} new events, or any after {limits.max_age_days:g} days"
    return Worth(
        train=False,
        reason=f"{change.added} new events {days:.1f} days after the last run; wanted: {wanted}",
    )


def worth(checkout: Path, *, home: Path, now: datetime) -> Worth:
    """Look at the newest archived run and at the folders of now.

    Raises:
        ParamsError, InputError: when params.yaml or the export cannot be read.
    """
    params = parameters.load(checkout / "params.yaml")
    runs = archived(home)
    here = snapshot.take(params.data, home=home, root=checkout)
    if stopped := _stopped(checkout, home, params, here):
        return Worth(train=False, reason=stopped)
    if not runs:
        return Worth(train=True, reason="no run came to its end yet")
    last = runs[-1]
    try:
        before = Snapshot.read(last["folder"] / "snapshot.json")
    except ArtifactError:
        return Worth(train=True, reason="the last run's record of its input is of another release, or damaged")
    added, removed = _rows(before, here, dict(last["rows"]), home)
    change = Change(
        export=len({(f.path, f.sha256) for f in before.files} ^ {(f.path, f.sha256) for f in here.files}),
        erased=before.excluded != here.excluded,
        recipe=recipe_of_commit(params, checkout) != last["recipe"],
        added=added,
        removed=removed,
        age=now - datetime.fromisoformat(last["ended"]),
    )
    return judge(change, params.training)


def _stopped(checkout: Path, home: Path, params: AllParams, here: Snapshot) -> str | None:
    """Which run of this commit was stopped by this very input, and by what; another one would stop there again."""
    revision = worktree.revision_of(checkout)
    for run, failed in _stopped_runs(home):
        with contextlib.suppress(FuselineError):
            there = Snapshot.read(run.artifacts / "snapshot" / "manifest.json")
            then = (run.record()["revision"], load_params(run), there.files, there.feedback, there.excluded)
            if then == (revision, params, here.files, here.feedback, here.excluded):
                return f"run {run.id} was stopped by the same input: {failed['found']}"
    return None


def _stopped_runs(home: Path) -> list[tuple[Run, Mapping[str, Any]]]:
    """Runs whose data or parameters were refused and whose workspace is still there, and how they failed."""
    records = [read_json(path) for path in folder(home).glob("*/var/run.json")]
    failed = [(Run(home, str(record["run"])), record.get("failed", {})) for record in records]
    return [(run, how) for run, how in failed if how.get("exit_code") in REFUSED]


def recipe_of_commit(params: AllParams, checkout: Path) -> str:
    """Id of the recipe that a run would have: params.yaml as it lies there, code of the commit."""
    if not worktree.uncommitted_code(checkout):
        return str(recipe_of(params, checkout)["id"])
    with tempfile.TemporaryDirectory(prefix="fuseline-commit-") as folder:
        worktree.export_commit(checkout, Path(folder), "pipelines")
        return str(recipe_of(params, Path(folder))["id"])


def _rows(before: Snapshot, here: Snapshot, counted: Mapping[str, int], home: Path) -> tuple[int, int]:
    """Rows of events that came and that went, day by day; a day may have been written again under other names."""
    same = {(one.path, one.sha256) for one in before.feedback} & {(one.path, one.sha256) for one in here.feedback}
    days: Counter[str] = Counter()
    for one in here.feedback:
        if (one.path, one.sha256) not in same:
            days[_day(one.path)] += rows(home / one.path)
    for one in before.feedback:
        if (one.path, one.sha256) not in same:
            days[_day(one.path)] -= counted[one.path]
    days.pop("", None)
    return sum(n for n in days.values() if n > 0), -sum(n for n in days.values() if n < 0)


def _day(path: str) -> str:
    """Folder of a partition with events; empty for one with what was shown."""
    return "" if Path(path).name.startswith(SHOWN) else Path(path).parent.as_posix()


def note(run: Run, decision: Worth, *, at: datetime) -> None:
    """Append the decision to ``var/runs/decisions.jsonl``."""
    folder(run.home).mkdir(parents=True, exist_ok=True)
    line = {"run": run.id, "at": at.isoformat(), **asdict(decision)}
    with (folder(run.home) / "decisions.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
