"""What a swap of the champion costs those who ask for lists meanwhile.

``python -m benchmarks.swap_latency --bundle artifacts/bundle``

Method: the saturation rate is found first, in a closed loop of 16 clients; then requests come in an open loop at a
share of it, while the champion's pointer moves at fixed times: to a bundle that is not in memory (a promotion), and
back to the one before (a rollback). An answer belongs to a move when it came before every worker had
followed and half a second after; the others are quiet. Latency counts from the time a request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import load, made_bundle
from benchmarks.recommend_latency import requests_of
from benchmarks.started import serving
from benchmarks.telling import add_output, tell
from pipelines import champion
from pipelines.champion import Pointer
from pipelines.features.state import FeatureState
from pipelines.manifest import MANIFEST
from pipelines.service_process import SERVICE
from pipelines.storage import read_json, write_json

CLIENTS = 16
VERSIONS = 3
AFTER_S = 0.5
_VERSION = b'"model_version":"'


class Answered(NamedTuple):
    """One answer: when it came, what it took from when it was due (ms), which version made it, and how it ended."""

    at: float
    latency: float
    version: int
    status: int


class Move(NamedTuple):
    """The pointer moved at ``at``."""

    at: float
    version: int
    kind: str


class Recorded(load.Client):
    """A client that keeps every answer."""

    answers: list[Answered]

    def _finish(self, answer: bytes) -> None:
        now, place = time.perf_counter(), answer.find(_VERSION) + len(_VERSION)
        version = int(answer[place : answer.index(b'"', place)]) if place >= len(_VERSION) else 0
        self.answers.append(Answered(now, (now - self._due) * 1000, version, int(answer[9:12])))
        super()._finish(answer)


def main() -> None:
    """Measure and print."""
    told = _arguments()
    with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as scratch:
        home = Path(scratch) / "Fuseline"
        source = told.bundle or made_bundle.make(Path(scratch) / "made", n_items=4000, n_users=4000, rows_a_user=60)
        pointers = [_stored(source, home, version) for version in range(1, VERSIONS + 1)]
        champion.write(home, pointers[0], record={})
        requests = requests_of(FeatureState.load(source / "features"), told.requests)
        with serving(SERVICE, told.workers, Path(scratch), None) as ours:
            closed = load.run(load.closed_loop(ours.port, requests, seconds=told.seconds, clients=CLIENTS))
            rate = told.share * closed.rate
            answers, moves, errors = asyncio.run(
                _under_moves(ours.port, requests, home=home, pointers=pointers, rate=rate, told=told)
            )
    report = _report(answers, moves) | {
        "errors": errors,
        "rate_per_s": round(rate, 1),
        "saturation_per_s": round(closed.rate, 1),
        "workers": told.workers,
        "machine": f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end",
    }
    tell(report, told, _print)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Latency of POST /v1/recommend while the champion moves.")
    parser.add_argument("--bundle", type=Path, help="the bundle to serve; default: a made one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="of the closed loop, and between two moves")
    parser.add_argument("--share", type=float, default=0.5, help="of the saturation rate")
    parser.add_argument("--rounds", type=int, default=3, help="promotions, each with a rollback")
    parser.add_argument("--requests", type=int, default=2000, help="distinct requests, one a user")
    parser.add_argument("--seed", type=int, default=7)
    add_output(parser)
    return parser.parse_args()


def _stored(source: Path, home: Path, version: int) -> Pointer:
    folder = home / "var" / "bundles" / f"b{version}" / "bundle"
    shutil.copytree(source, folder)
    write_json(folder / MANIFEST, read_json(folder / MANIFEST) | {"id": f"b{version}"})
    return Pointer(version, folder, None, f"b{version}", None, "bench")


async def _under_moves(
    port: int,
    requests: Sequence[bytes],
    *,
    home: Path,
    pointers: Sequence[Pointer],
    rate: float,
    told: argparse.Namespace,
) -> tuple[list[Answered], list[Move], int]:
    """Open loop over all moves: 1 to 2, back, 1 to 3, back, and so on, so that each promotion has to load."""
    Recorded.answers, moves = [], list[Move]()
    plan = [step for n in range(told.rounds) for step in ((1 + n % 2 + 1, "promotion"), (1, "rollback"))]

    async def move() -> None:
        for version, kind in plan:
            await asyncio.sleep(told.seconds)
            await asyncio.to_thread(champion.write, home, pointers[version - 1], record={})
            moves.append(Move(time.perf_counter(), version, kind))

    mover = asyncio.create_task(move())
    seconds = told.seconds * (len(plan) + 1)
    outcome = await load.open_loop(
        port, requests, rate=rate, seconds=seconds, seed=told.seed, clients=CLIENTS, kind=Recorded
    )
    await mover
    return Recorded.answers, moves, outcome.errors


def _report(answers: Sequence[Answered], moves: Sequence[Move]) -> dict[str, Any]:
    spans, followed = [], dict[str, list[float]]()
    for move, until in zip(moves, [*(one.at for one in moves[1:]), float("inf")], strict=True):
        late = [a.at for a in answers if move.at <= a.at < until and a.version != move.version]
        done = max(late, default=move.at)
        followed.setdefault(move.kind, []).append(round(done - move.at, 2))
        spans.append((move.kind, move.at, done + AFTER_S))
    rows = {"quiet": [a.latency for a in answers if not any(start <= a.at <= end for _, start, end in spans)]}
    for kind in followed:
        within = [(start, end) for name, start, end in spans if name == kind]
        rows[kind] = [a.latency for a in answers if any(start <= a.at <= end for start, end in within)]
    return {
        "rows": [{"while": name, **_percentiles(values)} for name, values in rows.items()],
        "seconds_until_all_followed": followed,
        "refused": sum(a.status != 200 for a in answers),
    }


def _percentiles(values: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(values)
    at = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    }
    return {"answers": len(ordered), **{name: None if v is None else round(v, 2) for name, v in at.items()}}


def _print(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['rate_per_s']} requests/s, {report['workers']} workers")
    for name in ("while", "answers", "p50_ms", "p99_ms", "max_ms"):
        table.add_column(name, justify="left" if name == "while" else "right")
    for row in report["rows"]:
        table.add_row(*(str(value) for value in row.values()))
    console = Console()
    console.print(table)
    console.print({name: value for name, value in report.items() if name != "rows"})


if __name__ == "__main__":
    main()
