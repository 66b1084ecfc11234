"""Place the instants and cut the tables at t2 and t3."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import ibis
import ibis.expr.types as ir

from pipelines import params as parameters
from pipelines.adapters import frames
from pipelines.interactions import cut, cut_catalog, interactions, searches, targets
from pipelines.splitting import Instant, Instants, instants
from pipelines.stages.running import arguments, run
from pipelines.storage import read_json, replacing_folder, write_json
from pipelines.workspace import Workspace

NEVER = Instant("none", datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))
"""A window that nothing lies in."""


def main() -> None:
    """Write ``artifacts/split/``."""
    told = arguments("Place the instants and cut the tables at t2 and t3.")
    params = parameters.load(told.params)
    work = Workspace(told.artifacts)
    report = read_json(work.ingest_report)
    strengths = report["strengths"] or {}
    with frames.engine() as connection, replacing_folder(work.split) as folder:
        events = frames.read(connection, work.canonical / "events.parquet")
        rows = connection.create_table("rows", interactions(events, target=report["target"], strengths=strengths))
        first = rows.event_time.min().to_pyarrow().as_py()
        as_of = datetime.fromisoformat(report["as_of"]).astimezone(UTC)
        placed = instants(params.split, first=first and first.astimezone(UTC), as_of=as_of)
        write_json(folder / "instants.json", placed.as_json())
        catalog = frames.read(connection, work.canonical / "catalog.parquet")
        users = frames.read(connection, work.canonical / "users.parquet")
        learn = {"target": report["target"] or "", "strengths": strengths}
        for cutting in _cuts(placed):
            into = folder / cutting.name
            kept = cut(rows, cutting.time)
            _write_tables(into, kept, cut_catalog(catalog, rows, cutting.time), users)
            write_json(into / "about.json", {**learn, "instants": cutting.instants})
        limit = params.split.max_eval_users
        _write_targets(folder / "targets.parquet", rows, placed.windows, limit)
        _write_targets(folder / "holdout.parquet", rows, [placed.judged] if placed.judged else [], limit)
        _write_searches(folder / "searches.parquet", rows, placed.windows)
        _write_searches(folder / "searches_holdout.parquet", rows, [placed.judged] if placed.judged else [])
        judgments = frames.read(connection, work.canonical / "judgments.parquet")
        frames.write(judgments, folder / "judgments.parquet", order=["query", "item_id"])
    judged = placed.judged.time.date() if placed.judged else "none"
    print(f"t3 {as_of.date()}, t2 {judged}, {len(placed.windows)} windows")


class _Cut(NamedTuple):
    """``instants``: the times by name at which features and members are made from the tables cut at ``time``."""

    name: str
    time: datetime
    instants: dict[str, str]


def _cuts(placed: Instants) -> tuple[_Cut, _Cut]:
    """Tables for what knows nothing of the holdout, which only a move of t2 changes, and for what serves."""
    served = placed.served
    judged = placed.before_holdout[-1]
    before = {instant.name: instant.time.isoformat() for instant in placed.before_holdout}
    return (
        _Cut("history", judged.time, before),
        _Cut("current", served.time, {served.name: served.time.isoformat()}),
    )


def _write_tables(folder: Path, rows: ir.Table, catalog: ir.Table, users: ir.Table) -> None:
    frames.write(rows, folder / "interactions.parquet", order=["event_time", "event_id", "item_id", "event_type"])
    frames.write(catalog, folder / "catalog.parquet", order=["item_id", "updated_at", "title"])
    known = users.filter(users.user_id.isin(rows.history_id))
    frames.write(known, folder / "users.parquet", order=["user_id"])


def _write_targets(path: Path, rows: ir.Table, windows: Sequence[Instant], limit: int) -> None:
    """Targets of at most ``limit`` users a window, drawn by the hash of their id: the same users at every run."""
    wanted = targets(rows, windows or [NEVER])
    drawn = ibis.dense_rank().over(
        ibis.window(group_by="instant", order_by=[wanted.history_id.hash(), wanted.history_id])
    )
    sampled = wanted.mutate(place=drawn).filter(lambda table: table.place < limit).drop("place")
    frames.write(sampled, path, order=["instant", "history_id", "item_id"])


def _write_searches(path: Path, rows: ir.Table, windows: Sequence[Instant]) -> None:
    """What was chosen after a search in each window."""
    frames.write(searches(rows, windows or [NEVER]), path, order=["instant", "query", "item_id"])


if __name__ == "__main__":
    run(main)
