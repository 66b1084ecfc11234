"""The whole pipeline in this process, on a small shop in a folder of the test's own."""

from __future__ import annotations

import atexit
import functools
import importlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

QUICK: dict[str, Any] = {
    "seed": 1,
    "data": {"adapter": "shop", "path": "shop", "as_of": None, "max_bad_share": 0.2},
    "text": {"encoder": None},
    "models": {name: {"kind": name} for name in ("popularity", "repeat", "item_knn", "ease")},
    "fusion": {"stacking": {"epochs": 2, "hidden": 8, "ensemble": 1}},
    "evaluation": {"bootstrap_draws": 200},
}
"""Parameters with which a small shop takes seconds."""

STAGES: tuple[str, ...] = (
    "code",
    "snapshot",
    "ingest",
    "validate_raw",
    "split",
    "encode",
    "encode_queries",
    "features",
    "features --served",
    "validate_frames",
    "tune",
    "tune --served",
    "train",
    "members",
    "refresh",
    "fuse",
    "judge",
    "assemble",
    "evaluate",
    "validate_rankings",
    "reference",
    "gate",
)
"""In the order of dvc.yaml; ``train`` stands for one run a member."""


def write_params(root: Path, **sections: Any) -> Path:
    """``params.yaml`` of :data:`QUICK` with whole sections replaced."""
    path = root / "params.yaml"
    path.write_text(yaml.safe_dump(QUICK | sections, sort_keys=False), encoding="utf-8")
    return path


def write_watched_params(root: Path, params: Path) -> Path:
    """``params.yaml`` with :data:`QUICK` over the values of a whole one: DVC wants every parameter it watches."""
    shipped = yaml.safe_load(params.read_text(encoding="utf-8"))
    within = {name: shipped[name] | QUICK[name] for name in ("data", "text", "fusion", "evaluation")}
    return write_params(root, **(shipped | QUICK | within))


@functools.cache
def named_code() -> Path:
    """What the stage ``code`` writes, made once: the tests' code does not change while they run."""
    folder = Path(tempfile.mkdtemp(prefix="fuseline-code-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    importlib.import_module("pipelines.stages.code").main(["--artifacts", str(folder)])
    return folder / "code"


def run(root: Path, monkeypatch: Any, *, stages: Sequence[str] = STAGES) -> Path:
    """Run stages in ``root``; returns the artifacts' folder."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("FUSELINE_HOME", str(root))
    members = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))["models"]
    for stage in stages:
        name, *arguments = stage.split()
        if name == "code":
            shutil.copytree(named_code(), root / "artifacts" / "code", dirs_exist_ok=True)
            continue
        for member in members if name == "train" else [None]:
            own = [*arguments, "--member", member] if member else arguments
            monkeypatch.setattr(sys, "argv", [name, *own])
            importlib.import_module(f"pipelines.stages.{name}").main()
    return root / "artifacts"
