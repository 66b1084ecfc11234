from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.made_bundle import make

ROOT = Path(__file__).parents[2]


def test_the_collector_of_garbage_runs_again_once_a_worker_has_loaded(tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle")
    code = "import gc, os; gc.disable(); from serving.runtime import Runtime; Runtime.open(os.environ).close()"
    environ = {**os.environ, "FUSELINE_HOME": str(tmp_path), "FUSELINE_BUNDLE": str(bundle)}
    command = [sys.executable, "-c", f"{code}; print(gc.isenabled(), gc.get_freeze_count() > 0)"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
