"""Servers that run on this machine, each test in a corner of its own; skipped with the reason where none answers."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

POSTGRESQL = "postgresql://{user}@127.0.0.1:5432/test"


@pytest.fixture
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL schema that is dropped afterwards."""
    yield from _postgresql()


def _postgresql() -> Iterator[str]:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", 5432)):
            pytest.skip("no PostgreSQL answers at 127.0.0.1:5432")
    schema = f"fuseline_{uuid.uuid4().hex[:12]}"
    for user in ("root", "postgres"):
        base = POSTGRESQL.format(user=user)
        engine = create_engine(base.replace("postgresql:", "postgresql+psycopg:"))
        try:
            with engine.begin() as connection:
                connection.execute(text(f"CREATE SCHEMA {schema}"))
        except SQLAlchemyError as error:
            reason = f"PostgreSQL at 127.0.0.1:5432 refuses: {str(error).splitlines()[0]}"
            continue
        yield f"{base}?options=-csearch_path%3D{schema}"
        with engine.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        return
    pytest.skip(reason)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty event store, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events' / 'events.db'}"
    else:
        yield from _postgresql()
