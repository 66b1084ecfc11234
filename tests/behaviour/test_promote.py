"""Promotion and rollback as actions: what they refuse, what survives a kill, what two at once do."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines import champion
from pipelines.actions import promote as promoting
from pipelines.actions import rollback as rolling
from pipelines.actions.promote import PromotionResult, promote
from pipelines.actions.rollback import rollback
from pipelines.adapters.tracking import RunRecord, Version
from pipelines.errors import ArtifactError, PromotionRefused
from pipelines.storage import file_sha256, held, value_sha256, write_json


class Killed(BaseException):
    """Stands for ``kill -9``: nothing catches it."""


class MemoryRegistry:
    """The registry's behaviour without MLflow; the adapter itself is tested in ``test_tracking``."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, str]]] = []
        self.alias: dict[str, int] = {}
        self.runs: dict[str, RunRecord] = {}

    def record(self, run: RunRecord) -> str:
        self.runs[run.bundle_id] = run
        return f"run-{run.bundle_id}"

    def register(self, bundle: Path, run_id: str, *, bundle_id: str, tags: Mapping[str, str]) -> int:
        known = [one for one, _ in self.made]
        if bundle_id not in known:
            self.made.append((bundle_id, dict(tags)))
            return len(self.made)
        self.made[known.index(bundle_id)][1].update(tags)
        return known.index(bundle_id) + 1

    def version(self, number: int) -> Version:
        if not 0 < number <= len(self.made):
            raise PromotionRefused(f"there is no version {number}")
        bundle_id, tags = self.made[number - 1]
        return Version(number, (), tags | {"fuseline.bundle_id": bundle_id}, None)

    def aliases(self) -> dict[str, int]:
        return dict(self.alias)

    def point(self, aliases: Mapping[str, int | None]) -> None:
        for name, version in aliases.items():
            self.alias.pop(name, None)
            if version is not None:
                self.alias[name] = version


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    made = MemoryRegistry()
    for module in (promoting, rolling):
        monkeypatch.setattr(module.Registry, "open", classmethod(lambda *_: made))
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def bundle(folder: Path, content: str, **about: Any) -> dict[str, Any]:
    folder.mkdir(parents=True)
    (folder / "weights.txt").write_text(content)
    manifest: dict[str, Any] = {"as_of": "2010-12-01T00:00:00+00:00", "recipe": {"id": "r1"}, "data": {}, **about}
    manifest["files"] = {"weights.txt": file_sha256(folder / "weights.txt")}
    manifest["id"] = value_sha256(manifest)[:16]
    write_json(folder / "manifest.json", manifest)
    return manifest


def run(root: Path, name: str, *, verdict: str = "promote", champion_id: str | None = None) -> Path:
    """Artifacts of a finished run."""
    artifacts = root / name / "artifacts"
    judged = bundle(artifacts / "judged", f"judged {name}")
    served = bundle(artifacts / "bundle", f"served {name}", parent=judged["id"])
    write_json(artifacts / "evaluation" / "metrics.json", {"recommend": {"fused": {"ndcg@10": {"mean": 0.4}}}})
    about = {
        "bundle_sha256": file_sha256(artifacts / "bundle" / "manifest.json"),
        "judged_sha256": file_sha256(artifacts / "judged" / "manifest.json"),
    }
    reasons = [{"check": "superior", "passed": verdict == "promote", "observed": 0.1, "required": "above 0"}]
    write_json(
        artifacts / "gate" / "verdict.json",
        {
            "verdict": verdict,
            "mode": "first",
            "reasons": reasons,
            "candidate": served["id"],
            "champion": champion_id,
            "about": {"candidate": about},
        },
    )
    return artifacts


def packaged(bundle_folder: Path, version: int, home: Path) -> str:
    assert (bundle_folder / "manifest.json").exists()
    return f"fuseline:{version}"


def do(home: Path, artifacts: Path, **options: Any) -> PromotionResult:
    return promote(home=home, artifacts=artifacts, package=packaged, **options)


def serving(home: Path) -> str | None:
    now = champion.read(home)
    if now is None:
        return None
    return (now.bundle / "weights.txt").read_text()


def test_the_first_champion_serves_after_promotion(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    done = do(home, run(tmp_path, "a"))
    assert (done.version, done.changed, done.previous, done.bento) == (1, True, None, "fuseline:1")
    assert serving(home) == "served a"
    assert registry.alias == {"champion": 1}
    assert registry.made[0][1]["verdict"] == "promote"


def test_promoting_the_champion_again_changes_nothing_and_says_so(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    artifacts = run(tmp_path, "a")
    do(home, artifacts)
    before = (champion.folder(home) / "history.jsonl").read_text()
    assert do(home, artifacts).changed is False
    assert (champion.folder(home) / "history.jsonl").read_text() == before
    assert len(registry.made) == 1


@pytest.mark.parametrize("verdict", ["reject", "not_enough_evidence"])
def test_any_verdict_but_promote_is_refused_and_nothing_is_left(
    home: Path, tmp_path: Path, registry: MemoryRegistry, verdict: str
) -> None:
    with pytest.raises(
        PromotionRefused, match=rf"is {verdict}; found: superior; wanted: promote; next: .*--force"
    ) as told:
        do(home, run(tmp_path, "a", verdict=verdict))
    assert told.value.exit_code == 6
    assert serving(home) is None
    assert registry.made == []


def test_an_override_needs_a_reason_and_is_recorded(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    artifacts = run(tmp_path, "a", verdict="reject")
    with pytest.raises(PromotionRefused, match="must say why"):
        do(home, artifacts, force=True, reason=" ")
    assert do(home, artifacts, force=True, reason="the old one offends").forced
    assert registry.made[0][1]["forced_reason"] == "the old one offends"
    last = json.loads((champion.folder(home) / "history.jsonl").read_text().splitlines()[-1])
    assert (last["forced"], last["reason"], last["verdict"]) == (True, "the old one offends", "reject")


def test_a_verdict_on_another_bundle_is_refused_even_with_force(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    artifacts, other = run(tmp_path, "a"), run(tmp_path, "b")
    (artifacts / "gate" / "verdict.json").write_bytes((other / "gate" / "verdict.json").read_bytes())
    for options in ({}, {"force": True, "reason": "hurry"}):
        with pytest.raises(PromotionRefused, match="not the bundle that the verdict speaks of"):
            do(home, artifacts, **options)


def test_a_bundle_made_again_with_other_content_is_refused(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    artifacts = run(tmp_path, "a")
    manifest = json.loads((artifacts / "bundle" / "manifest.json").read_text())
    (artifacts / "bundle" / "weights.txt").write_text("other")
    manifest["files"]["weights.txt"] = file_sha256(artifacts / "bundle" / "weights.txt")
    write_json(artifacts / "bundle" / "manifest.json", manifest)
    with pytest.raises(PromotionRefused, match="not the bundle that the verdict speaks of"):
        do(home, artifacts)


def test_a_damaged_bundle_is_refused_and_the_file_is_named(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    artifacts = run(tmp_path, "a")
    (artifacts / "bundle" / "weights.txt").write_text("damaged")
    with pytest.raises(ArtifactError, match=r"weights\.txt is damaged"):
        do(home, artifacts)


def test_a_bundle_without_a_judged_parent_is_refused(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    artifacts = tmp_path / "a" / "artifacts"
    run(tmp_path, "a")
    manifest = json.loads((artifacts / "bundle" / "manifest.json").read_text()) | {"parent": None}
    write_json(artifacts / "bundle" / "manifest.json", manifest)
    with pytest.raises(PromotionRefused, match="was never judged"):
        do(home, artifacts, force=True, reason="hurry")


def test_a_champion_that_changed_since_the_verdict_is_refused(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    late = run(tmp_path, "b")
    do(home, run(tmp_path, "a"))
    with pytest.raises(PromotionRefused, match=r"no longer the one.*wanted: none; next: run `dvc repro"):
        do(home, late)
    assert serving(home) == "served a"


KILLS = ("before", "after")
STEPS = ["store", "record", "register", "challenger", "package", "settle", "write"]


@pytest.mark.parametrize("moment", [f"{when} {step}" for step in STEPS for when in KILLS])
def test_a_kill_at_any_step_leaves_a_whole_champion_and_the_next_try_ends_alike(
    moment: str, home: Path, tmp_path: Path, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    when, step = moment.split()
    after = when == "after"
    do(home, run(tmp_path, "old"))
    old = champion.read(home)
    assert old is not None
    new = run(tmp_path, "new", champion_id=old.bundle_id)
    places: dict[str, tuple[Any, str]] = {
        "store": (promoting, "store"),
        "record": (registry, "record"),
        "register": (registry, "register"),
        "challenger": (registry, "point"),
        "settle": (promoting, "_settle"),
        "write": (champion, "write"),
    }
    options: dict[str, Any] = {"package": packaged}
    with monkeypatch.context() as patch:
        if step == "package":
            options["package"] = killed(packaged, after=after)
        else:
            owner, name = places[step]
            patch.setattr(owner, name, killed(getattr(owner, name), after=after))
        with pytest.raises(Killed):
            promote(home=home, artifacts=new, **options)
    done = step == "write" and after
    assert serving(home) == ("served new" if done else "served old")
    again = do(home, new)
    assert (again.version, again.previous, again.changed) == (2, 1, not done)
    assert serving(home) == "served new"
    assert registry.alias == {"champion": 2, "previous_champion": 1}
    assert [name for name, _ in registry.made] == [old.bundle_id, again.bundle_id]


def killed(step: Any, *, after: bool) -> Any:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if after:
            step(*arguments, **options)
        raise Killed

    return wrapped


def test_a_half_copied_bundle_is_copied_again(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    artifacts = run(tmp_path, "a")
    found = json.loads((artifacts / "bundle" / "manifest.json").read_text())
    half = home / "var" / "bundles" / found["id"] / "bundle"
    half.mkdir(parents=True)
    (half / "weights.txt").write_text("ha")
    do(home, artifacts)
    assert serving(home) == "served a"


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    runs = [run(tmp_path, name) for name in ("a", "b")]
    outcomes: list[str] = []

    def attempt(artifacts: Path) -> None:
        try:
            outcomes.append(f"version {do(home, artifacts).version}")
        except PromotionRefused as error:
            outcomes.append("refused" if "no longer" in str(error) else str(error))

    threads = [threading.Thread(target=attempt, args=(one,)) for one in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(outcomes) == ["refused", "version 1"]
    assert len(registry.made) == 1
    assert registry.alias == {"champion": 1}


def test_the_same_run_promoted_twice_at_once_becomes_one_version(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    artifacts = run(tmp_path, "a")
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(do(home, artifacts).changed)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(results) == [False, False, True]
    assert len(registry.made) == 1


def test_what_serves_does_not_change_with_the_artifacts(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    artifacts = run(tmp_path, "a")
    do(home, artifacts)
    with (artifacts / "bundle" / "weights.txt").open("a") as stream:
        stream.write("edited")
    assert serving(home) == "served a"


def two_champions(home: Path, root: Path) -> None:
    first = do(home, run(root, "a"))
    do(home, run(root, "b", champion_id=first.bundle_id))


def test_a_rollback_brings_the_previous_champion_back_and_a_second_undoes_it(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    two_champions(home, tmp_path)
    assert rollback(home=home, reason="complaints").version == 1
    assert serving(home) == "served a"
    assert registry.alias == {"champion": 1, "previous_champion": 2}
    assert rollback(home=home).version == 2
    assert serving(home) == "served b"
    actions = [json.loads(line) for line in (champion.folder(home) / "history.jsonl").read_text().splitlines()]
    assert [one["action"] for one in actions] == ["promote", "promote", "rollback", "rollback"]
    assert actions[2]["reason"] == "complaints"


@pytest.mark.parametrize("moment", [f"{when} {step}" for step in ("intend", "write", "registry") for when in KILLS])
def test_a_rollback_killed_at_any_step_is_finished_by_the_same_command(
    moment: str, home: Path, tmp_path: Path, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_champions(home, tmp_path)
    when, step = moment.split()
    owner, name = (registry, "point") if step == "registry" else (champion, step)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed(getattr(owner, name), after=when == "after"))
        with pytest.raises(Killed):
            rollback(home=home)
    moved = step == "registry" or moment == "after write"
    assert serving(home) == ("served a" if moved else "served b")
    assert rollback(home=home).version == 1
    assert serving(home) == "served a"
    assert registry.alias == {"champion": 1, "previous_champion": 2}
    assert rollback(home=home).version == 2


def test_a_rollback_serves_although_the_registry_is_away_and_tells_it_later(
    home: Path, tmp_path: Path, registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_champions(home, tmp_path)

    def away(*_: Any) -> None:
        raise ConnectionError("no route to the registry")

    with monkeypatch.context() as patch:
        patch.setattr(registry, "point", away)
        with pytest.raises(ArtifactError, match=r"version 1 serves now, but the registry could not be told.*no route"):
            rollback(home=home)
    assert (serving(home), registry.alias["champion"]) == ("served a", 2)
    assert rollback(home=home).version == 1
    assert registry.alias == {"champion": 1, "previous_champion": 2}


def test_a_rollback_to_a_given_version(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    two_champions(home, tmp_path)
    assert rollback(home=home, version=1).bundle.name == "bundle"
    assert rollback(home=home, version=1).version == 1
    with pytest.raises(PromotionRefused, match="no version 9"):
        rollback(home=home, version=9)


def test_without_anything_before_it_a_rollback_says_what_to_do(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    with pytest.raises(PromotionRefused, match="no champion to roll back"):
        rollback(home=home)
    do(home, run(tmp_path, "a"))
    with pytest.raises(PromotionRefused, match=r"version 1 has none before it; next: name one with --version"):
        rollback(home=home)


def test_a_damaged_stored_bundle_is_never_rolled_back_to(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    two_champions(home, tmp_path)
    stored = home / "var" / "bundles" / registry.made[0][0] / "bundle" / "weights.txt"
    stored.write_text("damaged")
    with pytest.raises(ArtifactError, match=r"weights\.txt is damaged"):
        rollback(home=home)
    assert serving(home) == "served b"


def test_the_pointer_survives_that_home_is_moved(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    do(home, run(tmp_path, "a"))
    assert serving(home.rename(tmp_path / "elsewhere")) == "served a"


def test_the_same_candidate_is_one_look_however_often_it_is_judged(home: Path) -> None:
    assert [champion.look(home, 1, name) for name in ("x", "y", "x", "z", "y")] == [1, 2, 1, 3, 2]
    assert champion.look(home, 2, "z") == 1


def many_champions(home: Path, root: Path, names: str, *, keep: int) -> list[str]:
    ids: list[str] = []
    for name in names:
        artifacts = run(root, name, champion_id=ids[-1] if ids else None)
        done = do(home, artifacts, keep=keep)
        ids.append(done.bundle_id)
        folder = home / "var" / "bundles" / done.bundle_id
        os.utime(folder, ns=(folder.stat().st_atime_ns, time.time_ns()))  # coarse clocks of file systems
        time.sleep(0.02)
    return ids


def kept(home: Path) -> set[str]:
    return {path.name for path in (home / "var" / "bundles").iterdir()}


def test_after_a_promotion_only_champion_previous_and_the_newest_promotions_are_kept(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    ids = many_champions(home, tmp_path, "abcde", keep=3)
    assert kept(home) == set(ids[2:])


def test_what_a_rollback_left_as_champion_and_previous_is_never_removed(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    ids = many_champions(home, tmp_path, "abc", keep=5)
    rollback(home=home, version=1)
    done = do(home, run(tmp_path, "d", champion_id=ids[0]), keep=1)
    assert done.previous == 1
    assert kept(home) == {ids[0], done.bundle_id}
    assert rollback(home=home).version == 1


def test_a_bundle_in_use_stays_until_the_next_promotion(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    ids = many_champions(home, tmp_path, "ab", keep=1)
    with held(home / "var" / "bundles" / ids[0] / "bundle"):
        third = do(home, run(tmp_path, "c", champion_id=ids[1]), keep=1)
        assert third.removed == ()
    time.sleep(0.02)
    fourth = do(home, run(tmp_path, "d", champion_id=third.bundle_id), keep=1)
    assert set(fourth.removed) == set(ids)


def test_half_copies_of_killed_promotions_are_cleared_away(
    home: Path, tmp_path: Path, registry: MemoryRegistry
) -> None:
    (home / "var" / "bundles" / ".half.partial").mkdir(parents=True)
    done = do(home, run(tmp_path, "a"), keep=1)
    assert kept(home) == {done.bundle_id}


def test_half_a_line_in_the_history_costs_that_line_only(home: Path, tmp_path: Path, registry: MemoryRegistry) -> None:
    two_champions(home, tmp_path)
    with (champion.folder(home) / "history.jsonl").open("a") as history:
        history.write('{"action": "pro')
    assert rollback(home=home).version == 1
    assert [move["action"] for move in champion.moves(home)] == ["promote", "promote", "rollback"]
