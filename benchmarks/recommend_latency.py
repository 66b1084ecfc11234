"""How fast ``POST /v1/recommend`` is, beside an empty BentoML endpoint in the same run.

``python -m benchmarks.recommend_latency --bundle artifacts/bundle --items 100000``

Method: :mod:`benchmarks.rounds`; every service runs with the same number of workers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks import load, made_bundle, rounds
from benchmarks.started import EMPTY_SERVICE, seconds_to_start, serving
from benchmarks.telling import add_output, tell
from pipelines.features.state import FeatureState
from pipelines.service_process import SERVICE, Started


def main() -> None:
    """Measure and print."""
    told = _arguments()
    with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as scratch:
        bundle = _bundle(told, Path(scratch))
        features = FeatureState.load(bundle / "features")
        requests = requests_of(features, told.requests)
        starts = seconds_to_start([SERVICE, EMPTY_SERVICE], told.workers, Path(scratch), bundle, rounds=told.rounds)
        with serving(SERVICE, told.workers, Path(scratch), bundle) as ours:
            with serving(EMPTY_SERVICE, told.workers, Path(scratch), bundle) as empty:
                targets = [
                    rounds.Target("empty @bentoml.api", empty.port, [load.post("/api", b"{}")]),
                    rounds.Target("empty mounted route", empty.port, [load.post("/mounted", b"{}")]),
                    rounds.Target("POST /v1/recommend", ours.port, requests),
                ]
                measured = rounds.measured(targets, rounds=told.rounds, seconds=told.seconds, seed=told.seed)
            report = measured | _report(measured["rows"], told, features, ours)
            report |= zip(("start_s", "start_of_empty_route_s"), starts, strict=True)
    tell(report, told, _print)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Latency and rate of POST /v1/recommend.")
    parser.add_argument("--bundle", type=Path, help="the bundle to serve; default: a made one")
    parser.add_argument("--items", type=int, help="repeat the bundle's items up to this many")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each loop in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="distinct requests, one a user")
    parser.add_argument("--seed", type=int, default=7)
    add_output(parser)
    return parser.parse_args()


def _bundle(told: argparse.Namespace, scratch: Path) -> Path:
    source = told.bundle or made_bundle.make(scratch / "made", n_items=4000, n_users=4000, rows_a_user=60)
    return made_bundle.enlarge(source, scratch / "large", n_items=told.items) if told.items else source


def requests_of(features: FeatureState, n: int) -> list[bytes]:
    """One request a user, users spread evenly; default exploration and length."""
    codes = np.linspace(0, features.n_users - 1, min(n, features.n_users)).astype(int)
    users = features.user_ids.ids(codes.tolist())
    return [load.post("/v1/recommend", json.dumps({"user_id": user}).encode()) for user in users]


def _report(
    rows: list[dict[str, Any]], told: argparse.Namespace, features: FeatureState, ours: Started
) -> dict[str, Any]:
    rate = {row["what"]: row["closed_loop_per_s"] for row in rows}
    mine = rate["POST /v1/recommend"]
    return {
        "rows": rows,
        "share_of_empty_api": round(mine / rate["empty @bentoml.api"], 3),
        "share_of_empty_mounted": round(mine / rate["empty mounted route"], 3),
        "bundle": str(told.bundle or "made"),
        "n_items": features.n_items,
        "n_users": features.n_users,
        "workers": told.workers,
        "clients": load.CLIENTS,
        "rounds": told.rounds,
        "seed": told.seed,
        "memory_mb_per_worker": rounds.memory_of_workers(ours.pid, "VmRSS"),
        "private_memory_mb_per_worker": rounds.memory_of_workers(ours.pid, "RssAnon"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end",
    }


def _print(report: dict[str, Any]) -> None:
    title = f"{report['n_items']:,} items, {report['workers']} workers, {report['clients']} clients"
    console = Console()
    console.print(rounds.table(report["rows"], title=title))
    console.print({name: value for name, value in report.items() if name != "rows"})


if __name__ == "__main__":
    main()
