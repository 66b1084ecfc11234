"""Connections of the event store: what differs between SQLite and PostgreSQL lies here and nowhere else."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from pipelines.adapters.event_availability import Breaker
from pipelines.adapters.event_tables import METADATA, STATE, STORE
from pipelines.errors import ArtifactError

BUSY_TIMEOUT_MS = 30_000
"""How long SQLite waits for a writer outside of this service (a backup, an erasure) before it gives up."""

POSTGRESQL_OPTIONS = {"connect_timeout": 2, "tcp_user_timeout": 3000, "keepalives_idle": 5, "keepalives_interval": 2}
"""A network that swallows packets is noticed within seconds, not after the quarter of an hour of TCP."""

WRITERS_LOCK = 0x4675_7365
"""Key of PostgreSQL's advisory lock that makes writers take turns."""


PARAMETERS_A_STATEMENT = 20_000
"""SQLite takes 32,766 and PostgreSQL 65,535 parameters at most."""


def exists(url: str) -> bool:
    """Whether there is anything to open: False for an SQLite file that nobody has made yet."""
    parsed = make_url(url)
    return parsed.get_backend_name() != "sqlite" or Path(parsed.database or "events.db").exists()


def unusable(url: str, error: Exception) -> ArtifactError:
    """What to say of a store that cannot be reached or used; never its password."""
    shown = make_url(url).render_as_string(hide_password=True) if "://" in url else url
    found = str(getattr(error, "orig", None) or error).splitlines()[0]
    return ArtifactError(f"the event store {shown} cannot be opened", found=found, do="correct FUSELINE_EVENTS_URL")


class Transaction:
    """Statements of many rows each.

    The driver gives up the interpreter's lock at every step of a statement and has to wait for it again
    while another thread answers requests, so one statement of many rows, not many of one, is what makes
    group commit fast. It also is one round trip to PostgreSQL.
    """

    def __init__(self, connection: Connection, placeholder: str) -> None:
        """``placeholder`` of one value in the driver's SQL."""
        self._connection = connection
        self._placeholder = placeholder

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, conflict: str = "") -> None:
        """Insert rows, values in the order of the columns; ``conflict``: an ``ON CONFLICT`` clause."""
        for statement, values in self._inserts(table, columns, rows):
            self._connection.exec_driver_sql(f"{statement} {conflict}", values)

    def _inserts(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        one = f"({','.join([self._placeholder] * len(columns))})"
        size = PARAMETERS_A_STATEMENT // len(columns)
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            values = ",".join([one] * len(some))
            statement = f"INSERT INTO {table} ({','.join(columns)}) VALUES {values}"  # noqa: S608 - our names
            yield statement, tuple(value for row in some for value in row)

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Like :meth:`insert` without conflicts; PostgreSQL takes rows several times faster by COPY."""
        if self._placeholder != "%s":
            self.insert(table, columns, rows)
            return
        if rows:
            cursor: Any = self._connection.connection.cursor()
            with cursor.copy(f"COPY {table} ({','.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

    def insert_returning(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, key: Sequence[str]
    ) -> dict[tuple[Any, ...], int]:
        """Like :meth:`insert`; the ``seq`` of each row by its values of ``key``."""
        found: dict[tuple[Any, ...], int] = {}
        for statement, values in self._inserts(table, columns, rows):
            returning = f"{statement} RETURNING seq, {','.join(key)}"
            found |= {tuple(row[1:]): row[0] for row in self._connection.exec_driver_sql(returning, values)}
        return found

    def move_epoch(self) -> None:
        """Make every copy of a history elsewhere invalid."""
        self._connection.exec_driver_sql("UPDATE state SET epoch = epoch + 1")

    def select(self, table: str, columns: Sequence[str], keys: set[str]) -> list[Any]:
        """Rows whose first column is one of the keys."""
        ordered = sorted(keys)
        found: list[Any] = []
        if self._placeholder == "%s":
            statement = f"SELECT {','.join(columns)} FROM {table} WHERE {columns[0]} = ANY(%s)"  # noqa: S608 - our names
            return list(self._connection.exec_driver_sql(statement, (ordered,)).all()) if ordered else []
        for start in range(0, len(ordered), PARAMETERS_A_STATEMENT):
            some = ordered[start : start + PARAMETERS_A_STATEMENT]
            places = ",".join([self._placeholder] * len(some))
            statement = f"SELECT {','.join(columns)} FROM {table} WHERE {columns[0]} IN ({places})"  # noqa: S608 - our names
            found += self._connection.exec_driver_sql(statement, tuple(some)).all()
        return found


class Database:
    """One engine; one reading connection a thread."""

    def __init__(self, engine: Engine, turns: Path | None) -> None:
        """``turns``: the file whose lock SQLite's writers hold in turn; None on PostgreSQL."""
        self._engine = engine
        self._turns = turns
        self._local = threading.local()
        self._breaker = Breaker()
        self.embedded = turns is not None
        self.placeholder = "?" if self.embedded else "%s"
        self.id = ""

    @classmethod
    def open(cls, url: str, *, make: bool = True) -> Database:
        """Connect and make missing tables; SQLite's folder is made too.

        Args:
            url: SQLAlchemy URL.
            make: False only reads; :attr:`id` is then empty where there are no tables.

        Raises:
            ArtifactError: when the database cannot be reached or used.
        """
        try:
            return cls._open(url, make=make)
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise unusable(url, error) from error

    @classmethod
    def _open(cls, url: str, *, make: bool) -> Database:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            address = parsed.set(drivername="postgresql+psycopg")
            engine = create_engine(address, pool_pre_ping=True, connect_args=POSTGRESQL_OPTIONS)
            event.listen(engine, "connect", _prepare_postgresql)
            database = cls(engine, None)
        else:
            path = Path(parsed.database or "events.db").absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            engine = create_engine(parsed.set(database=str(path)), connect_args={"check_same_thread": False})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_immediate)
            database = cls(engine, path.with_name(path.name + ".turn"))
        if not make:
            with database.snapshot() as connection:
                if inspect(connection).has_table(STORE.name):
                    database.id = connection.scalar(select(STORE.c.id)) or ""
            return database
        with database.turn() as connection:
            METADATA.create_all(connection)
            _add_missing_columns(connection)
            for table in METADATA.tables.values():  # a store of an earlier release lacks the newer indexes
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
            database.id = connection.scalar(select(STORE.c.id)) or _named(connection)
            if connection.scalar(select(STATE.c.epoch)) is None:
                connection.execute(insert(STATE).values(epoch=1))
        return database

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction for rows, see :meth:`turn`.

        Raises:
            StoreUnavailable: the database does not answer; whether the commit took place may be unknown.
        """
        with self.guarded(), self.turn() as connection:
            yield Transaction(connection, self.placeholder)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Around whatever asks the database through its engine.

        Raises:
            StoreUnavailable: the database does not answer; whether a commit took place may be unknown.
        """
        self._breaker.check()
        driver = self._engine.dialect.loaded_dbapi  # COPY goes past SQLAlchemy, which would give errors its own type
        try:
            yield
        except (OperationalError, InterfaceError, driver.OperationalError, driver.InterfaceError) as error:
            raise self._breaker.failed(error) from error
        self._breaker.answered()

    @contextlib.contextmanager
    def turn(self) -> Iterator[Connection]:
        """One transaction, alone among all processes that write; durable when the block ends."""
        if self._turns is None:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")
                yield connection
            return
        with self._turns.open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            with self._engine.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Read the state of one moment, beside writers; results may be streamed."""
        engine = self._engine.execution_options(fuseline_reads=True)
        if not self.embedded:
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.connect() as connection, connection.begin():
            yield connection

    def read(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """Rows of one statement on this thread's own connection, connecting again once if it was lost.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        self._breaker.check()
        driver = self._engine.dialect.loaded_dbapi
        failures = (driver.OperationalError, driver.InterfaceError)
        try:
            rows = self._fetch(statement, values)
        except failures:
            self._local.cursor = None
            try:
                rows = self._fetch(statement, values)
            except failures as error:
                self._local.cursor = None
                raise self._breaker.failed(error) from error
        self._breaker.answered()
        return rows

    def _fetch(self, statement: str, values: Sequence[Any]) -> list[Any]:
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connect().cursor()
        cursor.execute(statement, values)
        rows: list[Any] = cursor.fetchall()
        return rows

    def _connect(self) -> Any:
        """A connection outside of the pool, without transactions: each statement sees the latest commit."""
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        options.update({"check_same_thread": False} if self.embedded else POSTGRESQL_OPTIONS)
        connection = self._engine.dialect.connect(*arguments, **options)
        if self.embedded:
            _prepare_sqlite(connection, None)
        else:
            _prepare_postgresql(connection, None)
            connection.autocommit = True
        return connection

    def close(self) -> None:
        """Disconnect this thread and the pool."""
        cursor = getattr(self._local, "cursor", None)
        if cursor is not None:
            cursor.connection.close()
            self._local.cursor = None
        self._engine.dispose()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """WAL lets readers go on beside the writer; synchronous=FULL flushes the log at every commit."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Read by index only, which every question here has.

    The plan of a prepared statement is kept: one that was made while the tables were empty or not yet analysed
    would go on to read them whole for each post.
    """
    connection.execute("SET enable_seqscan = off")
    connection.commit()


def _add_missing_columns(connection: Connection) -> None:
    """A store of an earlier release lacks the newer columns; these may be null, so that adding one is instant."""
    for table in METADATA.tables.values():
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: a lock taken half-way through could not be waited for."""
    reads = connection.get_execution_options().get("fuseline_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _named(connection: Connection) -> str:
    drawn = secrets.token_hex(8)
    connection.execute(insert(STORE).values(id=drawn))
    return drawn
