"""``kill -9`` in the middle of any stage, then the same command again: the result of an undisturbed run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.actions.doctor import remove_torn_files
from tests.stages import pipeline, shops

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1800)]

DVC = [sys.executable, "-m", "dvc", "repro"]
INTO_THE_STAGE = 0.7
"""Seconds after a stage's start at which it dies: most are past their imports or in their work by then."""


@pytest.fixture
def shop(root: Path, tmp_path: Path) -> Path:
    """The repository's pipeline with a small shop, outside git."""
    for name in ("pipelines", "expectations", "requirements"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "dvc.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "var" / "feedback").mkdir(parents=True)
    shops.write_csv(tmp_path / "shop" / "catalog" / "all.csv", shops.catalogue(60))
    shops.write_csv(tmp_path / "shop" / "events" / "all.csv", shops.events(60))
    pipeline.write_watched_params(tmp_path, root / "params.yaml")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"FUSELINE_HOME": str(folder), "PYTHONPATH": str(folder)}


def result(folder: Path) -> dict[str, object]:
    """What a run is for; times differ and stay out."""
    names = ("judged/manifest.json", "bundle/manifest.json", "evaluation/metrics.json", "gate/verdict.json")
    found = {name: json.loads((folder / "artifacts" / name).read_text()) for name in names}
    kept = [reason for reason in found["gate/verdict.json"]["reasons"] if reason["check"] != "rank_milliseconds"]
    return found | {"gate/verdict.json": [found["gate/verdict.json"]["verdict"], kept]}


def killed_in(stage: str | None, folder: Path, log: Path) -> str | None:
    """Run until the first stage that is not ``stage`` starts, kill everything in it; its name, or None at the end."""
    remove_torn_files(folder)  # what `make demo` and `fuseline doctor` do first
    with log.open("w") as out:
        process = subprocess.Popen(
            DVC, cwd=folder, env=environment(folder), stdout=out, stderr=out, start_new_session=True
        )
        while process.poll() is None:
            started = re.findall(r"Running stage '([\w@]+)'", log.read_text())
            if started and started[-1] != stage:
                time.sleep(INTO_THE_STAGE)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return str(started[-1])
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()
    return None


def test_a_run_that_dies_in_every_stage_ends_like_one_that_does_not(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "shop"
    shutil.copytree(shop, undisturbed)
    subprocess.run(DVC, cwd=undisturbed, env=environment(undisturbed), check=True)
    log = tmp_path_factory.mktemp("log") / "dvc.txt"
    died: list[str] = []
    while (stage := killed_in(died[-1] if died else None, shop, log)) is not None:
        died.append(stage)
    assert {"ingest", "fuse", "judge", "assemble", "evaluate", "gate"} <= set(died)
    assert not list((shop / "artifacts").rglob("*.partial"))
    assert result(shop) == result(undisturbed)
