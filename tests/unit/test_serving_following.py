"""A worker follows the champion's pointer: when it loads, when it swaps, what it refuses."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.made_bundle import make
from pipelines import champion
from pipelines.champion import Pointer
from serving import following
from serving.bundle_choice import BundleChoice
from serving.following import RETRY_S, Follower
from serving.runtime import Runtime, Served, load


@dataclass
class Told:
    events: list[str] = field(default_factory=list)

    def swapped(self, served: Served) -> None:
        self.events.append(f"swapped {served.version}")

    def refused(self) -> None:
        self.events.append("refused")


@dataclass
class World:
    home: Path
    runtime: Runtime
    told: Told = field(default_factory=Told)
    loaded: list[str] = field(default_factory=list)
    now: float = 0.0
    during_load: Callable[[], None] = lambda: None

    def store(self, version: int) -> Path:
        return make(self.home / "var" / "bundles" / f"b{version}" / "bundle", seed=version)

    def point(self, version: int) -> None:
        bundle = self.home / "var" / "bundles" / f"b{version}" / "bundle"
        pointer = Pointer(version, bundle, None, f"b{version}", None, "r")
        champion.write(self.home, pointer, record={})

    def follower(self) -> Follower:
        def recorded(choice: BundleChoice, **options: Any) -> Served:
            self.loaded.append(str(choice.version))
            self.during_load()
            return load(choice, **options)

        environ = {"FUSELINE_HOME": str(self.home)}
        return Follower(self.runtime, environ, watcher=self.told, load=recorded, clock=lambda: self.now)

    @property
    def serves(self) -> str | None:
        return self.runtime.served.version if self.runtime.served else None


@pytest.fixture
def world(tmp_path: Path) -> World:
    runtime = Runtime(store=None, keys=None, replay=False, served=None, failure="nothing yet")  # type: ignore[arg-type]
    made = World(tmp_path, runtime)
    for version in (1, 2, 3):
        made.store(version)
    return made


def test_before_the_first_promotion_it_waits_and_then_serves_it(world: World) -> None:
    follower = world.follower()
    follower.look()
    assert (world.serves, world.loaded) == (None, [])
    world.point(1)
    follower.look()
    assert (world.serves, world.runtime.failure, world.told.events) == ("1", None, ["swapped 1"])


def test_a_pointer_that_did_not_move_costs_no_load(world: World) -> None:
    follower = world.follower()
    world.point(1)
    for _ in range(5):
        follower.look()
    world.point(1)
    follower.look()
    assert world.loaded == ["1"]


def test_a_rollback_takes_the_bundle_that_is_still_in_memory(world: World) -> None:
    follower = world.follower()
    for version in (1, 2):
        world.point(version)
        follower.look()
    first = world.runtime.previous
    world.point(1)
    follower.look()
    assert world.runtime.served is first
    assert world.loaded == ["1", "2"]
    world.point(2)
    follower.look()
    assert (world.serves, world.loaded) == ("2", ["1", "2"])


def test_only_one_previous_bundle_is_kept(world: World) -> None:
    follower = world.follower()
    for version in (1, 2, 3):
        world.point(version)
        follower.look()
    assert world.runtime.previous is not None
    assert (world.serves, world.runtime.previous.version) == ("3", "2")


def test_a_damaged_bundle_is_refused_once_and_tried_again_later(world: World, caplog: pytest.LogCaptureFixture) -> None:
    follower = world.follower()
    world.point(1)
    follower.look()
    scores = world.home / "var/bundles/b2/bundle/members/popularity/scores.npy"
    whole = scores.read_bytes()
    scores.write_bytes(whole[:-1] + b"x")
    world.point(2)
    for _ in range(3):
        follower.look()
    assert (world.serves, world.loaded, world.told.events) == ("1", ["1"], ["swapped 1", "refused"])
    assert "scores.npy is damaged" in caplog.text
    assert "version 1 goes on serving" in caplog.text
    scores.write_bytes(whole)
    world.now += RETRY_S
    follower.look()
    assert world.serves == "2"


def test_a_bundle_that_cannot_answer_is_refused(world: World) -> None:
    follower = world.follower()
    world.point(1)
    follower.look()
    manifest = world.home / "var/bundles/b2/bundle/manifest.json"
    manifest.write_text(manifest.read_text().replace('"fuser": "weighted"', '"fuser": "of a later release"'))
    world.point(2)
    follower.look()
    assert (world.serves, world.told.events[-1]) == ("1", "refused")


def test_a_damaged_pointer_is_refused_and_a_good_one_after_it_followed(world: World) -> None:
    follower = world.follower()
    world.point(1)
    follower.look()
    champion.pointer_file(world.home).write_text("{")
    follower.look()
    assert (world.serves, world.told.events[-1]) == ("1", "refused")
    world.point(2)
    follower.look()
    assert world.serves == "2"


def test_a_pointer_that_moves_during_a_load_is_followed_to_where_it_points_then(world: World) -> None:
    follower = world.follower()
    world.point(1)
    follower.look()
    world.point(2)
    world.during_load = lambda: world.point(3)
    follower.look()
    assert world.serves == "1"
    world.during_load = lambda: None
    follower.look()
    assert (world.serves, world.told.events) == ("3", ["swapped 1", "swapped 3"])


def test_a_rollback_during_a_load_leaves_what_serves(world: World) -> None:
    follower = world.follower()
    world.point(1)
    follower.look()
    world.point(2)
    world.during_load = lambda: world.point(1)
    follower.look()
    follower.look()
    assert (world.serves, world.told.events) == ("1", ["swapped 1"])


def test_a_bundle_removed_because_the_pointer_moved_on_is_no_refusal(world: World) -> None:
    follower = world.follower()
    world.point(1)
    follower.look()

    def gone() -> None:
        world.point(3)
        (world.home / "var/bundles/b2/bundle/manifest.json").unlink()

    world.point(2)
    world.during_load = gone
    follower.look()
    world.during_load = lambda: None
    follower.look()
    assert (world.serves, world.told.events) == ("3", ["swapped 1", "swapped 3"])


def test_one_worker_hashes_for_all_and_each_loads(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(following.bundle_choice, "verify", lambda choice: hashed.append(choice.version))
    world.point(1)
    for _ in range(2):
        world.runtime.served = None
        world.follower().look()
    assert (hashed, world.loaded) == (["1"], ["1", "1"])


def test_a_worker_whose_turn_does_not_come_loads_all_the_same(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "TURN_S", 0.1)
    world.point(1)
    with (champion.folder(world.home) / ".loading").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        world.follower().look()
    assert world.serves == "1"


def test_a_stopped_follower_puts_nothing_into_service_any_more(world: World) -> None:
    follower = world.follower()
    loading, go_on = threading.Event(), threading.Event()

    def waits() -> None:
        loading.set()
        go_on.wait(10)

    world.during_load = waits
    world.point(1)
    follower.start()
    assert loading.wait(10)
    follower.close()
    go_on.set()
    follower._thread.join(10)
    assert world.serves is None


def test_a_bundle_that_is_being_loaded_cannot_be_removed(world: World) -> None:
    from pipelines.storage import remove_unless_held

    folder = world.home / "var" / "bundles" / "b1"
    removed: list[bool] = []
    world.during_load = lambda: removed.append(remove_unless_held(folder))
    world.point(1)
    world.follower().look()
    assert removed == [False]
    assert remove_unless_held(folder)
    assert not folder.exists()
    assert not list(folder.parent.glob(".*"))
