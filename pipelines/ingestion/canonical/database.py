"""A DuckDB database in a scratch folder, driven by Ibis expressions: larger than memory is fine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage import replacing_file

MEMORY_LIMIT = "3GB"
"""What DuckDB may hold before it spills to the scratch folder."""

ROW_GROUP = 131_072
"""Rows of a parquet row group; fixed, so that equal tables are equal bytes."""


class Database:
    """Tables of one ingest run; ``folder`` is scratch space."""

    def __init__(self, folder: Path) -> None:
        """Open an empty database in ``folder``."""
        self.backend = ibis.duckdb.connect(
            str(folder / "work.duckdb"), memory_limit=MEMORY_LIMIT, temp_directory=str(folder / "spill")
        )
        self.run("SET TimeZone = 'UTC'")
        self.run("SET enable_progress_bar = false")
        self.run("SET preserve_insertion_order = false")

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection below Ibis, for what Ibis cannot say (readers of files)."""
        connection: duckdb.DuckDBPyConnection = self.backend.con
        return connection

    def run(self, query: str) -> None:
        """Execute a statement."""
        self.fetch(query)

    def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a small query; a result left unread would block the connection."""
        rows: list[tuple[Any, ...]] = self.connection.execute(query).fetchall()
        return rows

    def names(self) -> set[str]:
        """Names of all tables and views."""
        return {str(name) for (name,) in self.fetch("SELECT table_name FROM duckdb_tables()")}

    def table(self, name: str) -> ir.Table:
        """An expression for a table or view."""
        return self.backend.table(name)

    def view(self, name: str, query: str) -> ir.Table:
        """Name a query that Ibis cannot write."""
        self.run(f'CREATE OR REPLACE TEMP VIEW "{name}" AS {query}')
        return self.table(name)

    def create(self, name: str, expression: ir.Table) -> ir.Table:
        """Store the rows of an expression as a table."""
        self.run(f'CREATE TABLE "{name}" AS {self.backend.compile(expression)}')
        return self.table(name)

    def put(self, name: str, rows: pa.Table) -> ir.Table:
        """Store rows that lie in memory as a table."""
        self.connection.register("in_memory", rows)
        self.run(f'CREATE TABLE "{name}" AS SELECT * FROM in_memory')  # noqa: S608 - our names
        self.connection.unregister("in_memory")
        return self.table(name)

    def append(self, name: str, expression: ir.Table) -> ir.Table:
        """Add rows to a table, which is made when it is not there; columns are matched by name."""
        if name not in self.names():
            return self.create(name, expression)
        self.run(f'INSERT INTO "{name}" BY NAME {self.backend.compile(expression)}')
        return self.table(name)

    def rows(self, expression: ir.Table) -> list[dict[str, Any]]:
        """The rows of a small result."""
        rows: list[dict[str, Any]] = self._reader(expression).read_all().to_pylist()
        return rows

    def value(self, scalar: ir.Scalar) -> Any:
        """One value."""
        return self.rows(scalar.as_table())[0].popitem()[1]

    def write_parquet(self, expression: ir.Table, path: Path, *, schema: pa.Schema, order: tuple[str, ...]) -> int:
        """Stream a result to a file in a fixed order; returns its number of rows.

        Nulls come first. Equal rows give equal bytes, whatever the number of threads.
        """
        ordered = expression.select(*schema.names).order_by([ibis.asc(name, nulls_first=True) for name in order])
        rows = 0
        with replacing_file(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for group in _regrouped(self._reader(ordered), schema):
                writer.write_table(group, row_group_size=ROW_GROUP)
                rows += group.num_rows
        return rows

    def _reader(self, expression: ir.Table) -> pa.RecordBatchReader:
        return self.connection.sql(self.backend.compile(expression)).to_arrow_reader(ROW_GROUP)

    def close(self) -> None:
        """Release the database's files."""
        self.backend.disconnect()


def _regrouped(reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches of any length as tables of exactly ``ROW_GROUP`` rows (the last one shorter)."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in reader:
        waiting.append(batch)
        held += batch.num_rows
        while held >= ROW_GROUP:
            table = pa.Table.from_batches(waiting, reader.schema)
            yield table.slice(0, ROW_GROUP).cast(schema)
            waiting = table.slice(ROW_GROUP).to_batches()
            held -= ROW_GROUP
    if held:
        yield pa.Table.from_batches(waiting, reader.schema).cast(schema)


@contextmanager
def database(folder: Path) -> Iterator[Database]:
    """A database in a folder that is emptied before and removed after."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    opened = Database(folder)
    try:
        yield opened
    finally:
        opened.close()
        shutil.rmtree(folder, ignore_errors=True)
