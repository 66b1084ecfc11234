"""Export what the service was told and what it showed into dated partitions of raw data, exactly once.

A run takes one snapshot of the store, writes the days that changed aside, puts them in place under names made
of their content, and then replaces the record of what counts (``pipelines.feedback``): that rename is the one
moment of change. Whatever a killed run leaves, or one that met a full disk, the next run clears away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import feedback
from pipelines.adapters import event_database
from pipelines.adapters.event_database import Database
from pipelines.adapters.event_log import EventLog
from pipelines.adapters.event_tables import EVENTS, IMPRESSIONS
from pipelines.contracts import EVENTS as CONTRACT
from pipelines.errors import ArtifactError
from pipelines.feedback import Collected, Covered, Partition
from pipelines.storage import file_sha256

KEPT = 3
"""Of so many runs the replaced files are kept, for training runs that have begun with them."""
TABLES = {feedback.EVENTS: EVENTS, feedback.IMPRESSIONS: IMPRESSIONS}


@dataclass(frozen=True)
class Collection:
    """What one run did; ``changed`` are the partitions that are new or have other rows than before.

    ``rows``: rows of events and impressions that were not collected before. ``store`` None: there is none yet.
    """

    store: str | None
    until: datetime | None
    seq: int
    rows: int
    changed: tuple[Partition, ...]


def collect(
    *, home: Path, url: str, now: datetime, until: datetime | None = None, by_events: bool = False
) -> Collection:
    """Export closed hours; to repeat it changes nothing.

    Args:
        home: ``FUSELINE_HOME``.
        url: SQLAlchemy URL of the event store.
        now: the clock; the hour that it lies in is still open.
        until: another time to take for the clock's.
        by_events: the newest event is the clock (replay), unless ``until`` is given.

    Raises:
        ArtifactError: the store cannot be read, holds fewer rows of a day than were collected, or the disk is full.
    """
    with locked(home):
        record = _record(home)
        if not event_database.exists(url):
            return Collection(None, None, 0, 0, ())
        database = Database.open(url, make=False)
        try:
            if not database.id:
                return Collection(None, None, 0, 0, ())
            with database.snapshot() as connection:
                log = EventLog(connection, database)
                before = record.get(database.id, Collected())
                clock = until or (_instant(log.newest()) if by_events else now)
                seen = _seen(log, before, clock)
                days = {
                    kind: log.days(table, before=_before(before, kind), seq=_last(seen, kind), until=seen.covered.until)
                    for kind, table in TABLES.items()
                }
                made = _made(home, log, seen, days, delays=not by_events)
        finally:
            database.close()
        if not any(days.values()):
            return Collection(database.id, feedback.instant(before.covered.until), before.covered.seq, 0, ())
        return commit(home, database.id, replace(seen, partitions=_joined(before, made)), before=before)


def commit(home: Path, store: str, now: Collected, *, before: Collected, fewer: bool = False) -> Collection:
    """Put the partitions of ``now``, made aside, in place, and let them count; only while :func:`locked`.

    ``fewer``: rows may have gone, because somebody erased them.
    """
    rows = {(one.day, one.kind): one.rows for one in before.partitions}
    for one in now.partitions:
        if not fewer and one.rows < rows.get((one.day, one.kind), 0):
            raise ArtifactError(
                f"the event store holds fewer {one.kind} of {one.day} than were collected",
                found=f"{one.rows} rows",
                wanted=f"{rows[one.day, one.kind]} rows or more",
                do="restore the store's rows; what was collected stays as it is",
            )
    for one in now.partitions:
        aside = _aside(home) / one.file
        if aside.exists():
            target = home / feedback.FEEDBACK / one.path
            target.parent.mkdir(parents=True, exist_ok=True)
            aside.replace(target)
    feedback.write(home, {**(feedback.read(home) or {}), store: now})
    _retire(home)
    known = {one.path for one in before.partitions}
    changed = tuple(one for one in now.partitions if one.path not in known)
    total = sum(one.rows for one in now.partitions) - sum(rows.values())
    return Collection(store, feedback.instant(now.covered.until), now.covered.seq, total, changed)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the one lock under which partitions change; it goes with the process, so nothing is left to clear."""
    scratch = home / feedback.SCRATCH
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _record(home: Path) -> dict[str, Collected]:
    """What counts now, with all that does not count cleared away.

    The record is made before the first partition, so that a partition without it is none of a killed run.
    """
    record = feedback.read(home)
    if record is None:
        if strays := feedback.collected_files(home):
            raise ArtifactError(
                f"{strays[0].parent.parent} has partitions without the record of what was collected",
                found=f"{len(strays)} files such as {strays[0].name}",
                wanted=feedback.COLLECTED,
                do="restore that file, or rename the partitions, or remove them to collect anew",
            )
        record = {}
        feedback.write(home, record)
    shutil.rmtree(_aside(home), ignore_errors=True)
    _retire(home)
    return record


def _aside(home: Path) -> Path:
    return home / feedback.SCRATCH / "new"


def _retire(home: Path) -> None:
    """Move files that do not count out of the partitions, and forget the oldest of them."""
    record = feedback.read(home) or {}
    kept = home / feedback.SCRATCH / "superseded"
    generation = kept / str(sum(entry.covered.seq + entry.shown for entry in record.values()))
    for path in feedback.collected_files(home):
        if feedback.superseded(path.relative_to(home / feedback.FEEDBACK).as_posix(), record):
            generation.mkdir(parents=True, exist_ok=True)
            path.replace(generation / path.name)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
    old = sorted(kept.glob("*"), key=lambda folder: int(folder.name))[:-KEPT]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)


def _instant(newest: int | None) -> datetime:
    return feedback.instant(newest or 0)


def _seen(log: EventLog, before: Collected, clock: datetime) -> Collected:
    """The watermarks of this run: never below those of the last one."""
    hour = clock.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    until = max(feedback.microseconds(hour), before.covered.until)
    seq = max(log.last(EVENTS), before.covered.seq)
    return Collected(Covered(seq, until, log.open_from(seq, until)), max(log.last(IMPRESSIONS), before.shown))


def _last(collected: Collected, kind: str) -> int:
    return collected.covered.seq if kind == feedback.EVENTS else collected.shown


def _before(collected: Collected, kind: str) -> Covered:
    return Covered(_last(collected, kind), collected.covered.until)


def _made(
    home: Path, log: EventLog, seen: Collected, days: Mapping[str, Sequence[date]], *, delays: bool
) -> list[Partition]:
    """Write the rows of these days aside.

    Raises:
        ArtifactError: the disk refuses.
    """
    try:
        made = [_partition(home, log, seen, kind, day) for kind in days for day in days[kind]]
    except OSError as error:
        shutil.rmtree(_aside(home), ignore_errors=True)
        raise ArtifactError(
            f"{_aside(home)} cannot be written",
            found=error.strerror or repr(error),
            do="free some space and run `fuseline collect` again; what was collected is as before",
        ) from error
    if not delays:
        return made
    return [_with_delay(log, seen, one) if one.kind == feedback.EVENTS else one for one in made]


def _partition(home: Path, log: EventLog, seen: Collected, kind: str, day: date) -> Partition:
    seq, until = _last(seen, kind), seen.covered.until
    read = log.events if kind == feedback.EVENTS else log.impressions
    file, rows = write_partition(home, kind, read(day, seq=seq, until=until))
    return Partition(day.isoformat(), kind, file, rows)


def write_partition(home: Path, kind: str, tables: Iterator[pa.Table]) -> tuple[str, int]:
    """Write rows aside, named by their content; the name and the number of rows."""
    folder = _aside(home)
    folder.mkdir(parents=True, exist_ok=True)
    path, rows = folder / "unnamed", 0
    with pq.ParquetWriter(path, CONTRACT.schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
    with path.open("rb+") as written:
        os.fsync(written.fileno())
    name = f"{kind}-{file_sha256(path)[:16]}.parquet"
    path.replace(folder / name)
    return name, rows


def _with_delay(log: EventLog, seen: Collected, one: Partition) -> Partition:
    delay = log.delay(date.fromisoformat(one.day), seq=seen.covered.seq, until=seen.covered.until)
    return replace(one, late=delay.late, ahead=delay.ahead, median_delay_s=delay.median_s)


def _joined(before: Collected, made: Sequence[Partition]) -> tuple[Partition, ...]:
    by_day = {(one.day, one.kind): one for one in (*before.partitions, *made)}
    return tuple(by_day[key] for key in sorted(by_day))
