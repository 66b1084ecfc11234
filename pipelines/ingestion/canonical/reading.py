"""Files of a snapshot as Ibis tables, many files of one shape in one scan."""

# ruff: noqa: S608  (labels and columns go through scans.quoted() and scans.literal())
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import ibis.expr.types as ir

from pipelines import feedback
from pipelines.contracts import EVENTS
from pipelines.errors import InputError
from pipelines.ingestion.canonical import scans, shapes
from pipelines.ingestion.canonical.adapter import Adapter, Source
from pipelines.ingestion.canonical.database import Database
from pipelines.ingestion.canonical.snapshot import Snapshot, SnapshotFile
from pipelines.storage import file_sha256

FILES_A_SCAN = 64
BYTES_A_SCAN = 512 * 1024 * 1024

FEEDBACK_SOURCE = Source(EVENTS)
"""Feedback is written by our own service, by the contract, whatever the adapter of the export."""


@dataclass(frozen=True)
class _Scan:
    shape: shapes.Shape
    files: tuple[SnapshotFile, ...]


@dataclass(frozen=True)
class _Origin:
    """Where files come from: ``number`` 0 is the export, 1 the feedback."""

    source: Source
    root: Path
    number: int

    def path(self, file: SnapshotFile) -> Path:
        """Where a file lies; a partition of feedback that was replaced since the snapshot is still kept elsewhere."""
        path = self.root / file.path
        return path if path.exists() or self.number == 0 else feedback.kept_copy(self.root, file.path) or path

    def label(self, path: str) -> str:
        """SQL for a file's path below the root."""
        return path if str(self.root) == "." else f"substr({path}, {len(str(self.root)) + 2})"


@dataclass
class Reader:
    """Reads the files of one snapshot.

    Attributes:
        database: where the views are made.
        snapshot: what to read.
        adapter: whose sources the files belong to.
        home: ``FUSELINE_HOME``, the root of the feedback's paths.
        progress: called with the number of bytes of each scan that is finished.
        columns_ignored: per source, columns met in files and not read.
    """

    database: Database
    snapshot: Snapshot
    adapter: Adapter
    home: Path
    progress: Callable[[int], None] = lambda _: None
    columns_ignored: dict[str, set[str]] = field(default_factory=dict)

    def load(self, source: str, into: str, rows: Callable[[ir.Table], ir.Table], *, numbered: bool = True) -> None:
        """Append the export's files of a source to a table of the database, in order of their paths.

        Args:
            source: name of one of the adapter's sources.
            into: the table; not made when there is no file.
            rows: what to store of a scan. It gets the source's typed columns and ``_unreadable`` (first column
                whose value is there and cannot be read, or ``scans.MALFORMED``), ``_raw`` (the row as it came:
                struct, or the JSON line), ``_file``, ``_line`` (place within the scan; null unless ``numbered``)
                and ``_origin`` (0).
            numbered: keep the order of lines; costs parallel reading of CSV.

        Raises:
            InputError: a file is unreadable, lacks a required column or has one of a wrong type.
        """
        files = [file for file in self.snapshot.files if file.table == source]
        origin = _Origin(self.adapter.sources[source], Path(self.snapshot.path), 0)
        self._load(origin, files, into, rows, numbered=numbered)

    def load_feedback(self, into: str, rows: Callable[[ir.Table], ir.Table]) -> None:
        """Append the feedback partitions, as :meth:`load`, with ``_origin`` 1."""
        self._load(_Origin(FEEDBACK_SOURCE, self.home, 1), self.snapshot.feedback, into, rows, numbered=False)

    def _load(
        self,
        origin: _Origin,
        files: Sequence[SnapshotFile],
        into: str,
        rows: Callable[[ir.Table], ir.Table],
        *,
        numbered: bool,
    ) -> None:
        self.database.run(f"SET preserve_insertion_order = {str(numbered).lower()}")
        for scan in _scans([(self._shape(origin, file), file) for file in files]):
            scanned = scans.scan(scan.shape, [origin.path(file) for file in scan.files], numbered=numbered)
            query = scans.typed(scan.shape, origin.source, scanned)
            label = origin.label("_path")
            try:
                view = self.database.view(
                    "scanned", f"SELECT * EXCLUDE (_path), {label} AS _file, {origin.number} AS _origin FROM ({query})"
                )
                self.database.append(into, rows(view))
            except duckdb.Error as error:
                raise _unreadable(scan, error) from error
            if scan.shape.suffix == ".csv":
                self._append_malformed(origin, into, rows)
            self.progress(sum(file.bytes for file in scan.files))

    def _shape(self, origin: _Origin, file: SnapshotFile) -> shapes.Shape:
        path, source = origin.path(file), origin.source
        if not path.is_file() or path.stat().st_size != file.bytes or file_sha256(path) != file.sha256:
            raise InputError(
                f"{file.path} is not what the snapshot recorded",
                found="other bytes" if path.is_file() else "nothing there",
                wanted=f"{file.bytes} bytes with SHA-256 {file.sha256[:12]}…",
                do="run the stage snapshot again: `dvc repro`",
            )
        shape = shapes.shape_of(path, file.path, source)
        known = {name for column in source.table.names for name in source.spellings(column)}
        extra = set(shape.names) - known
        if extra:
            self.columns_ignored.setdefault(file.table, set()).update(extra)
        return shape

    def _append_malformed(self, origin: _Origin, into: str, rows: Callable[[ir.Table], ir.Table]) -> None:
        """Append lines of CSV files that have too few or too many fields, each once."""
        rejected = self.database.fetch(
            "SELECT DISTINCT file_path, error_type = 'INVALID ENCODING'"
            " FROM reject_errors JOIN reject_scans USING (scan_id, file_id) ORDER BY 1"
        )
        for path, is_encoding in rejected:
            if is_encoding:
                raise shapes.not_utf8(Path(path).relative_to(origin.root).as_posix(), "bytes of another encoding")
        if not rejected:
            return
        columns = ", ".join(
            f"CAST(NULL AS {scans.sql_type(column.type)}) AS {scans.quoted(column.name)}"
            for column in origin.source.table.columns
        )
        view = self.database.view(
            "malformed",
            f"SELECT DISTINCT {columns}, struct_pack(line := csv_line) AS _raw, CAST(NULL AS BIGINT) AS _line,"
            f" {scans.literal(scans.MALFORMED)} AS _unreadable, {origin.label('file_path')} AS _file,"
            f" {origin.number} AS _origin, line AS _place"
            " FROM reject_errors JOIN reject_scans USING (scan_id, file_id)",
        )
        self.database.append(into, rows(view))
        self.database.run("DELETE FROM reject_errors")
        self.database.run("DELETE FROM reject_scans")


def _scans(files: list[tuple[shapes.Shape, SnapshotFile]]) -> list[_Scan]:
    """Runs of neighbouring files of one shape, not too many and not too large."""
    scans: list[_Scan] = []
    for shape, file in files:
        last = scans[-1] if scans else None
        small = last and len(last.files) < FILES_A_SCAN and sum(f.bytes for f in last.files) < BYTES_A_SCAN
        if last and last.shape == shape and small:
            scans[-1] = _Scan(shape, (*last.files, file))
        else:
            scans.append(_Scan(shape, (file,)))
    return scans


def _unreadable(scan: _Scan, error: duckdb.Error) -> InputError:
    first = str(error).strip().split("\n")[0]
    names = ", ".join(file.path for file in scan.files[:3]) + (", …" if len(scan.files) > 3 else "")
    return InputError(
        f"{names} cannot be read", found=first, wanted=f"whole {scan.shape.suffix} files", do="write them again"
    )
