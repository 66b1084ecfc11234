"""Promotion and rollback killed at each step, and two at once: real processes, a real registry, a real Bento."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import champion
from pipelines.actions import doctor
from pipelines.adapters.bento import store
from pipelines.adapters.tracking import Registry
from tests.e2e.releases import candidate
from tests.e2e.server import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.exhaustive, pytest.mark.timeout(1800)]  # each process imports MLflow

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from pipelines import champion
from pipelines.actions import promote, rollback
from pipelines.adapters.tracking import Registry

command, when, step, home, artifacts = sys.argv[1:]
owner, name = {
    "pointer": (champion, "write"),
    "alias": (Registry, "point") if command == "rollback" else (promote, "_settle"),
    "bento": (promote, "build_bento"),
}[step]
real = getattr(owner, name)

def killed(*arguments, **options):
    if when == "after":
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, killed)
if command == "rollback":
    rollback.rollback(home=Path(home))
else:
    package = killed if step == "bento" else promote.build_bento
    promote.promote(home=Path(home), artifacts=Path(artifacts), package=package)
"""


def killed(home: Path, command: str, moment: str, artifacts: Path) -> None:
    """Run an action that is killed before or after a step."""
    when, step = moment.split()
    arguments = [sys.executable, "-c", KILLED_AT, command, when, step, str(home), str(artifacts)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr


def fuseline(home: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    environ = {"FUSELINE_HOME": str(home), "PATH": str(Path(sys.executable).parent), "HOME": str(home)}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(home: Path, *arguments: str) -> str:
    process = fuseline(home, *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def state(home: Path) -> tuple[int | None, dict[str, int], str]:
    """Version of the pointer, aliases, and whether the doctor is content."""
    now = champion.read(home)
    (found,) = doctor._release(home)
    return now.version if now else None, Registry.open(home).aliases(), found.state


def test_the_same_command_after_a_kill_at_each_step_gives_the_wanted_end(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = json.loads(
        run(home, "promote", "--json", "--artifacts", str(candidate(tmp_path, seed=1, champion_id=None)))
    )
    assert state(home) == (1, {"champion": 1}, "ok")
    second = candidate(tmp_path, seed=2, champion_id=first["bundle_id"])
    for moment in ("before bento", "after bento", "before alias", "after alias", "before pointer"):
        killed(home, "promote", moment, second)
        version, _, doctors = state(home)
        assert (moment, version, doctors) == (moment, 1, "warn")
    killed(home, "promote", "after pointer", second)
    assert state(home)[0] == 2
    assert json.loads(run(home, "promote", "--json", "--artifacts", str(second)))["version"] == 2
    assert state(home) == (2, {"champion": 2, "previous_champion": 1}, "ok")
    for version in (1, 2):
        assert (store(home) / "bentos" / "fuseline" / str(version)).is_dir()

    for moment, version in (("before pointer", 2), ("after pointer", 1), ("before alias", 1), ("after alias", 1)):
        killed(home, "rollback", moment, second)
        found = state(home)
        assert (moment, found[0], found[2]) == (moment, version, "warn")
    run(home, "rollback")
    assert state(home) == (1, {"champion": 1, "previous_champion": 2}, "ok")


def test_of_two_promotions_by_two_processes_one_wins_and_pointer_and_aliases_agree(tmp_path: Path) -> None:
    home = tmp_path / "home"
    runs = [candidate(tmp_path, seed=seed, champion_id=None) for seed in (1, 2)]
    processes = [fuseline(home, "promote", "--artifacts", str(one)) for one in runs]
    said = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 6], said
    assert "no longer the one" in said[codes.index(6)]
    assert state(home) == (1, {"champion": 1}, "ok")
    assert len(Registry.open(home).versions()) == 1
    assert len(list((home / "var" / "bundles").iterdir())) == 1
