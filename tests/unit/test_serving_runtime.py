from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.made_bundle import make
from pipelines.bundle import Bundle
from pipelines.contracts import Surface
from pipelines.features.state import UserHistory
from serving.runtime import warm

ROOT = Path(__file__).parents[2]


def test_the_collector_of_garbage_runs_again_once_a_worker_has_loaded(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    code = "import gc, os; gc.disable(); from serving.runtime import Runtime; Runtime.open(os.environ).close()"
    environ = {**os.environ, "FUSELINE_HOME": str(tmp_path), "FUSELINE_BUNDLE": str(bundle)}
    command = [sys.executable, "-c", f"{code}; print(gc.isenabled(), gc.get_freeze_count() > 0)"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_warming_asks_for_given_items_on_every_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, asked = Bundle.load(make(tmp_path / "bundle")), []
    score_items = Bundle.score_items

    def recorded(self: Bundle, items: list[str], history: UserHistory, surface: Surface, **more: str | None) -> object:
        asked.append((surface, len(items)))
        return score_items(self, items, history, surface, **more)

    monkeypatch.setattr(Bundle, "score_items", recorded)
    warm(bundle)
    assert asked == [(surface, 1) for surface in bundle.fusion]
