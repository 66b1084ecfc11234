"""The champion moves while people shop: no request fails, every worker follows, a restart remembers."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from benchmarks.made_bundle import AS_OF
from pipelines import champion
from pipelines.storage import read_json
from tests.e2e.releases import candidate, promoted, stored
from tests.e2e.server import serving
from tests.e2e.shoppers import PATIENCE_S, WITHIN_S, all_serve, counted, shopping, workers

pytestmark = pytest.mark.e2e


@pytest.mark.exhaustive
def test_from_before_the_first_promotion_to_a_rollback_no_request_fails_and_a_restart_remembers(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, until="/livez") as server:
        status, problem, _ = server.ask("POST", "/v1/recommend", {"user_id": "u001"})
        assert (status, problem["status"]) == (503, 503)
        assert "make demo" in problem["detail"]
        assert server.ask("GET", "/readyz")[0] == 503
        event = {"event_type": "purchase-complete", "event_time": "2011-01-01T00:00:00Z", "item_id": "i0001"}
        assert server.post("/v1/events", {**event, "user_id": "early"})["accepted"] == 1

        pointers = {version: stored(tmp_path, version) for version in (1, 2)}
        champion.write(tmp_path, pointers[1], record={})
        assert all_serve(server, 1) < PATIENCE_S
        assert server.ask("GET", "/readyz")[0] == 200
        with shopping(server) as shoppers:
            for version in (2, 1):
                champion.write(tmp_path, pointers[version], record={})
                assert all_serve(server, version) < PATIENCE_S
        assert shoppers.failed == []
        assert {version for _, version in shoppers.seen} == {"1", "2"}
        assert counted(server, "fuseline_bundle_swaps_total") == 2 * 3
        assert counted(server, "fuseline_bundle_as_of_timestamp_seconds") == AS_OF.timestamp()
    with serving(tmp_path, workers=2) as again:
        assert again.post("/v1/recommend", {"user_id": "u001"})["model_version"] == "1"
    ids = {str(version): read_json(one.bundle / "manifest.json")["id"] for version, one in pointers.items()}
    with sqlite3.connect(tmp_path / "var" / "events" / "events.db") as connection:
        shown = connection.execute("SELECT DISTINCT model_version, bundle_id FROM impressions").fetchall()
    assert sorted(shown) == sorted(ids.items())  # a request under way keeps the bundle it began with


@pytest.mark.exhaustive
@pytest.mark.timeout(1200)  # six processes that import MLflow, beside the shoppers
def test_promotion_command_and_http_move_the_champion_of_a_real_registry_under_traffic(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(home, workers=2, until="/livez") as server:
        first = promoted(home, candidate(tmp_path, seed=1, champion_id=None))
        assert all_serve(server, 1) < WITHIN_S
        with shopping(server) as shoppers:
            second = promoted(home, candidate(tmp_path, seed=2, champion_id=first.bundle_id))
            assert (second.version, second.previous) == (2, 1)
            assert all_serve(server, 2) < WITHIN_S
            for path, version in (("rollback", 1), ("2/promote", 2), ("rollback", 1)):
                thread = threading.Thread(target=server.post, args=(f"/v1/models/{path}", None))
                thread.start()
                assert all_serve(server, version) < WITHIN_S  # the pointer goes first: before the registry has answered
                thread.join()
        assert shoppers.failed == []
        assert {version for _, version in shoppers.seen} == {"1", "2"}
        assert counted(server, "fuseline_bundle_refused_total") == 0
        listed = {one["version"]: one["aliases"] for one in server.ask("GET", "/v1/models")[1]["models"]}
        assert listed == {1: ["champion"], 2: ["previous_champion"]}
        assert server.ask("POST", "/v1/models/9/promote")[0] == 409
    with serving(home, workers=2) as again:
        assert again.post("/v1/recommend", {"user_id": "u001"})["model_version"] == "1"


@pytest.mark.exhaustive
def test_damaged_champions_and_hasty_moves_leave_every_worker_with_the_last_good_one(tmp_path: Path) -> None:
    pointers = {version: stored(tmp_path, version) for version in (1, 2, 3)}
    champion.write(tmp_path, pointers[1], record={})
    with serving(tmp_path, workers=2) as server, shopping(server) as shoppers:
        (pointers[3].bundle / "members" / "popularity" / "scores.npy").write_bytes(b"damaged")
        champion.write(tmp_path, pointers[3], record={})
        deadline = time.monotonic() + 60
        while counted(server, "fuseline_bundle_refused_total") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert counted(server, "fuseline_bundle_refused_total") == 2
        assert set(workers(server).values()) == {"1"}
        assert "scores.npy is damaged" in (tmp_path / "service.log").read_text()
        for version in (1, 2, 1, 2, 1, 2):
            champion.write(tmp_path, pointers[version], record={})
            time.sleep(0.1)
        assert all_serve(server, 2) < PATIENCE_S
        shutil.rmtree(pointers[1].bundle)
        champion.write(tmp_path, pointers[1], record={})
        time.sleep(2)
        assert shoppers.failed == []
        assert {version for _, version in shoppers.seen} <= {"1", "2"}
