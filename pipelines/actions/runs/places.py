"""Where runs lie below ``FUSELINE_HOME/var/runs``, and who is at work in one.

::

    var/runs/<run>/            git worktree of the run; removed when it is archived
    var/runs/archive/<run>/    dvc.lock, params.yaml, metrics.json, verdict.json, snapshot.json, run.json
    var/runs/decisions.jsonl   whether training was worth it, and why, each time it was asked
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ArtifactError
from pipelines.storage import read_json, write_json

ARCHIVE = "archive"
RECORD = "run.json"


@dataclass(frozen=True)
class Run:
    """A run by the name that whoever started it gave it; Airflow's run ids hold characters that no path likes."""

    home: Path
    id: str

    @property
    def name(self) -> str:
        """The id as a folder's name; what had to be replaced leaves a mark, so that two ids stay two."""
        plain = re.sub(r"[^\w.-]+", "-", self.id).strip("-.")
        return plain if plain == self.id else f"{plain}-{hashlib.sha256(self.id.encode()).hexdigest()[:6]}"

    @property
    def workspace(self) -> Path:
        """Root of its worktree."""
        return folder(self.home) / self.name

    @property
    def archived(self) -> Path:
        """What is kept of it."""
        return folder(self.home) / ARCHIVE / self.name

    @property
    def record_file(self) -> Path:
        """What is known of it while it is open; written last when it opens."""
        return self.workspace / "var" / RECORD

    @property
    def is_open(self) -> bool:
        """Whether its workspace is complete."""
        return self.record_file.exists()

    @property
    def artifacts(self) -> Path:
        """Its artifacts."""
        return self.workspace / "artifacts"

    def record(self) -> dict[str, Any]:
        """What opening noted.

        Raises:
            ArtifactError: when there is no such workspace.
        """
        if not self.is_open:
            raise ArtifactError(
                f"run {self.id} has no workspace",
                found=f"nothing at {self.workspace}",
                do="open it first; in Airflow, clear the task `open` as well",
            )
        return dict(read_json(self.record_file))

    def note(self, **values: Any) -> None:
        """Add to what is known of it."""
        write_json(self.record_file, self.record() | values)


def folder(home: Path) -> Path:
    """Where all runs lie."""
    return home / "var" / "runs"


def archived(home: Path) -> list[dict[str, Any]]:
    """Records of the runs that came to an end, oldest first; each with ``folder``."""
    found = [dict(read_json(path)) | {"folder": path.parent} for path in (folder(home) / ARCHIVE).glob(f"*/{RECORD}")]
    return sorted(found, key=lambda record: str(record["ended"]))


@contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Hold while worktrees are made or removed: git keeps one list of them."""
    folder(home).mkdir(parents=True, exist_ok=True)
    with (folder(home) / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def at_work(run: Run, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of one run; yields its descriptor, to be inherited by the children that do the work.

    The lock goes with the last process that holds it. So when the parent is killed and its child lives on,
    a second attempt waits for the child, and then finds its work done.

    Raises:
        ArtifactError: when somebody else is at work and ``wait`` is False.
    """
    folder(run.home).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder(run.home) / f".{run.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(f"run {run.id} is at work in another process", do="wait, or take another id") from None
        yield handle
    finally:
        os.close(handle)


def forget(run: Run) -> None:
    """Remove the lock file of a run that is over."""
    (folder(run.home) / f".{run.name}.lock").unlink(missing_ok=True)
