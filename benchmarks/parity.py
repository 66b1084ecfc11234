"""Served lists beside ``Bundle.rank`` on the same bundle: ids equal, scores within 1e-5, on every worker.

``python -m benchmarks.parity [--bundle artifacts/judged] [--users 200] [--workers 1 2] [--json]``
"""

from __future__ import annotations

import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.started import serving
from benchmarks.telling import add_output, tell
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.ranking import RankRequest
from pipelines.service_process import SERVICE

TOLERANCE = 1e-5
N = 20


def main() -> None:
    """Serve the bundle, ask for every user on both surfaces, compare, print."""
    parser = ArgumentParser(description="Compare served lists with those of the evaluation.")
    parser.add_argument("--bundle", type=Path, default=Path("artifacts/judged"))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    add_output(parser)
    told = parser.parse_args()
    bundle = Bundle.load(told.bundle)
    rows = [compared(bundle, told.bundle.resolve(), told.users, workers) for workers in told.workers]
    tell(rows, told, _print)
    raise SystemExit(any(row["lists that differ"] or row["largest difference"] > TOLERANCE for row in rows))


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)


def compared(bundle: Bundle, folder: Path, users: int, workers: int) -> dict[str, Any]:
    """One row: how many lists were compared and how far they differ."""
    step = max(1, len(bundle.features.user_ids) // users)
    chosen = bundle.features.user_ids.ids(range(0, len(bundle.features.user_ids), step))[:users]
    differ, largest = 0, 0.0
    with tempfile.TemporaryDirectory() as scratch, serving(SERVICE, workers, Path(scratch), folder) as started:
        for user in chosen:
            for surface in (Surface.RECOMMEND, Surface.RECOMMEND_NEW):
                served = _ask(started.port, user, surface)
                wanted = bundle.rank(RankRequest(surface=surface, n=N), bundle.history(user_id=user)).items
                differ += [item["id"] for item in served] != [item.id for item in wanted]
                gaps = (abs(one["score"] - two.score) for one, two in zip(served, wanted, strict=True))
                largest = max(largest, *gaps)
    return {
        "workers": workers,
        "lists": 2 * len(chosen),
        "lists that differ": differ,
        "largest difference": float(largest),
    }


def _ask(port: int, user: str, surface: Surface) -> list[dict[str, Any]]:
    body = {"user_id": user, "n": N, "explore": False, "exclude_seen": surface == Surface.RECOMMEND_NEW}
    # a connection of its own, so that the workers take turns
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/recommend", json=body)
    answer.raise_for_status()
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


if __name__ == "__main__":
    main()
