"""The DAG's reader of dvc.yaml follows params.yaml as DVC does."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml


@pytest.fixture(scope="module")
def graph() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "dags" / "dvc_graph.py"
    spec = importlib.util.spec_from_file_location("dvc_graph", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dvc_graph"] = module
    spec.loader.exec_module(module)
    return module


def checkout(root: Path, target: Path, models: dict[str, object]) -> Path:
    """The repository's graph with other models."""
    shutil.copy(root / "dvc.yaml", target)
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    (target / "params.yaml").write_text(yaml.safe_dump(values | {"models": models}))
    (target / ".dvc").mkdir()
    (target / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return target


def test_a_model_that_is_added_or_removed_is_added_to_and_removed_from_the_graph(
    graph: ModuleType, root: Path, tmp_path: Path
) -> None:
    folder = checkout(root, tmp_path, {"ease": {"kind": "ease"}, "third": {"kind": "popularity"}})
    command = [sys.executable, "-m", "dvc", "dag", "--dot"]
    dot = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    drawn = {tuple(name.strip(' ";') for name in line.split("->")) for line in dot.splitlines() if "->" in line}
    stages = graph.read(folder)
    assert graph.edges(stages) == drawn
    names = {stage.task_id for stage in stages}
    assert {"train.ease", "train.third", "refresh"} <= names
    assert "train.popularity" not in names


def test_what_the_reader_does_not_know_is_an_error_and_not_a_wrong_graph(graph: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  a:\n    matrix:\n      x:\n        - 1\n    cmd: echo\n")
    with pytest.raises(ValueError, match="matrix"):
        graph.read(tmp_path)
