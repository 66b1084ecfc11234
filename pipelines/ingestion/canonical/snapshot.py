"""The snapshot manifest: which files a run reads, fixed by their hashes before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines import feedback as partitions
from pipelines.errors import ArtifactError, InputError
from pipelines.ingestion.canonical.adapter import Adapter, adapter
from pipelines.params import DataParams
from pipelines.storage import file_sha256, read_json

SUFFIXES = (".parquet", ".csv", ".jsonl")
"""Formats that are read."""

NOTES = (".md", ".txt")
"""Files that people leave beside data; they are passed over in silence."""


def feedback_root() -> Path:
    """The folder whose :data:`FEEDBACK` is read: the run's workspace with its mirror, else ``FUSELINE_HOME``."""
    return Path(os.environ.get("FUSELINE_WORKSPACE") or os.environ.get("FUSELINE_HOME") or ".")


@dataclass(frozen=True)
class SnapshotFile:
    """One file of a snapshot: the source it belongs to, and its path below its root."""

    table: str
    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Snapshot:
    """Everything a run reads; paths of ``files`` are below ``path``, those of ``feedback`` below ``FUSELINE_HOME``.

    ``collected`` says which events of which store the feedback holds, as ``pipelines.feedback`` records it.
    """

    adapter: str
    path: str
    as_of: str | None
    files: tuple[SnapshotFile, ...]
    feedback: tuple[SnapshotFile, ...]
    ignored: tuple[str, ...]
    collected: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A JSON-able value; equal data give an equal value on every machine."""
        return {
            "adapter": self.adapter,
            "path": self.path,
            "as_of": self.as_of,
            "files": [vars(file) for file in self.files],
            "feedback": [vars(file) for file in self.feedback],
            "ignored": list(self.ignored),
            "collected": self.collected,
        }

    @classmethod
    def read(cls, manifest: Path) -> Snapshot:
        """Read a manifest.

        Raises:
            ArtifactError: when it is missing or not a manifest.
        """
        value = read_json(manifest)
        try:
            return cls(
                value["adapter"],
                value["path"],
                value["as_of"],
                tuple(SnapshotFile(**file) for file in value["files"]),
                tuple(SnapshotFile(**file) for file in value["feedback"]),
                tuple(value["ignored"]),
                value["collected"],
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{manifest} is not a snapshot manifest", found=error, do="run `dvc repro -f snapshot`"
            ) from None


def take(data: DataParams, *, home: Path, root: Path = Path()) -> Snapshot:
    """Look at the export and at the feedback partitions below ``home``.

    Args:
        data: the parameters.
        home: below which the feedback lies.
        root: of the project; a relative ``data.path`` starts there.

    Raises:
        InputError: when the folder is missing, or holds no file that the adapter reads.
        ParamsError: when there is no such adapter.
    """
    reads = adapter(data.adapter)
    export = root / data.path
    if not export.is_dir():
        raise InputError(
            f"data.path {data.path!r} is not a folder",
            found="a file" if export.exists() else "nothing there",
            wanted=reads.layout,
            do="correct data.path in params.yaml, or put the export there",
        )
    files, ignored = _sorted_out(export, reads)
    _check_complete(data, reads, files)
    feedback, collected = _feedback(home)
    as_of = data.as_of.isoformat() if data.as_of else None
    path = Path(data.path).as_posix()
    return Snapshot(data.adapter, path, as_of, tuple(files), feedback, tuple(ignored), collected)


def _feedback(home: Path) -> tuple[tuple[SnapshotFile, ...], dict[str, Any]]:
    """The partitions that count, and the record that says so, both of one moment.

    Raises:
        ArtifactError: a partition is gone.
    """
    root = home / partitions.FEEDBACK
    record = partitions.read(home)
    while True:
        paths = {path.relative_to(root).as_posix(): path for path in _visible_files(root)}
        counting = [
            name for name in paths if name.lower().endswith(".parquet") and not partitions.superseded(name, record)
        ]
        wanted = {one.path for entry in (record or {}).values() for one in entry.partitions}
        try:
            found = tuple(_described(paths[name], "events", f"{partitions.FEEDBACK}/{name}") for name in counting)
        except FileNotFoundError:
            found = None
        before, record = record, partitions.read(home)
        if found is None or record != before:
            continue  # a collection goes on beside us: look again
        if lost := sorted(wanted - {file.path.removeprefix(f"{partitions.FEEDBACK}/") for file in found}):
            raise ArtifactError(
                f"{root} has lost {lost[0]}",
                found=f"{len(lost)} partitions of {partitions.COLLECTED} are not there",
                do=f"restore them, or remove the folders dt=… and {partitions.COLLECTED}, and run `fuseline collect`",
            )
        return found, {store: entry.as_json() for store, entry in (record or {}).items()}


def _sorted_out(root: Path, reads: Adapter) -> tuple[list[SnapshotFile], list[str]]:
    files, ignored = [], []
    for path in _visible_files(root):
        inside = path.relative_to(root).as_posix()
        source = reads.source_of(PurePosixPath(inside))
        if source is not None and path.suffix.lower() in SUFFIXES:
            files.append(_described(path, source, inside))
        elif path.suffix.lower() not in NOTES:
            ignored.append(inside)
    return files, ignored


def _check_complete(data: DataParams, reads: Adapter, files: list[SnapshotFile]) -> None:
    present = {file.table for file in files}
    for name, source in reads.sources.items():
        if source.required and name not in present:
            raise InputError(
                f"data.path {data.path!r} has no files for {name}",
                found=f"files for {', '.join(sorted(present))}" if present else "no file that can be read",
                wanted=reads.layout,
                do="add them, or correct data.path and data.adapter in params.yaml",
            )


def _visible_files(root: Path) -> Iterator[Path]:
    """Files below a folder in order of their paths; hidden and ``_``-marked ones are other tools' business."""
    for path in sorted(root.rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
        inside = path.relative_to(root).parts
        if path.is_file() and not any(part.startswith((".", "_")) for part in inside):
            yield path


def _described(path: Path, source: str, label: str) -> SnapshotFile:
    return SnapshotFile(source, label, file_sha256(path), path.stat().st_size)
