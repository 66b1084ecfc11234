"""How fast ``POST /v1/recommend`` is, beside an empty BentoML endpoint in the same run.

``python -m benchmarks.recommend_latency --bundle artifacts/bundle --items 100000``

Method: every service runs with the same number of workers. The saturation rate is found first, in a closed
loop of 32 clients; then latencies are measured in an open loop at half of that rate, from the time a
request was due (so waiting in the queue counts) to the last byte of its answer. ``took`` is the handler's
own time as the answer states it. Rounds alternate between the services; medians over the rounds. Load
generator and services share the machine; the generator's share of a core is stated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import load, made_bundle
from benchmarks.started import serving
from pipelines.features.state import FeatureState
from pipelines.service_process import Started
from pipelines.storage import write_json


@dataclass(frozen=True)
class Target:
    """One endpoint under load."""

    name: str
    port: int
    requests: Sequence[bytes]


def main() -> None:
    """Measure and print."""
    told = _arguments()
    with tempfile.TemporaryDirectory(prefix="fuseline-bench-") as scratch:
        bundle = _bundle(told, Path(scratch))
        features = FeatureState.load(bundle / "features")
        requests = requests_of(features, told.requests)
        with serving("serving.service:Fuseline", told.workers, Path(scratch), bundle) as ours:
            with serving("benchmarks.empty_service:Empty", told.workers, Path(scratch), bundle) as empty:
                targets = [
                    Target("empty @bentoml.api", empty.port, [load.post("/api", b"{}")]),
                    Target("empty mounted route", empty.port, [load.post("/mounted", b"{}")]),
                    Target("POST /v1/recommend", ours.port, requests),
                ]
                rows = _measured(targets, told)
            report = _report(rows, told, features, ours)
    _print(report, as_json=told.json)
    if told.out:
        write_json(told.out, report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Latency and rate of POST /v1/recommend.")
    parser.add_argument("--bundle", type=Path, help="the bundle to serve; default: a made one")
    parser.add_argument("--items", type=int, help="repeat the bundle's items up to this many")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each loop in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="distinct requests, one a user")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, help="write JSON here too")
    return parser.parse_args()


def _bundle(told: argparse.Namespace, scratch: Path) -> Path:
    source = told.bundle or made_bundle.make(scratch / "made", n_items=4000, n_users=4000, rows_a_user=60)
    return made_bundle.enlarge(source, scratch / "large", n_items=told.items) if told.items else source


def requests_of(features: FeatureState, n: int) -> list[bytes]:
    """One request a user, users spread evenly; default exploration and length."""
    codes = np.linspace(0, features.n_users - 1, min(n, features.n_users)).astype(int)
    users = features.user_ids.ids(codes.tolist())
    return [load.post("/v1/recommend", json.dumps({"user_id": user}).encode()) for user in users]


def _measured(targets: Sequence[Target], told: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds over the targets, each: warm up, saturate, then half the rate."""
    found: dict[str, list[dict[str, float]]] = {target.name: [] for target in targets}
    for round_ in range(told.rounds):
        for target in targets if round_ % 2 == 0 else reversed(targets):
            found[target.name].append(_round(target, told, seed=told.seed + round_))
    return [{"what": name} | _medians(rounds) for name, rounds in found.items()]


def _round(target: Target, told: argparse.Namespace, *, seed: int) -> dict[str, float]:
    load.run(load.closed_loop(target.port, target.requests, seconds=min(2.0, told.seconds)))
    closed = load.run(load.closed_loop(target.port, target.requests, seconds=told.seconds))
    half = closed.rate / 2
    opened = load.run(load.open_loop(target.port, target.requests, rate=half, seconds=told.seconds, seed=seed))
    return {
        "closed_loop_per_s": closed.rate,
        "closed_generator_cpu": closed.generator_cpu,
        "open_loop_per_s": half,
        "p50_ms": opened.percentile(0.50),
        "p99_ms": opened.percentile(0.99),
        "took_p50_ms": opened.percentile(0.50, took=True),
        "took_p99_ms": opened.percentile(0.99, took=True),
        "open_generator_cpu": opened.generator_cpu,
        "errors": closed.errors + opened.errors,
    }


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """None for ``took`` of an endpoint that does not state it."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return {name: None if math.isnan(value) else round(value, 3) for name, value in medians.items()}


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
        "start_s": round(ours.start_s, 2),
        "memory_mb_per_worker": _memory(ours.pid, "VmRSS"),
        "private_memory_mb_per_worker": _memory(ours.pid, "RssAnon"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end",
    }


def _memory(pid: int, kind: str) -> list[float]:
    """Megabytes of each worker. ``VmRSS``: all resident pages; ``RssAnon``: without pages of the bundle's files.

    The bundle's pages are shared by the workers, and the system takes them back when it needs room.
    """
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            said = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(said.get("PPid", "0")) == pid and kind in said:
                found.append(round(int(said[kind].split()[0]) / 1024, 1))
    return found


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    table = Table(title=f"{report['n_items']:,} items, {report['workers']} workers, {report['clients']} clients")
    for name in ("what", "closed/s", "generator", "open/s", "p50 ms", "p99 ms", "took p50", "took p99"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in report["rows"]:
        table.add_row(
            row["what"],
            f"{row['closed_loop_per_s']:.0f}",
            f"{row['closed_generator_cpu']:.0%}",
            f"{row['open_loop_per_s']:.0f}",
            *(
                "-" if row[name] is None else f"{row[name]:.2f}"
                for name in ("p50_ms", "p99_ms", "took_p50_ms", "took_p99_ms")
            ),
        )
    console = Console()
    console.print(table)
    console.print({name: value for name, value in report.items() if name != "rows"})


if __name__ == "__main__":
    main()
