"""The champion: which promoted bundle serves. One small file, replaced whole, that everything else follows.

``FUSELINE_HOME/var/champion/`` holds ``current.json`` (the pointer), ``.lock`` (one writer at a time),
``history.jsonl`` (every change, appended), ``pending.json`` (a rollback under way, see :func:`intend`) and
``looks/<version>.json`` (candidates compared with a version).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipelines.errors import ArtifactError
from pipelines.storage import is_locked, read_json, write_json


@dataclass(frozen=True)
class Pointer:
    """A promoted version. ``judged`` is None when nothing could be held out; ``previous`` served before it."""

    version: int
    bundle: Path
    judged: Path | None
    bundle_id: str
    judged_id: str | None
    recipe: str
    previous: int | None = None

    def as_json(self, home: Path) -> dict[str, Any]:
        """A JSON-able value; folders relative to ``home``, so that it may be moved or mounted elsewhere."""
        folders = {"bundle": self.bundle, "judged": self.judged}
        return vars(self) | {name: path and _within(path, home) for name, path in folders.items()}

    @classmethod
    def from_json(cls, value: dict[str, Any], home: Path) -> Pointer:
        """Inverse of :meth:`as_json`; fields of a later release are left alone."""
        known: dict[str, Any] = {name: value.get(name) for name in cls.__dataclass_fields__}
        known["bundle"] = home / value["bundle"]
        known["judged"] = home / value["judged"] if value.get("judged") else None
        return cls(**known)


def _within(path: Path, home: Path) -> str:
    return path.relative_to(home).as_posix() if path.is_relative_to(home) else str(path)


def home_from_environment() -> Path:
    """``FUSELINE_HOME``, else the current folder, absolute."""
    return Path(os.environ.get("FUSELINE_HOME") or ".").resolve()


def folder(home: Path) -> Path:
    """Where all of this lies."""
    return home / "var" / "champion"


def pointer_file(home: Path) -> Path:
    """The pointer; every move replaces the file, so that its attributes tell one state from the next."""
    return folder(home) / "current.json"


def read(home: Path) -> Pointer | None:
    """The champion of this moment, or None when nothing was promoted yet.

    Raises:
        ArtifactError: when the pointer is there and cannot be understood.
    """
    path = pointer_file(home)
    if not path.exists():
        return None
    value = read_json(path)
    try:
        return Pointer.from_json(value, home)
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is no champion pointer", found=error, do="run `fuseline rollback --version N`"
        ) from error


def write(home: Path, pointer: Pointer, *, record: dict[str, Any]) -> None:
    """Move the champion: append ``record`` to the history, then replace the pointer.

    Only while :func:`locked`. The pointer goes last, so a record without its move is possible, and means
    that the process died in between; a move without its record is not.
    """
    folder(home).mkdir(parents=True, exist_ok=True)
    with (folder(home) / "history.jsonl").open("a+", encoding="utf-8") as history:
        _end_half_line(history)
        history.write(json.dumps(record | pointer.as_json(home), sort_keys=True) + "\n")
        history.flush()
        os.fsync(history.fileno())
    write_json(pointer_file(home), pointer.as_json(home))


def intend(home: Path, *, version: int) -> None:
    """Note that the champion is about to go back to a version, until :func:`settled` takes the note away.

    A rollback repeated after a kill would otherwise not know whether to go on or to undo the first one.
    """
    write_json(folder(home) / "pending.json", {"version": version})


def settled(home: Path) -> None:
    """The registry has been told of the last move."""
    (folder(home) / "pending.json").unlink(missing_ok=True)


def intended(home: Path) -> int | None:
    """The version that a rollback which did not end was about to bring back, or None."""
    path = folder(home) / "pending.json"
    return int(read_json(path)["version"]) if path.exists() else None


def earlier(home: Path, version: int) -> Pointer | None:
    """The pointer as it was when a version was champion last, or None when it never was."""
    for move in reversed(moves(home)):
        if move.get("version") == version:
            return Pointer.from_json(move, home)
    return None


def _end_half_line(history: TextIO) -> None:
    """A kill or a full disk may have left half a record; the next one starts on a line of its own."""
    end = history.seek(0, os.SEEK_END)
    if end:
        history.seek(end - 1)
        if history.read(1) != "\n":
            history.write("\n")


def moves(home: Path) -> list[dict[str, Any]]:
    """Every recorded move, oldest first; a line that a kill left half written is left out."""
    path = folder(home) / "history.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the one lock under which a champion is read, compared and moved; waits for whoever holds it.

    The lock belongs to the process and goes with it, so a killed one leaves nothing behind to clear.
    """
    folder(home).mkdir(parents=True, exist_ok=True)
    with (folder(home) / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def busy(home: Path) -> bool:
    """Whether somebody moves the champion at this moment, or is about to."""
    return is_locked(folder(home) / ".lock")


def look(home: Path, version: int, candidate: str) -> int:
    """The number, from 1, of this candidate among those compared with a version; asking again is no new look."""
    path = folder(home) / "looks" / f"{version}.json"
    with locked(home):
        looks: dict[str, int] = read_json(path) if path.exists() else {}
        if candidate not in looks:
            looks[candidate] = len(looks) + 1
            write_json(path, looks)
        return looks[candidate]
