"""How many events a second the service acknowledges durably, and what posting costs those who ask for lists.

``python -m benchmarks.events_rate --postgresql postgresql://user@host/database``

Method: a service with the given number of workers, one per database in turn. First 32 clients post as fast as
they are answered (closed loop), one event a post and a hundred; an event counts when its post was answered 202,
which comes after the commit, and the rows of the database are counted afterwards and must be as many.
Then lists are asked for in an open loop at a third of the rate that saturates the service, alone and while
a thousand events a second are posted, in alternating rounds; latency from the time a request was due, medians over
rounds. Load generator, databases and service share the machine; the load of the machine is stated.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, make_url, text

from benchmarks import load, made_bundle
from benchmarks.started import serving
from benchmarks.telling import add_output, say, tell
from pipelines.service_process import SERVICE, Started

EVENTS_A_SECOND = 1000
SCHEMA = "fuseline_bench"
BATCH = 10
"""Events a post while lists are asked for."""


def main() -> None:
    """Measure and print."""
    told = _arguments()
    with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as scratch:
        bundle = told.bundle or made_bundle.make(Path(scratch) / "made", n_items=4000, n_users=4000)
        rows = []
        with _own_schema(told.postgresql) as postgresql:
            urls = {"SQLite": f"sqlite:///{scratch}/events.db", "PostgreSQL": postgresql}
            for name, url in urls.items():
                if url is None:
                    continue
                folder = Path(scratch) / name
                folder.mkdir()
                with serving(SERVICE, told.workers, folder, bundle, FUSELINE_EVENTS_URL=url) as ours:
                    rows.append({"store": name} | _measured(name, ours, url, told))
    report = {
        "rows": rows,
        "workers": told.workers,
        "clients": load.CLIENTS,
        "rounds": told.rounds,
        "events_a_second_beside": EVENTS_A_SECOND,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end",
    }
    tell(report, told, _print)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Durable events a second, and lists beside them.")
    parser.add_argument("--bundle", type=Path, help="the bundle to serve; default: a made one")
    parser.add_argument("--postgresql", help="URL of a database; a schema of its own is made and dropped")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each loop")
    parser.add_argument("--rounds", type=int, default=3)
    add_output(parser)
    return parser.parse_args()


@contextmanager
def _own_schema(url: str | None) -> Iterator[str | None]:
    """The URL with a schema of the benchmark's own, for as long as the block lasts."""
    if url is None:
        yield None
        return
    _execute(url, f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE", f"CREATE SCHEMA {SCHEMA}")
    own = make_url(url).update_query_dict({"options": f"-csearch_path={SCHEMA}"})
    yield own.render_as_string(hide_password=False)
    _execute(url, f"DROP SCHEMA {SCHEMA} CASCADE")


def _execute(url: str, *statements: str) -> None:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def _stored(url: str) -> int:
    parsed = make_url(url)
    engine = create_engine(parsed.set(drivername="postgresql+psycopg") if "postgresql" in url else parsed)
    with engine.connect() as connection:
        found = int(connection.execute(text("SELECT count(*) FROM events")).scalar_one())
    engine.dispose()
    return found


def _bodies(prefix: str, size: int) -> Iterator[bytes]:
    """Posts of new events without end."""
    for number in itertools.count():
        events = [
            {
                "event_id": f"{prefix}-{number}-{place}",
                "event_type": "detail-page-view",
                "event_time": "2010-12-01T08:26:00Z",
                "user_id": f"u{(number * size + place) % 4000:03d}",
                "item_id": f"i{(number + place) % 4000:04d}",
            }
            for place in range(size)
        ]
        yield load.post("/v1/events", orjson.dumps(events))


def _measured(store: str, ours: Started, url: str, told: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    expected = 0
    for size in (1, 100):
        rates = []
        for round_ in range(told.rounds):
            say(f"{store}: {size} a post, round {round_ + 1} of {told.rounds}")
            bodies = _bodies(f"closed-{size}-{round_}", size)
            posted = load.run(load.closed_loop(ours.port, bodies, seconds=told.seconds))
            if posted.errors:
                raise SystemExit(f"{posted.errors} posts were refused; see the service's log")
            rates.append(posted.rate * size)
            expected += len(posted.latency) * size
        found[f"events_per_s_{size}_a_post"] = round(statistics.median(rates))
    if (stored := _stored(url)) != expected:
        raise SystemExit(f"{stored} events are stored, {expected} were acknowledged")
    return found | {"events_stored": stored} | _lists(store, ours, told)


def _lists(store: str, ours: Started, told: argparse.Namespace) -> dict[str, Any]:
    """Latency of lists alone, and while events are posted."""
    users = [load.post("/v1/recommend", json.dumps({"user_id": f"u{n:03d}"}).encode()) for n in range(4000)]
    saturated = load.run(load.closed_loop(ours.port, users, seconds=told.seconds))
    rate = saturated.rate / 3
    alone, beside = [], []
    for round_ in range(told.rounds):
        say(f"{store}: lists alone and beside events, round {round_ + 1} of {told.rounds}")
        alone.append(load.run(load.open_loop(ours.port, users, rate=rate, seconds=told.seconds, seed=round_)))
        beside.append(load.run(_while_posting(ours.port, users, rate=rate, seconds=told.seconds, seed=round_)))

    def median(outcomes: Sequence[load.Outcome], share: float) -> float:
        return round(statistics.median(one.percentile(share) for one in outcomes), 2)

    return {
        "lists_per_s": round(rate),
        "alone_p50_ms": median(alone, 0.5),
        "alone_p99_ms": median(alone, 0.99),
        "posting_p50_ms": median(beside, 0.5),
        "posting_p99_ms": median(beside, 0.99),
        "errors": sum(one.errors for one in (*alone, *beside)),
    }


async def _while_posting(port: int, lists: Sequence[bytes], *, rate: float, seconds: float, seed: int) -> load.Outcome:
    bodies = _bodies(f"beside-{seed}", BATCH)
    posting = load.open_loop(port, bodies, rate=EVENTS_A_SECOND / BATCH, seconds=seconds, seed=seed + 1000, clients=8)
    asked, posted = await asyncio.gather(load.open_loop(port, lists, rate=rate, seconds=seconds, seed=seed), posting)
    asked.errors += posted.errors
    return asked


def _print(report: dict[str, Any]) -> None:
    rows = report["rows"]
    table = Table(title=f"{report['workers']} workers, {report['clients']} clients, {report['machine']}")
    for column in ("", *(row["store"] for row in rows)):
        table.add_column(column, justify="right" if column else "left")
    for name in (name for name in rows[0] if name != "store"):
        table.add_row(name.replace("_", " "), *(f"{row[name]:,}" for row in rows))
    Console().print(table)


if __name__ == "__main__":
    main()
