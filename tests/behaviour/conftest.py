"""Servers that run on this machine, each test in a corner of its own; skipped with the reason where none answers."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from pipelines.adapters.recent_state import RedisState

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


@pytest.fixture
def redis_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Redis; keys carry the id of the test's own store, and go with the test."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", 6379)):
            pytest.skip("no Redis answers at 127.0.0.1:6379")
    url, stores, made = "redis://127.0.0.1:6379/15", set[str](), RedisState.__init__

    def noted(self: RedisState, address: str, store: str) -> None:
        stores.add(store)
        made(self, address, store)

    monkeypatch.setattr(RedisState, "__init__", noted)
    yield url
    server = redis.Redis.from_url(url)
    for key in [key for store in stores for key in server.scan_iter(match=f"fuseline:{store}:*")]:
        server.delete(key)
    server.close()


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        pytest.param("sqlite and redis", marks=pytest.mark.exhaustive),
        "postgresql and redis",
    ]
)
def addresses(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str | None]]:
    """URLs of an event store and of what keeps its recent histories, of each kind in turn."""
    kind, _, state = request.param.partition(" and ")
    state_url = request.getfixturevalue("redis_url") if state else None
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'events' / 'events.db'}", state_url
    else:
        yield request.getfixturevalue("postgresql"), state_url
