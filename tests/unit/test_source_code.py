"""What code a stage runs is found by reading it, and another file of code makes no stage stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.source_code import SourceCode
from pipelines.stages import code as stage

FILES = {
    "pipelines/__init__.py": '"""A library."""\n',
    "pipelines/errors.py": "X = 1\n",
    "pipelines/worker.py": "from pipelines import errors\n",
    "pipelines/unused.py": "X = 1\n",
    "pipelines/pages.py": 'TEMPLATE, FOLDER = "page.html", "suites"\n',
    "pipelines/page.html": "<p>",
    "pipelines/other.html": "<p>",
    "pipelines/suites/a.json": "{}",
    "pipelines/models/__init__.py": "",
    "pipelines/models/ease.py": "from pipelines.errors import X\n",
    "pipelines/models/repeat.py": "def fit():\n    from pipelines import pages\n",
    "pipelines/registry.py": 'def kind(name):\n    return __import__(f"pipelines.models.{name}")\n',
    "pipelines/stages/__init__.py": "",
    "pipelines/stages/train.py": "from .. import registry\n",
    "pipelines/stages/encode.py": 'CHILD = "pipelines.worker"\n',
}


@pytest.fixture
def code(tmp_path: Path) -> SourceCode:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return SourceCode(tmp_path)


def run_by(code: SourceCode, module: str, kind: str | None = None) -> set[str]:
    """Paths below the library."""
    return {path.relative_to(code.root / "pipelines").as_posix() for path in code.run_by(module, kind=kind)}


def test_a_stage_of_one_member_runs_its_kind_alone(code: SourceCode) -> None:
    assert run_by(code, "pipelines.stages.train", "ease") == {
        "stages/train.py",
        "registry.py",
        "models/ease.py",
        "errors.py",
    }


def test_what_is_imported_in_a_function_counts_with_the_files_that_it_names(code: SourceCode) -> None:
    found = run_by(code, "pipelines.stages.train", "repeat")
    assert found >= {"models/repeat.py", "pages.py", "page.html", "suites/a.json"}
    assert "other.html" not in found


def test_kinds_found_by_name_count_all_where_no_one_is_asked_for(code: SourceCode) -> None:
    assert run_by(code, "pipelines.stages.train") >= {"models/ease.py", "models/repeat.py"}


def test_a_module_started_as_a_process_counts(code: SourceCode) -> None:
    assert run_by(code, "pipelines.stages.encode") == {"stages/encode.py", "worker.py", "errors.py"}


def test_packages_that_say_nothing_do_not_count(code: SourceCode) -> None:
    assert not [name for name in run_by(code, "pipelines.stages.train") if name.endswith("__init__.py")]


def test_another_version_of_the_library_is_read_and_not_run(code: SourceCode) -> None:
    (code.root / "pipelines" / "worker.py").write_text("raise SystemExit('run')\n")
    assert "worker.py" in run_by(code, "pipelines.stages.encode")


def test_the_stage_names_the_code_of_every_stage_and_kind_of_this_project(tmp_path: Path, root: Path) -> None:
    stage.main(["--artifacts", str(tmp_path)])
    made = {
        path.relative_to(tmp_path / "code").as_posix(): json.loads(path.read_text())
        for path in tmp_path.rglob("*.json")
    }
    assert {f"{path.stem}.json" for path in (root / "pipelines" / "stages").glob("*.py")} >= {
        n for n in made if "/" not in n
    }
    assert "pipelines/evaluation/report.html.j2" in made["evaluate.json"]
    assert "expectations/suites/raw_events.json" in made["validate_raw.json"]
    assert "pipelines/learners/two_tower_fit.py" in made["train/two_tower.json"]
    assert not [name for name in made["train/ease.json"] if name.startswith(("pipelines/learners", "pipelines/towers"))]
    assert "pipelines/models/ease.py" in made["fuse.json"]


def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stage.main(["--artifacts", str(tmp_path / name)])
    one, two = (
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*.json")} for f in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
