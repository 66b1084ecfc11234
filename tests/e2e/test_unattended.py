"""The loop runs by itself: by the clock it collects, trains, judges, promotes, and the running service follows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.actions.runs.places import archived
from tests.e2e import real_days
from tests.e2e.airflow import RUN_SECONDS, clone, started
from tests.e2e.server import Server, serving

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(4 * RUN_SECONDS)]

TEN_MINUTES = "*/10 * * * *"
PERIOD = real_days.NOVEMBER
"""Two weeks whose candidates both pass the gate: a rejected one would be waited for in vain."""


def another_version(service: Server, checkout: Path, than: str | None) -> str:
    """Wait until the service answers with another version; a run that ends without one is not waited for."""
    until = time.monotonic() + RUN_SECONDS
    while (found := real_days.version(service, PERIOD)) in {than, None}:
        assert time.monotonic() < until, f"still {than}"
        for run in archived(checkout):
            assert run["outcome"]["promoted"], run["outcome"]["reason"]
        time.sleep(1)
    return str(found)


def ended(checkout: Path, runs: int) -> list[dict[str, Any]]:
    """Wait until so many runs are archived: the service follows a promotion before its run has come to its end."""
    until = time.monotonic() + RUN_SECONDS
    while len(found := archived(checkout)) < runs:
        assert time.monotonic() < until, f"{len(found)} runs of {runs} came to their end"
        time.sleep(1)
    return found


def events_read(run: dict[str, dict[str, int]]) -> int:
    return sum(rows for path, rows in run["rows"].items() if Path(path).name.startswith("events"))


def test_by_the_clock_alone_two_weeks_of_customers_become_two_new_versions(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    checkout = clone(root, tmp_path / "clone")
    log = real_days.lay(root, checkout, tmp_path, PERIOD)
    with (
        serving(checkout, until="/livez", FUSELINE_REPLAY="1") as service,
        started(checkout, TRAINING=TEN_MINUTES, FEEDBACK=TEN_MINUTES),
    ):
        served = [another_version(service, checkout, None)]
        for week in real_days.weeks(PERIOD):
            assert real_days.play(service, log.orders, week) > 100
            served.append(another_version(service, checkout, served[-1]))
        runs = ended(checkout, len(served))
    assert served == ["1", "2", "3"]
    assert all(run["outcome"]["promoted"] for run in runs[:3])
    assert 0 == events_read(runs[0]) < events_read(runs[1]) < events_read(runs[2])
    decisions = [json.loads(line) for line in (checkout / "var" / "runs" / "decisions.jsonl").read_text().splitlines()]
    assert sum(one["train"] for one in decisions) == len(runs)
