"""Endpoints under load in alternating rounds: saturation, then latency at half of it.

The saturation rate is found first, in a closed loop of 32 clients; then latencies are measured in an open loop at
half of that rate, from the time a request was due (so waiting in the queue counts) to the last byte of its answer.
``took`` is the handler's own time as the answer states it. Rounds alternate between the endpoints; medians over the
rounds. Load generator and services share the machine; the generator's share of a core is stated.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import load, yardstick
from benchmarks.telling import say

SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""Percentiles that are stated of each latency."""


@dataclass(frozen=True)
class Target:
    """One endpoint under load; an iterator of requests is carried on from loop to loop, a sequence begins anew."""

    name: str
    port: int
    requests: Iterable[bytes]


def measured(targets: Sequence[Target], *, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    """``rows``: medians of each target; ``yardstick_ms_before_and_after``: how fast the machine was.

    Args:
        targets: in the order of the table.
        rounds: how often each is measured, in alternating order.
        seconds: of each of the two loops in each round; a short closed loop warms up before them.
        seed: of the arrival times.
    """
    found: dict[str, list[dict[str, float]]] = {target.name: [] for target in targets}
    before = yardstick.product_ms()
    for round_ in range(rounds):
        for target in targets if round_ % 2 == 0 else reversed(targets):
            say(f"{target.name}, round {round_ + 1} of {rounds}")
            found[target.name].append(_round(target, seconds=seconds, seed=seed + round_))
    rows = [{"what": name} | _medians(those) for name, those in found.items()]
    return {"rows": rows, "yardstick_ms_before_and_after": [before, yardstick.product_ms()]}


def _round(target: Target, *, seconds: float, seed: int) -> dict[str, float]:
    load.run(load.closed_loop(target.port, target.requests, seconds=min(2.0, seconds)))
    closed = load.run(load.closed_loop(target.port, target.requests, seconds=seconds))
    half = closed.rate / 2
    opened = load.run(load.open_loop(target.port, target.requests, rate=half, seconds=seconds, seed=seed))
    return {
        "closed_loop_per_s": closed.rate,
        "closed_generator_cpu": closed.generator_cpu,
        "open_loop_per_s": half,
        **{f"{name}_ms": opened.percentile(share) for name, share in SHARES.items()},
        **{f"took_{name}_ms": opened.percentile(share, took=True) for name, share in SHARES.items()},
        "open_generator_cpu": opened.generator_cpu,
        "errors": closed.errors + opened.errors,
    }


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """None for ``took`` of an endpoint that does not state it."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    return {name: None if math.isnan(value) else round(value, 3) for name, value in medians.items()}


def memory_of_workers(pid: int, kind: str) -> list[float]:
    """Megabytes of each worker of a service. ``VmRSS``: all resident pages; ``RssAnon``: without those of files.

    The bundle's pages are shared by the workers, and the system takes them back when it needs room.
    """
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            said = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(said.get("PPid", "0")) == pid and kind in said:
                found.append(round(int(said[kind].split()[0]) / 1024, 1))
    return found


def table(rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """The rows for people."""
    shown = Table(title=title)
    shares = "/".join(SHARES)
    for name in ("what", "closed/s", "generator", "open/s", f"ms {shares}", f"took {shares}"):
        shown.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        shown.add_row(
            row["what"],
            f"{row['closed_loop_per_s']:.0f}",
            f"{row['closed_generator_cpu']:.0%}",
            f"{row['open_loop_per_s']:.0f}",
            *(_milliseconds([row[f"{kind}{name}_ms"] for name in SHARES]) for kind in ("", "took_")),
        )
    return shown


def _milliseconds(times: Sequence[float | None]) -> str:
    return "/".join("-" if time is None else f"{time:.1f}" if time < 10 else f"{time:.0f}" for time in times)
