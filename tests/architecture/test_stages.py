"""The graph in dvc.yaml, the files of pipelines/stages and params.yaml say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml
from closure import Stage, stages

from pipelines import model_registry, params
from pipelines.gating import refit
from tests.stages.pipeline import write_watched_params


@pytest.fixture(scope="module")
def graph() -> tuple[Stage, ...]:
    return stages()


def stage_modules(root: Path) -> dict[str, Path]:
    """Modules of pipelines/stages that can be run, by name; the others are shared by them."""
    files = sorted((root / "pipelines" / "stages").glob("*.py"))
    return {path.stem: path for path in files if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}


def test_every_stage_runs_a_file_of_the_stages_folder(graph: tuple[Stage, ...], root: Path) -> None:
    files = {f"pipelines.stages.{name}" for name in stage_modules(root)}
    assert not {stage.name: stage.command for stage in graph if stage.module not in files}


def test_every_file_that_can_be_run_is_run_by_a_stage(graph: tuple[Stage, ...], root: Path) -> None:
    assert {f"pipelines.stages.{name}" for name in stage_modules(root)} == {stage.module for stage in graph}


def test_a_stage_depends_on_the_code_that_it_runs(graph: tuple[Stage, ...], root: Path) -> None:
    kinds = {name: entry.kind for name, entry in params.load(root / "params.yaml").models.items()}
    for stage in graph:
        if stage.kind == "code":
            assert {"pipelines", "expectations"} <= stage.deps
            continue
        assert stage.module is not None
        own = stage.module.rpartition(".")[2]
        name = f"train/{kinds[stage.name.partition('@')[2]]}" if own == "train" else own
        assert [dep for dep in stage.deps if dep.startswith("artifacts/code")] == [f"artifacts/code/{name}.json"], (
            stage.name
        )


def test_the_parameters_of_small_shops_hold_what_every_stage_watches(
    graph: tuple[Stage, ...], root: Path, tmp_path: Path
) -> None:
    written = yaml.safe_load(write_watched_params(tmp_path, root / "params.yaml").read_text(encoding="utf-8"))
    # stages of a member are made of the shop's own models
    watched = {name for stage in graph for name in stage.params if not name.startswith("models.")}

    def held(name: str, within: object) -> bool:
        first, _, rest = name.partition(".")
        return isinstance(within, dict) and first in within and (not rest or held(rest, within[first]))

    assert {"seed", "text.max_tokens"} <= watched
    assert not {name for name in watched if not held(name, written)}


def test_every_artifact_that_a_stage_reads_is_an_output_of_one(graph: tuple[Stage, ...]) -> None:
    outs = {out for stage in graph for out in stage.outs}
    read = {dep for stage in graph for dep in stage.deps if dep.startswith("artifacts/")}

    def made(dep: str) -> bool:
        return any(f"{dep}/".startswith(f"{out}/") or out.startswith(f"{dep}/") for out in outs)

    assert not {dep for dep in read if not made(dep)}


NEW_EVERY_DAY = {
    "artifacts/canonical",
    "artifacts/features_served",
    "artifacts/ingest/report.json",
    "artifacts/snapshot/manifest.json",
    "artifacts/split",
    "artifacts/split/current",
    "artifacts/text",
    "artifacts/text/current",
}
"""What another day of events, or another product, changes."""


def test_one_more_day_tunes_trains_and_fuses_nothing_as_of_t2_again(graph: tuple[Stage, ...]) -> None:
    for stage in graph:
        if stage.kind in {"encode_queries", "features", "tune", "train", "fuse"}:
            assert not NEW_EVERY_DAY & stage.deps, stage.name


def test_a_refit_takes_over_all_that_a_stage_of_the_candidate_made(graph: tuple[Stage, ...], root: Path) -> None:
    outs = {stage.name: stage.outs for stage in graph}
    steps = refit.steps(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")))
    lost = {
        step.name: [
            out
            for out in outs[step.name]
            if not any(f"{out}/".startswith(f"artifacts/{made}/") for made in step.outputs)
        ]
        for step in steps.values()
    }
    assert not {name: outs for name, outs in lost.items() if outs}


def test_actions_are_not_in_the_graph(graph: tuple[Stage, ...]) -> None:
    assert not [stage.name for stage in graph if "actions" in stage.command or "fuseline " in stage.command]


def test_params_that_stages_name_exist(graph: tuple[Stage, ...], root: Path) -> None:
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))

    def exists(name: str) -> bool:
        place = values
        for part in name.split("."):
            if not isinstance(place, dict) or part not in place:
                return False
            place = place[part]
        return True

    assert not {(stage.name, name) for stage in graph for name in stage.params if not exists(name)}


READ_BY_ACTIONS = {"training", "schedule", "release", "monitoring"}
"""Sections that no stage reads: a change of theirs makes no result stale."""


def test_every_section_of_params_reaches_a_stage_or_an_action(graph: tuple[Stage, ...], root: Path) -> None:
    values = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    named = {name.split(".")[0] for stage in graph for name in stage.params}
    assert set(values) == named | READ_BY_ACTIONS


def test_the_shipped_params_are_valid_with_every_models_own_fields(root: Path) -> None:
    shipped = params.load(root / "params.yaml")
    for member, entry in shipped.models.items():
        model_registry.config(member, entry)


def test_a_base_model_is_trained_for_every_entry_of_params(graph: tuple[Stage, ...], root: Path) -> None:
    members = set(params.load(root / "params.yaml").models)
    assert {stage.name for stage in graph if stage.kind == "train"} == {f"train@{member}" for member in members}


def test_the_entry_of_a_stage_is_no_longer_than_forty_lines(root: Path) -> None:
    long = {}
    for name, path in stage_modules(root).items():
        functions = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.FunctionDef)]
        long |= {f"{name}.{f.name}": f.end_lineno - f.lineno for f in functions if f.end_lineno - f.lineno > 40}
    assert not long
