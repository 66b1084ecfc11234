"""The table engine: Ibis expressions on DuckDB inside the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from pipelines.contracts import Table
from pipelines.storage import replacing_file


@contextmanager
def engine() -> Iterator[ibis.BaseBackend]:
    """An in-memory DuckDB that spills to disk when it must, closed at the end."""
    connection = ibis.duckdb.connect()
    connection.raw_sql("SET TimeZone = 'UTC'")
    try:
        yield connection
    finally:
        connection.disconnect()


def read(connection: ibis.BaseBackend, path: Path) -> ir.Table:
    """A parquet file as an expression; nothing is loaded yet."""
    return connection.read_parquet(str(path))


def write(table: ir.Table, path: Path, *, order: list[str]) -> None:
    """Write an expression as parquet, sorted, whole or not at all; equal rows give equal bytes."""
    with replacing_file(path) as aside:
        table.order_by(order).to_parquet(aside, compression="zstd")


def empty(table: Table) -> pa.Table:
    """A table of the contract without rows."""
    return table.schema.empty_table()


def seconds(time: datetime) -> int:
    """Whole seconds since 1970 of an instant."""
    return int(time.astimezone(UTC).timestamp())


def whole_seconds(time: ir.TimestampValue) -> ir.IntegerValue:
    """Whole seconds since 1970 of a column of timestamps, rounded down.

    DuckDB's epoch carries fractions, which Ibis declares as integers and then cannot convert; Spark's
    does not. Cut first, both agree.
    """
    return time.truncate("s").epoch_seconds().cast("int64")
