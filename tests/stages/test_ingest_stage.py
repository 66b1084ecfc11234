"""The stages snapshot and ingest as they are called: arguments, outputs, messages and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import ArtifactError, InputError
from pipelines.stages import ingest, snapshot
from pipelines.stages.running import run

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FUSELINE_HOME", raising=False)
    (tmp_path / "shop" / "catalog").mkdir(parents=True)
    (tmp_path / "shop" / "catalog" / "a.csv").write_text("item_id,title\na,Apple\n")
    (tmp_path / "params.yaml").write_text("seed: 1\nmodels: {}\ndata: {adapter: shop, path: shop}\n")
    return tmp_path


def test_both_stages_write_their_outputs_and_say_where(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot.main([])
    ingest.main([])
    report = json.loads((project / "artifacts" / "ingest" / "report.json").read_text())
    assert report["tables"]["catalog"]["rows"] == 1
    assert (project / "artifacts" / "quarantine" / "events.parquet").is_file()
    shown = capsys.readouterr().out
    assert "artifacts/snapshot/manifest.json" in shown
    assert "artifacts/canonical" in shown


def test_the_report_says_the_same_at_every_run(project: Path) -> None:
    path = project / "artifacts" / "ingest" / "report.json"
    seen = set()
    for _ in range(2):
        snapshot.main([])
        ingest.main([])
        seen.add(path.read_bytes())
    assert len(seen) == 1


def test_without_a_manifest_the_next_move_is_named(project: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json does not exist; next: run `dvc repro`"):
        ingest.main([])


def test_a_run_that_breaks_in_the_middle_leaves_the_last_good_output(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.main([])
    ingest.main([])
    outputs = [p for p in sorted((project / "artifacts").rglob("*")) if p.is_file()]
    before = {path: path.read_bytes() for path in outputs}
    (project / "shop" / "catalog" / "a.csv").write_text("item_id,title\na,Pear\n")
    snapshot.main([])
    before[project / "artifacts" / "snapshot" / "manifest.json"] = (
        project / "artifacts" / "snapshot" / "manifest.json"
    ).read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("pipelines.ingestion.canonical.ingest.write_json", full_disk)
    with pytest.raises(OSError, match="No space"):
        ingest.main([])
    assert {p: p.read_bytes() for p in sorted((project / "artifacts").rglob("*")) if p.is_file()} == before


def test_an_error_is_one_line_on_stderr_with_its_exit_code(project: Path) -> None:
    (project / "shop" / "catalog" / "a.csv").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stages.snapshot"],
        cwd=project,
        env={"PYTHONPATH": str(PROJECT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == InputError.exit_code
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: data.path 'shop' has no files for catalog")
    assert done.stdout == ""


def test_a_defect_keeps_its_traceback_and_an_interrupt_ends_as_shells_expect() -> None:
    def defect() -> None:
        raise ValueError("ours")

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="ours"):
        run(defect)
    with pytest.raises(SystemExit) as ended:
        run(interrupted)
    assert ended.value.code == 130
