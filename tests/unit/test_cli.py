"""The command line: help everywhere, one message an error, exit codes, JSON."""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.actions.doctor import examine, remove_torn_files
from pipelines.cli import app

RUNNER = CliRunner()
PARAMS = """
seed: 7
data: {adapter: shop, path: export, as_of: null}
models: {popularity: {kind: popularity}}
"""


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder to stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FUSELINE_HOME", str(tmp_path / "home"))
    (tmp_path / "export" / "catalog").mkdir(parents=True)
    (tmp_path / "export" / "catalog" / "a.csv").write_text("item_id,title\n1,x\n")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    ["", "promote", "rollback", "models", "record", "doctor", "monitor", "bench", "bench two-tower", "bench recommend"],
)
def test_every_level_has_help(command: str) -> None:
    answer = RUNNER.invoke(app, [*command.split(), "--help"])
    assert answer.exit_code == 0
    assert "Usage" in answer.output


def test_a_promotion_without_artifacts_is_one_line_with_the_next_move_and_its_exit_code() -> None:
    answer = RUNNER.invoke(app, ["promote"])
    assert answer.exit_code == 5
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("\n") == 1
    assert "next: run `dvc repro`" in answer.stderr
    assert "Traceback" not in answer.output


def test_force_without_a_reason_is_refused() -> None:
    answer = RUNNER.invoke(app, ["promote", "--force"])
    assert answer.exit_code == 6
    assert "--reason" in answer.stderr


def test_a_rollback_without_a_champion_is_refused() -> None:
    answer = RUNNER.invoke(app, ["rollback"])
    assert answer.exit_code == 6
    assert "no champion" in answer.stderr


def test_debug_shows_where_an_error_comes_from() -> None:
    answer = RUNNER.invoke(app, ["--debug", "rollback"])
    assert answer.exception is not None
    assert type(answer.exception).__name__ == "PromotionRefused"


def test_doctor_prints_json_and_fails_when_a_check_does(checkout: Path) -> None:
    (checkout / "export" / "catalog" / "a.csv").unlink()
    answer = RUNNER.invoke(app, ["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(answer.stdout)}
    assert answer.exit_code == 1
    assert checks["data"]["state"] == "fail"
    assert checks["params"]["state"] == "ok"
    assert all(check["do"] for check in checks.values() if check["state"] != "ok")


def test_doctor_names_an_unquoted_date(checkout: Path) -> None:
    (checkout / "params.yaml").write_text(PARAMS.replace("as_of: null", "as_of: 2010-11-03"))
    found = {check.name: check for check in examine(root=checkout, home=checkout, params_file=checkout / "params.yaml")}
    assert found["params"].state == "fail"
    assert "'2010-11-03'" in found["params"].found


def test_doctor_names_a_misspelt_option_of_a_model(checkout: Path) -> None:
    (checkout / "params.yaml").write_text(PARAMS.replace("kind: popularity", "kind: popularity, dais: 3"))
    found = {check.name: check for check in examine(root=checkout, home=checkout, params_file=checkout / "params.yaml")}
    assert found["params"].state == "fail"
    assert "dais" in found["params"].found


def test_doctor_finds_a_champion_whose_bundle_is_gone(checkout: Path) -> None:
    pointer = {"version": 1, "bundle": "var/bundles/x/bundle", "judged": None, "bundle_id": "x", "judged_id": None}
    folder = checkout / "home" / "var" / "champion"
    folder.mkdir(parents=True)
    (folder / "current.json").write_text(json.dumps(pointer | {"recipe": "r"}))
    found = {
        check.name: check for check in examine(root=checkout, home=checkout / "home", params_file=Path("params.yaml"))
    }
    assert found["champion"].state == "fail"
    assert "does not exist" in found["champion"].found
    assert found["champion"].do


def test_doctor_warns_where_python_may_not_keep_compiled_modules(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for forbidden, state in ((False, "ok"), (True, "warn")):
        monkeypatch.setattr(sys, "dont_write_bytecode", forbidden)
        checks = examine(root=checkout, home=checkout, params_file=checkout / "params.yaml")
        found = {check.name: check for check in checks}["modules"]
        assert found.state == state
    assert "PYTHONDONTWRITEBYTECODE" in found.do


def test_a_pointer_that_is_no_pointer_is_named(checkout: Path) -> None:
    folder = checkout / "home" / "var" / "champion"
    folder.mkdir(parents=True)
    (folder / "current.json").write_text("[]")
    answer = RUNNER.invoke(app, ["rollback"])
    assert answer.exit_code == 5
    assert "is no champion pointer" in answer.stderr


def test_records_torn_by_a_killed_run_are_removed_and_whole_ones_stay(tmp_path: Path) -> None:
    running, lock = tmp_path / ".dvc" / "tmp" / "rwlock", tmp_path / "dvc.lock"
    running.parent.mkdir(parents=True)
    assert remove_torn_files(tmp_path) == []
    running.write_text("{}")
    lock.write_text("schema: '2.0'\nstages:\n  one:\n    cmd: echo\n")
    assert remove_torn_files(tmp_path) == []
    assert lock.exists()
    running.write_text("")
    for torn in ("", "{}", "schema: '2.0'\nstages:\n  one:\n", "stages: ["):
        lock.write_text(torn)
        assert "dvc.lock" in remove_torn_files(tmp_path)
    assert not running.exists()
    assert not lock.exists()


def test_records_are_left_alone_while_dvc_is_at_work(tmp_path: Path) -> None:
    running = tmp_path / ".dvc" / "tmp" / "rwlock"
    running.parent.mkdir(parents=True)
    running.write_text("")
    with (running.parent / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert remove_torn_files(tmp_path) == []
        assert running.exists()
    assert remove_torn_files(tmp_path) == [".dvc/tmp/rwlock"]


def test_collect_without_a_store_says_so_and_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSELINE_HOME", str(tmp_path))
    monkeypatch.delenv("FUSELINE_EVENTS_URL", raising=False)
    done = CliRunner().invoke(app, ["collect"])
    assert (done.exit_code, "nothing to collect yet" in done.output) == (0, True)
    as_json = CliRunner().invoke(app, ["collect", "--json"])
    assert json.loads(as_json.output) == {"changed": [], "rows": 0, "seq": 0, "store": None, "until": None}
    assert CliRunner().invoke(app, ["collect", "--until", "noon"]).exit_code == 2
