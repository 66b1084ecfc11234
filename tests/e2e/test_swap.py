"""The champion moves while people shop: no request fails, every worker follows, a restart remembers."""

from __future__ import annotations

import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.made_bundle import AS_OF, make, write_manifest
from pipelines import champion
from pipelines.actions.promote import PromotionResult, promote
from pipelines.champion import Pointer
from pipelines.storage import read_json, write_json
from tests.e2e.server import Server, serving

pytestmark = pytest.mark.e2e

WITHIN_S = 5.0
CLIENTS = 16
PAUSE_S = 0.05
"""Between two requests of a client: traffic, not a measurement of the machine."""


def candidate(root: Path, *, seed: int, champion_id: str | None) -> Path:
    """Artifacts of a finished run whose verdict is to promote."""
    artifacts = root / f"run-{seed}" / "artifacts"
    judged = read_json(make(artifacts / "judged", seed=seed) / "manifest.json")
    served = make(artifacts / "bundle", seed=seed + 100)
    about = {k: v for k, v in read_json(served / "manifest.json").items() if k not in {"id", "files", "parent"}}
    write_manifest(served, {**about, "parent": judged["id"]})
    write_json(artifacts / "evaluation" / "metrics.json", {"recommend": {"fused": {"ndcg@10": {"mean": 0.4}}}})
    verdict = {"verdict": "promote", "mode": "first", "reasons": [], "champion": champion_id}
    bundle_id = read_json(served / "manifest.json")["id"]
    write_json(artifacts / "gate" / "verdict.json", {**verdict, "candidate": bundle_id})
    return artifacts


def promoted(home: Path, artifacts: Path) -> PromotionResult:
    """A promotion with the real registry; packaging is tested elsewhere and costs seconds."""
    return promote(home=home, artifacts=artifacts, package=lambda *_: "fuseline:none", keep=5)


@dataclass
class Shoppers:
    """Clients who ask for lists again and again, each answer's version kept with its time."""

    server: Server
    seen: list[tuple[float, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def shop(self, number: int) -> None:
        while not self.stop.is_set():
            try:
                status, answer, _ = self.server.ask("POST", "/v1/recommend", {"user_id": f"u{number:03d}"})
            except OSError as error:
                self.failed.append(repr(error))
                continue
            time.sleep(PAUSE_S)
            if status == 200:
                self.seen.append((time.monotonic(), answer["model_version"]))
            else:
                self.failed.append(f"{status} {answer}")


@contextmanager
def shopping(server: Server) -> Iterator[Shoppers]:
    shoppers = Shoppers(server)
    threads = [threading.Thread(target=shoppers.shop, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield shoppers
    finally:
        shoppers.stop.set()
        for thread in threads:
            thread.join(timeout=30)


def workers(server: Server) -> dict[str, str]:
    """Version by the process that serves it, as ``/metrics`` has it."""
    lines = re.findall(r"^fuseline_bundle_info\{(.*)\} 1\.0$", server.ask("GET", "/metrics")[1], re.MULTILINE)
    labels = [dict(re.findall(r'(\w+)="([^"]*)"', line)) for line in lines]
    return {one["pid"]: one["version"] for one in labels}


def counted(server: Server, name: str) -> float:
    found = re.findall(rf"^{name} (\S+)$", server.ask("GET", "/metrics")[1], re.MULTILINE)
    return float(found[0]) if found else 0.0


def all_serve(server: Server, version: int, *, workers_wanted: int = 2) -> float:
    """Seconds until every worker serves a version."""
    started = time.monotonic()
    while time.monotonic() < started + 30:
        found = workers(server)
        if len(found) == workers_wanted and set(found.values()) == {str(version)}:
            return time.monotonic() - started
        time.sleep(0.05)
    raise AssertionError(f"not every worker serves version {version}: {workers(server)}")


def stored(home: Path, version: int) -> Pointer:
    bundle = make(home / "var" / "bundles" / f"b{version}" / "bundle", seed=version)
    return Pointer(version, bundle, None, f"b{version}", None, "r")


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
        assert all_serve(server, 1) < WITHIN_S
        assert server.ask("GET", "/readyz")[0] == 200
        with shopping(server) as shoppers:
            for version in (2, 1):
                champion.write(tmp_path, pointers[version], record={})
                assert all_serve(server, version) < WITHIN_S
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
                all_serve(server, version)  # the pointer goes first: before the registry has answered
                thread.join()
        assert shoppers.failed == []
        assert {version for _, version in shoppers.seen} == {"1", "2"}
        assert counted(server, "fuseline_bundle_refused_total") == 0
        listed = {one["version"]: one["aliases"] for one in server.ask("GET", "/v1/models")[1]["models"]}
        assert listed == {1: ["champion"], 2: ["previous_champion"]}
        assert server.ask("POST", "/v1/models/9/promote")[0] == 409
    with serving(home, workers=2) as again:
        assert again.post("/v1/recommend", {"user_id": "u001"})["model_version"] == "1"


def test_damaged_champions_and_hasty_moves_leave_every_worker_with_the_last_good_one(tmp_path: Path) -> None:
    pointers = {version: stored(tmp_path, version) for version in (1, 2, 3)}
    champion.write(tmp_path, pointers[1], record={})
    with serving(tmp_path, workers=2) as server, shopping(server) as shoppers:
        (pointers[3].bundle / "members" / "popularity" / "scores.npy").write_bytes(b"damaged")
        champion.write(tmp_path, pointers[3], record={})
        deadline = time.monotonic() + 15
        while counted(server, "fuseline_bundle_refused_total") < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert counted(server, "fuseline_bundle_refused_total") == 2
        assert set(workers(server).values()) == {"1"}
        assert "scores.npy is damaged" in (tmp_path / "service.log").read_text()
        for version in (1, 2, 1, 2, 1, 2):
            champion.write(tmp_path, pointers[version], record={})
            time.sleep(0.1)
        assert all_serve(server, 2) < WITHIN_S
        shutil.rmtree(pointers[1].bundle)
        champion.write(tmp_path, pointers[1], record={})
        time.sleep(2)
        assert shoppers.failed == []
        assert {version for _, version in shoppers.seen} <= {"1", "2"}
