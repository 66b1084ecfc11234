"""A run has a worktree of its own: it takes the commit, shares the cache, disturbs nobody and goes on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines import params as parameters
from pipelines.actions import fresh
from pipelines.actions.runs import ending, workspace, worktree
from pipelines.actions.runs.ending import KEPT, archive
from pipelines.actions.runs.places import RECORD, Run, archived, at_work
from pipelines.actions.runs.workspace import StageFailed, close, open_workspace, repro, run_stage
from pipelines.errors import ArtifactError, ParamsError
from pipelines.exclusions import Exclusions
from pipelines.ingestion.canonical import snapshot
from pipelines.storage import write_json
from tests.stages import pipeline

NOW = datetime(2026, 1, 1, tzinfo=UTC)
COUNT = "from pathlib import Path; p = Path('{out}'); p.parent.mkdir(parents=True, exist_ok=True); "


def stage(out: str, code: str, *deps: str, params: str = "seed") -> dict[str, object]:
    """A stage of one line; ``{ticks}`` is a file outside that counts how often anything ran."""
    script = f"{COUNT.format(out=out)}{code}"
    return {
        "cmd": f'python -c "{script}"',
        "deps": ["var/feedback", *deps],
        "params": [params],
        "outs": [{out: {"persist": True}}],
    }


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def ticks(tmp_path: Path) -> Path:
    """A file with a line for each stage that really ran."""
    path = tmp_path / "ticks"
    path.touch()
    return path


@pytest.fixture
def checkout(root: Path, tmp_path: Path, ticks: Path) -> Path:
    """A repository with two quick stages, a small export and one partition of feedback."""
    folder = tmp_path / "checkout"
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(root / ".dvc" / "config", folder / ".dvc")
    (folder / ".gitignore").write_text("artifacts/\nvar/*\n!var/feedback/\nvar/feedback/*\n!var/feedback/.gitkeep\n")
    (folder / "var" / "feedback").mkdir(parents=True)
    (folder / "var" / "feedback" / ".gitkeep").touch()
    shutil.copytree(root / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "shop" / "catalog").mkdir(parents=True)
    (folder / "shop" / "catalog" / "all.csv").write_text("item_id,title\n1,chair\n")
    pipeline.write_params(folder)
    count = f"print(1, file=open('{ticks}', 'a')); "
    stages = {
        "first": stage("artifacts/first.txt", f"{count}p.write_text('1')"),
        "second": stage("artifacts/second.txt", f"{count}p.write_text('2')", "artifacts/first.txt"),
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "shop")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """``FUSELINE_HOME`` with a partition of feedback."""
    partition = tmp_path / "home" / "var" / "feedback" / "dt=2026-01-01" / "events-1.parquet"
    partition.parent.mkdir(parents=True)
    pq.write_table(pa.table({"event_id": ["a", "b"]}), partition)
    write_json(partition.parents[1] / "_excluded.json", Exclusions("salt", ()).as_json())
    return tmp_path / "home"


def opened(home: Path, checkout: Path, name: str, *, as_of: datetime | None = None) -> Run:
    run = Run(home, name)
    open_workspace(run, checkout, as_of=as_of, started=NOW, say=lambda _: None)
    return run


def finish(run: Run) -> None:
    """Lay down what a whole run would have made, then archive it."""
    made = {path: {} for path in KEPT if path.endswith(".json")}
    for path, value in made.items():
        (run.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (run.workspace / path).write_text(json.dumps(value))
    (run.workspace / "dvc.lock").touch()
    snapshot_of(run)
    archive(run, ended=NOW, say=lambda _: None)


def test_a_run_takes_the_commit_but_the_parameters_and_data_as_they_lie_there(home: Path, checkout: Path) -> None:
    (checkout / "pipelines" / "errors.py").write_text("half an edit")
    (checkout / "shop" / "catalog" / "more.csv").write_text("item_id,title\n2,table\n")
    pipeline.write_params(checkout, seed=5)
    run = opened(home, checkout, "one")
    assert "half an edit" not in (run.workspace / "pipelines" / "errors.py").read_text()
    assert (run.workspace / "shop" / "catalog" / "more.csv").exists()
    assert yaml.safe_load((run.workspace / "params.yaml").read_text())["seed"] == 5
    assert run.record()["revision"] == git(checkout, "rev-parse", "HEAD")


def test_a_run_reads_the_feedback_of_its_beginning_whatever_a_collection_does_meanwhile(
    home: Path, checkout: Path
) -> None:
    run = opened(home, checkout, "one")
    partition = home / "var" / "feedback" / "dt=2026-01-01" / "events-1.parquet"
    record = home / "var" / "feedback" / "_excluded.json"
    assert (run.workspace / "var" / "feedback" / record.name).read_text() == record.read_text()
    partition.unlink()
    mirrored = run.workspace / "var" / "feedback" / "dt=2026-01-01" / "events-1.parquet"
    assert pq.read_metadata(mirrored).num_rows == 2
    assert workspace.environment(run)["FUSELINE_WORKSPACE"] == str(run.workspace)


def test_as_of_of_a_run_is_not_that_of_the_checkout(home: Path, checkout: Path) -> None:
    run = opened(home, checkout, "one", as_of=NOW)
    assert yaml.safe_load((run.workspace / "params.yaml").read_text())["data"]["as_of"] == NOW.isoformat()
    assert git(checkout, "status", "--porcelain") == ""


def test_stages_that_are_not_committed_are_refused_with_the_next_move(home: Path, checkout: Path) -> None:
    (checkout / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(ParamsError, match=r"dvc\.yaml has changes .* commit"):
        opened(home, checkout, "one")


def test_a_workspace_that_was_half_made_is_made_again_and_a_whole_one_stays(home: Path, checkout: Path) -> None:
    run = Run(home, "one")
    run.workspace.mkdir(parents=True)
    (run.workspace / "half").touch()
    opened(home, checkout, "one")
    assert not (run.workspace / "half").exists()
    (run.workspace / "made").touch()
    opened(home, checkout, "one")
    assert (run.workspace / "made").exists()


def test_closing_removes_the_worktree_and_leaves_checkout_and_branches_as_they_were(home: Path, checkout: Path) -> None:
    before = git(checkout, "log", "--all", "--oneline"), git(checkout, "worktree", "list")
    run = opened(home, checkout, "one")
    finish(run)
    close(run, checkout, keep=True, now=NOW)
    assert not run.workspace.exists()
    assert (git(checkout, "log", "--all", "--oneline"), git(checkout, "worktree", "list")) == before
    assert git(checkout, "status", "--porcelain") == ""
    assert {path.name for path in run.archived.iterdir()} == {*KEPT.values(), RECORD}


def test_the_workspaces_of_the_newest_failed_runs_stay_and_older_ones_go(home: Path, checkout: Path) -> None:
    runs = []
    for number in range(4):
        run = Run(home, f"failed-{number}")
        open_workspace(run, checkout, as_of=None, started=NOW + timedelta(hours=number), say=lambda _: None)
        close(run, checkout, keep=True, now=NOW)
        runs.append(run)
    opened(home, checkout, "next")
    assert [run.workspace.exists() for run in runs] == [False, False, True, True]


@pytest.mark.parametrize("name", ["manual__2026-11-22T02:15:07+00:00", "../../etc", "a b", "ünï"])
def test_a_run_id_is_a_folder_of_its_own_whatever_its_characters(home: Path, name: str) -> None:
    run = Run(home, name)
    assert run.workspace.parent == home / "var" / "runs"
    assert run.workspace.name != Run(home, f"{name}.").workspace.name


def test_dvc_shares_the_cache_of_home_and_keeps_its_notes_in_the_workspace(home: Path, checkout: Path) -> None:
    assert worktree.shared_cache(checkout, home) == home / "var" / "dvc"
    (checkout / ".dvc" / "config.local").write_text("[cache]\n    dir = /elsewhere/cache\n[core]\n    remote = far\n")
    assert worktree.shared_cache(checkout, home) == Path("/elsewhere/cache")
    run = opened(home, checkout, "one")
    local = (run.workspace / ".dvc" / "config.local").read_text()
    assert "remote = far" in local
    assert str(run.workspace / ".dvc" / "tmp" / "site") in local


def test_a_stage_without_a_workspace_says_what_to_open(home: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no workspace.*open it first"):
        run_stage(Run(home, "nowhere"), "first")


def test_one_run_is_worked_on_by_one_process_at_a_time(home: Path, checkout: Path) -> None:
    run = opened(home, checkout, "one")
    with at_work(run), pytest.raises(ArtifactError, match="at work in another process"), at_work(run, wait=False):
        pass


@pytest.mark.slow
def test_two_runs_at_once_share_results_and_end_whole(home: Path, checkout: Path, ticks: Path) -> None:
    runs = [opened(home, checkout, name) for name in ("one", "two")]
    failed: list[BaseException] = []

    def work(run: Run) -> None:
        try:
            with at_work(run) as lock:
                repro(run, inherit=lock)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {(run.artifacts / "second.txt").read_text() for run in runs} == {"2"}
    finish(runs[0])
    ran = ticks.read_text()
    third = opened(home, checkout, "three")
    run_stage(third, "second")
    assert (third.artifacts / "second.txt").read_text() == "2"
    assert ticks.read_text() == ran
    assert [record["run"] for record in archived(home)] == ["one"]


@pytest.mark.slow
def test_what_another_process_does_to_the_cache_does_not_reach_what_a_run_has_made(home: Path, checkout: Path) -> None:
    run = opened(home, checkout, "one")
    run_stage(run, "first")
    cached = [path for path in (home / "var" / "dvc" / "files").rglob("*") if path.is_file()]
    assert cached
    for path in cached:
        path.chmod(0o644)
        path.write_text("")  # a DVC that is about to add equal content empties what lies there first
    assert (run.artifacts / "first.txt").read_text() == "1"
    assert (run.artifacts / "first.txt").stat().st_nlink == 1


@pytest.mark.slow
def test_a_failing_stage_ends_with_its_own_exit_code(home: Path, checkout: Path) -> None:
    stages = {"first": stage("artifacts/first.txt", "raise SystemExit(4)")}
    (checkout / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git(checkout, "commit", "--quiet", "-am", "a stage that refuses")
    run = opened(home, checkout, "one")
    with pytest.raises(StageFailed, match="first of run one failed") as raised:
        run_stage(run, "first")
    assert raised.value.exit_code == 4


@pytest.mark.exhaustive
def test_a_run_that_was_killed_goes_on_under_the_same_id(home: Path, checkout: Path, ticks: Path) -> None:
    waiting = checkout.parent / "waiting"
    slow = f"import time; open('{waiting}', 'w'); time.sleep(0 if Path('{waiting}.go').exists() else 600); "
    stages = yaml.safe_load((checkout / "dvc.yaml").read_text())["stages"]
    stages["second"] = stage("artifacts/second.txt", f"{slow}p.write_text('2')", "artifacts/first.txt")
    (checkout / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    git(checkout, "commit", "--quiet", "-am", "slow")
    opened(home, checkout, "one")
    code = (
        "from pathlib import Path; from pipelines.actions.runs.places import Run, at_work; "
        "from pipelines.actions.runs.workspace import repro; import sys; run = Run(Path(sys.argv[1]), 'one')\n"
        "with at_work(run) as lock: repro(run, inherit=lock)"
    )
    command = [sys.executable, "-c", code, str(home)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    killed = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    while not waiting.exists():
        assert killed.poll() is None
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (waiting.parent / "waiting.go").touch()
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert (Run(home, "one").artifacts / "second.txt").read_text() == "2"
    assert ticks.read_text().splitlines() == ["1"]


def snapshot_of(run: Run) -> None:
    """The snapshot that the stage of that name takes."""
    taken = snapshot.take(parameters.load(run.workspace / "params.yaml").data, home=run.workspace, root=run.workspace)
    write_json(run.workspace / "artifacts" / "snapshot" / "manifest.json", taken.as_json())


def test_training_is_worth_it_when_enough_landed_since_the_last_archived_run(home: Path, checkout: Path) -> None:
    def train() -> tuple[bool, str]:
        found = fresh.worth(checkout, home=home, now=NOW + timedelta(days=1))
        return found.train, found.reason

    assert train() == (True, "no run came to its end yet")
    run = opened(home, checkout, "one")
    finish(run)
    (checkout / "pipelines" / "splitting.py").write_text("half an edit")  # not committed: a run would not see it
    assert train() == (False, "nothing is new since the last run")
    day = home / "var" / "feedback" / "dt=2026-01-01"
    (day / "events-1.parquet").unlink()  # a late event: the day is written again, whole, under another name
    pq.write_table(pa.table({"event_id": ["a", "b", "c"]}), day / "events-2.parquet")
    pq.write_table(pa.table({"event_id": ["x"] * 5000}), day / "impressions-1.parquet")
    assert not train()[0]
    assert "1 new events" in train()[1]
    pq.write_table(pa.table({"event_id": [str(n) for n in range(600)]}), day / "events-3.parquet")
    assert train() == (True, "601 new events, 500 are enough")
    (day / "events-2.parquet").unlink()
    (day / "events-3.parquet").unlink()
    assert train() == (True, "2 events of feedback were taken out")
    (run.archived / "snapshot.json").write_text("{}")
    assert train() == (True, "the last run's record of its input is of another release, or damaged")


@pytest.mark.slow
def test_a_run_that_its_data_stopped_is_not_started_again_by_itself_until_the_data_change(
    home: Path, checkout: Path
) -> None:
    (checkout / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {"first": stage("artifacts/first.txt", "raise SystemExit(4)")}})
    )
    git(checkout, "commit", "--quiet", "-am", "a stage that refuses")
    run = opened(home, checkout, "one")
    snapshot_of(run)
    with pytest.raises(StageFailed):
        run_stage(run, "first")
    found = fresh.worth(checkout, home=home, now=NOW)
    assert not found.train
    assert "run one was stopped by the same input" in found.reason
    more = home / "var" / "feedback" / "dt=2026-01-01" / "events-2.parquet"
    pq.write_table(pa.table({"event_id": ["c"]}), more)
    assert fresh.worth(checkout, home=home, now=NOW).train
    more.unlink()
    (checkout / "pipelines" / "splitting.py").write_text("a repair")
    git(checkout, "commit", "--quiet", "-am", "a repair")
    assert fresh.worth(checkout, home=home, now=NOW).train


@pytest.fixture
def judged(home: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, list[tuple[str, ...]]]:
    """A run whose gate says promote against champion ``a``; what is called from then on."""
    run, called = opened(home, checkout, "one"), []
    verdict = {"verdict": "promote", "champion": "a", "reasons": []}
    write_json(run.artifacts / "gate" / "verdict.json", verdict)

    def repro_(_: Run, name: str, **__: object) -> None:
        called.append(("stage", name))
        write_json(run.artifacts / "gate" / "verdict.json", verdict | {"champion": "b"})

    def fuseline(_: Run, *arguments: str) -> str:
        called.append(arguments)
        return json.dumps({"changed": True, "version": 3})

    monkeypatch.setattr(ending, "repro", repro_)
    monkeypatch.setattr(ending, "_fuseline", fuseline)
    return run, called


def test_a_candidate_is_judged_again_when_the_champion_moved_meanwhile(
    judged: tuple[Run, list[tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, called = judged
    monkeypatch.setattr(ending, "_serving", lambda _: "b")
    done = ending.promote_run(run, force=False, reason=None, say=lambda _: None)
    assert called == [("stage", "reference"), ("stage", "gate"), ("promote", "--json")]
    assert (done.promoted, done.version) == (True, 3)


def test_a_candidate_that_the_gate_stopped_is_kept_in_the_registry_and_not_promoted(
    judged: tuple[Run, list[tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, called = judged
    monkeypatch.setattr(ending, "_serving", lambda _: "a")
    reasons = [{"check": "coverage", "passed": False}, {"check": "size", "passed": True}]
    write_json(run.artifacts / "gate" / "verdict.json", {"verdict": "reject", "champion": "a", "reasons": reasons})
    done = ending.promote_run(run, force=False, reason=None, say=lambda _: None)
    assert called == [("record",)]
    assert (done.promoted, done.verdict) == (False, "reject")
    assert done.reason.startswith("the verdict is reject: coverage;")
    assert run.record()["outcome"]["promoted"] is False


def test_an_export_beside_the_checkout_is_found_from_the_worktree(home: Path, checkout: Path) -> None:
    shutil.copytree(checkout / "shop", checkout.parent / "other_shop")
    pipeline.write_params(checkout, data={**pipeline.QUICK["data"], "path": "../other_shop"})
    run = opened(home, checkout, "one")
    data = yaml.safe_load((run.workspace / "params.yaml").read_text())["data"]
    assert Path(data["path"]) == checkout.parent / "other_shop"


def test_another_shop_beside_the_checkout_keeps_its_commit_and_takes_the_parameters_anew(
    home: Path, checkout: Path
) -> None:
    folder = home / "other"
    worktree.lay_shop(checkout, folder, path="/elsewhere", as_of=None)
    laid = git(folder, "rev-parse", "HEAD")
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "later")
    pipeline.write_params(checkout, seed=99)
    worktree.lay_shop(checkout, folder, path="/elsewhere", as_of=None)
    assert git(folder, "rev-parse", "HEAD") == laid != git(checkout, "rev-parse", "HEAD")
    values, before = (yaml.safe_load((one / "params.yaml").read_text()) for one in (folder, checkout))
    assert values == before | {"data": before["data"] | {"path": "/elsewhere", "as_of": None}}
    assert values["seed"] == 99


@pytest.mark.exhaustive
def test_results_are_pushed_where_dvc_has_a_default_remote(home: Path, checkout: Path) -> None:
    remote = checkout.parent / "remote"
    (checkout / ".dvc" / "config.local").write_text(
        f"[core]\n    remote = far\n['remote \"far\"']\n    url = {remote}\n"
    )
    run = opened(home, checkout, "one")
    run_stage(run, "first")
    said: list[str] = []
    ending.push(run, say=said.append)
    assert said == ["pushing to far"]
    assert [path for path in remote.rglob("*") if path.is_file()]
