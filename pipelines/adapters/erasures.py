"""Requests to forget a user, kept in the event store, and the removal of what it holds of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Table, and_, delete, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from pipelines.adapters.event_database import Database
from pipelines.adapters.event_tables import ERASURES, EVENTS, IMPRESSIONS, LINKS
from pipelines.feedback import instant

WITHIN = timedelta(days=30)
"""From the request to the deadline, by which no model that has learned from the user may serve (GDPR, article 12)."""


@dataclass(frozen=True)
class Erasure:
    """One request; ``user`` None once it is carried out. Times in microseconds since 1970."""

    id: str
    user: str | None
    requested_at: int
    deadline: int
    erased_at: int | None

    def as_json(self) -> dict[str, str | None]:
        """What a caller is told: never the user."""
        return {
            "erasure_id": self.id,
            "state": "waiting" if self.erased_at is None else "erased",
            "requested_at": instant(self.requested_at).isoformat(),
            "deadline": instant(self.deadline).isoformat(),
            "erased_at": None if self.erased_at is None else instant(self.erased_at).isoformat(),
        }


def request(database: Database, user: str, *, now: int) -> Erasure:
    """Remember that a user is to be forgotten; a request that waits already is the same one."""
    with database.turn() as connection:
        query = select(ERASURES).where(ERASURES.c.user_id == user, ERASURES.c.erased_at.is_(None))
        if (found := connection.execute(query).first()) is not None:
            return Erasure(*found)
        made = Erasure(secrets.token_hex(12), user, now, now + WITHIN // timedelta(microseconds=1), None)
        connection.execute(insert(ERASURES).values(tuple(vars(made).values())))
        return made


def find(database: Database, erasure_id: str) -> Erasure | None:
    """The request of this id."""
    with database.snapshot() as connection:
        found = connection.execute(select(ERASURES).where(ERASURES.c.id == erasure_id)).first()
    return None if found is None else Erasure(*found)


def waiting(database: Database) -> list[Erasure]:
    """Requests that are not carried out yet, the oldest first."""
    query = select(ERASURES).where(ERASURES.c.erased_at.is_(None)).order_by(ERASURES.c.requested_at, ERASURES.c.id)
    with database.snapshot() as connection:
        return [Erasure(*row) for row in connection.execute(query)]


def visitors(database: Database, user: str) -> set[str]:
    """Every visitor whom the store has met together with the user."""
    queries = [
        select(table.c.visitor_id).where(table.c.user_id == user, table.c.visitor_id.is_not(None)).distinct()
        for table in (LINKS, EVENTS, IMPRESSIONS)
    ]
    with database.snapshot() as connection:
        return {str(one) for query in queries for one in connection.scalars(query)}


def remove(database: Database, erasure: Erasure, met_as: set[str], *, now: int) -> int:
    """Delete what the store holds of a user, and with it their name in the request; the number of rows.

    Rows of a visitor who was met with the user go unless they belong to another user by now.
    """
    with database.turn() as connection:
        if database.embedded:
            connection.exec_driver_sql("PRAGMA secure_delete = ON")  # freed pages are overwritten
        rows = sum(_delete(connection, table, erasure.user or "", met_as) for table in (EVENTS, IMPRESSIONS))
        connection.execute(delete(LINKS).where(LINKS.c.user_id == erasure.user))
        connection.exec_driver_sql("UPDATE state SET epoch = epoch + 1")
        connection.execute(update(ERASURES).where(ERASURES.c.id == erasure.id).values(user_id=None, erased_at=now))
    return rows


def _delete(connection: Connection, table: Table, user: str, met_as: set[str]) -> int:
    mine: ColumnElement[bool] = or_(
        table.c.user_id == user,
        table.c.history_id == user,
        and_(table.c.user_id.is_(None), table.c.history_id.in_(sorted(met_as))),
    )
    return int(connection.execute(delete(table).where(mine)).rowcount)
