"""Forget a user: in the event store, the partitions, the copies of histories, and in every later training.

The order makes it safe to be killed and called again: first the exclusion, which needs nothing else to hold;
then the partitions; last the store, which knows as which visitors the user was met, and closes the request.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import exclusions, feedback
from pipelines.actions import collect
from pipelines.adapters import erasures
from pipelines.adapters.erasures import Erasure
from pipelines.adapters.event_database import Database
from pipelines.adapters.recent_state import RedisState
from pipelines.evaluation import kept_lists
from pipelines.feedback import Partition
from pipelines.storage import replacing_file


@dataclass(frozen=True)
class Erased:
    """One request carried out; ``rows`` of the store, ``partition_rows`` of files."""

    erasure_id: str
    rows: int
    partition_rows: int
    deadline: str


def erase(
    *, home: Path, url: str, now: datetime, user: str | None = None, state_url: str | None = None
) -> list[Erased]:
    """Carry out the request for ``user``, which is made where there is none; without, every request that waits.

    Args:
        home: ``FUSELINE_HOME``.
        url: SQLAlchemy URL of the event store.
        now: the clock.
        user: whom; None: everybody who waits.
        state_url: the Redis that keeps copies of recent histories, if any.

    Raises:
        ArtifactError: the store cannot be opened, a partition cannot be written, or Redis does not answer (its
            copies are valid no longer even so, and expire within the hour).
    """
    database = Database.open(url)
    try:
        at = feedback.microseconds(now)
        due = [erasures.request(database, user, now=at)] if user is not None else erasures.waiting(database)
        with collect.locked(home):
            state = RedisState(state_url, database.id) if state_url else None
            return [_one(home, database, erasure, now=now, state=state) for erasure in due]
    finally:
        database.close()


def _one(home: Path, database: Database, erasure: Erasure, *, now: datetime, state: RedisState | None) -> Erased:
    user, deadline = erasure.user or "", feedback.instant(erasure.deadline)
    met_as = erasures.visitors(database, user)
    exclusions.add(home, user, sorted(met_as), erased_at=now, deadline=deadline)
    from_files = _from_partitions(home, user, met_as)
    shutil.rmtree(home / feedback.SCRATCH / "superseded", ignore_errors=True)
    shutil.rmtree(home / kept_lists.FOLDER, ignore_errors=True)
    rows = erasures.remove(database, erasure, met_as, now=feedback.microseconds(now))
    if state is not None:
        state.forget([user, *met_as])
    return Erased(erasure.id, rows, from_files, deadline.isoformat())


def _from_partitions(home: Path, user: str, met_as: set[str]) -> int:
    """Rewrite every partition that holds the user; rows removed."""
    record, removed = collect.record(home), 0
    for store, before in record.items():
        partitions = [_without(home, one, user, met_as) for one in before.partitions]
        gone = sum(one.rows for one in before.partitions) - sum(one.rows for one in partitions)
        if gone:
            kept = replace(before, partitions=tuple(one for one in partitions if one.rows))
            collect.commit(home, store, kept, before=before, fewer=True)
        removed += gone
    ours = set(feedback.collected_files(home))
    for path in sorted((home / feedback.FEEDBACK).rglob("*.parquet")):
        if path not in ours:
            removed += _rewrite(path, user, met_as)
    return removed


def _without(home: Path, one: Partition, user: str, met_as: set[str]) -> Partition:
    """A partition without the user's rows, made aside; itself when it has none."""
    path = home / feedback.FEEDBACK / one.path
    if not _holds(path, user, met_as):
        return one
    file, rows = collect.write_partition(home, one.kind, _rest(path, user, met_as))
    return replace(one, file=file, rows=rows)


def _rewrite(path: Path, user: str, met_as: set[str]) -> int:
    """Take the user out of a file that people put there."""
    if not {"user_id", "visitor_id"} <= set(pq.read_schema(path).names) or not _holds(path, user, met_as):
        return 0
    before, rows = pq.read_metadata(path).num_rows, 0
    with replacing_file(path) as aside, pq.ParquetWriter(aside, pq.read_schema(path), compression="zstd") as writer:
        for table in _rest(path, user, met_as):
            writer.write_table(table)
            rows += table.num_rows
    return int(before - rows)


def _holds(path: Path, user: str, met_as: set[str]) -> bool:
    return any(table.num_rows != size for table, size in _filtered(path, user, met_as))


def _rest(path: Path, user: str, met_as: set[str]) -> Iterator[pa.Table]:
    return (table for table, _ in _filtered(path, user, met_as))


def _filtered(path: Path, user: str, met_as: set[str]) -> Iterator[tuple[pa.Table, int]]:
    """Batches of a file without the user's rows, and how many each had."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=collect.ROWS_A_GROUP):
            table = pa.Table.from_batches([batch])
            theirs = pc.fill_null(pc.equal(table["user_id"], user), False)  # noqa: FBT003 - positional in Arrow
            anonymous = pc.is_null(table["user_id"])
            met = pc.is_in(table["visitor_id"], value_set=pa.array(sorted(met_as), pa.string()))
            yield table.filter(pc.invert(pc.or_(theirs, pc.and_(anonymous, met)))), table.num_rows
