"""The shipped data through REST alone: trained, promoted, refused, forced, rolled back, while sixteen people shop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import champion
from pipelines.service_process import free_port
from pipelines.storage import read_json
from tests.e2e.airflow import RUN_SECONDS, Airflow, clone, started
from tests.e2e.server import Server, serving
from tests.e2e.shoppers import CLIENTS, WITHIN_S, Shoppers, all_serve, counted, shopping

pytestmark = [pytest.mark.exhaustive, pytest.mark.e2e, pytest.mark.timeout(4 * RUN_SECONDS)]

TWO_WEEKS_EARLIER = "2010-11-17T00:00:00Z"
"""The champion's judged bundle knows some of a holdout that ends there, so no verdict can let it pass."""
WORKERS = 2
A_WHILE_S = 2.0


def buyers(root: Path) -> list[str]:
    """Customers of the shipped data."""
    table = pq.read_table(root / "data" / "online_retail_ii" / "year1.parquet", columns=["Customer ID"])
    return sorted({str(one) for one in table["Customer ID"].to_pylist()})[:CLIENTS]


def run(airflow: Airflow, dag: str, **conf: object) -> dict[str, str]:
    """Trigger a DAG and wait; states of the tasks of a run that ended green."""
    state, tasks = airflow.ended(dag, airflow.trigger(dag, **conf))
    assert state == "success", tasks
    return tasks


def moved(server: Server, people: list[str], move: Callable[[], object], *, old: int, new: int) -> str:
    """Move the champion while people shop: in time in every worker and for everybody, and no request fails."""
    with shopping(server, users=people) as shoppers:
        time.sleep(A_WHILE_S)
        move()
        by_worker = all_serve(server, new, workers_wanted=WORKERS)
        time.sleep(A_WHILE_S)
    assert shoppers.failed == []
    assert {version for _, version in shoppers.seen} == {str(old), str(new)}
    by_shopper = last_answer(shoppers, old) - champion.pointer_file(server.home).stat().st_mtime
    assert max(by_worker, by_shopper) < WITHIN_S
    return (
        f"{old} to {new}: {by_worker:.2f} s in the last worker, {by_shopper:.2f} s for the last shopper, "
        f"{len(shoppers.seen)} requests, {len(shoppers.failed)} failed"
    )


def last_answer(shoppers: Shoppers, version: int) -> float:
    """When a version answered for the last time, by the wall clock."""
    ahead = time.time() - time.monotonic()
    return max(at for at, answered in shoppers.seen if answered == str(version)) + ahead


def test_the_shipped_data_are_trained_promoted_refused_and_rolled_back_by_rest_alone_under_traffic(
    root: Path, tmp_path: Path
) -> None:
    checkout, port, people = clone(root, tmp_path / "clone"), free_port(), buyers(root)
    with started(checkout, service=f"http://127.0.0.1:{port}") as airflow:

        def release(**conf: object) -> None:
            tasks = run(airflow, "fuseline_release", **conf)
            assert set(tasks.values()) == {"success"}, tasks

        with serving(checkout, until="/livez", workers=WORKERS, port=port) as server:
            train(airflow, server, people[0])
            back = {"action": "rollback", "reason": "it was better"}
            print(moved(server, people, lambda: release(**back), old=2, new=1))
            assert counted(server, "fuseline_bundle_refused_total") == 0
        with serving(checkout, workers=WORKERS, port=port) as server:
            assert server.post("/v1/recommend", {"user_id": people[0]})["model_version"] == "1"
            all_serve(server, 1, workers_wanted=WORKERS)
            again = {"action": "promote", "version": 2, "reason": "not in memory since the restart"}
            print(moved(server, people, lambda: release(**again), old=1, new=2))
    verdicts = [read_json(path)["verdict"] for path in (checkout / "var" / "runs" / "archive").glob("*/verdict.json")]
    assert (len(verdicts), verdicts.count("promote")) == (3, 1)


def train(airflow: Airflow, server: Server, somebody: str) -> None:
    """A first champion, a candidate that the gate does not let through, and the same by force."""
    since = time.monotonic()
    tasks = run(airflow, "fuseline_training")
    assert set(tasks.values()) == {"success"}, tasks
    print(f"trained and promoted in {time.monotonic() - since:.0f} s")
    all_serve(server, 1, workers_wanted=WORKERS)
    assert server.post("/v1/recommend", {"user_id": somebody, "explore": False})["fallback"] is None

    tasks = run(airflow, "fuseline_training", as_of=TWO_WEEKS_EARLIER)
    assert {name: state for name, state in tasks.items() if state != "success"} == {"promote": "skipped"}
    all_serve(server, 1, workers_wanted=WORKERS)

    tasks = run(airflow, "fuseline_training", as_of=TWO_WEEKS_EARLIER, force=True, reason="to go back from")
    assert set(tasks.values()) == {"success"}, tasks
    all_serve(server, 2, workers_wanted=WORKERS)
